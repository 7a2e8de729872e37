"""A net as an 8-bit runtime computes it, in torch: to calibrate, to evaluate, to fine-tune.

Batch norm is folded before anything is rounded, so fine-tuning has no statistics that could drift
apart from those of the shipped file. Rounding passes gradients straight through where a value lies
inside its range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bneck.graphs.forms import HSwish
from bneck.graphs.quantization import (
    GATES,
    LEAST_SCALE,
    WEIGHT_LEVELS,
    Array,
    Ranges,
    Scale,
    float_start,
)
from bneck.graphs.weights import pads
from bneck.nets.build import SIZE, WrappedNet
from bneck.nets.convolution import conv2d
from bneck.specs.network import Gate, Layer
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.specs.operators import Operators, Pair
from bneck.specs.wrapper import Wrapped

Weights = Mapping[str, Array]
SIX = (0.0, 6.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A network in 8 bits: folded float weights and the ranges of its activations."""

    weights: Weights
    ranges: Ranges
    hswish: HSwish


class QuantizedNet(nn.Module, Operators[Tensor]):
    """A wrapped network in emulation: folded weights in float, rounded as a runtime does if there are `ranges`.

    `rounds` says of a layer's name whether it is rounded; None rounds all. `observer` is called with
    every point's name and value, `convolved` with every convolution's name, input and weight. `dither`
    draws which of its two neighbours a value is rounded to, the nearer one more often; None takes the
    nearer one.
    """

    def __init__(
        self, wrapped: Wrapped, weights: Weights, hswish: HSwish, ranges: Ranges | None = None
    ) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.spec = wrapped.network
        self.normalisation: Normalisation = IMAGENET
        self.hswish = hswish
        self.ranges = dict(ranges) if ranges is not None else None
        walk, taps = wrapped.layers((SIZE, SIZE)), wrapped.feeds().values()
        self.in_float = {layer.name for layer in float_start(walk, hswish, taps)}
        self.rounds: Callable[[str], bool] | None = None
        self.observer: Callable[[str, Tensor], None] | None = None
        self.convolved: Callable[[str, Tensor, Tensor], None] | None = None
        self.dither: torch.Generator | None = None
        folded = wrapped.arranged(weights)
        self.parameters_by_name = nn.ParameterDict(
            {_key(name): nn.Parameter(torch.from_numpy(w.copy())) for name, w in folded.items()}
        )

    def forward(self, images: Tensor) -> Any:
        """Images (N, channels, H, W) -> what the module answers: a tensor, or several as a tuple."""
        size = (images.shape[2], images.shape[3])
        answer = self.wrapped.answer(self, self.point("image", images, "image"), size)
        found = tuple(answer.values())
        return found if len(found) > 1 else found[0]

    def weights(self) -> dict[str, Array]:
        """The folded weights as they are now."""
        named = self.parameters_by_name.items()
        return {key.replace("/", "."): value.detach().contiguous().numpy() for key, value in named}

    def point(self, name: str, x: Tensor, owner: str) -> Tensor:
        """`x`, rounded to the range of a point that belongs to the layer `owner`."""
        if self.observer:
            self.observer(name, x)
        if self.ranges is None or (name not in self.ranges and owner in self.in_float | {"image"}):
            return x
        return self._rounded(x, self.ranges[name], owner)

    def fixed(self, x: Tensor, values: tuple[float, float], owner: str) -> Tensor:
        """`x`, rounded to 8 bits over a range that does not depend on the images."""
        return x if owner in self.in_float else self._rounded(x, values, owner)

    def _rounded(self, x: Tensor, values: tuple[float, float], owner: str) -> Tensor:
        if not self._rounding(owner):
            return x
        scale = Scale.of(*values)
        if self.dither is not None:
            x = x + (torch.rand(x.shape, generator=self.dither) - 0.5) * scale.step
        return torch.fake_quantize_per_tensor_affine(x, scale.step, scale.zero, -128, 127)

    def kernel(self, name: str, owner: str) -> Tensor:
        """A convolution's weight, rounded to 8 bits with a step per output channel."""
        weight: Tensor = self.parameters_by_name[_key(name)]
        if owner in self.in_float or not self._rounding(owner):
            return weight
        steps = (weight.detach().abs().amax((1, 2, 3)) / WEIGHT_LEVELS).clamp(min=LEAST_SCALE)
        zeros = torch.zeros(len(steps), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            weight, steps, zeros, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS
        )

    def _rounding(self, owner: str) -> bool:
        return self.ranges is not None and (self.rounds is None or self.rounds(owner))

    def conv(self, layer: Layer, x: Tensor) -> Tensor:
        if layer.name == "classifier":
            x = F.dropout(x, self.spec.dropout, self.training)
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
        gate = self._gate(layer, f"{name}.gate", reduced, self.spec.se_gate)
        return self.point(name, x * gate, name)

    def _gate(self, layer: Layer, name: str, x: Tensor, kind: Gate) -> Tensor:
        gate = self._convolution(layer, name, x)
        if kind == "sigmoid":
            gate = torch.sigmoid(self.point(f"{name}.pre", gate, layer.name))
        else:
            gate = F.hardsigmoid(gate)
        return self.fixed(gate, GATES[kind], layer.name)

    def pool(self, layer: Layer, x: Tensor) -> Tensor:
        return self.point(layer.name, x.mean((2, 3), keepdim=True), layer.name)

    def add(self, layer: Layer, x: Tensor, row_input: Tensor) -> Tensor:
        return self.point(f"{layer.name}.sum", x + row_input, layer.name)

    def _convolution(
        self, layer: Layer, name: str, x: Tensor, around: list[int] | None = None
    ) -> Tensor:
        weight = self.kernel(f"{name}.weight", layer.name)
        bias = self.parameters_by_name[_key(f"{name}.bias")]
        if self.convolved:
            self.convolved(name, x, weight)
        if around is None:
            return conv2d(x, weight, bias)
        top, left, bottom, right = around
        padding = (top, left)
        if (top, left) != (bottom, right):
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
        groups = layer.out if layer.kind == "depthwise" else 1
        stride, dilation = (layer.stride, layer.stride), (layer.dilation, layer.dilation)
        return conv2d(x, weight, bias, stride, padding, dilation, groups)

    def flat(self, name: str, x: Tensor) -> Tensor:
        return x.flatten(1)

    def listed(self, name: str, x: Tensor, numbers: int) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(len(x), -1, numbers)

    def joined(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), 1)

    def real(self, x: Tensor) -> Tensor:
        return x

    def mean(self, name: str, x: Tensor) -> Tensor:
        return self.point(name, x.mean((2, 3), keepdim=True), name)

    def windows(self, layer: Layer, x: Tensor, window: Pair, strides: Pair) -> Tensor:
        return self.point(layer.name, F.avg_pool2d(x, window, strides), layer.name)

    def opened(self, layer: Layer, x: Tensor, gate: Gate) -> Tensor:
        return self._gate(layer, layer.name, x, gate)

    def product(self, name: str, x: Tensor, gate: Tensor) -> Tensor:
        return self.point(name, x * gate, name)

    def resized(
        self, name: str, x: Tensor, size: Pair, have: Pair, gate: Gate | None = None
    ) -> Tensor:
        y = resize(x, size)
        return y if gate is None else self.fixed(y, GATES[gate], name)

    def total(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def raised(self, name: str, x: Tensor, by: Tensor) -> Tensor:
        return self.point(name, F.relu(x + by), name)

    def best(self, name: str, x: Tensor) -> Tensor:
        return x.argmax(1)


def emulator(
    net: WrappedNet, weights: Weights, hswish: HSwish, ranges: Ranges | None = None
) -> QuantizedNet:
    """A net in emulation with other weights, in evaluation mode; in float where there are no ranges."""
    made = QuantizedNet(net.wrapped, weights, hswish, ranges)
    made.normalisation = net.normalisation
    return made.eval()


def emulation(net: WrappedNet, quantized: Quantized, *, dither: int | None = None) -> QuantizedNet:
    """A net as its 8-bit file will answer, in evaluation mode; `dither` is the seed of another rounding."""
    made = emulator(net, quantized.weights, quantized.hswish, quantized.ranges)
    if dither is not None:
        made.dither = torch.Generator().manual_seed(dither)
    return made


def resize(x: Tensor, size: Pair) -> Tensor:
    """Bilinear, corners on corners as the authors have it: (N, C, h, w) -> (N, C, *size)."""
    if x.shape[2:] == size:
        return x
    if x.shape[2:] == (1, 1):
        return x.expand(-1, -1, *size)
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def _key(name: str) -> str:
    return name.replace(".", "/")  # torch takes a dot for a path
