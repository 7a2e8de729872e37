"""The operators of detectors' and segmenters' heads in ONNX, float and 8-bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bneck.graphs.forms import HSwish
from bneck.graphs.heads import Heads, Size, Values
from bneck.graphs.onnx_graph import Graph, Weights
from bneck.graphs.onnx_qdq import QdqGraph
from bneck.graphs.quantization import Ranges
from bneck.specs.network import Layer, NetSpec

BILINEAR = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}


class OnnxHeads(Graph, Heads[str]):
    """A float graph with heads."""

    def by_anchor(self, name: str, x: str, numbers: int) -> str:
        last = self.node("Transpose", [x], f"{name}.last", perm=[0, 2, 3, 1])
        shape = self.constant(f"by{numbers}", np.array([0, -1, numbers], np.int64))
        return self.node("Reshape", [last, shape], name)

    def joined(self, name: str, parts: Sequence[str]) -> str:
        return self.node("Concat", list(parts), name, axis=1)

    def real(self, x: str) -> str:
        return x  # here 8-bit numbers are read as real ones wherever they are used

    def windows(self, layer: Layer, x: str, window: Size, strides: Size) -> str:
        return self.node(
            "AveragePool", [x], layer.name, kernel_shape=list(window), strides=list(strides)
        )

    def product(self, name: str, x: str, gate: str) -> str:
        return self.node("Mul", [x, gate], name)

    def resized(
        self, name: str, x: str, size: Size, have: Size, values: Values | None = None
    ) -> str:
        if have == size:
            return self.node("Identity", [x], name)
        sizes = self.constant(f"{name}.size", np.array(size, np.int64))
        return self.node("Resize", [x, "", "", sizes], name, axes=[2, 3], **BILINEAR)

    def total(self, name: str, x: str, y: str) -> str:
        return self.node("Add", [x, y], name)

    def raised(self, name: str, x: str, by: str) -> str:
        return self.node("Relu", [self.node("Add", [x, by], f"{name}.total")], name)


class QdqHeads(OnnxHeads, QdqGraph):
    """An 8-bit graph with heads."""

    def windows(self, layer: Layer, x: str, window: Size, strides: Size) -> str:
        mean = super().windows(replace(layer, name=f"{layer.name}.mean"), x, window, strides)
        return self.rounded(mean, layer.name)

    def product(self, name: str, x: str, gate: str) -> str:
        return self.rounded(super().product(f"{name}.product", x, gate), name)

    def resized(
        self, name: str, x: str, size: Size, have: Size, values: Values | None = None
    ) -> str:
        if values is None:
            return super().resized(name, x, size, have)
        # All four sizes: where ONNX Runtime turns 8-bit maps to NHWC it misreads a Resize with axes.
        before = self.node("Shape", [x], f"{name}.before", start=0, end=2)
        after = self.constant(f"{name}.size", np.array(size, np.int64))
        sizes = self.node("Concat", [before, after], f"{name}.sizes", axis=0)
        real = self.node("Resize", [x, "", "", sizes], f"{name}.real", **BILINEAR)
        return self.rounded(real, name, values)

    def raised(self, name: str, x: str, by: str) -> str:
        # Rounding to a range from 0 on is the ReLU.
        return self.rounded(self.node("Add", [x, by], f"{name}.total"), name)


def heads_graph(
    spec: NetSpec, weights: Weights, hswish: HSwish, ranges: Ranges | None
) -> OnnxHeads:
    """A graph for a backbone and heads to build on: float32, or 8-bit where there are ranges."""
    if ranges is None:
        return OnnxHeads(weights, spec.padding, spec.se_gate, hswish)
    return QdqHeads(weights, spec.padding, spec.se_gate, hswish, ranges)
