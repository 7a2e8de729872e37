"""A segmentation run's network as a file for any runtime, precision and image size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bneck.data.images import read_whole
from bneck.data.scenes import Scenes, as_batch
from bneck.data.sources import Source
from bneck.devices.runtimes import runtime
from bneck.export.files import FORMATS
from bneck.export.segmenter_file import export_segmenter
from bneck.nets.segmenter import SegmentNet
from bneck.recipes.calibration import CALIBRATING, calibrated, read_images
from bneck.recipes.detect_export import check_wanted
from bneck.recipes.export import size_mb
from bneck.recipes.progress import Progress, Silent
from bneck.recipes.segment_runs import load_run
from bneck.recipes.shipping import ending
from bneck.recipes.splits import run_source
from bneck.records.run import RunFolder, task_run
from bneck.specs.errors import InputError
from bneck.specs.normalisation import IMAGENET

CHECKED = 4  # images that a file is compared with the module on

Size = tuple[int, int]


def export_segment(
    run: str | Path,
    out: str | Path | None = None,
    *,
    format: str = "onnx",
    precision: str = "fp32",
    size: Size | None = None,
    argmax: bool = False,
    data: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a finished run's segmenter as a file, checked on val images of its data.

    Args:
        run: the run's folder; its data must still be there, or `data` given.
        out: the file; None takes `model` with the precision and the format's ending, there.
        format: "onnx", "tflite" or "openvino".
        precision: "fp32", "fp16" (weights in half precision) or "int8" (post-training, calibrated on
            128 train images at the file's size).
        size: (height, width) of the file's image; None takes the run's, or that of its first image.
        argmax: with the choice of the best class inside the file.
        data: a folder of pictures to calibrate and check with; None takes the run's.
        progress: receives what happens; None tells nobody.

    Returns:
        file, format, runtime, precision, size, size_mb, and how it compared, see
        `export.segmenter_file.export_segmenter`.

    Raises:
        InputError: no finished run, its data is gone, what segmenters have no files for, or the file
            does not answer as the network.
    """
    check_wanted("segmenter", format, precision)
    folder, engine, told = RunFolder(task_run(run)), runtime(FORMATS[format]), progress or Silent()
    record, net = load_run(folder)
    val = run_source(record, "val", data)
    size = size or file_size(record, val)
    checked = read_images(val, size, CHECKED, IMAGENET)
    quantized = None
    if precision == "int8":
        train = run_source(record, "train", data)
        seen = read_images(train, size, CALIBRATING, IMAGENET)
        quantized = calibrated(net, seen, engine.name, told)
    stem = f"model{ending(precision)}"
    path = folder.path / f"{stem}{engine.suffix}" if out is None else Path(out)
    check = export_segmenter(
        net,
        path,
        checked,
        labels=record["labels"],
        argmax=argmax,
        engine=engine,
        half=precision == "fp16",
        quantized=quantized,
    )
    return {
        "file": str(path),
        "network": net.seg.name,
        "format": format,
        "runtime": engine.name,
        "runtime_version": engine.version,
        "precision": precision,
        "size": list(size),
        "argmax": argmax,
        "size_mb": size_mb(path),
        **check,
    }


def write_model(
    net: SegmentNet,
    record: dict[str, Any],
    scenes: Scenes,
    path: Path,
    *,
    size: Size | None,
    argmax: bool,
) -> dict[str, Any]:
    """Write a float ONNX file and check it on the first scenes, brought to `size`."""
    if size is None:
        first = scenes.read(0)[0]
        size = first.shape[0], first.shape[1]
    sized = Scenes(scenes.pairs[:CHECKED], scenes.labels, size=size)
    images = torch.cat([as_batch(sized.read(i)[0]) for i in range(len(sized))])
    check = export_segmenter(net, path, images, labels=record["labels"], argmax=argmax)
    return {"file": str(path), "size": list(size), "argmax": argmax, **check}


def file_size(record: dict[str, Any], images: Source) -> Size:
    """The (height, width) of a run's files: the run's, else that of the first of its images."""
    if record["settings"]["size"]:
        return record["settings"]["size"][0], record["settings"]["size"][1]
    pixels = images.pixels(read_whole, 0)
    if isinstance(pixels, str):
        raise InputError(
            f"image {images.names[0]} cannot be read: {pixels}; replace it or give a --size"
        )
    return pixels.shape[0], pixels.shape[1]
