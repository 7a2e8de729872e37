"""Write a spec as a TFLite file, float or 8-bit, straight from the walk over its layers.

Maps are NHWC throughout, so no transpose stands anywhere. Where h-swish or a gate is written as
relu6(x + 3) times x, what flows is six times the true value; the weights behind it are divided by six,
which in 8 bits costs nothing at all: the integers are the same. `_Tensor.gain` keeps the account.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bneck.graphs.forms import HSwish
from bneck.graphs.onnx_graph import Weights, of_pixels, pads
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
from bneck.graphs.traverse import Traversal
from bneck.specs.network import Gate, Layer, NetSpec, Padding, Size, as_size, layers
from bneck.specs.normalisation import Normalisation

SIX = (0.0, 6.0)
JOINED = 4
HEAD = ("conv", 1, (1, 1))  # a layer behind the pool: its kind, kernel and map


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of the graph: its index, its shape, its 8-bit scale, and by how much it is too large."""

    index: int
    shape: tuple[int, ...]
    scale: Scale | None
    gain: float = 1.0


def tflite_network(
    spec: NetSpec,
    weights: Weights,
    resolution: Size | None = None,
    *,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
    pixels: Normalisation | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The whole network as a TFLite file: batch 1, input NHWC, output `scores` (1, classes) float32.

    Args:
        spec: what to write.
        weights: as `weight_shapes` names them, batch norm folded.
        resolution: side or (height, width) in pixels; None takes the spec's own.
        hswish: the form of h-swish; "fused" is no form of this format.
        ranges: of all `points`, for 8 bits inside; None writes float32.
        pixels: the normalisation to fold in: the input is uint8 RGB then, else normalised float32.
        metadata: goes into the file as it is.

    Raises:
        KeyError: `weights` or `ranges` lacks a name.
    """
    size = as_size(spec.resolution if resolution is None else resolution)
    graph = Graph(weights, spec.padding, spec.se_gate, hswish, ranges)
    x = graph.image((1, *size, spec.channels), pixels)
    x = graph.through(layers(spec, size), x)
    return graph.finish({"scores": x}, spec.name, metadata)


def tflite_layers(
    walk: Sequence[Layer],
    weights: Weights,
    *,
    padding: Padding,
    gate: Gate,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
) -> bytes:
    """A run of layers alone: maps (1, H, W, C) in and out, float32 at the borders."""
    graph = Graph(weights, padding, gate, hswish, ranges)
    graph.pooled = all((part.kind, part.kernel, part.size_in) == HEAD for part in walk)
    x = graph.image((1, *walk[0].size_in, walk[0].width_in), None)
    return graph.finish({"map": graph.through(walk, x)}, "layers", None)


class Graph(Traversal[_Tensor]):
    """A file under construction; `made` has the tensor behind every layer that was written."""

    def __init__(
        self, weights: Weights, padding: Padding, gate: Gate, hswish: HSwish, ranges: Ranges | None
    ) -> None:
        self.file = Flatbuffer()
        self.weights = weights
        self.padding = padding
        self.gate = gate
        self.hswish = hswish
        self.ranges = ranges
        self.made: dict[str, _Tensor] = {}
        self.pooled = False  # whether the layers are those of the head
        self.spread: Array | None = None  # what the first convolution still has to divide by

    # Tensors

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        gain: float = 1.0,
        values: tuple[float, float] | None = None,
    ) -> _Tensor:
        """An activation; in 8 bits its range is that of point `name`, or `values`, times its gain."""
        scale = None
        if self.ranges is not None:
            low, high = values or self.ranges[name]
            scale = Scale.of(low * gain, high * gain)
        return _Tensor(self.file.tensor(name, shape, scale=scale), shape, scale, gain)

    def number(self, name: str, real: Array | float) -> _Tensor:
        """A constant among activations."""
        value = np.atleast_1d(np.asarray(real, np.float32))
        scale = None
        if self.ranges is not None:
            scale = Scale.of(float(value.min()), float(value.max()))
            value = scale.quantize(value)
        return _Tensor(self.file.constant(name, value, scale=scale), value.shape, scale)

    # The image and the scores

    def image(self, shape: tuple[int, ...], pixels: Normalisation | None) -> _Tensor:
        """The input, brought into the form that the layers take."""
        if pixels is None:
            outside = self.file.tensor("image", shape, kind="float32")
            self.file.inputs.append(outside)
            if self.ranges is None:
                return _Tensor(outside, shape, None)
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
            return _Tensor(centred, shape, None)
        x = self.tensor(
            "image.8bit", shape, values=(float(-offset.max()), float(255 - offset.min()))
        )
        self.file.operator("QUANTIZE", [centred], [x.index])
        return x

    def finish(
        self, outputs: Mapping[str, _Tensor], title: str, metadata: Mapping[str, str] | None
    ) -> bytes:
        """The file, with these outputs by name."""
        for name, tensor in outputs.items():
            x = self.plain(tensor)
            out = x.index
            if self.ranges is not None:
                out = self.file.tensor(name, x.shape, kind="float32")
                self.file.operator("DEQUANTIZE", [x.index], [out])
            self.file.outputs.append(out)
        return self.file.pack(title, metadata or {})

    def passed(self, layer: Layer, x: _Tensor) -> None:
        self.made[layer.name] = x

    def by_anchor(self, name: str, x: _Tensor, numbers: int) -> _Tensor:
        """A head's map (1, H, W, anchors a cell x numbers) as (1, anchors, numbers)."""
        x = self.plain(x)
        count = math.prod(x.shape) // numbers
        shape = (1, count, numbers)
        y = replace(x, index=self.file.tensor(name, shape, scale=x.scale), shape=shape)
        wanted = self.file.constant(f"{name}.shape", np.array(shape, np.int32))
        self.file.operator("RESHAPE", [x.index, wanted], [y.index])
        return y

    def joined(self, name: str, parts: Sequence[_Tensor]) -> _Tensor:
        """Float tensors (1, anchors, numbers) behind one another, few at a time: XNNPACK's limit is five."""
        if len(parts) > JOINED:
            first = self.joined(f"{name}.{len(parts)}", parts[:JOINED])
            return self.joined(name, [first, *parts[JOINED:]])
        count, numbers = sum(part.shape[1] for part in parts), parts[0].shape[2]
        y = self.tensor(name, (1, count, numbers))
        self.file.operator("CONCATENATION", [part.index for part in parts], [y.index], axis=1)
        return y

    # Operators

    def conv(self, layer: Layer, x: _Tensor) -> _Tensor:
        shape = (1, layer.out) if self.pooled else (1, *layer.size_out, layer.out)
        if layer.act != "hswish":
            return self.convolution(layer, x, layer.name, shape, fused=layer.act)
        before = self.convolution(layer, x, f"{layer.name}.pre", shape)
        return self.hard_swish(layer.name, before)

    def hard_swish(self, name: str, x: _Tensor) -> _Tensor:
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

    def squeeze(self, layer: Layer, x: _Tensor) -> _Tensor:
        name = layer.name
        pooled = self.mean(f"{name}.pool", x)
        wide, mid = (1, layer.out), (1, layer.mid)
        reduce = replace(layer, name=f"{name}.reduce", width_in=layer.out, out=layer.mid)
        reduced = self.convolution(reduce, pooled, reduce.name, mid, fused="relu")
        gate = replace(layer, name=f"{name}.gate", width_in=layer.mid)
        if self.gate == "sigmoid":
            before = self.convolution(gate, reduced, f"{name}.gate.pre", wide)
            opened = self.tensor(gate.name, wide, values=SIGMOID)
            self.file.operator("LOGISTIC", [before.index], [opened.index])
        else:
            opened = self.convolution(
                gate, reduced, gate.name, wide, fused="relu6", shift=3.0, gain=6.0, values=(0, 1)
            )
        y = self.tensor(name, x.shape, gain=x.gain * opened.gain)
        self.file.operator("MUL", [x.index, opened.index], [y.index])
        return y

    def pool(self, layer: Layer, x: _Tensor) -> _Tensor:
        self.pooled = True
        return self.mean(layer.name, x)

    def mean(self, name: str, x: _Tensor) -> _Tensor:
        y = self.tensor(name, (1, 1, 1, x.shape[3]), gain=x.gain)
        axes = self.file.constant("axes", np.array([1, 2], np.int32))
        self.file.operator("MEAN", [x.index, axes], [y.index])
        return y

    def add(self, layer: Layer, x: _Tensor, row_input: _Tensor) -> _Tensor:
        left, right = self.plain(x), self.plain(row_input)
        y = self.tensor(f"{layer.name}.sum", left.shape)
        self.file.operator("ADD", [left.index, right.index], [y.index])
        return y

    def plain(self, x: _Tensor) -> _Tensor:
        """`x` without its gain, where no weights can take it."""
        if x.gain == 1.0:
            return x
        shrunk = None if x.scale is None else replace(x.scale, step=x.scale.step / x.gain)
        y = _Tensor(self.file.tensor(f"plain.{x.index}", x.shape, scale=shrunk), x.shape, shrunk)
        factor = self.number(f"plain.{x.index}.factor", 1 / x.gain)
        self.file.operator("MUL", [x.index, factor.index], [y.index])
        return y

    def convolution(
        self,
        layer: Layer,
        x: _Tensor,
        name: str,
        shape: tuple[int, ...],
        *,
        fused: str = "linear",
        shift: float = 0.0,
        gain: float = 1.0,
        values: tuple[float, float] | None = None,
    ) -> _Tensor:
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

    def padded(self, layer: Layer, x: _Tensor) -> tuple[_Tensor, bool]:
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
