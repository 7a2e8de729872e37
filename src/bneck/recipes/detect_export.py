"""A detection run's network as a file for another runtime or precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.devices.head_models import FORMATS as FOR_HEADS
from bneck.devices.runtimes import runtime
from bneck.export.detector_file import export_detector
from bneck.export.files import FORMATS
from bneck.graphs.forms import PRECISIONS
from bneck.recipes.calibration import CALIBRATING, calibrated, read_images
from bneck.recipes.detect import load_run
from bneck.recipes.export import size_mb
from bneck.recipes.progress import Progress, Silent
from bneck.recipes.shipping import ending
from bneck.recipes.splits import run_source
from bneck.records.run import RunFolder, task_run
from bneck.specs.errors import InputError

CHECKED = 8  # images that a file is compared with the module on


def export_detect(
    run: str | Path,
    format: str = "onnx",
    *,
    precision: str = "fp32",
    decode: bool = False,
    out: str | Path | None = None,
    data: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a finished run's detector as a file, checked on val images of its data.

    Args:
        run: the run's folder; its data must still be there, or `data` given.
        format: "onnx", "tflite" or "openvino".
        precision: "fp32", "fp16" (weights in half precision) or "int8" (post-training, calibrated on
            128 train images).
        decode: with decoding and suppression inside the file; ONNX alone.
        out: the file; None: beside the run's own model.onnx.
        data: a folder of pictures to calibrate and check with; None takes the run's.
        progress: receives what happens; None tells nobody.

    Returns:
        file, format, runtime, precision, size_mb, and how it compared, see
        `export.detector_file.compare`.

    Raises:
        InputError: no finished run, its data is gone, what detectors have no files for, or the file
            does not find what the network finds.
    """
    check_wanted("detector", format, precision)
    if decode and format != "onnx":
        raise InputError(
            f"decoding inside the file is for the format onnx; leave it out for {format}"
        )
    folder, engine, told = RunFolder(task_run(run)), runtime(FORMATS[format]), progress or Silent()
    record, net = load_run(folder)
    side = net.detector.resolution
    checked = read_images(run_source(record, "val", data), (side, side), CHECKED, net.normalisation)
    quantized = None
    if precision == "int8":
        train = run_source(record, "train", data)
        seen = read_images(train, (side, side), CALIBRATING, net.normalisation)
        quantized = calibrated(net, seen, engine.name, told)
    stem = ("model-boxes" if decode else "model") + ending(precision)
    path = folder.path / f"{stem}{engine.suffix}" if out is None else Path(out)
    check = export_detector(
        net,
        path,
        checked,
        classes=record["classes"],
        decode=decode,
        engine=engine,
        half=precision == "fp16",
        quantized=quantized,
    )
    return {
        "file": str(path),
        "network": net.detector.network.name,
        "format": format,
        "runtime": engine.name,
        "runtime_version": engine.version,
        "precision": precision,
        "decode": decode,
        "size_mb": size_mb(path),
        **check,
    }


def check_wanted(what: str, format: str, precision: str) -> None:
    """Whether detectors and segmenters have such files.

    Raises:
        InputError: they have none.
    """
    if format not in FOR_HEADS or precision not in PRECISIONS:
        raise InputError(
            f"a {what} has no file of format {format} in {precision}; formats are "
            f"{', '.join(FOR_HEADS)}, precisions {', '.join(PRECISIONS)}"
        )
