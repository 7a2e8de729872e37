"""Write a segmenter as an ONNX graph for one image size, with scores or classes coming out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from bneck.graphs.onnx_graph import Graph, Weights
from bneck.specs.network import Layer
from bneck.specs.segmenter import Segmenter, is_spatial, pool_window, segmenter_layers

Size = tuple[int, int]


def segmenter_graph(
    seg: Segmenter,
    weights: Weights,
    size: Size,
    *,
    argmax: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The whole segmenter: input `image` (N, channels, *size) float32.

    It gives `scores` (N, classes, *size), or with `argmax` the best class of every pixel, `classes`
    (N, *size) int64.

    Args:
        seg: what to write.
        weights: names of `onnx_graph.weight_shapes` for every layer of the walk.
        size: (height, width) in pixels; resizes and pooling windows are made for it.
        argmax: with the choice of the best class inside the file.
        metadata: texts that the file carries.

    Raises:
        KeyError: `weights` lacks a layer of the walk.
    """
    walk = list(segmenter_layers(seg, size))
    features = [layer for layer in walk if layer.row < seg.features]
    head = {layer.name.rpartition(".")[2]: layer for layer in walk if layer.row == seg.features}
    graph = Graph(weights, seg.network.padding, seg.network.se_gate)
    last = graph.through(features, "image")
    low = next(layer for layer in features if layer.row == seg.tap and is_spatial(layer))
    if seg.head == "lraspp":
        scores = _lraspp(graph, seg, head, graph.made[low.name], last)
    else:
        scores = _raspp(graph, head, last)
    scores = _resized(graph, scores, "scores", size, have=walk[-1].size_out)
    outputs = ("scores", ["batch", seg.classes, *size])
    if argmax:
        graph.node("ArgMax", [scores], "classes", axis=1, keepdims=0)
        outputs = ("classes", ["batch", *size])
    return graph.model(
        name=seg.name,
        image=("image", ["batch", seg.network.channels, *size]),
        outputs=[outputs],
        metadata=metadata,
        whole_numbers=("classes",),
    )


def _lraspp(graph: Graph, seg: Segmenter, head: Mapping[str, Layer], low: str, last: str) -> str:
    conv, pool, classifier = head["conv"], head["pool"], head["classifier"]
    pooled = graph.node(
        "AveragePool",
        [last],
        pool.name,
        kernel_shape=list(pool_window(seg, pool.size_in)),
        strides=list(seg.window_stride),
    )
    gate = graph.conv(head["gate"], pooled)
    if seg.gate == "sigmoid":
        gate = graph.node("Sigmoid", [gate], "head.gate.sigmoid")
    else:
        gate = graph.node("HardSigmoid", [gate], "head.gate.hsigmoid", alpha=1 / 6, beta=0.5)
    if pool.size_out != (1, 1):  # of one pixel, the product makes a map
        gate = _resized(graph, gate, "head.gate.map", conv.size_out, have=pool.size_out)
    gated = graph.node("Mul", [graph.conv(conv, last), gate], "head.gated")
    gated = _resized(graph, gated, "head.gated.low", classifier.size_out, have=conv.size_out)
    ours, theirs = graph.conv(classifier, gated), graph.conv(head["low"], low)
    return graph.node("Add", [ours, theirs], "head.scores")


def _raspp(graph: Graph, head: Mapping[str, Layer], last: str) -> str:
    conv = graph.conv(head["conv"], last)
    pooled = graph.conv(head["pooled"], graph.node("GlobalAveragePool", [last], "head.pool"))
    shape = graph.constant("head.map", np.array([1, 1, *head["conv"].size_out], np.int64))
    whole = graph.node("Expand", [pooled, shape], "head.pooled.map")
    joined = graph.node("Concat", [conv, whole], "head.joined", axis=1)
    return graph.conv(head["classifier"], graph.conv(head["project"], joined))


def _resized(graph: Graph, x: str, name: str, size: Size, *, have: Size) -> str:
    """Bilinear with corners on corners, as the module's."""
    if have == size:
        return graph.node("Identity", [x], name)
    sizes = graph.constant(f"{name}.size", np.array(size, np.int64))
    return graph.node(
        "Resize",
        [x, "", "", sizes],
        name,
        mode="linear",
        coordinate_transformation_mode="align_corners",
        axes=[2, 3],
    )
