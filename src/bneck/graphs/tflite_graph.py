"""Write a spec as a TFLite file, float or 8-bit, straight from the walk over its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bneck.graphs.forms import HSwish
from bneck.graphs.quantization import Ranges
from bneck.graphs.tflite_operators import Graph
from bneck.graphs.weights import Weights
from bneck.specs.network import Gate, Layer, NetSpec, Padding, Size, as_size
from bneck.specs.normalisation import Normalisation
from bneck.specs.wrapper import PlainNetwork, Wrapped

HEAD = ("conv", 1, (1, 1))  # a layer after the pool: its kind, kernel and map


def tflite_network(
    spec: NetSpec,
    weights: Weights,
    resolution: Size | None = None,
    *,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
    pixels: Normalisation | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The whole network as a TFLite file: batch 1, input NHWC, output `scores` (1, classes) float32.

    Args:
        spec: what to write.
        weights: as `weight_shapes` names them, batch norm folded.
        resolution: side or (height, width) in pixels; None takes the spec's own.
        hswish: the form of h-swish; "fused" is no form of this format.
        ranges: of all `points`, for 8 bits inside; None writes float32.
        pixels: the normalisation to fold in: the input is uint8 RGB then, else normalised float32.
        metadata: goes into the file as it is.

    Raises:
        KeyError: `weights` or `ranges` lacks a name.
    """
    size = as_size(spec.resolution if resolution is None else resolution)
    return wrapped_tflite(
        PlainNetwork(spec), weights, size, hswish=hswish, ranges=ranges, pixels=pixels, metadata=metadata
    )  # fmt: skip


def wrapped_tflite(
    wrapped: Wrapped,
    weights: Weights,
    size: tuple[int, int],
    *,
    finished: bool = False,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
    pixels: Normalisation | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """A network in its wrapper for images of `size`, (height, width), as a TFLite file of batch 1.

    The input is NHWC. It gives what the wrapped network answers, maps as NHWC; `finished` as in
    `Wrapped.answer`; the rest as in `tflite_network`.

    Raises:
        KeyError: `weights` or `ranges` lacks a name.
        InputError: LiteRT is not installed, or it lacks an operator that was asked for.
    """
    spec = wrapped.network
    graph = Graph(wrapped.arranged(weights), spec.padding, spec.se_gate, hswish, ranges)
    x = graph.image((1, *size, spec.channels), pixels)
    found = wrapped.answer(graph, x, size, finished=finished)
    return graph.finish(found, wrapped.name, metadata)


def tflite_layers(
    walk: Sequence[Layer],
    weights: Weights,
    *,
    padding: Padding,
    gate: Gate,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
) -> bytes:
    """A run of layers alone: maps (1, H, W, C) in and out, float32 at the borders."""
    graph = Graph(weights, padding, gate, hswish, ranges)
    graph.pooled = all((part.kind, part.kernel, part.size_in) == HEAD for part in walk)
    x = graph.image((1, *walk[0].size_in, walk[0].width_in), None)
    return graph.finish({"map": graph.through(walk, x)}, "layers", None)
