"""Networks whose modules are named as torchvision and timm name theirs, written from those names.

Their forward pass is plain PyTorch and knows nothing of bneck, so equal answers after an import
prove that every tensor found its place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool

ACTS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hswish": nn.Hardswish, "linear": nn.Identity}


def conv(into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)


def conv_bn_act(
    into: int, out: int, act: str, eps: float, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        conv(into, out, kernel, stride, groups), nn.BatchNorm2d(out, eps), ACTS[act]()
    )


class Fc(nn.Module):
    """Torchvision's squeeze-and-excite: fc1, fc2."""

    def __init__(self, width: int, mid: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, mid, 1), nn.Conv2d(mid, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1))))
        return x * F.hardsigmoid(gate)


class V3Block(nn.Module):
    def __init__(self, row: Bneck, into: int, eps: float) -> None:
        super().__init__()
        wide = row.expanded
        parts: list[nn.Module] = []
        if wide != into:
            parts.append(conv_bn_act(into, wide, row.act, eps))
        parts.append(conv_bn_act(wide, wide, row.act, eps, row.kernel, row.stride, wide))
        if row.se:
            parts.append(Fc(wide, row.se))
        parts.append(conv_bn_act(wide, row.out, "linear", eps))
        self.block = nn.Sequential(*parts)
        self.adds = row.stride == 1 and into == row.out

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + x if self.adds else self.block(x)


class V2Block(nn.Module):
    def __init__(self, row: Bneck, into: int, eps: float) -> None:
        super().__init__()
        wide = row.expanded
        parts: list[nn.Module] = []
        if wide != into:
            parts.append(conv_bn_act(into, wide, row.act, eps))
        parts.append(conv_bn_act(wide, wide, row.act, eps, row.kernel, row.stride, wide))
        parts += [conv(wide, row.out), nn.BatchNorm2d(row.out, eps)]
        self.conv = nn.Sequential(*parts)
        self.adds = row.stride == 1 and into == row.out

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + x if self.adds else self.conv(x)


