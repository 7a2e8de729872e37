"""Model files in the form that each runtime runs fastest: the one place that knows which writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bneck.devices.runtimes import Runtime
from bneck.graphs.forms import GRAPH_RUNTIMES, ONE_IMAGE, HSwish, form
from bneck.graphs.quantization import Ranges, points
from bneck.graphs.weights import Weights, halved, random_weights
from bneck.specs.errors import InputError
from bneck.specs.network import Gate, Layer, NetSpec, Padding, Size, as_size
from bneck.specs.normalisation import Normalisation
from bneck.specs.wrapper import PlainNetwork, Wrapped


def network_model(
    spec: NetSpec, engine: Runtime, precision: str = "fp32", *, resolution: Size | None = None, **how: Any
) -> bytes:  # fmt: skip
    """A network alone; `resolution` None takes the spec's own, the rest as in `wrapped_model`."""
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
        ranges: of int8 activations; None takes ordinary ones, good for timing.
        finished: with the task's last step inside the file (decoding, the choice of the best class).
        pixels: the normalisation to fold in.
        metadata: goes into the file as it is.
        hswish: the form of h-swish; None takes the runtime's fastest, another is for comparison.

    Raises:
        InputError: the runtime does not run that precision, or cannot take what was asked.
    """
    spec, plain = wrapped.network, isinstance(wrapped, PlainNetwork)
    fastest = form(engine.name, precision)
    walk = list(wrapped.layers(size))
    written = _numbers(walk, precision, hswish or fastest, spec.se_gate, wrapped, weights, ranges)
    if not plain:
        check_heads(engine.name)
    asked: dict[str, Any] = {"finished": finished, "pixels": pixels, "metadata": metadata}
    match engine.suffix:
        case ".tflite":
            from bneck.graphs.tflite_graph import wrapped_tflite

            return wrapped_tflite(wrapped, size=size, **written, **asked)
        case ".onnx" | ".xml":
            from bneck.graphs.onnx_graph import wrapped_graph

            alone = plain and engine.name in ONE_IMAGE
            graph = wrapped_graph(wrapped, size=size, one_image=alone, **written, **asked)
            return engine.converted(bytes(graph.SerializeToString()), metadata or {})
    if pixels:
        raise InputError(
            f"files for {engine.name} take normalized images; leave out --pixels for this format"
        )
    return _of_torch(spec, engine, size, metadata or {}, **written)


def _numbers(
    walk: Sequence[Layer], precision: str, hswish: HSwish, gate: Gate, wrapped: Wrapped | None = None,
    weights: Weights | None = None, ranges: Ranges | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Weights, ranges and the form of h-swish as the writers take them; random where there are none."""
    if weights is None:
        weights = random_weights(walk, np.random.default_rng(0))
    if precision == "int8" and ranges is None:
        ranges = points(walk, hswish, gate, wrapped.feeds().values() if wrapped else ())
        ranges |= wrapped.rounded if wrapped else {}
    return {
        "weights": halved(weights) if precision == "fp16" else weights,
        "ranges": ranges if precision == "int8" else None,
        "hswish": hswish,
    }


def _of_torch(
    spec: NetSpec, engine: Runtime, size: tuple[int, int], metadata: Mapping[str, str], *,
    weights: Weights, ranges: Ranges | None, hswish: HSwish,
) -> bytes:  # fmt: skip
    from bneck.nets.fold import folded_net, pack

    if engine.suffix == ".safetensors":
        return pack(spec, weights, metadata)
    from bneck.nets.lower import Rounding, lowered

    net = (
        folded_net(spec, weights)
        if ranges is None
        else Rounding(spec, weights, ranges, hswish, size)
    )
    return lowered(net, (1, spec.channels, *size), metadata)


def check_heads(runtime: str) -> None:
    """Whether a runtime has files of networks with a task's head.

    Raises:
        InputError: it has none.
    """
    if runtime not in GRAPH_RUNTIMES:
        raise InputError(
            f"there are no files of detectors and segmenters for the runtime {runtime}; take "
            f"{', '.join(GRAPH_RUNTIMES)}"
        )


def layers_model(
    walk: Sequence[Layer], engine: Runtime, precision: str, *, padding: Padding, gate: Gate
) -> bytes:
    """A run of layers with random weights as the bytes of a file for a runtime.

    Raises:
        InputError: the runtime does not run that precision, or no lone rows.
    """
    written = _numbers(walk, precision, form(engine.name, precision), gate)
    match engine.suffix:
        case ".tflite":
            from bneck.graphs.tflite_graph import tflite_layers

            return tflite_layers(walk, padding=padding, gate=gate, **written)
        case ".onnx" | ".xml":
            from bneck.graphs.onnx_graph import layers_graph

            graph = layers_graph(walk, padding=padding, gate=gate, **written)
            return bytes(graph.SerializeToString())
    raise InputError(
        f"there are no latency tables for the runtime {engine.name}; take {', '.join(GRAPH_RUNTIMES)}"
    )
