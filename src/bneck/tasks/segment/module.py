"""The module of a segmenter: a network's features, then R-ASPP or LR-ASPP (6.4, Fig. 10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bneck.nets.build import SIZE, WrappedNet
from bneck.nets.ops import GATES, BneckRow, Conv2d, ConvBnAct, initialise
from bneck.nets.quantize import resize
from bneck.specs.network import Layer
from bneck.tasks.segment.head import Segmenter


class SegmentNet(WrappedNet):
    """A segmenter: `rows` as in the network's own module, then `head`. `seg` says what it is.

    `build_segmenter` initialises its weights.
    """

    def __init__(self, seg: Segmenter) -> None:
        super().__init__(seg)
        self.seg = seg
        walk = list(seg.layers(SIZE))
        head = {one.name.rpartition(".")[2]: one for one in walk if one.row == seg.features}
        self.head = LrAspp(head, seg) if seg.head == "lraspp" else RAspp(head, seg)
        self.tapped = next(layer.name.rpartition(".")[2] for layer in walk if seg.is_low(layer))

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Images (N, channels, H, W) -> class scores (N, classes, *size), before softmax.

        `size` is (height, width) in pixels, the images' own where it is None.
        """
        scores = self.head(*self.features(x))
        return resize(scores, (x.shape[2], x.shape[3]) if size is None else size)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> the low-level map (N, C, H / 8, W / 8) and the last map; sizes rounded up."""
        low = x
        for index, row in enumerate(self.rows):
            if index != self.seg.tap:
                x = row(x)
                continue
            if not isinstance(row, BneckRow):
                low = x = row(x)
                continue
            y = x
            for name, part in row.named_children():
                y = part(y)
                if name == self.tapped:
                    low = y
            x = x + y if row.adds else y
        return low, x


class LrAspp(nn.Module):
    """LR-ASPP: a gated conv on the last map, brought to 1/8, and the low-level map's own scores."""

    def __init__(self, layer: Mapping[str, Layer], seg: Segmenter) -> None:
        super().__init__()
        self.seg = seg
        self.conv = _conv(layer["conv"], seg)
        self.gate = _scores(layer["gate"])
        self.sigmoid = GATES[seg.gate]()
        self.classifier = _scores(layer["classifier"])
        self.low = _scores(layer["low"])

    def forward(self, low: Tensor, last: Tensor) -> Tensor:
        """Two maps -> scores (N, classes, h, w) at the size of the low-level map."""
        scores: Tensor = self.gated(last, (low.shape[2], low.shape[3])) + self.low(low)
        return scores

    def gated(self, last: Tensor, low_size: tuple[int, int]) -> Tensor:
        """The last map's part of the scores, at the size of the low-level map."""
        size = (last.shape[2], last.shape[3])
        pooled = F.avg_pool2d(last, self.seg.pool_window(size), self.seg.window_stride)
        gate = resize(self.sigmoid(self.gate(pooled)), size)
        scores: Tensor = self.classifier(resize(self.conv(last) * gate, low_size))
        return scores


class RAspp(nn.Module):
    """R-ASPP: a conv on the last map next to one on its mean, joined by one more."""

    def __init__(self, layer: Mapping[str, Layer], seg: Segmenter) -> None:
        super().__init__()
        self.conv = _conv(layer["conv"], seg)
        self.pooled = _conv(layer["pooled"], seg)
        self.project = _conv(layer["project"], seg)
        self.dropout = nn.Dropout(seg.dropout)
        self.classifier = _scores(layer["classifier"])

    def forward(self, low: Tensor, last: Tensor) -> Tensor:
        """Two maps, the first unused -> scores (N, classes, h, w) at the size of the last map."""
        conv = self.conv(last)
        pooled = self.pooled(last.mean((2, 3), keepdim=True)).expand_as(conv)
        joined = self.project(torch.cat((conv, pooled), dim=1))
        scores: Tensor = self.classifier(self.dropout(joined))
        return scores


def build_segmenter(seg: Segmenter, *, seed: int = 0) -> SegmentNet:
    """The module of a segmenter, freshly initialised; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SegmentNet(seg)
        initialise(net)
        if isinstance(net.head, LrAspp):
            # Initialised as the classifier is, since both output scores.
            nn.init.normal_(net.head.low.weight, std=0.01)
    return net


def _conv(layer: Layer, seg: Segmenter) -> ConvBnAct:
    head = replace(seg.network, bn_eps=seg.bn_eps, bn_momentum=seg.bn_momentum)
    return ConvBnAct(layer, head)


def _scores(layer: Layer) -> Conv2d:
    return Conv2d(layer.width_in, layer.out, 1)