class Torchvision(nn.Module):
    """V3 (a conv after the pool) or V2 (none)."""

    def __init__(self, spec: NetSpec, classes: int) -> None:
        super().__init__()
        v3 = isinstance(spec.rows[-1], Conv)
        eps = 1e-3 if v3 else 1e-5
        into, features = 3, []
        for row in spec.rows[: spec.pool_at]:
            if isinstance(row, Conv):
                features.append(conv_bn_act(into, row.out, row.act, eps, row.kernel, row.stride))
            elif isinstance(row, Bneck):
                features.append((V3Block if v3 else V2Block)(row, into, eps))
            into = row.out  # type: ignore[union-attr]
        self.features = nn.Sequential(*features)
        if v3:
            wide = spec.rows[-1].out  # type: ignore[union-attr]
            self.classifier = nn.Sequential(
                nn.Linear(into, wide), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(wide, classes)
            )
        else:
            self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(into, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class Same(nn.Module):
    """TensorFlow's SAME before a convolution without padding, for inputs that stride 2 divides."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        total = kernel - stride if stride > 1 else kernel - 1
        self.pads = (total // 2, total - total // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads)


class TimmBlock(nn.Module):
    """`ir` (conv_pw, conv_dw, conv_pwl) or, without an expand convolution, `ds` (conv_dw, conv_pw)."""

    def __init__(self, row: Bneck, into: int, eps: float, gate: str, same: bool) -> None:
        super().__init__()
        wide, self.act, self.gate, self.expands = row.expanded, ACTS[row.act](), gate, False
        last = "2"
        if wide != into:
            self.expands, last = True, "3"
            self.conv_pw, self.bn1 = conv(into, wide), nn.BatchNorm2d(wide, eps)
        self.conv_dw = conv(wide, wide, row.kernel, row.stride, wide)
        self.pad = nn.Identity()
        if same:
            self.conv_dw.padding, self.pad = (0, 0), Same(row.kernel, row.stride)
        self.add_module("bn2" if self.expands else "bn1", nn.BatchNorm2d(wide, eps))
        if row.se:
            self.se = nn.Module()
            self.se.conv_reduce = nn.Conv2d(wide, row.se, 1)
            self.se.conv_expand = nn.Conv2d(row.se, wide, 1)
        self.add_module("conv_pwl" if self.expands else "conv_pw", conv(wide, row.out))
        self.add_module(f"bn{last}", nn.BatchNorm2d(row.out, eps))
        self.adds = row.stride == 1 and into == row.out

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv_pw(x))) if self.expands else x
        y = self.act((self.bn2 if self.expands else self.bn1)(self.conv_dw(self.pad(y))))
        if hasattr(self, "se"):
            z = self.se.conv_expand(F.relu(self.se.conv_reduce(y.mean((2, 3), keepdim=True))))
            y = y * (F.hardsigmoid(z) if self.gate == "hsigmoid" else z.sigmoid())
        y = self.bn3(self.conv_pwl(y)) if self.expands else self.bn2(self.conv_pw(y))
        return y + x if self.adds else y


class TimmConv(nn.Module):
    def __init__(self, row: Conv, into: int, eps: float) -> None:
        super().__init__()
        self.conv, self.bn1 = conv(into, row.out), nn.BatchNorm2d(row.out, eps)
        self.act = ACTS[row.act]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn1(self.conv(x)))


class Timm(nn.Module):
    """`stages` says how many blocks each stage has; a head conv after the pool has a bias."""

    def __init__(self, spec: NetSpec, classes: int, stages: list[int], *, port: bool) -> None:
        super().__init__()
        eps = 1e-3 if port else 1e-5
        stem, *middle, head = [row for row in spec.rows if not isinstance(row, Pool)]
        assert isinstance(stem, Conv)
        assert isinstance(head, Conv)
        self.conv_stem = conv(3, stem.out, stem.kernel, stem.stride)
        self.stem_pad: nn.Module = nn.Identity()
        if port:
            self.conv_stem.padding, self.stem_pad = (0, 0), Same(stem.kernel, stem.stride)
        self.bn1, self.act1 = nn.BatchNorm2d(stem.out, eps), ACTS[stem.act]()
        into, blocks = stem.out, []
        for row in middle:
            blocks.append(
                TimmBlock(row, into, eps, spec.se_gate, port)
                if isinstance(row, Bneck)
                else TimmConv(row, into, eps)  # type: ignore[arg-type]
            )
            into = row.out  # type: ignore[union-attr]
        assert sum(stages) == len(blocks)
        ends = [sum(stages[: i + 1]) for i in range(len(stages))]
        self.blocks = nn.Sequential(
            *(nn.Sequential(*blocks[end - n : end]) for n, end in zip(stages, ends, strict=True))
        )
        self.pooled_first = not head.bn
        self.conv_head = nn.Conv2d(into, head.out, 1, bias=not head.bn)
        if head.bn:
            self.bn2 = nn.BatchNorm2d(head.out, eps)
        self.act2 = ACTS[head.act]()
        self.classifier = nn.Linear(head.out, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.act1(self.bn1(self.conv_stem(self.stem_pad(x)))))
        if self.pooled_first:
            x = self.act2(self.conv_head(x.mean((2, 3), keepdim=True))).flatten(1)
        else:
            x = self.act2(self.bn2(self.conv_head(x))).mean((2, 3))
        return self.classifier(x)


def trained(net: nn.Module, seed: int = 0) -> nn.Module:
    """With statistics and weights as training leaves them: none of them trivial."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.0005, 0.5),  # small ones show a wrong epsilon
            ):
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fan = module.weight[0].numel()
            module.weight.data.normal_(0, fan**-0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.uniform_(-0.5, 0.5, generator=generator)
    return net.eval()
