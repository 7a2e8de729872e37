"""Writing a network as a file for a runtime, and keeping the file only if it answers as the module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bneck.devices.models import wrapped_model
from bneck.devices.runtimes import Runtime, runtime
from bneck.graphs.forms import Precision
from bneck.nets.build import WrappedNet
from bneck.nets.fold import folded_weights
from bneck.nets.quantize import Quantized
from bneck.tasks.contract import Task


def write_file(
    task: Task,
    net: WrappedNet,
    path: Path,
    images: Tensor,
    *,
    record: Mapping[str, Any],
    options: Any,
    engine: Runtime | None = None,
    precision: Precision = "fp32",
    quantized: Quantized | None = None,
) -> dict[str, Any]:
    """Write `net` as a file for a runtime and check it there.

    The file takes one input, normalised as its metadata says (`mean` and `std` of pixels from 0 to 1).

    Args:
        task: the network's.
        net: in evaluation mode.
        path: the file to write.
        images: real images to check with, (N, channels, H, W) normalised; a file for one size takes theirs.
        record: that of the run, which knows the classes; {} where there is none.
        options: the task's, with those of export.
        engine: the runtime; None takes ONNX Runtime.
        precision: "fp32", "fp16" (weights in half precision) or "int8".
        quantized: the int8 network, in the form of that runtime.

    Returns:
        How the file compared with the module, see `Task.compare`.

    Raises:
        ExportError: it answers otherwise; no file is left.
        InputError: the disk is full, or the runtime lacks something; no file is left.
    """
    engine = engine or runtime("onnxruntime")
    size = (images.shape[2], images.shape[3])
    data = wrapped_model(
        net.wrapped,
        engine,
        size,
        precision,
        weights=quantized.weights if quantized else folded_weights(net),
        ranges=quantized.ranges if quantized else None,
        finished=task.finished(options),
        pixels=net.normalisation if task.pixels(options) else None,
        metadata=task.metadata(net, record, engine, precision, size, options),
    )
    check = task.compare(net, engine.load(data, threads=1), images, quantized, precision, options)
    engine.write(path, data)
    return check
