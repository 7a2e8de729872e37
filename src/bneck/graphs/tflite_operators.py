"""The operators in a TFLite file, float and 8-bit.

Maps are NHWC throughout, so no transpose stands anywhere. Where h-swish or a gate is written as
relu6(x + 3) times x, what flows is six times the true value; the weights after it are divided by six,
which in 8 bits costs nothing at all: the integers are the same. `Tensor.gain` keeps the account.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bneck.graphs.forms import HSwish
from bneck.graphs.quantization import (
    SIGMOID,
    Array,
    Ranges,
    Scale,
    quantize_bias,
    quantize_weight,
    weight_steps,
)
from bneck.graphs.tflite_file import Flatbuffer
from bneck.graphs.weights import Weights, of_pixels, pads
from bneck.specs.network import Gate, Layer, Padding
from bneck.specs.normalisation import Normalisation
from bneck.specs.operators import Operators, Pair

SIX = (0.0, 6.0)
JOINED = 4  # tensors at a time; XNNPACK's limit is five


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the graph: its index, its shape, its 8-bit scale, and by how much it is too large."""

    index: int
    shape: tuple[int, ...]
    scale: Scale | None
    gain: float = 1.0


class Graph(Operators[Tensor]):
    """A file under construction."""

    def __init__(
        self, weights: Weights, padding: Padding, gate: Gate, hswish: HSwish, ranges: Ranges | None
    ) -> None:
        self.file = Flatbuffer()
        self.weights = weights
        self.padding = padding
        self.gate = gate
        self.hswish = hswish
        self.ranges = ranges
        self.pooled = False  # whether the layers are those of the head
        self.spread: Array | None = None  # what the first convolution still has to divide by

    # Tensors

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        gain: float = 1.0,
        values: tuple[float, float] | None = None,
    ) -> Tensor:
        """An activation; in 8 bits its range is that of point `name`, or `values`, times its gain."""
        scale = None
        if self.ranges is not None:
            low, high = values or self.ranges[name]
            scale = Scale.of(low * gain, high * gain)
        return Tensor(self.file.tensor(name, shape, scale=scale), shape, scale, gain)

    def number(self, name: str, real: Array | float) -> Tensor:
        """A constant among activations."""
        value = np.atleast_1d(np.asarray(real, np.float32))
        scale = None
        if self.ranges is not None:
            scale = Scale.of(float(value.min()), float(value.max()))
            value = scale.quantize(value)
        return Tensor(self.file.constant(name, value, scale=scale), value.shape, scale)

    # The image and the scores

    def image(self, shape: tuple[int, ...], pixels: Normalisation | None) -> Tensor:
        """The input, brought into the form that the layers take."""
        if pixels is None:
            outside = self.file.tensor("image", shape, kind="float32")
            self.file.inputs.append(outside)
            if self.ranges is None:
                return Tensor(outside, shape, None)
            inside = self.tensor("image", shape)
            self.file.operator("QUANTIZE", [outside], [inside.index])
            return inside
        raw = self.file.tensor("image", shape, kind="uint8", scale=Scale(1.0, 0))
        self.file.inputs.append(raw)
        offset, self.spread = of_pixels(pixels)
        # In float also where all else is 8-bit: XNNPACK has no way from uint8 to int8, and one scale
        # for three channels of different means would lose some of their 8 bits.
        whole = self.file.tensor("image.whole", shape, kind="float32")
        self.file.operator("DEQUANTIZE", [raw], [whole])
        centred = self.file.tensor("image.centred", shape, kind="float32")
        moved = self.file.constant("image.offset", -offset)
        self.file.operator("ADD", [whole, moved], [centred])
        if self.ranges is None:
            return Tensor(centred, shape, None)
        x = self.tensor(
            "image.8bit", shape, values=(float(-offset.max()), float(255 - offset.min()))
        )
        self.file.operator("QUANTIZE", [centred], [x.index])
        return x

    def finish(
        self, outputs: Mapping[str, Tensor], title: str, metadata: Mapping[str, str] | None
    ) -> bytes:
        """The file, with these outputs by name."""
        for name, tensor in outputs.items():
            self.file.outputs.append(self.real(tensor, name).index)
        return self.file.pack(title, metadata or {})

    def real(self, x: Tensor, name: str = "") -> Tensor:
        """The real numbers that an 8-bit tensor stands for, without a gain; of a float one, itself."""
        x = self.plain(x)
        if x.scale is None:
            return x
        out = self.file.tensor(name or f"real.{x.index}", x.shape, kind="float32")
        self.file.operator("DEQUANTIZE", [x.index], [out])
        return Tensor(out, x.shape, None)

    # Operators

    def conv(self, layer: Layer, x: Tensor) -> Tensor:
        shape = (1, layer.out) if self.pooled else (1, *layer.size_out, layer.out)
        if layer.act != "hswish":
            return self.convolution(layer, x, layer.name, shape, fused=layer.act)
        before = self.convolution(layer, x, f"{layer.name}.pre", shape)
        return self.hard_swish(layer.name, before)

    def hard_swish(self, name: str, x: Tensor) -> Tensor:
        if self.hswish == "op":
            y = self.tensor(name, x.shape)
            self.file.operator("HARD_SWISH", [x.index], [y.index])
            return y
        shifted = self.tensor(f"{name}.shifted", x.shape, values=SIX)
        three = self.number(f"{name}.three", 3.0)
        self.file.operator("ADD", [x.index, three.index], [shifted.index], fused="relu6")
        y = self.tensor(name, x.shape, gain=6.0)
        self.file.operator("MUL", [x.index, shifted.index], [y.index])
        return y

    def squeeze(self, layer: Layer, x: Tensor) -> Tensor:
        name, mid = layer.name, (1, layer.mid)
        pooled = self.mean(f"{name}.pool", x)
        reduce = replace(layer, name=f"{name}.reduce", width_in=layer.out, out=layer.mid)
        reduced = self.convolution(reduce, pooled, reduce.name, mid, fused="relu")
        gate = replace(layer, name=f"{name}.gate", width_in=layer.mid)
        return self.product(name, x, self.opened(gate, reduced, self.gate))

    def opened(self, layer: Layer, x: Tensor, gate: Gate) -> Tensor:
        """A 1x1 convolution and the gate after it, from 0 to 1."""
        one = layer.kind == "squeeze"
        shape = (1, layer.out) if one else (1, *layer.size_out, layer.out)
        if gate == "sigmoid":
            before = self.convolution(layer, x, f"{layer.name}.pre", shape)
            opened = self.tensor(layer.name, shape, values=SIGMOID)
            self.file.operator("LOGISTIC", [before.index], [opened.index])
            return opened
        return self.convolution(
            layer, x, layer.name, shape, fused="relu6", shift=3.0, gain=6.0, values=(0, 1)
        )

    def product(self, name: str, x: Tensor, gate: Tensor) -> Tensor:
        """A map times a gate, rounded as point `name`."""
        y = self.tensor(name, x.shape, gain=x.gain * gate.gain)
        self.file.operator("MUL", [x.index, gate.index], [y.index])
        return y

    def pool(self, layer: Layer, x: Tensor) -> Tensor:
        self.pooled = True
        return self.mean(layer.name, x)

    def mean(self, name: str, x: Tensor) -> Tensor:
        y = self.tensor(name, (1, 1, 1, x.shape[3]), gain=x.gain)
        axes = self.file.constant("axes", np.array([1, 2], np.int32))
        self.file.operator("MEAN", [x.index, axes], [y.index])
        return y

    def add(self, layer: Layer, x: Tensor, row_input: Tensor) -> Tensor:
        left, right = self.plain(x), self.plain(row_input)
        y = self.tensor(f"{layer.name}.sum", left.shape)
        self.file.operator("ADD", [left.index, right.index], [y.index])
        return y

    def plain(self, x: Tensor) -> Tensor:
        """`x` without its gain, where no weights can take it."""
        if x.gain == 1.0:
            return x
        shrunk = None if x.scale is None else replace(x.scale, step=x.scale.step / x.gain)
        y = Tensor(self.file.tensor(f"plain.{x.index}", x.shape, scale=shrunk), x.shape, shrunk)
        factor = self.number(f"plain.{x.index}.factor", 1 / x.gain)
        self.file.operator("MUL", [x.index, factor.index], [y.index])
        return y

    def convolution(
        self,
        layer: Layer,
        x: Tensor,
        name: str,
        shape: tuple[int, ...],
        *,
        fused: str = "linear",
        shift: float = 0.0,
        gain: float = 1.0,
        values: tuple[float, float] | None = None,
    ) -> Tensor:
        """One convolution with its padding; its bias is raised by `shift`."""
        kept = self.weights[f"{layer.name}.weight"]
        weight = kept / np.float32(x.gain)
        bias = self.weights[f"{layer.name}.bias"] + np.float32(shift)
        if self.spread is not None:
            weight, self.spread = weight / self.spread[:, None, None], None
        weight = weight.astype(kept.dtype)
        head = len(shape) == 2
        y = self.tensor(name, shape, gain, values)
        same = True
        if not head:
            x, same = self.padded(layer, x)
        arguments = [x.index, *self.parameters(layer, weight, bias, x.scale, head)]
        if head:
            self.file.operator("FULLY_CONNECTED", arguments, [y.index], fused=fused)
        else:
            self.file.operator(
                "DEPTHWISE_CONV_2D" if layer.kind == "depthwise" else "CONV_2D",
                arguments, [y.index], fused=fused, same=same, stride=layer.stride, dilation=layer.dilation,
            )  # fmt: skip
        return y

    def padded(self, layer: Layer, x: Tensor) -> tuple[Tensor, bool]:
        """`x`, padded by an operator of its own where neither SAME nor VALID will do; whether SAME."""
        wanted = pads(self.padding, layer) if layer.kernel > 1 else [0, 0, 0, 0]
        if wanted == pads("same", layer):
            return x, True
        if not any(wanted):
            return x, False
        top, left, bottom, right = wanted
        around = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        _, height, width, channels = x.shape
        shape = (1, height + top + bottom, width + left + right, channels)
        name = f"{layer.name}.padded"
        y = replace(x, index=self.file.tensor(name, shape, scale=x.scale), shape=shape)
        amounts = self.file.constant(f"{name}.by", around)
        self.file.operator("PAD", [x.index, amounts], [y.index])
        return y, False

    def parameters(
        self, layer: Layer, weight: Array, bias: Array, scale: Scale | None, head: bool
    ) -> list[int]:
        """Weights and biases as this format lays them out: (out, k, k, in), (1, k, k, out), (out, in)."""
        axes = (1, 2, 3, 0) if layer.kind == "depthwise" else (0, 2, 3, 1)
        steps = None
        if scale is not None:
            steps = weight_steps(weight, bias, scale.step)
            weight, bias = (
                quantize_weight(weight, steps),
                quantize_bias(bias, steps, scale.step),
            )
        weight = weight[:, :, 0, 0] if head else weight.transpose(axes)
        axis = 3 if layer.kind == "depthwise" else 0
        return [
            self.kernel(f"{layer.name}.weight", weight, steps, axis),
            self.file.constant(
                f"{layer.name}.bias",
                bias,
                steps=None if steps is None or scale is None else steps * scale.step,
            ),
        ]

    def kernel(self, name: str, weight: Array, steps: Array | None, axis: int) -> int:
        """A constant kernel; from half precision the runtime makes float32 when it loads."""
        if weight.dtype != np.float16:
            return self.file.constant(name, weight, steps=steps, axis=axis)
        half = self.file.constant(f"{name}.half", weight)
        whole = self.file.tensor(name, weight.shape, kind="float32")
        self.file.operator("DEQUANTIZE", [half], [whole])
        return whole

    def floats(self, name: str, shape: tuple[int, ...], gain: float = 1.0) -> Tensor:
        """A tensor of real numbers, also where others are 8-bit."""
        return Tensor(self.file.tensor(name, shape), shape, None, gain)

    def flat(self, name: str, x: Tensor) -> Tensor:
        return x  # after the pool tensors are (1, channels) already

    def listed(self, name: str, x: Tensor, numbers: int) -> Tensor:
        x = self.plain(x)
        shape = (1, math.prod(x.shape) // numbers, numbers)
        y = replace(x, index=self.file.tensor(name, shape, scale=x.scale), shape=shape)
        wanted = self.file.constant(f"{name}.shape", np.array(shape, np.int32))
        self.file.operator("RESHAPE", [x.index, wanted], [y.index])
        return y

    def joined(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        if len(parts) > JOINED:
            first = self.joined(f"{name}.{len(parts)}", parts[:JOINED])
            return self.joined(name, [first, *parts[JOINED:]])
        count, numbers = sum(part.shape[1] for part in parts), parts[0].shape[2]
        y = self.floats(name, (1, count, numbers))
        self.file.operator("CONCATENATION", [part.index for part in parts], [y.index], axis=1)
        return y

    def windows(self, layer: Layer, x: Tensor, window: Pair, strides: Pair) -> Tensor:
        # In float also where all else is 8-bit: an 8-bit pool may not change the range, and is none
        # of XNNPACK's.
        if x.scale is not None:
            whole = self.floats(f"{layer.name}.real", x.shape, x.gain)
            self.file.operator("DEQUANTIZE", [x.index], [whole.index])
            x = whole
        shape = (1, *layer.size_out, layer.out)
        mean = self.floats(f"{layer.name}.mean", shape, x.gain)
        (high, wide), (down, right) = window, strides
        self.file.operator(
            "AVERAGE_POOL_2D", [x.index], [mean.index], same=False, filterHeight=high, filterWidth=wide,
            strideH=down, strideW=right,
        )  # fmt: skip
        if self.ranges is None:
            return mean
        y = self.tensor(layer.name, shape, x.gain)
        self.file.operator("QUANTIZE", [mean.index], [y.index])
        return y

    def resized(
        self, name: str, x: Tensor, size: Pair, have: Pair, gate: Gate | None = None
    ) -> Tensor:
        if have == size:
            return x
        shape = (1, *size, x.shape[3])
        y = replace(x, index=self.file.tensor(name, shape, scale=x.scale), shape=shape)
        wanted = self.file.constant(f"{name}.size", np.array(size, np.int32))
        self.file.operator("RESIZE_BILINEAR", [x.index, wanted], [y.index], alignCorners=True)
        return y

    def total(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        z = self.floats(name, x.shape)
        self.file.operator("ADD", [x.index, y.index], [z.index])
        return z

    def raised(self, name: str, x: Tensor, by: Tensor) -> Tensor:
        y = self.tensor(name, x.shape)
        self.file.operator("ADD", [x.index, by.index], [y.index], fused="relu")
        return y

    def best(self, name: str, x: Tensor) -> Tensor:
        shape = x.shape[:3]
        y = Tensor(self.file.tensor(name, shape, kind="int32"), shape, None)
        axis = self.file.constant(f"{name}.axis", np.array(3, np.int32))
        whole = self.file.kind("int32")
        self.file.operator("ARG_MAX", [x.index, axis], [y.index], outputType=whole)
        return y
