"""ExecuTorch's file of a network: exported by torch and lowered to the XNNPACK kernels."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bneck.graphs.forms import HSwish
from bneck.graphs.quantization import SIGMOID, Ranges, Scale, quantize_weight, weight_steps
from bneck.graphs.weights import Weights, pads
from bneck.specs.network import Layer, NetSpec, layers
from bneck.specs.operators import LayerOperators

METADATA = "bneck"  # the method of the file that answers with its metadata
SIX = (0.0, 6.0)
PARTS = ("whole", "steps", "zeros", "bias")  # of a convolution, as buffers
PAIRS = torch.ops.quantized_decomposed


def lowered(net: nn.Module, shape: tuple[int, ...], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a .pte file whose method `forward` takes one image of `shape`, float32.

    Takes tens of seconds for a network of 50 convolutions.

    Raises:
        ImportError: ExecuTorch is not installed.
    """
    logging.getLogger("executorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own parts
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        exported = torch.export.export(net.eval(), (torch.zeros(shape),))
        _one_reading_each(exported.graph)
        constants: dict[str, Any] = {METADATA: json.dumps(dict(metadata))}
        edge = to_edge_transform_and_lower(
            exported, partitioner=[XnnpackPartitioner()], constant_methods=constants
        )
        return bytes(edge.to_executorch().buffer)


def _one_reading_each(graph: torch.fx.Graph) -> None:
    """A dequantization of its own for every reader: XNNPACK takes it together with what reads it."""
    for node in graph.find_nodes(op="call_function", target=PAIRS.dequantize_per_tensor.default):
        for user in list(node.users)[1:]:
            with graph.inserting_before(user):
                user.replace_input_with(node, graph.node_copy(node))


@dataclass(frozen=True, slots=True)
class _Value:
    """A tensor between two roundings, its 8-bit scale, and by how much it is too large."""

    tensor: Tensor
    scale: Scale
    gain: float = 1.0


class Rounding(nn.Module, LayerOperators[_Value]):
    """An int8 network as XNNPACK's partitioner knows it: float operators between pairs of rounding and back.

    Values may be six times the true ones, as in `graphs.tflite_graph`; the steps of the next kernels
    take the sixth.
    """

    def __init__(
        self, spec: NetSpec, weights: Weights, ranges: Ranges, hswish: HSwish, size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.spec, self.ranges, self.hswish = spec, ranges, hswish
        self.folded: Weights = weights
        # Integers and steps depend on what flows in, so they are made on the way, once.
        with torch.no_grad():
            self(torch.zeros((1, spec.channels, size[0], size[1])))
        self.folded = {}

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (1, channels, H, W) -> class scores (1, classes)."""
        size = (images.shape[2], images.shape[3])
        x = self.point("image", images)
        return self.through(layers(self.spec, size), x).tensor.flatten(1)

    def point(
        self, name: str, x: Tensor, gain: float = 1.0, values: tuple[float, float] | None = None
    ) -> _Value:
        """`x`, rounded to the range of a point, or to `values`, times its gain."""
        low, high = values or self.ranges[name]
        return self.rounded(x, Scale.of(low * gain, high * gain), gain)

    def rounded(self, x: Tensor, scale: Scale, gain: float) -> _Value:
        how: tuple[Any, ...] = (float(scale.step), scale.zero, -128, 127, torch.int8)
        whole = PAIRS.quantize_per_tensor.default(x, *how)
        return _Value(PAIRS.dequantize_per_tensor.default(whole, *how), scale, gain)

    def conv(self, layer: Layer, x: _Value) -> _Value:
        y = self.convolution(layer, layer.name, x)
        match layer.act:
            case "relu":
                y = F.relu(y)
            case "relu6":
                y = F.relu6(y)
            case "hswish":
                return self.hard_swish(layer.name, self.point(f"{layer.name}.pre", y))
        return self.point(layer.name, y)

    def hard_swish(self, name: str, x: _Value) -> _Value:
        if self.hswish == "op":
            return self.point(name, F.hardswish(x.tensor))
        three = self.number("three", 3.0)
        cut = self.point(name, F.relu6(x.tensor + three.tensor), values=SIX)
        return self.point(name, x.tensor * cut.tensor, gain=6.0)

    def squeeze(self, layer: Layer, x: _Value) -> _Value:
        name = layer.name
        pooled = self.mean(f"{name}.pool", x)
        reduced = F.relu(self.convolution(layer, f"{name}.reduce", pooled))
        small = self.point(f"{name}.reduce", reduced)
        if self.spec.se_gate == "sigmoid":
            gate = self.point(f"{name}.gate.pre", self.convolution(layer, f"{name}.gate", small))
            gate = self.point(name, gate.tensor.sigmoid(), values=SIGMOID)
        else:
            raised = self.convolution(layer, f"{name}.gate", small, shift=3.0)
            gate = self.point(name, F.relu6(raised), gain=6.0, values=(0.0, 1.0))
        return self.point(name, x.tensor * gate.tensor, gain=x.gain * gate.gain)

    def pool(self, layer: Layer, x: _Value) -> _Value:
        return self.mean(layer.name, x)

    def mean(self, name: str, x: _Value) -> _Value:
        return self.point(name, x.tensor.mean((2, 3), keepdim=True), gain=x.gain)

    def add(self, layer: Layer, x: _Value, row_input: _Value) -> _Value:
        return self.point(f"{layer.name}.sum", self.plain(x) + self.plain(row_input))

    def plain(self, x: _Value) -> Tensor:
        """`x` without its gain, where no kernel can take it."""
        if x.gain == 1.0:
            return x.tensor
        factor = self.number(f"share{x.gain:g}", 1 / x.gain)
        scale = Scale(x.scale.step / x.gain, x.scale.zero)
        return self.rounded(x.tensor * factor.tensor, scale, 1.0).tensor

    def number(self, name: str, value: float) -> _Value:
        """A constant among activations."""
        if not hasattr(self, name):
            self.register_buffer(name, torch.tensor([value]))
        return self.rounded(getattr(self, name), Scale.of(0.0, value), 1.0)

    def parameters_of(self, name: str, x: _Value, shift: float) -> tuple[Tensor, Tensor]:
        """A convolution's weight, as integers read with a step per output channel, and its bias."""
        key = name.replace(".", "_")
        if f"{name}.weight" in self.folded:
            weight = self.folded[f"{name}.weight"] / np.float32(x.gain)
            bias = self.folded[f"{name}.bias"] + np.float32(shift)
            steps = weight_steps(weight, bias, x.scale.step)
            parts = (quantize_weight(weight, steps), steps, np.zeros(len(steps), np.int64), bias)
            for part, value in zip(PARTS, parts, strict=True):
                self.register_buffer(f"{key}_{part}", torch.from_numpy(value))
        whole, steps, zeros, bias = (getattr(self, f"{key}_{part}") for part in PARTS)
        how = (0, -127, 127, torch.int8)
        return PAIRS.dequantize_per_channel.default(whole, steps, zeros, *how), bias

    def convolution(self, layer: Layer, name: str, x: _Value, shift: float = 0.0) -> Tensor:
        """One convolution with its padding; its bias is raised by `shift`."""
        kernel, bias = self.parameters_of(name, x, shift)
        if layer.kind == "squeeze":
            return F.conv2d(x.tensor, kernel, bias)
        top, left, bottom, right = pads(self.spec.padding, layer)
        around: tuple[int, ...] = (top, left)
        y = x.tensor
        if (top, left) != (bottom, right):
            padded = F.pad(y, (left, right, top, bottom))
            y, around = self.rounded(padded, x.scale, x.gain).tensor, (0, 0)
        groups = layer.out if layer.kind == "depthwise" else 1
        return F.conv2d(y, kernel, bias, layer.stride, around, layer.dilation, groups)
