"""A network as an 8-bit runtime computes it, in torch: to calibrate, to judge, to fine-tune.

Batch norm is folded before anything is rounded, so fine-tuning has no statistics that could drift
apart from those of the shipped file. Rounding passes gradients straight through where a value lies
inside its range.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bneck.graphs.forms import HSwish
from bneck.graphs.onnx_graph import pads
from bneck.graphs.quantization import GATE, LEAST_SCALE, SIGMOID, WEIGHT_LEVELS, Ranges, Scale
from bneck.graphs.traverse import Traversal
from bneck.nets.build import Net
from bneck.specs.network import Gate, Layer, NetSpec, Size, layers
from bneck.specs.normalisation import IMAGENET, Normalisation

Weights = Mapping[str, np.ndarray[Any, np.dtype[Any]]]
Observer = Callable[[str, Tensor], None]
SIX = (0.0, 6.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A network in 8 bits: folded float weights and the ranges of its activations."""

    weights: Weights
    ranges: Ranges
    hswish: HSwish


class Emulation(nn.Module, Traversal[Tensor]):
    """Folded weights in float, rounded as the runtime will round them wherever `ranges` are given.

    What runs through them is a kind's own `forward`. `rounds` says of a layer's name whether it is
    rounded; None rounds all. `observer` is shown every point's value as it passes.
    """

    def __init__(
        self,
        spec: NetSpec,
        weights: Weights,
        hswish: HSwish,
        ranges: Ranges | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.normalisation: Normalisation = IMAGENET
        self.hswish = hswish
        self.ranges = dict(ranges) if ranges is not None else None
        self.rounds: Callable[[str], bool] | None = None
        self.observer: Observer | None = None
        self.parameters_by_name = nn.ParameterDict(
            {_key(name): nn.Parameter(torch.from_numpy(w.copy())) for name, w in weights.items()}
        )

    @abstractmethod
    def walk(self, size: Size) -> Iterable[Layer]:
        """The layers that it emulates, for images of `size`."""

    def weights(self) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        """The folded weights as they are now."""
        return {
            name.replace("/", "."): value.detach().contiguous().numpy()
            for name, value in self.parameters_by_name.items()
        }

    def point(self, name: str, x: Tensor, owner: str) -> Tensor:
        """`x`, rounded to the range of a point that belongs to the layer `owner`."""
        if self.observer:
            self.observer(name, x)
        if not self._rounding(owner):
            return x
        assert self.ranges is not None
        return self.rounded(x, self.ranges[name])

    def fixed(self, x: Tensor, values: tuple[float, float], owner: str) -> Tensor:
        """`x`, rounded to a range that does not depend on the images."""
        return self.rounded(x, values) if self._rounding(owner) else x

    def rounded(self, x: Tensor, values: tuple[float, float]) -> Tensor:
        """`x` rounded to 8 bits over a range."""
        scale = Scale.of(*values)
        return torch.fake_quantize_per_tensor_affine(x, scale.step, scale.zero, -128, 127)

    def kernel(self, name: str) -> Tensor:
        """A convolution's weight, rounded to 8 bits with a step an output channel."""
        weight = self.parameters_by_name[_key(name)]
        steps = weight.detach().abs().amax((1, 2, 3)) / WEIGHT_LEVELS
        return torch.fake_quantize_per_channel_affine(
            weight,
            steps.clamp(min=LEAST_SCALE),
            torch.zeros(len(steps), dtype=torch.int32),
            0,
            -WEIGHT_LEVELS,
            WEIGHT_LEVELS,
        )

    def _rounding(self, owner: str) -> bool:
        if self.ranges is None:
            return False
        return self.rounds is None or self.rounds(owner)

    def conv(self, layer: Layer, x: Tensor) -> Tensor:
        y = self._convolution(layer, layer.name, x, pads(self.spec.padding, layer))
        match layer.act:
            case "relu":
                y = F.relu(y)
            case "relu6":
                y = F.relu6(y)
            case "hswish" if self.hswish == "fused":
                y = F.hardswish(y)
            case "hswish":
                y = self.point(f"{layer.name}.pre", y, layer.name)
                if self.hswish == "split":
                    y = y * (self.fixed(F.relu6(y + 3), SIX, layer.name) / 6)
                else:
                    y = F.hardswish(y)
        return self.point(layer.name, y, layer.name)

    def squeeze(self, layer: Layer, x: Tensor) -> Tensor:
        name = layer.name
        pooled = self.point(f"{name}.pool", x.mean((2, 3), keepdim=True), name)
        reduced = F.relu(self._convolution(layer, f"{name}.reduce", pooled))
        reduced = self.point(f"{name}.reduce", reduced, name)
        return self.point(
            name, x * self._gate(layer, f"{name}.gate", reduced, self.spec.se_gate), name
        )

    def _gate(self, layer: Layer, name: str, x: Tensor, kind: Gate) -> Tensor:
        gate = self._convolution(layer, name, x)
        if kind == "sigmoid":
            gate = torch.sigmoid(self.point(f"{name}.pre", gate, layer.name))
            return self.fixed(gate, SIGMOID, layer.name)
        return self.fixed(F.hardsigmoid(gate), GATE, layer.name)

    def pool(self, layer: Layer, x: Tensor) -> Tensor:
        return self.point(layer.name, x.mean((2, 3), keepdim=True), layer.name)

    def add(self, layer: Layer, x: Tensor, row_input: Tensor) -> Tensor:
        return self.point(f"{layer.name}.sum", x + row_input, layer.name)

    def _convolution(
        self, layer: Layer, name: str, x: Tensor, around: list[int] | None = None
    ) -> Tensor:
        key = f"{name}.weight"
        weight = (
            self.kernel(key) if self._rounding(layer.name) else self.parameters_by_name[_key(key)]
        )
        bias = self.parameters_by_name[_key(f"{name}.bias")]
        if around is None:
            return F.conv2d(x, weight, bias)
        top, left, bottom, right = around
        padding = (top, left)
        if (top, left) != (bottom, right):
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
        groups = layer.out if layer.kind == "depthwise" else 1
        return F.conv2d(x, weight, bias, layer.stride, padding, layer.dilation, groups)


class QuantizedNet(Emulation):
    """A classification network in emulation."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, channels, H, W) -> class scores (N, classes)."""
        size = (images.shape[2], images.shape[3])
        x = self.point("image", images, "image")
        return self.through(self.walk(size), x).flatten(1)

    def walk(self, size: Size) -> Iterable[Layer]:
        return layers(self.spec, size)

    def conv(self, layer: Layer, x: Tensor) -> Tensor:
        if layer.name == "classifier":
            x = F.dropout(x, self.spec.dropout, self.training)
        return super().conv(layer, x)


def emulation(net: Net, quantized: Quantized) -> QuantizedNet:
    """The network as the 8-bit file will answer, in evaluation mode."""
    emulated = QuantizedNet(net.spec, quantized.weights, quantized.hswish, quantized.ranges)
    emulated.normalisation = net.normalisation
    return emulated.eval()


def _key(name: str) -> str:
    return name.replace(".", "/")  # torch takes a dot for a path
