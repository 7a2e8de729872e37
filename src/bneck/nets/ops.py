"""The operators that rows are made of, as modules. Each decides in `__init__`; `forward` only flows."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bneck.nets.convolution import conv2d
from bneck.specs.network import Gate, Layer, NetSpec


class Hardswish(nn.Hardswish):
    """h-swish; in place only where nothing is learnt, since its gradient needs the input."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        return F.hardswish(x, inplace=not torch.is_grad_enabled())


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "hswish": Hardswish,  # section 5.2
}
GATES: dict[Gate, Callable[[], nn.Module]] = {"hsigmoid": nn.Hardsigmoid, "sigmoid": nn.Sigmoid}


class Conv2d(nn.Conv2d):
    """Convolution whose weights are whatever the memory holds until `initialise` or a load.

    Torch's own initialisation takes longer than all else when a shrunk net is made.
    """

    def reset_parameters(self) -> None:
        """Leave the weights alone."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        stride, padding, dilation = self.stride, self.padding, self.dilation
        return conv2d(input, weight, bias, stride, padding, dilation, self.groups)  # type: ignore[arg-type]


class SameConv2d(Conv2d):
    """Convolution with TensorFlow's SAME padding, which depends on the input size."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""
        pads: list[int] = []
        for axis in (1, 0):  # F.pad takes the last axis first
            size = x.shape[2 + axis]
            reach = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
            total = max(0, (-(-size // self.stride[axis]) - 1) * self.stride[axis] + reach - size)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


class ConvBnAct(nn.Module):
    """Convolution, then batch norm (or a bias), then the nonlinearity, of one `Layer`."""

    def __init__(self, layer: Layer, spec: NetSpec) -> None:
        super().__init__()
        same = spec.padding == "same" and layer.kernel > 1
        self.conv = (SameConv2d if same else Conv2d)(
            layer.width_in, layer.out, layer.kernel, layer.stride,
            padding=0 if same else layer.dilation * (layer.kernel - 1) // 2,
            dilation=layer.dilation, bias=not layer.bn,
            groups=layer.out if layer.kind == "depthwise" else 1,
        )  # fmt: skip
        norm = nn.BatchNorm2d(layer.out, eps=spec.bn_eps, momentum=spec.bn_momentum)
        self.bn = norm if layer.bn else nn.Identity()
        self.act = ACTIVATIONS[layer.act]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, H', W')."""
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


class SqueezeExcite(nn.Module):
    """Pool, reduce, ReLU, gate, multiply (section 5.3, Fig. 4)."""

    def __init__(self, layer: Layer, gate: Gate) -> None:
        super().__init__()
        self.reduce = Conv2d(layer.out, layer.mid, 1)
        self.gate = Conv2d(layer.mid, layer.out, 1)
        self.sigmoid = GATES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        squeezed = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        scaled: Tensor = x * self.sigmoid(self.gate(squeezed))
        return scaled


class GlobalPool(nn.Module):
    """Mean over the map."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 1, 1)."""
        return x.mean((2, 3), keepdim=True)


class BneckRow(nn.Module):
    """Start, expand, depthwise, squeeze-and-excite, project, add: the layers of one bneck row."""

    def __init__(self, walk: list[Layer], spec: NetSpec) -> None:
        super().__init__()
        self.adds = walk[-1].adds
        for layer in walk:
            part = layer.name.rpartition(".")[2]
            if layer.kind == "squeeze":
                self.add_module(part, SqueezeExcite(layer, spec.se_gate))
            else:
                self.add_module(part, ConvBnAct(layer, spec))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, H', W')."""
        y = x
        for part in self.children():
            y = part(y)
        return x + y if self.adds else y


def initialise(module: nn.Module) -> None:
    """Weights before training: convolutions by fan-out, the classifier small, biases zero."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            if name.endswith("classifier"):
                nn.init.normal_(part.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(part.weight, mode="fan_out")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
