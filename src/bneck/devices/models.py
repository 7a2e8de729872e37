"""Model files in the form that each runtime runs fastest: the one place that knows which writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bneck.devices.runtimes import Runtime
from bneck.graphs.forms import ONE_IMAGE, HSwish, form
from bneck.graphs.onnx_graph import Weights, halved, random_weights
from bneck.graphs.quantization import Ranges, points
from bneck.specs.errors import InputError
from bneck.specs.network import Gate, Layer, NetSpec, Padding, Size, as_size, layers
from bneck.specs.normalisation import Normalisation


def network_model(
    spec: NetSpec,
    engine: Runtime,
    precision: str = "fp32",
    *,
    weights: Weights | None = None,
    ranges: Ranges | None = None,
    resolution: Size | None = None,
    pixels: Normalisation | None = None,
    metadata: Mapping[str, str] | None = None,
    hswish: HSwish | None = None,
) -> bytes:
    """A network as the bytes of a file for a runtime.

    Args:
        spec: what to write.
        engine: which runtime shall load it.
        precision: "fp32", "fp16" or "int8".
        weights: batch norm folded; None draws random ones, good for timing.
        ranges: of 8-bit activations; None takes ordinary ones, good for timing.
        resolution: side or (height, width) in pixels; None takes the spec's own.
        pixels: the normalisation to fold in.
        metadata: goes into the file as it is.
        hswish: the form of h-swish; None takes the runtime's fastest, another is for comparison.

    Raises:
        InputError: the runtime does not run that precision, or cannot take what was asked.
    """
    fastest = form(engine.name, precision)
    hswish = hswish or fastest
    if weights is None:
        weights = random_weights(layers(spec), np.random.default_rng(0))
    if precision == "int8" and ranges is None:
        ranges = points(layers(spec), hswish, spec.se_gate)
    if precision != "int8":
        ranges = None
    if precision == "fp16":
        weights = halved(weights)
    match engine.suffix:
        case ".tflite":
            from bneck.graphs.tflite_graph import tflite_network

            return tflite_network(
                spec, weights, resolution, hswish=hswish, ranges=ranges, pixels=pixels, metadata=metadata
            )  # fmt: skip
        case ".onnx" | ".xml":
            from bneck.graphs.onnx_graph import network_graph

            graph = network_graph(
                spec, weights, resolution, hswish=hswish, ranges=ranges, pixels=pixels, metadata=metadata,
                one_image=engine.name in ONE_IMAGE,
            )  # fmt: skip
            return engine.converted(bytes(graph.SerializeToString()), metadata or {})
        case ".safetensors":
            from bneck.nets.fold import pack

            _no_pixels(pixels, engine)
            return pack(spec, weights, metadata or {})
        case ".pte":
            from bneck.nets.fold import folded_net
            from bneck.nets.lower import Rounding, lowered

            _no_pixels(pixels, engine)
            size = as_size(spec.resolution if resolution is None else resolution)
            shape = (1, spec.channels, *size)
            if ranges is None:
                return lowered(folded_net(spec, weights), shape, metadata or {})
            rounding = Rounding(spec, weights, ranges, hswish, size)
            return lowered(rounding, shape, metadata or {})
    raise AssertionError(engine.suffix)


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
