"""Model files in the form that each runtime runs fastest: the one place that knows which writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bneck.devices.runtimes import Runtime
from bneck.graphs.forms import ONE_IMAGE, HSwish, form
from bneck.graphs.quantization import Ranges, points
from bneck.graphs.weights import Weights, halved, random_weights
from bneck.specs.errors import InputError
from bneck.specs.network import Gate, Layer, NetSpec, Padding, Size, as_size
from bneck.specs.normalisation import Normalisation
from bneck.specs.wrapper import PlainNetwork, Wrapped

WITH_HEADS = ("onnxruntime", "litert", "openvino")
"""Runtimes whose files may have a head of a task; the others' writers know networks alone."""


def network_model(
    spec: NetSpec, engine: Runtime, precision: str = "fp32", *, resolution: Size | None = None, **how: Any
) -> bytes:  # fmt: skip
    """A network as the bytes of a file for a runtime; `how` as in `wrapped_model`.

    Args:
        spec: what to write.
        engine: which runtime shall load it.
        precision: "fp32", "fp16" or "int8".
        resolution: side or (height, width) in pixels; None takes the spec's own.
        how: weights, ranges, pixels, metadata, hswish.

    Raises:
        InputError: the runtime does not run that precision, or cannot take what was asked.
    """
    size = as_size(spec.resolution if resolution is None else resolution)
    return wrapped_model(PlainNetwork(spec), engine, size, precision, **how)


def wrapped_model(
    wrapped: Wrapped,
    engine: Runtime,
    size: tuple[int, int],
    precision: str = "fp32",
    *,
    weights: Weights | None = None,
    ranges: Ranges | None = None,
    finished: bool = False,
    pixels: Normalisation | None = None,
    metadata: Mapping[str, str] | None = None,
    hswish: HSwish | None = None,
) -> bytes:
    """A network in its wrapper as the bytes of a file for a runtime.

    Args:
        wrapped: what to write.
        engine: which runtime shall load it.
        size: (height, width) of the image in pixels.
        precision: "fp32", "fp16" or "int8".
        weights: batch norm folded; None draws random ones, good for timing.
        ranges: of 8-bit activations; None takes ordinary ones, good for timing.
        finished: with the task's last step inside the file (decoding, the choice of the best class).
        pixels: the normalisation to fold in.
        metadata: goes into the file as it is.
        hswish: the form of h-swish; None takes the runtime's fastest, another is for comparison.

    Raises:
        InputError: the runtime does not run that precision, or cannot take what was asked.
    """
    fastest = form(engine.name, precision)
    hswish, spec = hswish or fastest, wrapped.network
    walk = list(wrapped.layers(size))
    if weights is None:
        weights = random_weights(walk, np.random.default_rng(0))
    if precision == "int8" and ranges is None:
        ranges = {**points(walk, hswish, spec.se_gate), **wrapped.rounded}
    if precision != "int8":
        ranges = None
    if precision == "fp16":
        weights = halved(weights)
    plain = isinstance(wrapped, PlainNetwork)
    if not plain:
        check_heads(engine.name)
    match engine.suffix:
        case ".tflite":
            from bneck.graphs.tflite_graph import wrapped_tflite

            return wrapped_tflite(
                wrapped, weights, size, finished=finished, hswish=hswish, ranges=ranges, pixels=pixels,
                metadata=metadata,
            )  # fmt: skip
        case ".onnx" | ".xml":
            from bneck.graphs.onnx_graph import wrapped_graph

            graph = wrapped_graph(
                wrapped, weights, size, finished=finished, hswish=hswish, ranges=ranges, pixels=pixels,
                metadata=metadata, one_image=plain and engine.name in ONE_IMAGE,
            )  # fmt: skip
            return engine.converted(bytes(graph.SerializeToString()), metadata or {})
    _no_pixels(pixels, engine)
    return _of_torch(spec, engine, size, weights, ranges, hswish, metadata or {})


def _of_torch(
    spec: NetSpec, engine: Runtime, size: tuple[int, int], weights: Weights, ranges: Ranges | None,
    hswish: HSwish, metadata: Mapping[str, str],
) -> bytes:  # fmt: skip
    match engine.suffix:
        case ".safetensors":
            from bneck.nets.fold import pack

            return pack(spec, weights, metadata)
        case ".pte":
            from bneck.nets.fold import folded_net
            from bneck.nets.lower import Rounding, lowered

            shape = (1, spec.channels, *size)
            if ranges is None:
                return lowered(folded_net(spec, weights), shape, metadata)
            return lowered(Rounding(spec, weights, ranges, hswish, size), shape, metadata)
    raise AssertionError(engine.suffix)


def check_heads(runtime: str) -> None:
    """Whether a runtime has files of networks with a task's head.

    Raises:
        InputError: it has none.
    """
    if runtime not in WITH_HEADS:
        raise InputError(
            f"there are no files of detectors and segmenters for the runtime {runtime}; take "
            "onnxruntime, litert or openvino"
        )


def _no_pixels(pixels: Normalisation | None, engine: Runtime) -> None:
    if pixels:
        raise InputError(
            f"files for {engine.name} take normalised images; leave out --pixels for this format"
        )


def layers_model(
    walk: Sequence[Layer],
    engine: Runtime,
    precision: str,
    *,
    padding: Padding,
    gate: Gate,
) -> bytes:
    """A run of layers with random weights as the bytes of a file for a runtime.

    Raises:
        InputError: the runtime does not run that precision, or no lone rows.
    """
    hswish = form(engine.name, precision)
    weights: Weights = random_weights(walk, np.random.default_rng(0))
    ranges = points(walk, hswish, gate) if precision == "int8" else None
    if precision == "fp16":
        weights = halved(weights)
    match engine.suffix:
        case ".tflite":
            from bneck.graphs.tflite_graph import tflite_layers

            return tflite_layers(
                walk, weights, padding=padding, gate=gate, hswish=hswish, ranges=ranges
            )
        case ".onnx" | ".xml":
            from bneck.graphs.onnx_graph import layers_graph

            graph = layers_graph(
                walk, weights, padding=padding, gate=gate, hswish=hswish, ranges=ranges
            )
            return bytes(graph.SerializeToString())
    raise InputError(
        f"there are no latency tables for the runtime {engine.name}; take onnxruntime, litert or openvino"
    )
