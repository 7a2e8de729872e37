"""Write a detector as an ONNX graph, with or without decoding and suppression inside the file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from bneck.graphs.onnx_graph import Graph, Weights
from bneck.specs.detector import (
    CODER,
    LARGEST_LOG,
    LEAST_SCORE,
    MOST_BOXES,
    NMS_IOU,
    Detector,
    anchors,
    extra_layers,
    features,
    head_layers,
    maps,
)


def detector_graph(
    detector: Detector,
    weights: Weights,
    *,
    decode: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The whole detector: input `image` (N, channels, H, W) float32.

    Plain, it gives `offsets` (N, anchors, 4) and `logits` (N, anchors, slots). With `decode` it takes one
    image and gives `boxes` (K, 4), corners in shares of the image, `scores` (K,) and `labels` (K,)
    from 1, best first: the authors' decoding and class-by-class suppression.

    Raises:
        KeyError: `weights` lacks a layer of the detector's walk.
    """
    spec, size = detector.network, [detector.resolution] * 2
    graph = Graph(weights, spec.padding, spec.se_gate)
    x = graph.through(features(detector), "image")
    graph.through(extra_layers(detector), x)
    offsets, logits = _heads(graph, detector)
    count, image = len(anchors(detector)), [1 if decode else "batch", spec.channels, *size]
    if not decode:
        return graph.model(
            name=spec.name,
            image=("image", image),
            outputs=[
                ("offsets", ["batch", count, 4]),
                ("logits", ["batch", count, detector.slots]),
            ],
            metadata=metadata,
        )
    _decoded(graph, detector, offsets, logits)
    return graph.model(
        name=spec.name,
        image=("image", image),
        outputs=[("boxes", ["found", 4]), ("scores", ["found"]), ("labels", ["found"])],
        metadata=metadata,
        whole_numbers=("labels",),
    )


def _heads(graph: Graph, detector: Detector) -> tuple[str, str]:
    walk = list(head_layers(detector))
    parts: dict[str, list[str]] = {"boxes": [], "scores": []}
    for index, source in enumerate(maps(detector)):
        for head, numbers in (("boxes", 4), ("scores", detector.slots)):
            name = f"{head}.{index}"
            layers = [layer for layer in walk if layer.name.startswith(f"{name}.")]
            x = graph.through(layers, graph.made[source.layer])
            x = graph.node("Transpose", [x], f"{name}.last", perm=[0, 2, 3, 1])
            shape = graph.constant(f"{head}.shape", np.array([0, -1, numbers], np.int64))
            parts[head].append(graph.node("Reshape", [x, shape], f"{name}.flat"))
    return (
        graph.node("Concat", parts["boxes"], "offsets", axis=1),
        graph.node("Concat", parts["scores"], "logits", axis=1),
    )


def _decoded(graph: Graph, detector: Detector, offsets: str, logits: str) -> None:
    places = np.array(anchors(detector), np.float32)[None]
    node, constant = graph.node, graph.constant
    centres, sides = constant("centres", places[..., :2]), constant("sides", places[..., 2:])
    moved = node("Div", [offsets, constant("coder", np.array(CODER, np.float32))], "moved")
    for name, start in (("moved.centre", 0), ("moved.side", 2)):
        ends = [
            constant(f"{name}.{i}", np.array([v], np.int64))
            for i, v in ((0, start), (1, start + 2))
        ]
        node("Slice", [moved, *ends, constant("last", np.array([2], np.int64))], name)
    centre = node("Add", [node("Mul", ["moved.centre", sides], "steps"), centres], "centre")
    log = node("Min", ["moved.side", graph.scalar("largest.log", LARGEST_LOG)], "log")
    half = node(
        "Mul", [node("Exp", [log], "ratio"), constant("halves", places[..., 2:] / 2)], "half"
    )
    low, high = node("Sub", [centre, half], "low"), node("Add", [centre, half], "high")
    corners = node("Concat", [low, high], "corners", axis=2)
    zero, one = graph.scalar("zero", 0), graph.scalar("one", 1)
    boxes = node("Clip", [corners, zero, one], "every.box")

    first = constant("first", np.array([1], np.int64))
    end, last = constant("end", np.array([detector.slots], np.int64)), "last"
    shares = node("Sigmoid", [node("Slice", [logits, first, end, last], "objects")], "shares")
    shares = node("Transpose", [shares], "by.class", perm=[0, 2, 1])
    most = constant("most", np.array([MOST_BOXES], np.int64))
    chosen = node(
        "NonMaxSuppression",
        [boxes, shares, most, graph.scalar("iou", NMS_IOU), graph.scalar("least", LEAST_SCORE)],
        "chosen",
    )
    found = node("GatherND", [shares, chosen], "found.scores")
    count = node("Min", [node("Shape", [found], "found.count"), most], "kept.count")
    graph.nodes.append(
        onnx.helper.make_node("TopK", [found, count], ["scores", "order"], name="best", axis=0)
    )
    kept = node("Gather", [chosen, "order"], "kept", axis=0)
    by_box = node(
        "Gather", [kept, constant("image.and.box", np.array([0, 2], np.int64))], "at", axis=1
    )
    node("GatherND", [boxes, by_box], "boxes")
    classes = node("Gather", [kept, constant("class", np.array(1, np.int64))], "classes", axis=1)
    node("Add", [classes, constant("background", np.array(1, np.int64))], "labels")
