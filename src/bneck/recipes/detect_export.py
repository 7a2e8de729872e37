"""A detection run's network as a file for another runtime or precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.data.coco import find_annotations, read_coco
from bneck.data.pictures import eval_images
from bneck.devices.runtimes import runtime
from bneck.export.detector_file import export_detector
from bneck.export.files import FORMATS
from bneck.recipes.detect import load_run
from bneck.recipes.export import size_mb
from bneck.recipes.shipping import ending
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError

CHECKED = 8  # images that a file is compared with the module on
FOR_DETECTORS = ("onnx", "tflite")
PRECISIONS = ("fp32", "fp16")


def export_detect(
    run: str | Path,
    format: str = "onnx",
    *,
    precision: str = "fp32",
    decode: bool = False,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Write a finished run's detector as a file, checked on val images of its data.

    Args:
        run: the run's folder; its data must still be there.
        format: "onnx" or "tflite".
        precision: "fp32", or "fp16" for weights in half precision.
        decode: with decoding and suppression inside the file; ONNX alone.
        out: the file; None: beside the run's own model.onnx.

    Returns:
        file, format, runtime, precision, size_mb, and how it compared, see
        `export.detector_file.export_detector`.

    Raises:
        InputError: no finished run, its data is gone, what detectors have no files for, or the file
            does not find what the network finds.
    """
    if format not in FOR_DETECTORS or precision not in PRECISIONS:
        raise InputError(
            f"a detector has no file of format {format} in {precision}; formats are "
            f"{', '.join(FOR_DETECTORS)}, precisions {', '.join(PRECISIONS)}"
        )
    if decode and format != "onnx":
        raise InputError("decoding inside the file is for the format onnx; leave it out for tflite")
    folder, engine = RunFolder(Path(run)), runtime(FORMATS[format])
    record, net = load_run(folder)
    settings = record["settings"]
    beside = None if settings["images"] is None else Path(settings["images"])
    val = read_coco(find_annotations(Path(settings["data"]))["val"], images=beside)
    batches = eval_images(
        val, resolution=net.detector.resolution, batch=CHECKED, normalisation=net.normalisation
    )
    images = next(iter(batches))[2]
    stem = ("model-boxes" if decode else "model") + ending(precision)
    path = folder.path / f"{stem}{engine.suffix}" if out is None else Path(out)
    check = export_detector(
        net,
        path,
        images,
        classes=record["classes"],
        decode=decode,
        engine=engine,
        half=precision == "fp16",
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
