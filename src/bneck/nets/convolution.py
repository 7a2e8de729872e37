"""Convolution as `torch.nn.functional.conv2d`, with what is slow on CPUs done in other ways.

Two things are: a 1 x 1 convolution of a 1 x 1 map, and the gradient of a depthwise weight that is wider than
three taps, or has a small map. For those oneDNN has no kernel of its own, and the general one takes two to ten
times as long (docs/lab-log.md). The results are the same up to the order of sums.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]
SMALL = 4  # pixels of a map's side
TAPS = 3  # as many as a depthwise gradient of oneDNN takes side by side


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None,
    stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1,
) -> Tensor:  # fmt: skip
    """(N, C, H, W) by (out, C / groups, kernel, kernel) -> (N, out, H', W')."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if x.shape[2:] == weight.shape[2:] == (1, 1) and groups == 1 and not any(padding):
        # Permuted, for the gradient then has the strides of a weight with channels last.
        matrix = weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(x.flatten(1), matrix, bias)[:, :, None, None]
    if groups > 1 and groups == x.shape[1] == len(weight) and dilation == (1, 1):
        return _depthwise(x, weight, bias, stride, padding)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair
) -> Tensor:
    slow = weight.shape[3] > TAPS or min(x.shape[2:]) <= SMALL
    exact = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not (slow and exact and torch.is_grad_enabled() and weight.requires_grad):
        return F.conv2d(x, weight, bias, stride, padding, 1, len(weight))
    y: Tensor = _Depthwise.apply(x, weight, stride, padding)  # type: ignore[no-untyped-call]
    return y if bias is None else y + bias[:, None, None]


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose gradients are taken a few taps at a time.

    Without the outer taps that only ever see padding.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.outer = stride, _outer(weight, padding, (x.shape[2], x.shape[3]), stride)
        ctx.padding = padding[0] - ctx.outer[0], padding[1] - ctx.outer[1]
        return F.conv2d(x, _inner(weight, ctx.outer), None, stride, ctx.padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        inner = _inner(weight, ctx.outer)
        above = above.contiguous(memory_format=torch.channels_last)
        wanted, weight_wanted = ctx.needs_input_grad[:2]
        of_input = of_weight = None
        if wanted:
            of_input = _of_input(above, x, inner, ctx.stride, ctx.padding)
        if weight_wanted:
            of_weight = torch.zeros_like(weight)  # with its strides
            found = _of_weight(above, x, inner, ctx.stride, ctx.padding)
            _inner(of_weight, ctx.outer).copy_(found)
        return of_input, of_weight, None, None


def _outer(weight: Tensor, padding: Pair, size: Pair, stride: Pair) -> Pair:
    """How many rows and columns of taps, on each side, only ever see padding."""
    outer = list[int]()
    for side, step, pad, kernel in zip(size, stride, padding, weight.shape[2:], strict=True):
        out = (side + 2 * pad - kernel) // step + 1
        before, after = pad - (out - 1) * step, kernel - side - pad
        outer.append(max(0, min(before, after)))
    return outer[0], outer[1]


def _inner(weight: Tensor, outer: Pair) -> Tensor:
    (high, wide), (rows, columns) = weight.shape[2:], outer
    return weight[:, :, rows : high - rows, columns : wide - columns]


def _of_input(above: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """The gradient of the input; without a stride it is a convolution by the turned kernel."""
    around = tuple(k - 1 - pad for k, pad in zip(weight.shape[2:], padding, strict=True))
    if stride == (1, 1) and min(around) >= 0:
        return F.conv2d(above, weight.flip(2, 3), None, 1, around, 1, len(weight))
    found: Tensor = _gradients(above, x, weight, stride, padding, (True, False, False))[0]
    return found


def _of_weight(above: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """The gradient of the weight, a few columns of taps at a time, of an input that is padded before.

    oneDNN's own kernel wants little padding and few taps.
    """
    (height, width), (high, wide) = x.shape[2:], weight.shape[2:]
    rows, columns = ((n - 1) * step + 1 for n, step in zip(above.shape[2:], stride, strict=True))
    bottom = rows + high - 1 - height - padding[0]
    found = list[Tensor]()
    for first in range(0, wide, TAPS):
        taps = weight[:, :, :, first : first + TAPS]
        left = padding[1] - first
        right = columns + taps.shape[3] - 1 - width - left
        seen = F.pad(x, (left, right, padding[0], bottom))
        found.append(_gradients(above, seen, taps, stride, (0, 0), (False, True, False))[1])
    return torch.cat(found, 3)


def _gradients(
    above: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, wanted: tuple[bool, ...]
) -> Any:
    """Those of the input, the weight and the bias that are wanted, as torch takes them."""
    return torch.ops.aten.convolution_backward(
        above, x, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), wanted
    )
