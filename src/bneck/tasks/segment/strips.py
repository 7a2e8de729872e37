"""A segmenter on a huge image, row by row in strips: the same scores in a fraction of the memory.

Squeeze-and-excite and the pooling windows look at the whole map, so an image cut into tiles would
give other scores. Here each row of the network is worked through in strips of its map, and a row
that squeezes is gone through twice, first for the means. Only the maps between rows are whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bneck.nets.ops import BneckRow, ConvBnAct, SameConv2d, SqueezeExcite
from bneck.tasks.segment.module import LrAspp, SegmentNet

STRIP_NUMBERS = 1 << 24  # at most in a strip of the widest map of a row: 64 MB

Part = Callable[[int, int], Tensor]


@dataclass(frozen=True, slots=True)
class Source:
    """A map that is asked for in parts: `read(top, bottom)` gives (1, C, bottom - top, width)."""

    read: Part
    height: int
    width: int


@torch.inference_mode()
def scores_in_strips(
    net: SegmentNet, image: Source, *, strip_numbers: int = STRIP_NUMBERS
) -> Tensor:
    """What `net.head(*net.features(x))` gives for one image: scores before the last resize.

    Peak memory is that of two neighbouring rows' outputs, the stem's never being whole, and of a
    strip's operators. It takes as long as the whole, and squeezing rows up to twice as long. `image` is
    normalised. A strip of a row's widest map has at most `strip_numbers` numbers.
    """
    net.eval()
    head, source, low = net.head, image, None
    for index, row in enumerate(net.rows):
        made = _Row(row, source, strip_numbers)
        if index == net.seg.tap and isinstance(head, LrAspp):
            low = made.whole(_after(made.spatial, head.low))
        if index == 0 and len(net.rows) > 1:
            source = Source(made.part, made.height, made.width)
        else:
            source = _held(made.whole(made.part))
    last = source.read(0, source.height)
    if isinstance(head, LrAspp):
        assert low is not None
        return head.gated(last, (low.shape[2], low.shape[3])).add_(low)
    scores: Tensor = head(last, last)
    return scores


class _Row:
    """One row of a network on a source of strips."""

    def __init__(self, row: torch.nn.Module, source: Source, strip_numbers: int) -> None:
        self.residual = self.source = source
        parts = dict(row.named_children()) if isinstance(row, BneckRow) else {"depthwise": row}
        if "start" in parts:  # a row of its own, as far as strips go
            begun = _Row(parts["start"], source, strip_numbers)
            self.source = source = _held(begun.whole(begun.part))
        self.adds = isinstance(row, BneckRow) and row.adds
        # Of a fused row the expansion is the spatial convolution, and of one without a kernel too, 1x1.
        self.before = parts.get("expand") if "depthwise" in parts else None
        conv = parts["depthwise"] if "depthwise" in parts else parts["expand"]
        assert isinstance(conv, ConvBnAct)
        self.conv = conv
        self.project = parts.get("project")
        step = conv.conv.stride[0]
        self.height, self.width = -(-source.height // step), -(-source.width // step)
        self.lines = max(1, strip_numbers // (conv.conv.out_channels * source.width * step))
        squeeze = parts.get("se")
        self.gate = self._gate(squeeze) if isinstance(squeeze, SqueezeExcite) else None

    def part(self, top: int, bottom: int) -> Tensor:
        """Rows of the output."""
        y = self.spatial(top, bottom)
        if self.gate is not None:
            y = y * self.gate
        if self.project is not None:
            y = self.project(y)
        return self.residual.read(top, bottom) + y if self.adds else y

    def spatial(self, top: int, bottom: int) -> Tensor:
        """Rows of what the spatial convolution makes, before squeeze-and-excite."""
        conv, source = self.conv.conv, self.source
        step, reach = conv.stride[0], conv.dilation[0] * (conv.kernel_size[0] - 1)
        if isinstance(conv, SameConv2d):
            above, sides = _same(source.height, step, reach)[0], _same(source.width, step, reach)
        else:
            above, sides = int(conv.padding[0]), (int(conv.padding[0]), int(conv.padding[0]))
        first, end = top * step - above, (bottom - 1) * step - above + reach + 1
        x = source.read(max(0, first), min(source.height, end))
        if self.before is not None:
            x = self.before(x)
        pads = (*sides, max(0, -first), max(0, end - source.height))
        x = F.pad(x, pads) if any(pads) else x
        x = F.conv2d(x, conv.weight, conv.bias, step, 0, conv.dilation, conv.groups)
        y: Tensor = self.conv.act(self.conv.bn(x))
        return y

    def whole(self, part: Part) -> Tensor:
        """A map put together from its strips."""
        found: Tensor | None = None
        for top, bottom in self._strips():
            y = part(top, bottom)
            if found is None:
                found = y.new_empty(1, y.shape[1], self.height, y.shape[3])
            found[:, :, top:bottom] = y
        assert found is not None
        return found

    def _gate(self, squeeze: SqueezeExcite) -> Tensor:
        sums = (
            self.spatial(top, bottom).sum((2, 3), keepdim=True, dtype=torch.float64)
            for top, bottom in self._strips()
        )
        total = sum(sums, start=torch.zeros((), dtype=torch.float64))
        mean = (total / (self.height * self.width)).float()
        gate: Tensor = squeeze.sigmoid(squeeze.gate(F.relu(squeeze.reduce(mean))))
        return gate

    def _strips(self) -> Iterator[tuple[int, int]]:
        tops = range(0, self.height, self.lines)
        return ((top, min(top + self.lines, self.height)) for top in tops)


def _after(part: Part, module: torch.nn.Module) -> Part:
    return lambda top, bottom: module(part(top, bottom))


def _held(values: Tensor) -> Source:
    return Source(lambda top, bottom: values[:, :, top:bottom], values.shape[2], values.shape[3])


def _same(size: int, step: int, reach: int) -> tuple[int, int]:
    """What TensorFlow's "same" pads before and after a side."""
    total = max(0, (-(-size // step) - 1) * step + reach + 1 - size)
    return total // 2, total - total // 2
