"""What a segmenter computes after its layers, once for every form: float and 8-bit files, emulation.

Where the module resizes and then convolves 1x1 to the classes, here the convolution comes first:
the weights of a bilinear pixel sum to 1, so the result is the same, of far fewer numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from bneck.specs.network import Gate, Layer
from bneck.specs.operators import Operators, Pair
from bneck.specs.wrapper import Tensors

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gating:
    """How LR-ASPP looks at the whole map: the layer whose map comes back in, the pool's window and
    strides (down, right), and the gate."""

    tapped: str
    window: Pair
    strides: Pair
    gate: Gate


def class_scores(
    graph: Operators[T], image: T, size: Pair, walk: Iterable[Layer], gating: Gating | None
) -> T:
    """Scores of every class and pixel, real numbers, of LR-ASPP or, without `gating`, R-ASPP.

    Weights are as `split_project` names them.
    """
    walk = list(walk)
    layers = [layer for layer in walk if layer.name.startswith("rows.")]
    head = {layer.name.rpartition(".")[2]: layer for layer in walk[len(layers) :]}
    low = last = image
    for layer, last in graph.behind(layers, image):
        if gating and layer.name == gating.tapped:
            low = last
    scores = _lraspp(graph, gating, head, low, last) if gating else _raspp(graph, head, last)
    return graph.resized("scores", scores, size, walk[-1].size_out)


def _lraspp(graph: Operators[T], gating: Gating, head: Mapping[str, Layer], low: T, last: T) -> T:
    pool, at, fine = head["pool"], head["conv"].size_out, head["low"].size_out
    if gating.window == pool.size_in:
        pooled = graph.mean(pool.name, last)
    else:
        pooled = graph.windows(pool, last, gating.window, gating.strides)
    gate = graph.opened(head["gate"], pooled, gating.gate)
    if pool.size_out != (1, 1):  # of one pixel, the product makes a map
        gate = graph.resized("head.gate.map", gate, at, pool.size_out, gating.gate)
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

    A convolution of two maps behind one another is the sum of one of each; the mean is one pixel,
    so its part costs next to nothing, and no map is made of it.
    """
    name = "head.project"
    if f"{name}.weight" not in weights:
        return weights
    rest = {key: value for key, value in weights.items() if not key.startswith(f"{name}.")}
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    half = weight.shape[1] // 2
    return rest | {
        f"{name}.map.weight": weight[:, :half],
        f"{name}.map.bias": np.zeros_like(bias),
        f"{name}.pixel.weight": weight[:, half:],
        f"{name}.pixel.bias": bias,
    }
