"""The int8 ONNX graph: float operators between QuantizeLinear and DequantizeLinear pairs.

Runtimes fuse the operators between the pairs into integer ones. A nonlinearity that only cuts off
(ReLU, ReLU6) is not written: rounding to a range that ends there does it. Activations are unsigned
and weights signed, the pairing that x86 processors multiply fastest.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bneck.graphs.forms import HSwish
from bneck.graphs.onnx_operators import BILINEAR, Graph
from bneck.graphs.quantization import (
    GATES,
    SIGMOID,
    Ranges,
    Scale,
    quantize_bias,
    quantize_weight,
    weight_steps,
)
from bneck.graphs.weights import Weights
from bneck.specs.network import Gate, Layer, Padding
from bneck.specs.normalisation import Normalisation
from bneck.specs.operators import Pair

UNSIGNED = 128  # from int8 to uint8


class QdqGraph(Graph):
    """A graph with tensors rounded to int8 at every point that `graphs.quantization` names."""

    def __init__(
        self, weights: Weights, padding: Padding, gate: Gate, hswish: HSwish, ranges: Ranges
    ) -> None:
        super().__init__(weights, padding, gate, hswish)
        self.ranges = ranges
        self.scales: dict[str, Scale] = {}

    def image(self, channels: int, pixels: Normalisation | None) -> str:
        return self.rounded(super().image(channels, pixels), "image")

    def conv(self, layer: Layer, x: str) -> str:
        y = self.convolution(layer, x)
        if layer.act != "hswish":
            return self.rounded(y, layer.name)
        if self.hswish != "fused":
            y = self.rounded(y, f"{layer.name}.pre")
        if self.hswish == "split":
            three = self.rounded(self.constant("three", np.float32(3)), "three", (0.0, 3.0))
            shifted = self.node("Add", [y, three], f"{layer.name}.shifted")
            # Rounded to 0..6 and read as 0..1: cut off and divided by six at no cost.
            share = self.rounded(shifted, f"{layer.name}.share", (0.0, 6.0), read_as=1 / 6)
            y = self.node("Mul", [y, share], f"{layer.name}.hswish")
        else:
            y = self.node("HardSwish", [y], f"{layer.name}.hswish")
        return self.rounded(y, layer.name)

    def convolution(self, layer: Layer, x: str) -> str:
        self.hold(layer.name, x)
        return super().convolution(layer, x)

    def pointwise(self, name: str, x: str, shift: float = 0.0) -> str:
        self.hold(name, x, shift)
        return super().pointwise(name, x)

    def reduced(self, name: str, x: str) -> str:
        return self.rounded(self.pointwise(name, x), name)

    def mean(self, name: str, x: str) -> str:
        return self.rounded(super().mean(f"{name}.mean", x), name)

    def opened(self, layer: Layer, x: str, gate: Gate) -> str:
        name = layer.name
        if gate == "sigmoid":
            before = self.rounded(self.pointwise(name, x), f"{name}.pre")
            return self.rounded(self.node("Sigmoid", [before], f"{name}.sigmoid"), name, SIGMOID)
        return self.rounded(self.pointwise(name, x, 3.0), name, (0.0, 6.0), read_as=1 / 6)

    def add(self, layer: Layer, x: str, row_input: str) -> str:
        total = self.total(f"{layer.name}.total", x, row_input)
        return self.rounded(total, f"{layer.name}.sum")

    def rounded(
        self, x: str, point: str, values: tuple[float, float] | None = None, read_as: float = 1.0
    ) -> str:
        """`x` rounded to the range of a point; `read_as` multiplies what the integers mean then."""
        out = f"{point}.8bit"
        if out in self.scales:
            return out
        scale = Scale.of(*(values or self.ranges[point]))
        read = replace(scale, step=scale.step * read_as)
        whole = self.node("QuantizeLinear", [x, *self.parameters(point, scale)], f"{point}.whole")
        self.node("DequantizeLinear", [whole, *self.parameters(f"{point}.read", read)], out)
        self.scales[out] = read
        return out

    def parameters(self, name: str, scale: Scale) -> list[str]:
        return [
            self.constant(f"{name}.step", np.float32(scale.step)),
            self.constant(f"{name}.zero", np.uint8(scale.zero + UNSIGNED)),
        ]

    def hold(self, name: str, x: str, shift: float = 0.0) -> None:
        """Write the weights of convolution `name`, which reads `x`, as integers."""
        weight = np.asarray(self.weights[f"{name}.weight"])
        bias = np.asarray(self.weights[f"{name}.bias"]) + np.float32(shift)
        step = np.float64(np.float32(self.scales[x].step))
        steps = weight_steps(weight, bias, float(step))
        for key, value, sizes in (
            ("weight", quantize_weight(weight, steps), steps),
            ("bias", quantize_bias(bias, steps, float(step)), (steps * step).astype(np.float32)),
        ):
            parts = {"zero": np.zeros(len(sizes), value.dtype), "whole": value, "step": sizes}
            zero, whole, scale = (self.constant(f"{name}.{key}.{k}", v) for k, v in parts.items())
            self.node("DequantizeLinear", [whole, scale, zero], f"{name}.{key}", axis=0)

    def weight(self, name: str) -> str:
        return name  # a node's output here, see `hold`

    def windows(self, layer: Layer, x: str, window: Pair, strides: Pair) -> str:
        mean = super().windows(replace(layer, name=f"{layer.name}.mean"), x, window, strides)
        return self.rounded(mean, layer.name)

    def product(self, name: str, x: str, gate: str) -> str:
        return self.rounded(super().product(f"{name}.product", x, gate), name)

    def resized(self, name: str, x: str, size: Pair, have: Pair, gate: Gate | None = None) -> str:
        if gate is None:
            return super().resized(name, x, size, have)
        # All four sizes: where ONNX Runtime turns 8-bit maps to NHWC it misreads a Resize with axes.
        before = self.node("Shape", [x], f"{name}.before", start=0, end=2)
        after = self.constant(f"{name}.size", np.array(size, np.int64))
        sizes = self.node("Concat", [before, after], f"{name}.sizes", axis=0)
        real = self.node("Resize", [x, "", "", sizes], f"{name}.real", **BILINEAR)
        return self.rounded(real, name, GATES[gate])

    def raised(self, name: str, x: str, by: str) -> str:
        # Rounding to a range from 0 on is the ReLU.
        return self.rounded(self.total(f"{name}.total", x, by), name)
