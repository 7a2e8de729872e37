"""Write a spec as an ONNX graph, straight from the walk over its layers.

The same writer makes the file that ships and the files that fill a latency table, so a table is
made of exactly the operators that a shipped network runs. The caller folds batch norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

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
    spec: NetSpec, weights: Weights, resolution: Size | None = None, **how: Any
) -> onnx.ModelProto:
    """A network alone; `resolution` None takes the spec's own, `how` as in `wrapped_graph`."""
    size = as_size(spec.resolution if resolution is None else resolution)
    return wrapped_graph(PlainNetwork(spec), weights, size, **how)


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
    """A network in its wrapper: input `image` (N, channels, H, W) float32, outputs as `Wrapped.outputs`.

    N is open, unless no output is by the batch.

    Args:
        wrapped: what to write.
        weights: as `weight_shapes` names them, batch norm folded.
        size: (height, width) of the image in pixels.
        finished: as in `Wrapped.answer`.
        hswish: the form of h-swish; "fused" is one operator if there are no `ranges`.
        ranges: of all points (see `graphs.quantization`), for int8 inside; None writes float32.
        pixels: the normalisation to fold in: the input is (N, H, W, channels) uint8 RGB then.
        metadata: goes into the file as it is.
        one_image: N is 1, and in float the layers after the pool are matrix products, as they are in
            int8 in the form "cut".

    Raises:
        KeyError: `weights` or `ranges` lacks a name.
    """
    spec, outputs = wrapped.network, wrapped.outputs(size, finished=finished)
    graph = _begun(wrapped.arranged(weights), spec.padding, spec.se_gate, hswish, ranges)
    graph.products = one_image if ranges is None else hswish == "cut"
    image = graph.image(spec.channels, pixels)
    for name, x in wrapped.answer(graph, image, size, finished=finished).items():
        if x != name:
            graph.node("Identity", [graph.real(x)], name)
    single = one_image or not any("batch" in output.shape for output in outputs)
    batch = 1 if single else "batch"
    return graph.model(
        wrapped.name,
        [batch, *size, spec.channels] if pixels else [batch, spec.channels, *size],
        [
            replace(one, shape=tuple(batch if side == "batch" else side for side in one.shape))
            for one in outputs
        ],
        metadata=metadata,
        kind=TensorProto.UINT8 if pixels else TensorProto.FLOAT,
    )


def layers_graph(
    walk: Sequence[Layer], weights: Weights, *, padding: Padding, gate: Gate, hswish: HSwish = "op",
    ranges: Ranges | None = None,
) -> onnx.ModelProto:  # fmt: skip
    """A run of layers alone, batch 1: input `image` and the output are maps (1, C, H, W)."""
    graph = _begun(weights, padding, gate, hswish, ranges)
    out = graph.through(walk, graph.image(walk[0].width_in, None))
    output = Output(out, (1, walk[-1].out, *walk[-1].size_out))
    return graph.model("layers", [1, walk[0].width_in, *walk[0].size_in], [output])


def _begun(
    weights: Weights, padding: Padding, gate: Gate, hswish: HSwish, ranges: Ranges | None
) -> Graph:
    if ranges is None:
        return Graph(weights, padding, gate, hswish)
    return QdqGraph(weights, padding, gate, hswish, ranges)
