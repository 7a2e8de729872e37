"""The files that a search ships: model.onnx always, and the one for what the network is to run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bneck.data.batches import eval_batches
from bneck.data.pack import Packed, Split
from bneck.devices.deployment import Deployment
from bneck.devices.runtimes import runtime
from bneck.export.files import FORMATS, FileNet, export_file
from bneck.graphs.forms import form
from bneck.nets.build import Net
from bneck.nets.calibrate import calibrate
from bneck.records.run import RunFolder
from bneck.tasks.classify.score import evaluate

CHECKED, CALIBRATING, BATCH = 256, 128, 32


def shipped_file(folder: RunFolder, on: Deployment) -> Path:
    """The file of a run that its device runs."""
    if on.is_plain:
        return folder.model
    return folder.path / f"model{ending(on.precision)}{runtime(on.runtime).suffix}"


def format_of(on: Deployment) -> str:
    """The export format of what the device's runtime loads."""
    return next(name for name, engine in FORMATS.items() if engine == on.runtime)


def ending(precision: str) -> str:
    """What a file's name says of its precision: nothing of float."""
    return "" if precision == "fp32" else f"-{precision}"


def ship(folder: RunFolder, net: Net, packed: Packed, on: Deployment) -> dict[str, Any]:
    """Write a run's files, each checked against the module on val images.

    8 bits are quantised post-training, calibrated on train images. A file that is no float file is
    judged on all val images in its own runtime.

    Returns:
        "export", how model.onnx compared; and of the device's own file, if that is another,
        "shipped": its name, runtime, precision, how it compared, and score: top-1 (a share).

    Raises:
        ExportError: a file that does not answer as the module does.
    """
    images = next(_batches(net, packed.val, CHECKED, CHECKED))
    check = export_file(net, folder.model, images, classes=packed.classes)
    found: dict[str, Any] = {"export": check.as_json()}
    if on.is_plain:
        return found
    engine, path = runtime(on.runtime), shipped_file(folder, on)
    quantized = None
    if on.precision == "int8":
        calibrating = _batches(net, packed.train, CALIBRATING, BATCH)
        quantized = calibrate(net, calibrating, form(on.runtime, on.precision))
    check = export_file(
        net,
        path,
        images,
        classes=packed.classes,
        engine=engine,
        quantized=quantized,
        half=on.precision == "fp16",
    )
    everything = np.arange(len(packed.val.labels))
    batches = eval_batches(
        packed.val,
        everything,
        resolution=net.spec.resolution,
        batch=BATCH,
        normalisation=net.normalisation,
    )
    found["shipped"] = {
        "file": path.name,
        "runtime": on.runtime,
        "precision": on.precision,
        "score": evaluate(FileNet(path, engine), batches).top1,
        **check.as_json(),
    }
    return found


def _batches(net: Net, split: Split, count: int, batch: int) -> Iterator[Tensor]:
    """`count` images evenly spread over a split, normalised as the net takes them."""
    indices = np.unique(np.linspace(0, len(split.labels) - 1, count).astype(np.int64))
    batches = eval_batches(
        split,
        indices,
        resolution=net.spec.resolution,
        batch=batch,
        normalisation=net.normalisation,
    )
    return (images for images, _ in batches)
