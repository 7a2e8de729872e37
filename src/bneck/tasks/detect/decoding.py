"""A detector's last step inside an ONNX file: the authors' decoding and class-by-class suppression.

It stays in float in 8-bit files, whose every head has a range of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import onnx

from bneck.graphs.onnx_operators import Graph
from bneck.specs.errors import InputError
from bneck.specs.operators import Operators
from bneck.tasks.detect.boxes import CODER, LARGEST_LOG, LEAST_SCORE, MOST_BOXES, NMS_IOU

T = TypeVar("T")


def decoded(
    graph: Operators[T], anchors: Sequence[Sequence[float]], offsets: T, logits: T, *, slots: int
) -> dict[str, T]:
    """Boxes (K, 4), scores (K,) and labels (K,) of one image, best first.

    Raises:
        InputError: the graph is none of ONNX: LiteRT's own operator is none of XNNPACK's, and knows
            other anchors.
    """
    if not isinstance(graph, Graph):
        raise InputError(
            "decoding inside the file is for the format onnx; leave it out for another format"
        )
    _write(graph, anchors, str(offsets), str(logits), slots)
    names: dict[str, T] = {name: name for name in ("boxes", "scores", "labels")}  # type: ignore[misc]
    return names


def _write(
    graph: Graph, anchors: Sequence[Sequence[float]], offsets: str, logits: str, slots: int
) -> None:
    places = np.array(anchors, np.float32)[None]
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
    end, last = constant("end", np.array([slots], np.int64)), "last"
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
