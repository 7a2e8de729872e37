"""Write a detector as an ONNX graph, float or 8-bit, with or without decoding and suppression inside."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from bneck.graphs.forms import HSwish
from bneck.graphs.heads import predictions
from bneck.graphs.onnx_graph import Graph, Weights
from bneck.graphs.onnx_heads import heads_graph
from bneck.graphs.quantization import Ranges
from bneck.tasks.detect.head import (
    CODER,
    LARGEST_LOG,
    LEAST_SCORE,
    MOST_BOXES,
    NMS_IOU,
    Detector,
    anchors,
)


def detector_graph(
    detector: Detector,
    weights: Weights,
    *,
    decode: bool = False,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The whole detector: input `image` (N, channels, H, W) float32.

    Plain, it gives `offsets` (N, anchors, 4) and `logits` (N, anchors, slots). With `decode` it takes one
    image and gives `boxes` (K, 4), corners in shares of the image, `scores` (K,) and `labels` (K,)
    from 1, best first: the authors' decoding and class-by-class suppression. Both stay in float in
    8-bit files, whose every head has a range of its own.

    Args:
        detector: what to write.
        weights: batch norm folded.
        decode: with decoding and suppression inside the file.
        hswish: the form of h-swish.
        ranges: of all points, for 8 bits inside; None writes float32.
        metadata: goes into the file as it is.

    Raises:
        KeyError: `weights` or `ranges` lacks a layer of the detector's walk.
    """
    spec, size = detector.network, [detector.resolution] * 2
    graph = heads_graph(spec, weights, hswish, ranges)
    offsets, logits = predictions(graph, detector, graph.image(spec.channels, None))
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
