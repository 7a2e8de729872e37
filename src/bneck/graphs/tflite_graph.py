"""Write a spec as a TFLite file, float or int8, straight from the walk over its layers.

Maps are NHWC throughout, so the file has no transpose. Where h-swish or a gate is written as
relu6(x + 3) times x, what flows is six times the true value; the weights after it are divided by six,
which costs nothing in int8: the integers are the same. `Tensor.gain` keeps the account.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
from bneck.specs.operators import Operators, Pair, Values
from bneck.specs.wrapper import Wrapped

SIX = (0.0, 6.0)
JOINED = 4  # tensors at a time; XNNPACK's limit is five
HEAD = ("conv", 1, (1, 1))  # a layer after the pool: its kind, kernel and map


def wrapped_tflite(
    wrapped: Wrapped,
    weights: Weights,
    size: tuple[int, int],
    *,
    finished: bool = False,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
    pixels: Normalisation | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """A network in its wrapper as a TFLite file of batch 1, float32 or uint8 RGB in, float32 out.

    Maps are NHWC. The arguments are those of `onnx_graph.wrapped_graph`; h-swish has no form "fused".

    Raises:
        KeyError: `weights` or `ranges` lacks a name.
        InputError: LiteRT is not installed, or it lacks an operator that was asked for.
    """
    spec = wrapped.network
    graph = Graph(wrapped.arranged(weights), spec.padding, spec.se_gate, hswish, ranges)
    x = graph.image((1, *size, spec.channels), pixels)
    found = wrapped.answer(graph, x, size, finished=finished)
    return graph.finish(found, wrapped.name, metadata)


def tflite_layers(
    walk: Sequence[Layer], weights: Weights, *, padding: Padding, gate: Gate, hswish: HSwish = "op",
    ranges: Ranges | None = None,
) -> bytes:  # fmt: skip
    """A run of layers alone: maps (1, H, W, C) in and out, float32 at the borders."""
    graph = Graph(weights, padding, gate, hswish, ranges)
    graph.pooled = all((part.kind, part.kernel, part.size_in) == HEAD for part in walk)
    x = graph.image((1, *walk[0].size_in, walk[0].width_in), None)
    return graph.finish({"map": graph.through(walk, x)}, "layers", None)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the graph: its index, its shape, its int8 scale, and by how much it is too large."""

    index: int
    shape: tuple[int, ...]
    scale: Scale | None = None
    gain: float = 1.0


