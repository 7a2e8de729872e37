"""Files of a detection or segmentation run against its module, on all images of its test split.

python benchmarks/head_files.py RUN [RUNTIME ...]

Writes float, half and 8-bit files into a folder that is gone afterwards, judges each in its own
runtime on val and test, and compares what it finds in every test image with the module.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import bneck
from bneck.devices.runtimes import runtime
from bneck.export.files import FORMATS
from bneck.graphs.forms import PRECISIONS
from bneck.nets.build import WrappedNet
from bneck.recipes import detect, segment_runs
from bneck.recipes.calibration import CALIBRATING, calibrated, read_images, run_images
from bneck.recipes.exported import task_of
from bneck.runs.progress import Silent
from bneck.records.run import RunFolder
from bneck.specs.normalisation import IMAGENET
from bneck.tasks.detect import file as detector_file
from bneck.tasks.segment import file as segmenter_file

ALL = 1 << 20  # images


def main() -> None:
    """Print a line a file, the module's own scores first."""
    run, names = Path(sys.argv[1]), sys.argv[2:] or ["litert", "onnxruntime"]
    judge = evaluate_detect if task_of(run) == "detect" else evaluate_segment
    data = RunFolder(run).read()["settings"]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            for precision in PRECISIONS:
                file = Path(folder) / f"{precision}{runtime(name).suffix}"
                format = next(key for key, value in FORMATS.items() if value == name)
                made = export(run, format, precision, file)
                print(f"{name} {precision} {made['size_mb']:.2f} MB", end="")
                for split in ("val", "test"):
                    print(f", {split} {judge(file, data, split)}", end="")
                print(f"; test images: {compared(run, file, name, precision)}", flush=True)


def export(run: Path, format: str, precision: str, file: Path) -> dict[str, Any]:
    """Write a file of either kind of run."""
    if task_of(run) == "detect":
        return bneck.export_detect(run, format, precision=precision, out=file)
    return bneck.export_segment(run, file, format=format, precision=precision)


def evaluate_detect(file: Path, data: dict[str, Any], split: str) -> str:
    """MAP and AP50 of a file on a split, in percent."""
    found = bneck.evaluate_detect(file, data["data"], split=split, images=data["images"])
    return f"{100 * found['AP']:.1f} ({100 * found['AP50']:.1f})"


def evaluate_segment(file: Path, data: dict[str, Any], split: str) -> str:
    """MIOU and right pixels of a file on a split, in percent."""
    classes, ignore = data["classes"], data["ignore"]
    found = bneck.evaluate_segment(file, data["data"], split=split, classes=classes, ignore=ignore)
    return f"{100 * found['miou']:.1f} ({100 * found['pixels']:.1f})"


def compared(run: Path, file: Path, name: str, precision: str) -> dict[str, Any]:
    """How a file compares with the module on all test images."""
    folder, engine = RunFolder(run), runtime(name)
    how: dict[str, Any] = {"engine": engine, "half": precision == "fp16"}
    if task_of(run) == "detect":
        record, detector = detect.load_run(folder)
        size = (detector.detector.resolution, detector.detector.resolution)
        test = read_images(run_images(record, "test", None), size, ALL, detector.normalisation)
        how["quantized"] = quantized(detector, record, size, name, precision)
        return detector_file.compare(detector, engine.read(file), test, decode=False, **how)
    record, net = segment_runs.load_run(folder)
    size = segmenter_file.FileSegmenter(file, engine).size
    test = read_images(run_images(record, "test", None), size, ALL, IMAGENET)
    how["quantized"] = quantized(net, record, size, name, precision)
    return segmenter_file.compare(net, engine.read(file), test, argmax=False, **how)


def quantized(
    net: WrappedNet, record: dict[str, Any], size: tuple[int, int], name: str, precision: str
) -> Any:
    """The 8-bit network whose emulation the file is compared with, as `export` makes it."""
    if precision != "int8":
        return None
    images = read_images(run_images(record, "train", None), size, CALIBRATING, net.normalisation)
    return calibrated(net, images, name, Silent())


if __name__ == "__main__":
    main()
