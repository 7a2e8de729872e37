"""Export a network to a runtime's file: the Python twin of `bneck export`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bneck.data.find import find_images
from bneck.data.sources import Source
from bneck.devices.runtimes import runtime
from bneck.export.files import FORMATS, export_file
from bneck.graphs.forms import HSwish, form
from bneck.nets.build import Net
from bneck.nets.calibrate import calibrate
from bneck.nets.quantize import Quantized
from bneck.recipes.networks import Network, build
from bneck.recipes.pictures import class_names, record_of, record_settings, some_images
from bneck.recipes.progress import Progress, Silent
from bneck.recipes.shipping import ending
from bneck.recipes.splits import folder_source, run_source
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec

CHECKED, CALIBRATING, BATCH = 32, 128, 16


def export(
    network: Network,
    format: str = "onnx",
    *,
    precision: str = "fp32",
    out: str | Path | None = None,
    data: str | Path | None = None,
    pixels: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a network as a file that a runtime runs, checked against the module on real images.

    Args:
        network: a finished run's or import's folder; a zoo name or spec file gives random weights.
        format: "onnx", "tflite", "openvino", "pte" or "torch".
        precision: "fp32", "fp16" (weights in half precision) or "int8" (quantised post-training).
        out: the file to write; None: `model` in the run's folder, or the network's name here.
        data: a folder of pictures to calibrate and check with; None takes those of the run: train
            to calibrate, val to check.
        pixels: fold the normalisation in, so that the file takes uint8 RGB, height x width x 3.
        progress: receives what happens; None tells nobody.

    Returns:
        file, format, runtime, precision, size_mb, and how the check went.

    Raises:
        InputError: no such network or format, a runtime that is not installed, no images to
            calibrate with, or a file that does not answer as the module does.
    """
    progress = progress or Silent()
    if format not in FORMATS:
        raise InputError(f"there is no format {format!r}; known are {', '.join(FORMATS)}")
    hswish = form(FORMATS[format], precision)
    engine = runtime(FORMATS[format])
    record = record_of(network)
    net = build(network).eval()
    if precision == "int8" and data is None and "data" not in record_settings(network):
        raise InputError(
            "8 bits need images like those that the network will see, to calibrate with; give a folder "
            "of some hundred by --data"
        )
    names = class_names(record, net.spec.classes)
    quantized = None
    if precision == "int8":
        quantized = _calibrated(net, _images(record, "train", data), hswish, progress)
    images = some_images(_images(record, "val", data), net, CHECKED)
    path = Path(out) if out is not None else _beside(network, net.spec, precision, engine.suffix)
    check = export_file(
        net,
        path,
        images,
        classes=names,
        engine=engine,
        quantized=quantized,
        half=precision == "fp16",
        pixels=pixels,
    )
    return {
        "file": str(path),
        "network": net.spec.name,
        "format": format,
        "runtime": engine.name,
        "runtime_version": engine.version,
        "precision": precision,
        "input": "pixels" if pixels else "normalised",
        "trained": record is not None,
        "size_mb": size_mb(path),
        **check.as_json(),
    }


def _images(record: dict[str, Any] | None, split: str, data: str | Path | None) -> Source:
    """Those of a run's split, or of a folder; the built-in ones where nobody knows others."""
    if record is not None and "data" in (record.get("settings") or {}):
        return run_source(record, split, data)
    return find_images(None).val if data is None else folder_source(Path(data))


def _calibrated(net: Net, source: Source, hswish: HSwish, progress: Progress) -> Quantized:
    images = some_images(source, net, CALIBRATING)
    progress.stage("calibrating", len(images))
    return calibrate(net, _told(torch.split(images, BATCH), progress), hswish)


def size_mb(path: Path) -> float:
    """Size of a model's files in megabytes (10^6 bytes)."""
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return sum(file.stat().st_size for file in files) / 1e6


def _beside(network: Network, spec: NetSpec, precision: str, suffix: str) -> Path:
    last = ending(precision) + suffix
    if not isinstance(network, NetSpec) and RunFolder(Path(network)).weights.is_file():
        return Path(network) / f"model{last}"
    return Path(spec.name.replace("/", "-") + last)


def _told(batches: Iterable[Tensor], progress: Progress) -> Iterator[Tensor]:
    for batch in batches:
        yield batch
        progress.advance(len(batch))
