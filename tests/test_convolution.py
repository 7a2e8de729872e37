"""Convolution: the values and gradients of torch's own in double precision, for every shape of a network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bneck.nets.convolution import conv2d
from bneck.nets.ops import Conv2d

KERNELS = st.sampled_from([(1, 1), (3, 3), (4, 4), (5, 5), (7, 7), (3, 5), (5, 3)])


def torchs(x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> list[Tensor]:
    """Output and gradients by torch in float64, of a loss that weighs every output differently."""
    return [y.float() for y in learnt(F.conv2d, x.double(), weight.double(), bias, *how)]


def learnt(conv: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> list[Tensor]:
    leaves = [x, weight] if bias is None else [x, weight, bias.to(x.dtype)]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    y = conv(leaves[0], leaves[1], leaves[2] if bias is not None else None, *how)
    weighed = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weighed).sum(), leaves)]


@settings(max_examples=150, deadline=None)
@given(
    kernel=KERNELS,
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    stride=st.sampled_from([1, 2, 3]),
    padded=st.booleans(),
    dilation=st.sampled_from([1, 2]),
    channels=st.integers(1, 20),
    out=st.one_of(st.none(), st.integers(1, 20)),  # None is depthwise
    batch=st.integers(1, 5),
    biased=st.booleans(),
    last=st.booleans(),
)
def test_values_and_gradients_are_those_of_torch(
    kernel: tuple[int, int], size: tuple[int, int], stride: int, padded: bool, dilation: int, channels: int,
    out: int | None, batch: int, biased: bool, last: bool,
) -> None:  # fmt: skip
    reach = [dilation * (k - 1) + 1 for k in kernel]
    padding = tuple(r // 2 for r in reach) if padded else (0, 0)
    if any(n + 2 * p < r for n, p, r in zip(size, padding, reach, strict=True)):
        return
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, *size, generator=rng)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    weight = torch.randn(out or channels, channels if out else 1, *kernel, generator=rng)
    bias = torch.randn(len(weight), generator=rng) if biased else None
    how = (stride, stride), padding, (dilation, dilation), 1 if out else channels

    for ours, theirs in zip(
        learnt(conv2d, x, weight, bias, *how), torchs(x, weight, bias, *how), strict=True
    ):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("learnt", [0, 1])
def test_a_frozen_weight_or_input_gets_no_gradient(learnt: int) -> None:
    pair = [torch.randn(2, 8, 6, 6), torch.randn(8, 1, 5, 5)]
    pair[learnt].requires_grad_()
    conv2d(*pair, None, padding=(2, 2), groups=8).sum().backward()
    assert pair[learnt].grad is not None
    assert pair[1 - learnt].grad is None


@pytest.mark.parametrize(
    ("groups", "kernel", "size"), [(8, 5, 1), (8, 5, 12), (8, 3, 4), (1, 1, 1)]
)
def test_gradients_have_the_strides_of_their_weights(groups: int, kernel: int, size: int) -> None:
    """Processes that train together exchange them as they lie in memory, and warn of others."""
    conv = Conv2d(8, 8, kernel, padding=kernel // 2, groups=groups, bias=False)
    torch.nn.init.normal_(conv.weight)
    conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    conv(torch.randn(4, 8, size, size)).sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.stride() == conv.weight.stride()


@pytest.mark.parametrize("size", [1, 2, 12])
def test_autocast_still_decides_the_precision(size: int) -> None:
    conv = Conv2d(8, 8, 5, padding=2, groups=8, bias=False)
    torch.nn.init.normal_(conv.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv(torch.randn(4, 8, size, size))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.dtype == torch.float32


@pytest.mark.parametrize(("groups", "kernel", "size"), [(8, 5, 4), (1, 1, 1)])
def test_a_traced_convolution_is_one_operator(groups: int, kernel: int, size: int) -> None:
    conv = Conv2d(8, 8, kernel, padding=kernel // 2, groups=groups)
    torch.nn.init.normal_(conv.weight)
    torch.nn.init.zeros_(conv.bias)
    program = torch.export.export(conv.eval(), (torch.randn(1, 8, size, size),))
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert calls == ["aten.conv2d.default"]
