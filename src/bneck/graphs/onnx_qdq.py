"""The int8 ONNX graph: float operators between QuantizeLinear and DequantizeLinear pairs.

Runtimes fuse the operators between the pairs into integer ones. A nonlinearity that only cuts off
(ReLU, ReLU6) is not written: rounding to a range that ends there does it. Activations are unsigned
and weights signed, the pairing that x86 processors multiply fastest.

The form "cut" is for ONNX Runtime's kernels. Maps have whole blocks of channels, the added ones zeros;
a layer whose input is not rounded computes in float, which are the narrow first rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bneck.graphs.forms import HSwish
from bneck.graphs.onnx_operators import BILINEAR, Graph
from bneck.graphs.quantization import (
    CUT,
    GATES,
    SIGMOID,
    STEPS,
    Ranges,
    Scale,
    quantize_bias,
    quantize_weight,
    weight_steps,
)
from bneck.graphs.weights import Weights
from bneck.specs.network import Gate, Layer, Padding
from bneck.specs.normalisation import Normalisation
from bneck.specs.operators import Pair, Values

UNSIGNED = 128  # from int8 to uint8
GROUP = 4  # channels that ONNX Runtime's kernels of a full convolution multiply at a time
BLOCK = 16  # channels that its kernels of a depthwise one take; other widths go a slower way


class QdqGraph(Graph):
    """A graph with tensors rounded to int8 at every point that `graphs.quantization` names."""

    def __init__(
        self, weights: Weights, padding: Padding, gate: Gate, hswish: HSwish, ranges: Ranges
    ) -> None:
        super().__init__(weights, padding, gate, hswish)
        self.ranges = ranges
        self.scales: dict[str, Scale] = {}
        self.padded = hswish == "cut"  # whether maps get channels of zeros for whole blocks
        self.more: dict[str, int] = {}  # how many, by tensor and by convolution
        self.plain = Graph(weights, padding, gate)
        self.plain.nodes, self.plain.initializers = self.nodes, self.initializers

    def image(self, channels: int, pixels: Normalisation | None) -> str:
        x, more = super().image(channels, pixels), -channels % GROUP if self.padded else 0
        if "image" not in self.ranges or not more:
            return self.entered("image", x)
        self.more["image"] = more
        sides = self.constant("image.more", np.array([0, 0, 0, 0, 0, more, 0, 0], np.int64))
        return self.rounded(
            x, "image", then=lambda whole: self.node("Pad", [whole, sides], "image.wide")
        )

    def conv(self, layer: Layer, x: str) -> str:
        if x not in self.scales:
            return self.entered(layer.name, self.plain.conv(layer, x))
        y = self.convolution(layer, x)
        if layer.act != "hswish":
            return self.rounded(y, layer.name)
        if self.hswish == "cut":
            y = self.cut_swish(layer.name, self.rounded(y, f"{layer.name}.pre"))
        else:
            y = self.node("HardSwish", [y], f"{layer.name}.hswish")
        return self.rounded(y, layer.name)

    def entered(self, name: str, y: str) -> str:
        """What a layer in float has made, rounded if int8 begins after it."""
        return self.rounded(y, name) if name in self.ranges else y

    def cut_swish(self, name: str, x: str) -> str:
        """x relu6(x + 3) / 6 of an `x` whose integers begin at -3, so that they stand for x + 3 too."""
        scale, whole = self.scales[x], f"{name}.pre.whole"
        assert self.ranges[f"{name}.pre"][0] == -CUT, "calibrated for another form"
        six = 2 * (scale.zero + UNSIGNED)  # which integer is x + 3 = 6; there may be none
        if six < STEPS:
            most = self.constant(f"{name}.six", np.uint8(six))
            whole = self.node("Clip", [whole, "", most], f"{name}.cut")
        read = self.parameters(f"{name}.share", Scale(scale.step / 6, -UNSIGNED))
        share = self.node("DequantizeLinear", [whole, *read], f"{name}.share")
        return self.node("Mul", [x, share], f"{name}.hswish")

    def convolution(self, layer: Layer, x: str) -> str:
        if layer.kind == "depthwise":
            self.more[layer.name] = self.more.get(x, 0)
        elif self.padded and layer.name.endswith(".expand"):
            self.more[layer.name] = -layer.out % BLOCK
        self.hold(layer.name, x, groups=layer.kind == "depthwise")
        return super().convolution(replace(layer, out=layer.out + self.more.get(layer.name, 0)), x)

    def squeeze(self, layer: Layer, x: str) -> str:
        if x not in self.scales:
            return self.entered(layer.name, self.plain.squeeze(layer, x))
        self.more[f"{layer.name}.gate"] = self.more.get(x, 0)
        return super().squeeze(layer, x)

    def pointwise(self, name: str, x: str, shift: float = 0.0) -> str:
        self.hold(name, x, shift)
        return super().pointwise(name, x)

    def reduced(self, name: str, x: str) -> str:
        return self.rounded(self.pointwise(name, x), name)

    def mean(self, name: str, x: str) -> str:
        self.more[name] = self.more.get(x, 0)
        return self.rounded(super().mean(f"{name}.mean", x), name)

    def pool(self, layer: Layer, x: str) -> str:
        if not self.products:
            return super().pool(layer, x)
        self.more[layer.name], self.pooled = self.more.get(x, 0), True
        mean, flat = self.plain.mean(f"{layer.name}.mean", x), f"{layer.name}.flat"
        return self.rounded(mean, layer.name, then=lambda whole: self.plain.flat(flat, whole))

    def flat(self, name: str, x: str) -> str:
        return x if self.pooled else super().flat(name, x)

    def opened(self, layer: Layer, x: str, gate: Gate) -> str:
        name = layer.name
        if gate == "sigmoid":
            before = self.rounded(self.pointwise(name, x), f"{name}.pre")
            return self.rounded(self.node("Sigmoid", [before], f"{name}.sigmoid"), name, SIGMOID)
        return self.rounded(self.pointwise(name, x, 3.0), name, (0.0, 6.0), read_as=1 / 6)

    def add(self, layer: Layer, x: str, row_input: str) -> str:
        if x not in self.scales:
            return self.entered(f"{layer.name}.sum", self.plain.add(layer, x, row_input))
        total = self.total(f"{layer.name}.total", x, row_input)
        return self.rounded(total, f"{layer.name}.sum")

    def rounded(
        self, x: str, point: str, values: Values | None = None, read_as: float = 1.0,
        then: Callable[[str], str] = str,
    ) -> str:  # fmt: skip
        """`x` rounded to the range of a point; `read_as` multiplies what the integers mean then.

        `then` is done with the integers.
        """
        out = f"{point}.8bit"
        if out in self.scales:
            return out
        scale = Scale.of(*(values or self.ranges[point]))
        read = replace(scale, step=scale.step * read_as)
        whole = self.node("QuantizeLinear", [x, *self.parameters(point, scale)], f"{point}.whole")
        self.more[out] = self.more.get(point, 0)
        self.node("DequantizeLinear", [then(whole), *self.parameters(f"{point}.read", read)], out)
        self.scales[out] = read
        return out

    def parameters(self, name: str, scale: Scale) -> list[str]:
        return [
            self.constant(f"{name}.step", np.float32(scale.step)),
            self.constant(f"{name}.zero", np.uint8(scale.zero + UNSIGNED)),
        ]

    def hold(self, name: str, x: str, shift: float = 0.0, *, groups: bool = False) -> None:
        """Write the weights of convolution `name`, which reads `x`, as integers.

        Those of channels that `x` or the output has more are 0; `groups`: one input channel each.
        """
        weight = np.asarray(self.weights[f"{name}.weight"])
        bias = np.asarray(self.weights[f"{name}.bias"]) + np.float32(shift)
        more, into = self.more.get(name, 0), 0 if groups else self.more.get(x, 0)
        weight = np.pad(weight, ((0, more), (0, into), (0, 0), (0, 0)))
        bias = np.pad(bias, (0, more))
        if self.pooled:
            weight = weight[:, :, 0, 0]
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

    matrix = weight

    def windows(self, layer: Layer, x: str, window: Pair, strides: Pair) -> str:
        self.more[layer.name] = self.more.get(x, 0)
        mean = super().windows(replace(layer, name=f"{layer.name}.mean"), x, window, strides)
        return self.rounded(mean, layer.name)

    def product(self, name: str, x: str, gate: str) -> str:
        self.more[name] = self.more.get(x, 0)
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
