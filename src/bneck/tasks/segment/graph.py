"""What a segmenter computes after its layers, once for float and int8 files and for simulated quantization.

Where the module resizes and then convolves 1x1 to the classes, here the convolution comes first:
the weights of a bilinear pixel sum to 1, so the result is the same, of far fewer numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from bneck.specs.network import Layer
from bneck.specs.operators import Operators, Pair
from bneck.specs.wrapper import Tensors

if TYPE_CHECKING:
    from bneck.tasks.segment.head import Segmenter

T = TypeVar("T")


def class_scores(graph: Operators[T], image: T, size: Pair, seg: Segmenter) -> T:
    """Scores of every class and pixel, real numbers; weights are as `split_project` names them."""
    walk = list(seg.layers(size))
    rows = [layer for layer in walk if layer.row < seg.features]
    head = {layer.name.rpartition(".")[2]: layer for layer in walk[len(rows) :]}
    low = last = image
    for layer, last in graph.behind(rows, image):
        low = last if seg.is_low(layer) else low
    lraspp = seg.head == "lraspp"
    scores = _lraspp(graph, seg, head, low, last) if lraspp else _raspp(graph, head, last)
    return graph.resized("scores", scores, size, walk[-1].size_out)


def _lraspp(graph: Operators[T], seg: Segmenter, head: Mapping[str, Layer], low: T, last: T) -> T:
    pool, at, fine = head["pool"], head["conv"].size_out, head["low"].size_out
    window = seg.pool_window(pool.size_in)
    if window == pool.size_in:
        pooled = graph.mean(pool.name, last)
    else:
        pooled = graph.windows(pool, last, window, seg.window_stride)
    gate = graph.opened(head["gate"], pooled, seg.gate)
    if pool.size_out != (1, 1):  # of one pixel, the product makes a map
        gate = graph.resized("head.gate.map", gate, at, pool.size_out, seg.gate)
    gated = graph.product("head.gated", graph.conv(head["conv"], last), gate)
    classifier = replace(head["classifier"], size_in=at, size_out=at)
    ours = graph.real(graph.conv(classifier, gated))
    theirs = graph.real(graph.conv(head["low"], low))
    return graph.total("head.scores", graph.resized("head.ours", ours, fine, at), theirs)


def _raspp(graph: Operators[T], head: Mapping[str, Layer], last: T) -> T:
    conv = graph.conv(head["conv"], last)
    pooled = graph.conv(head["pooled"], graph.mean(head["pool"].name, last))
    project = head["project"]
    ours, theirs = (
        replace(
            project, name=f"{project.name}.{part}", width_in=project.width_in // 2, act="linear",
            size_in=source.size_out, size_out=source.size_out,
        )
        for part, source in (("map", head["conv"]), ("pixel", head["pooled"]))
    )  # fmt: skip
    raised = graph.raised(project.name, graph.conv(ours, conv), graph.conv(theirs, pooled))
    return graph.real(graph.conv(head["classifier"], raised))


def split_project(weights: Tensors) -> Tensors:
    """Weights with R-ASPP's `project` cut in two, one for the map, one for its mean; others as they are.

    A convolution of two concatenated maps is the sum of one of each; the mean is one pixel,
    so its part costs next to nothing, and no map is made of it.
    """
    name = "head.project"
    if f"{name}.weight" not in weights:
        return weights
    rest = {key: value for key, value in weights.items() if not key.startswith(f"{name}.")}
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    half = weight.shape[1] // 2
    return rest | {
        f"{name}.map.weight": weight[:, :half], f"{name}.map.bias": np.zeros_like(bias),
        f"{name}.pixel.weight": weight[:, half:], f"{name}.pixel.bias": bias,
    }  # fmt: skip
