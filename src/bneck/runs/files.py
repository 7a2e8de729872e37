"""A network as a file for a runtime and the reverse, kept only if file and module answer alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bneck.devices.models import wrapped_model
from bneck.devices.runtimes import EngineError, Runtime, runtime
from bneck.devices.runtimes.litert import LiteRt
from bneck.graphs.forms import Precision
from bneck.imports.source import Source
from bneck.nets.build import Net, WrappedNet
from bneck.nets.fold import folded_weights
from bneck.nets.quantize import Quantized
from bneck.specs.errors import InputError
from bneck.tasks.checks import check_chance
from bneck.tasks.contract import Task

IMAGES, CELLS = 8, 8  # of random colours, CELLS x CELLS and smooth between
# Root mean square of the difference, relative to that of the outputs. Files in 8 bits round every layer.
ALLOWED, ALLOWED_8_BIT = 0.01, 0.5
# After a softmax the largest outputs decide alone; rounded ones of images that show nothing are still
# correlated (0.5 to 0.95 in the authors' own files), those of another network are not (0.0).
CORRELATED = 0.25


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
    scored: bool = False,
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
        scored: whether the file will be scored on images with labels, so that a bad one is known for it.

    Returns:
        How the file compared with the module, see `Task.compare`.

    Raises:
        ExportError: it answers otherwise, or in int8 no better than by chance although the network was
            trained; no file is left.
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
    if record and not scored:
        check_chance(check, task.agrees, len(images))
    engine.write(path, data)
    return check


def check_answers(path: Path, source: Source, net: Net) -> list[str]:
    """Compare a net with the TFLite file that its weights are from, on random images.

    Returns:
        Sentences for the user: how near they are where the file computes in 8 bits, or why they were not
        compared.

    Raises:
        InputError: they differ, so the weights mean something else than was read.
    """
    if source.takes is None:
        return []
    pixels = _pixels(net.spec.resolution)
    try:
        got = _of_file(path, source.takes, pixels, net)
    except EngineError as error:
        return [f"not compared with the file's own outputs: {error}"]
    mean, std = _columns(net)
    with torch.inference_mode():
        found = net((pixels / 255 - mean) / std).flatten(1)
    wanted: Any = (found.softmax(1) if source.softmax else found).numpy()
    if got.shape == wanted.shape:
        off = float(np.sqrt(((got - wanted) ** 2).mean() / max((wanted**2).mean(), 1e-12)))
        alike = float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(got, wanted, strict=True)]))
        if not source.rounded and off <= ALLOWED:
            return []
        if source.rounded and (alike >= CORRELATED if source.softmax else off <= ALLOWED_8_BIT):
            return [
                f"its outputs correlate by {alike:.2f} with those of the file, which computes in int8"
            ]
    raise InputError(
        f"{path} answers otherwise than {net.spec.name} with its weights (on random images), so it computes "
        "something that is not read here; import a torch or safetensors file of the same network"
    )


def _of_file(path: Path, takes: str, pixels: Tensor, net: Net) -> Any:
    session = LiteRt().load(path.read_bytes(), threads=1)
    mean, std = _columns(net)
    images: Any = {
        "float32": (pixels / 255 - mean) / std,
        "uint8": pixels.permute(0, 2, 3, 1).to(torch.uint8),
        "int8": (pixels - 128).to(torch.int8),
    }[takes]
    return np.stack([np.ravel(session.reals(one[None])) for one in images.numpy()])


def _pixels(side: int) -> Tensor:
    colours = torch.rand(IMAGES, 3, CELLS, CELLS, generator=torch.Generator().manual_seed(0))
    return F.interpolate(colours, (side, side), mode="bilinear").mul(255).round()


def _columns(net: Net) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (net.normalisation.mean, net.normalisation.std)
    )
    return mean, std
