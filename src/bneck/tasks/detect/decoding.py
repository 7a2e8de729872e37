"""A detector's last step inside an ONNX file: the authors' decoding and class-by-class NMS.

It stays in float in int8 files, whose every head has a range of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

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
        InputError: the graph is not ONNX: LiteRT's own operator is not one of XNNPACK's, and knows
            other anchors.
    """
    if not isinstance(graph, Graph):
        raise InputError(
            "decoding inside the file is for the format onnx; leave it out for another format"
        )
    boxes = _boxes(graph, np.array(anchors, np.float32)[None], str(offsets))
    _best(graph, boxes, str(logits), slots)
    names: dict[str, T] = {name: name for name in ("boxes", "scores", "labels")}  # type: ignore[misc]
    return names


def _boxes(graph: Graph, places: Any, offsets: str) -> str:
    """Corners of every anchor's box, cut at the image's edge."""
    node, constant = graph.node, graph.constant
    centres, sides = constant("centres", places[..., :2]), constant("sides", places[..., 2:])
    moved = node("Div", [offsets, constant("coder", np.array(CODER, np.float32))], "moved")
    for name, start in (("moved.centre", 0), ("moved.side", 2)):
        ends = [_whole(graph, f"{name}.{i}", [v]) for i, v in ((0, start), (1, start + 2))]
        node("Slice", [moved, *ends, _whole(graph, "last", [2])], name)
    centre = node("Add", [node("Mul", ["moved.centre", sides], "steps"), centres], "centre")
    log = node("Min", ["moved.side", graph.scalar("largest.log", LARGEST_LOG)], "log")
    ratio = node("Exp", [log], "ratio")
    half = node("Mul", [ratio, constant("halves", places[..., 2:] / 2)], "half")
    low, high = node("Sub", [centre, half], "low"), node("Add", [centre, half], "high")
    corners = node("Concat", [low, high], "corners", axis=2)
    return node("Clip", [corners, graph.scalar("zero", 0), graph.scalar("one", 1)], "every.box")


def _best(graph: Graph, boxes: str, logits: str, slots: int) -> None:
    """NMS, and of all that is left the boxes with the highest scores."""
    node = graph.node
    first, end = _whole(graph, "first", [1]), _whole(graph, "end", [slots])
    shares = node("Sigmoid", [node("Slice", [logits, first, end, "last"], "objects")], "shares")
    shares = node("Transpose", [shares], "by.class", perm=[0, 2, 1])
    most = _whole(graph, "most", [MOST_BOXES])
    limits = [graph.scalar("iou", NMS_IOU), graph.scalar("least", LEAST_SCORE)]
    chosen = node("NonMaxSuppression", [boxes, shares, most, *limits], "chosen")
    found = node("GatherND", [shares, chosen], "found.scores")
    count = node("Min", [node("Shape", [found], "found.count"), most], "kept.count")
    graph.nodes.append(
        onnx.helper.make_node("TopK", [found, count], ["scores", "order"], name="best", axis=0)
    )
    kept = node("Gather", [chosen, "order"], "kept", axis=0)
    by_box = node("Gather", [kept, _whole(graph, "image.and.box", [0, 2])], "at", axis=1)
    node("GatherND", [boxes, by_box], "boxes")
    classes = node("Gather", [kept, _whole(graph, "class", 1)], "classes", axis=1)
    node("Add", [classes, _whole(graph, "background", 1)], "labels")


def _whole(graph: Graph, name: str, value: int | list[int]) -> str:
    return graph.constant(name, np.array(value, np.int64))
