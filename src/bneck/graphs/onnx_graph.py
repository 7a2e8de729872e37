"""Write a spec as an ONNX graph, straight from the walk over its layers.

The same writer makes the file that ships and the files that fill a latency table, so a table is
made of exactly the operators that a shipped network runs. Batch norm is folded by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx
from onnx import TensorProto

from bneck.graphs.forms import HSwish
from bneck.graphs.onnx_operators import Graph
from bneck.graphs.onnx_qdq import QdqGraph
from bneck.graphs.quantization import Ranges
from bneck.graphs.weights import Weights
from bneck.specs.network import Gate, Layer, NetSpec, Padding, Size, as_size
from bneck.specs.normalisation import Normalisation
from bneck.specs.wrapper import Output, PlainNetwork, Wrapped


def network_graph(
    spec: NetSpec,
    weights: Weights,
    resolution: Size | None = None,
    *,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
    pixels: Normalisation | None = None,
    metadata: Mapping[str, str] | None = None,
    one_image: bool = False,
) -> onnx.ModelProto:
    """The whole network: input `image` (N, channels, H, W) float32, output `scores` (N, classes).

    Args:
        spec: what to write.
        weights: as `weight_shapes` names them, batch norm folded.
        resolution: side or (height, width) in pixels; None takes the spec's own.
        hswish: the form of h-swish; "fused" is one operator where there are no `ranges`.
        ranges: of all points, see `graphs.quantization`, for 8 bits inside; None writes float32.
        pixels: the normalisation to fold in: the input is (N, H, W, channels) uint8 RGB then.
        metadata: goes into the file as it is.
        one_image: N is 1, and what stands after the pool are matrix products.

    Raises:
        KeyError: `weights` or `ranges` lacks a name.
    """
    size = as_size(spec.resolution if resolution is None else resolution)
    return wrapped_graph(
        PlainNetwork(spec), weights, size, hswish=hswish, ranges=ranges, pixels=pixels,
        metadata=metadata, one_image=one_image,
    )  # fmt: skip


def wrapped_graph(
    wrapped: Wrapped,
    weights: Weights,
    size: tuple[int, int],
    *,
    finished: bool = False,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
    pixels: Normalisation | None = None,
    metadata: Mapping[str, str] | None = None,
    one_image: bool = False,
) -> onnx.ModelProto:
    """A network in its wrapper for images of `size`, (height, width): what it answers comes out.

    One image goes in where that is asked for, and where no output is by the batch; `finished` as in
    `Wrapped.answer`, the rest as in `network_graph`.

    Raises:
        KeyError: `weights` or `ranges` lacks a name.
    """
    spec, outputs = wrapped.network, wrapped.outputs(size, finished=finished)
    graph = graph_of(wrapped.arranged(weights), spec.padding, spec.se_gate, hswish, ranges)
    graph.products = one_image and ranges is None
    image = graph.image(spec.channels, pixels)
    for name, x in wrapped.answer(graph, image, size, finished=finished).items():
        if x != name:
            graph.node("Identity", [graph.real(x)], name)
    single = one_image or not any("batch" in output.shape for output in outputs)
    batch = 1 if single else "batch"
    return graph.model(
        name=wrapped.name,
        image=("image", [batch, *size, spec.channels] if pixels else [batch, spec.channels, *size]),
        outputs=[
            replace(one, shape=tuple(batch if side == "batch" else side for side in one.shape))
            for one in outputs
        ],
        metadata=metadata,
        kind=TensorProto.UINT8 if pixels else TensorProto.FLOAT,
    )


def layers_graph(
    walk: Sequence[Layer],
    weights: Weights,
    *,
    padding: Padding,
    gate: Gate,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
) -> onnx.ModelProto:
    """A run of layers alone, batch 1: input `image` and output `scores` are maps (1, C, H, W)."""
    graph = graph_of(weights, padding, gate, hswish, ranges)
    out = graph.through(walk, graph.image(walk[0].width_in, None))
    return graph.model(
        name="layers",
        image=("image", [1, walk[0].width_in, *walk[0].size_in]),
        outputs=[Output(out, (1, walk[-1].out, *walk[-1].size_out))],
    )


def graph_of(
    weights: Weights, padding: Padding, gate: Gate, hswish: HSwish, ranges: Ranges | None
) -> Graph:
    """A graph to build on: float32, or 8-bit where there are ranges."""
    if ranges is None:
        return Graph(weights, padding, gate, hswish)
    return QdqGraph(weights, padding, gate, hswish, ranges)
