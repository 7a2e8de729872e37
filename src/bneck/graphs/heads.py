"""What detectors and segmenters do behind a network's layers, in one order for every form of them.

Graphs that are written and 8-bit emulation only supply the operators. In 8 bits every output keeps a
range of its own and is a real number before outputs are joined, added or brought to another size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from bneck.graphs.forms import HSwish
from bneck.graphs.onnx_graph import Weights
from bneck.graphs.quantization import GATE, SIGMOID, points
from bneck.graphs.traverse import Traversal
from bneck.specs.network import Gate, Layer
from bneck.tasks.detect.head import Detector, extra_layers, features, head_layers, maps
from bneck.tasks.segment.head import Segmenter, is_spatial, pool_window, segmenter_layers

T = TypeVar("T")
Size = tuple[int, int]
Values = tuple[float, float]


class Heads(Traversal[T]):
    """The operators that heads need besides those of layers; `made` has what came out of a layer."""

    made: dict[str, T]

    @abstractmethod
    def by_anchor(self, name: str, x: T, numbers: int) -> T:
        """A map with anchors a cell x `numbers` channels -> (N, anchors, numbers), by row and column."""

    @abstractmethod
    def joined(self, name: str, parts: Sequence[T]) -> T:
        """Real (N, anchors, numbers) behind one another."""

    @abstractmethod
    def real(self, x: T) -> T:
        """8-bit numbers as the real ones that they stand for; real ones as they are."""

    @abstractmethod
    def mean(self, name: str, x: T) -> T:
        """The mean over the map, one pixel, rounded as point `name`."""

    @abstractmethod
    def windows(self, layer: Layer, x: T, window: Size, strides: Size) -> T:
        """Means of windows (height, width), `strides` (down, right) apart, rounded as the layer."""

    @abstractmethod
    def opened(self, layer: Layer, x: T, gate: Gate) -> T:
        """A 1x1 convolution and the gate behind it, from 0 to 1."""

    @abstractmethod
    def product(self, name: str, x: T, gate: T) -> T:
        """A map times a gate, which may be one pixel, rounded as point `name`."""

    @abstractmethod
    def resized(self, name: str, x: T, size: Size, have: Size, values: Values | None = None) -> T:
        """A map from `have` to `size`, bilinear, corners on corners; an 8-bit one keeps its range `values`."""

    @abstractmethod
    def total(self, name: str, x: T, y: T) -> T:
        """The sum of two real maps."""

    @abstractmethod
    def raised(self, name: str, x: T, by: T) -> T:
        """A map plus one pixel, and ReLU, rounded as point `name`."""


def predictions(graph: Heads[T], detector: Detector, image: T) -> tuple[T, T]:
    """A detector's `offsets` (N, anchors, 4) and `logits` (N, anchors, slots), real numbers."""
    x = graph.through(features(detector), image)
    graph.through(extra_layers(detector), x)
    walk = list(head_layers(detector))
    found = []
    for name, head, numbers in (("offsets", "boxes", 4), ("logits", "scores", detector.slots)):
        parts = []
        for index, source in enumerate(maps(detector)):
            layers = [layer for layer in walk if layer.name.startswith(f"{head}.{index}.")]
            part = graph.through(layers, graph.made[source.layer])
            parts.append(graph.real(graph.by_anchor(f"{head}.{index}.flat", part, numbers)))
        found.append(graph.joined(name, parts))
    return found[0], found[1]


def class_scores(graph: Heads[T], seg: Segmenter, size: Size, image: T) -> T:
    """A segmenter's scores of every class and pixel, real numbers; `weights` split by `split_project`.

    Where the module resizes and then convolves 1x1 to the classes, here the convolution comes first:
    the weights of a bilinear pixel sum to 1, so the result is the same, of far fewer numbers.
    """
    walk = list(segmenter_layers(seg, size))
    layers = [layer for layer in walk if layer.row < seg.features]
    head = {layer.name.rpartition(".")[2]: layer for layer in walk if layer.row == seg.features}
    last = graph.through(layers, image)
    if seg.head == "lraspp":
        low = next(layer for layer in layers if layer.row == seg.tap and is_spatial(layer))
        scores = _lraspp(graph, seg, head, graph.made[low.name], last)
    else:
        scores = _raspp(graph, head, last)
    return graph.resized("scores", scores, size, walk[-1].size_out)


def _lraspp(graph: Heads[T], seg: Segmenter, head: Mapping[str, Layer], low: T, last: T) -> T:
    pool, at, fine = head["pool"], head["conv"].size_out, head["low"].size_out
    window = pool_window(seg, pool.size_in)
    if window == pool.size_in:
        pooled = graph.mean(pool.name, last)
    else:
        pooled = graph.windows(pool, last, window, seg.window_stride)
    gate = graph.opened(head["gate"], pooled, seg.gate)
    if pool.size_out != (1, 1):  # of one pixel, the product makes a map
        values = SIGMOID if seg.gate == "sigmoid" else GATE
        gate = graph.resized("head.gate.map", gate, at, pool.size_out, values)
    gated = graph.product("head.gated", graph.conv(head["conv"], last), gate)
    classifier = replace(head["classifier"], size_in=at, size_out=at)
    ours = graph.real(graph.conv(classifier, gated))
    theirs = graph.real(graph.conv(head["low"], low))
    return graph.total("head.scores", graph.resized("head.ours", ours, fine, at), theirs)


def _raspp(graph: Heads[T], head: Mapping[str, Layer], last: T) -> T:
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


def split_project(weights: Weights) -> Weights:
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


def segmenter_points(seg: Segmenter, size: Size, hswish: HSwish) -> dict[str, Values]:
    """Every point of a segmenter with a range of ordinary size: enough to time it, not to use it."""
    found = points(segmenter_layers(seg, size), hswish, seg.network.se_gate)
    wide = (-6.0, 6.0)
    return found | {
        "head.gated": (0.0, 6.0),
        "head.gate.pre": wide,
        "head.project.map": wide,
        "head.project.pixel": wide,
    }