class Graph(Operators[Tensor]):
    """A file under construction."""

    def __init__(
        self, weights: Weights, padding: Padding, gate: Gate, hswish: HSwish, ranges: Ranges | None
    ) -> None:
        self.file = Flatbuffer()
        self.weights, self.padding, self.gate, self.hswish = weights, padding, gate, hswish
        self.ranges = ranges
        self.pooled = False  # whether the layers are those of the head
        self.spread: Array | None = None  # what the first convolution still has to divide by

    # Tensors

    def tensor(
        self, name: str, shape: tuple[int, ...], gain: float = 1.0, values: Values | None = None
    ) -> Tensor:
        """An activation; in int8 its range is that of point `name`, or `values`, times its gain."""
        if self.ranges is None:
            return self.real_tensor(name, shape, gain)
        low, high = values or self.ranges[name]
        scale = Scale.of(low * gain, high * gain)
        return Tensor(self.file.tensor(name, shape, scale=scale), shape, scale, gain)

    def real_tensor(self, name: str, shape: tuple[int, ...], gain: float = 1.0) -> Tensor:
        """A float32 tensor, even where others are int8."""
        return Tensor(self.file.tensor(name, shape), shape, None, gain)

    def alike(self, name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A tensor with the scale and the gain of `x`."""
        return replace(x, index=self.file.tensor(name, shape, scale=x.scale), shape=shape)

    def number(self, name: str, real: float) -> Tensor:
        """A constant among activations."""
        value, scale = np.array([real], np.float32), None
        if self.ranges is not None:
            scale = Scale.of(float(value[0]), float(value[0]))
            value = scale.quantize(value)
        return Tensor(self.file.constant(name, value, scale=scale), value.shape, scale)

    def integers(self, name: str, value: Any) -> Tensor:
        """Constant sizes, axes or paddings."""
        return Tensor(self.file.constant(name, np.array(value, np.int32)), ())

    def put(self, operator: str, inputs: Sequence[Tensor], out: Tensor, **settings: Any) -> Tensor:
        """Append an operator that makes `out`, which comes back."""
        self.file.operator(operator, [x.index for x in inputs], [out.index], **settings)
        return out

    # The image and the outputs

    def image(self, shape: tuple[int, ...], pixels: Normalisation | None) -> Tensor:
        """The input, in the form that the layers take."""
        if pixels is None:
            outside = self.real_tensor("image", shape)
            self.file.inputs.append(outside.index)
            if self.ranges is None:
                return outside
            return self.put("QUANTIZE", [outside], self.tensor("image", shape))
        raw = Tensor(self.file.tensor("image", shape, kind="uint8", scale=Scale(1.0, 0)), shape)
        self.file.inputs.append(raw.index)
        offset, self.spread = of_pixels(pixels)
        # In float even where all else is int8: XNNPACK has no way from uint8 to int8, and one scale
        # for three channels of different means would lose some of their 8 bits.
        real = self.put("DEQUANTIZE", [raw], self.real_tensor("image.whole", shape))
        centred = self.real_tensor("image.centred", shape)
        moved = Tensor(self.file.constant("image.offset", -offset), offset.shape)
        self.put("ADD", [real, moved], centred)
        if self.ranges is None:
            return centred
        values = (float(-offset.max()), float(255 - offset.min()))
        return self.put("QUANTIZE", [centred], self.tensor("image.8bit", shape, values=values))

    def finish(
        self, outputs: Mapping[str, Tensor], title: str, metadata: Mapping[str, str] | None
    ) -> bytes:
        """The file, with these outputs by name."""
        self.file.outputs = [self.real(tensor, name).index for name, tensor in outputs.items()]
        return self.file.pack(title, metadata or {})

    def real(self, x: Tensor, name: str = "") -> Tensor:
        """The real numbers that an int8 tensor stands for, without a gain; a float one as it is."""
        x = self.plain(x)
        if x.scale is None:
            return x
        return self.put("DEQUANTIZE", [x], self.real_tensor(name or f"real.{x.index}", x.shape))

    def plain(self, x: Tensor) -> Tensor:
        """`x` without its gain, where no weights can take it."""
        if x.gain == 1.0:
            return x
        shrunk = None if x.scale is None else replace(x.scale, step=x.scale.step / x.gain)
        y = self.alike(f"plain.{x.index}", replace(x, scale=shrunk, gain=1.0), x.shape)
        return self.put("MUL", [x, self.number(f"plain.{x.index}.factor", 1 / x.gain)], y)

    # Operators

    def conv(self, layer: Layer, x: Tensor) -> Tensor:
        shape = (1, layer.out) if self.pooled else (1, *layer.size_out, layer.out)
        if layer.act != "hswish":
            return self.convolution(layer, x, layer.name, shape, fused=layer.act)
        before = self.convolution(layer, x, f"{layer.name}.pre", shape)
        return self.hard_swish(layer.name, before)

    def hard_swish(self, name: str, x: Tensor) -> Tensor:
        if self.hswish == "op":
            return self.put("HARD_SWISH", [x], self.tensor(name, x.shape))
        shifted = self.tensor(f"{name}.shifted", x.shape, values=SIX)
        self.put("ADD", [x, self.number(f"{name}.three", 3.0)], shifted, fused="relu6")
        return self.put("MUL", [x, shifted], self.tensor(name, x.shape, gain=6.0))

    def squeeze(self, layer: Layer, x: Tensor) -> Tensor:
        name = layer.name
        pooled = self.mean(f"{name}.pool", x)
        reduce = replace(layer, name=f"{name}.reduce", width_in=layer.out, out=layer.mid)
        reduced = self.convolution(reduce, pooled, reduce.name, (1, layer.mid), fused="relu")
        gate = replace(layer, name=f"{name}.gate", width_in=layer.mid)
        return self.product(name, x, self.opened(gate, reduced, self.gate))

    def opened(self, layer: Layer, x: Tensor, gate: Gate) -> Tensor:
        one = layer.kind == "squeeze"
        shape = (1, layer.out) if one else (1, *layer.size_out, layer.out)
        if gate == "sigmoid":
            before = self.convolution(layer, x, f"{layer.name}.pre", shape)
            return self.put("LOGISTIC", [before], self.tensor(layer.name, shape, values=SIGMOID))
        return self.convolution(
            layer, x, layer.name, shape, fused="relu6", shift=3.0, gain=6.0, values=(0, 1)
        )

    def product(self, name: str, x: Tensor, gate: Tensor) -> Tensor:
        return self.put("MUL", [x, gate], self.tensor(name, x.shape, gain=x.gain * gate.gain))

    def pool(self, layer: Layer, x: Tensor) -> Tensor:
        self.pooled = True
        return self.mean(layer.name, x)

    def mean(self, name: str, x: Tensor) -> Tensor:
        y = self.tensor(name, (1, 1, 1, x.shape[3]), gain=x.gain)
        return self.put("MEAN", [x, self.integers("axes", [1, 2])], y)

    def add(self, layer: Layer, x: Tensor, row_input: Tensor) -> Tensor:
        left, right = self.plain(x), self.plain(row_input)
        return self.put("ADD", [left, right], self.tensor(f"{layer.name}.sum", left.shape))

    def convolution(
        self, layer: Layer, x: Tensor, name: str, shape: tuple[int, ...], *, fused: str = "linear",
        shift: float = 0.0, gain: float = 1.0, values: Values | None = None,
    ) -> Tensor:  # fmt: skip
        """One convolution with its padding; its bias is raised by `shift`."""
        kept = self.weights[f"{layer.name}.weight"]
        weight = kept / np.float32(x.gain)
        bias = self.weights[f"{layer.name}.bias"] + np.float32(shift)
        if self.spread is not None:
            weight, self.spread = weight / self.spread[:, None, None], None
        weight = weight.astype(kept.dtype)
        y = self.tensor(name, shape, gain, values)
        if len(shape) == 2:
            parts = self.parameters(layer, weight, bias, x.scale, head=True)
            return self.put("FULLY_CONNECTED", [x, *parts], y, fused=fused)
        x, same = self.padded(layer, x)
        parts = self.parameters(layer, weight, bias, x.scale, head=False)
        return self.put(
            "DEPTHWISE_CONV_2D" if layer.kind == "depthwise" else "CONV_2D", [x, *parts], y,
            fused=fused, same=same, strideH=layer.stride, strideW=layer.stride,
            dilationHFactor=layer.dilation, dilationWFactor=layer.dilation,
        )  # fmt: skip

    def padded(self, layer: Layer, x: Tensor) -> tuple[Tensor, bool]:
        """`x`, padded by an operator of its own where neither SAME nor VALID will do; whether SAME."""
        wanted = pads(self.padding, layer) if layer.kernel > 1 else [0, 0, 0, 0]
        if wanted == pads("same", layer):
            return x, True
        if not any(wanted):
            return x, False
        top, left, bottom, right = wanted
        _, height, width, channels = x.shape
        shape = (1, height + top + bottom, width + left + right, channels)
        y = self.alike(f"{layer.name}.padded", x, shape)
        sides = [[0, 0], [top, bottom], [left, right], [0, 0]]
        return self.put("PAD", [x, self.integers(f"{layer.name}.padded.by", sides)], y), False

    def parameters(
        self, layer: Layer, weight: Array, bias: Array, scale: Scale | None, *, head: bool
    ) -> list[Tensor]:
        """Weights and biases as this format lays them out: (out, k, k, in), (1, k, k, out), (out, in)."""
        depthwise = layer.kind == "depthwise"
        steps = bias_steps = None
        if scale is not None:
            steps = weight_steps(weight, bias, scale.step)
            bias_steps = steps * scale.step
            weight = quantize_weight(weight, steps)
            bias = quantize_bias(bias, steps, scale.step)
        axes = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        weight = weight[:, :, 0, 0] if head else weight.transpose(axes)
        kernel = self.kernel(f"{layer.name}.weight", weight, steps, 3 if depthwise else 0)
        constant = self.file.constant(f"{layer.name}.bias", bias, steps=bias_steps)
        return [kernel, Tensor(constant, bias.shape)]

    def kernel(self, name: str, weight: Array, steps: Array | None, axis: int) -> Tensor:
        """A constant kernel; the runtime turns half precision into float32 when it loads."""
        if weight.dtype != np.float16:
            index = self.file.constant(name, weight, steps=steps, axis=axis)
            return Tensor(index, weight.shape)
        half = Tensor(self.file.constant(f"{name}.half", weight), weight.shape)
        return self.put("DEQUANTIZE", [half], self.real_tensor(name, weight.shape))

    def flat(self, name: str, x: Tensor) -> Tensor:
        return x  # after the pool tensors are (1, channels) already

    def listed(self, name: str, x: Tensor, numbers: int) -> Tensor:
        x = self.plain(x)
        shape = (1, math.prod(x.shape) // numbers, numbers)
        y = self.alike(name, x, shape)
        return self.put("RESHAPE", [x, self.integers(f"{name}.shape", shape)], y)

    def joined(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        if len(parts) > JOINED:
            first = self.joined(f"{name}.{len(parts)}", parts[:JOINED])
            return self.joined(name, [first, *parts[JOINED:]])
        shape = (1, sum(part.shape[1] for part in parts), parts[0].shape[2])
        return self.put("CONCATENATION", parts, self.real_tensor(name, shape), axis=1)

    def windows(self, layer: Layer, x: Tensor, window: Pair, strides: Pair) -> Tensor:
        # In float even where all else is int8: an int8 pool may not change the range, and XNNPACK
        # has none.
        if x.scale is not None:
            real = self.real_tensor(f"{layer.name}.real", x.shape, x.gain)
            x = self.put("DEQUANTIZE", [x], real)
        shape = (1, *layer.size_out, layer.out)
        mean = self.real_tensor(f"{layer.name}.mean", shape, x.gain)
        (high, wide), (down, right) = window, strides
        self.put(
            "AVERAGE_POOL_2D", [x], mean, same=False, filterHeight=high, filterWidth=wide, strideH=down,
            strideW=right,
        )  # fmt: skip
        if self.ranges is None:
            return mean
        return self.put("QUANTIZE", [mean], self.tensor(layer.name, shape, x.gain))

    def resized(
        self, name: str, x: Tensor, size: Pair, have: Pair, gate: Gate | None = None
    ) -> Tensor:
        if have == size:
            return x
        y = self.alike(name, x, (1, *size, x.shape[3]))
        wanted = self.integers(f"{name}.size", size)
        return self.put("RESIZE_BILINEAR", [x, wanted], y, alignCorners=True)

    def total(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        return self.put("ADD", [x, y], self.real_tensor(name, x.shape))

    def raised(self, name: str, x: Tensor, by: Tensor) -> Tensor:
        return self.put("ADD", [x, by], self.tensor(name, x.shape), fused="relu")

    def best(self, name: str, x: Tensor) -> Tensor:
        y = Tensor(self.file.tensor(name, x.shape[:3], kind="int32"), x.shape[:3])
        channels = self.integers(f"{name}.axis", 3)
        return self.put("ARG_MAX", [x, channels], y, outputType=self.file.kind("int32"))
