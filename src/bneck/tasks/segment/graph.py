"""Write a segmenter as an ONNX graph, float or 8-bit, for one image size, with scores or classes coming out."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from bneck.graphs.forms import HSwish
from bneck.graphs.heads import class_scores, split_project
from bneck.graphs.onnx_graph import Weights
from bneck.graphs.onnx_heads import heads_graph
from bneck.graphs.quantization import Ranges
from bneck.tasks.segment.head import Segmenter

Size = tuple[int, int]


def segmenter_graph(
    seg: Segmenter,
    weights: Weights,
    size: Size,
    *,
    argmax: bool = False,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
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
        hswish: the form of h-swish.
        ranges: of all points, for 8 bits inside; None writes float32.
        metadata: texts that the file carries.

    Raises:
        KeyError: `weights` or `ranges` lacks a layer of the walk.
    """
    spec = seg.network
    graph = heads_graph(spec, split_project(weights), hswish, ranges)
    scores = class_scores(graph, seg, size, graph.image(spec.channels, None))
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
