"""SSDLite as a module: the rows of a network, extra feature maps, and two heads on every map."""

from __future__ import annotations

import math
from itertools import groupby

import torch
from torch import Tensor, nn

from bneck.nets.build import WrappedNet
from bneck.nets.ops import BneckRow, ConvBnAct, initialise
from bneck.tasks.detect.head import Detector

HEAD_STD = 0.03  # of the authors' head convs
PRIOR = 0.01  # first score of every class


class DetectorNet(WrappedNet):
    """A detector: `rows` of its network, `extras`, and heads `boxes` and `scores`.

    Parameter names of `rows` are also the classification network's. `build_detector` initialises its
    weights.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__(detector)
        self.detector = detector
        self.extras, self.boxes, self.scores = map(self._blocks, ("extras", "boxes", "scores"))

    def _blocks(self, kind: str) -> nn.ModuleList:
        """Layers named `KIND.INDEX.PART` as a list of blocks with their parts by name."""
        blocks = nn.ModuleList()
        own = (layer for layer in self.detector.layers() if layer.name.startswith(f"{kind}."))
        for _, group in groupby(own, key=lambda layer: layer.name.split(".")[1]):
            block = nn.Sequential()
            for layer in group:
                part = layer.name.rpartition(".")[2]
                block.add_module(part, ConvBnAct(layer, self.detector.network))
            blocks.append(block)
        return blocks

    def maps(self, x: Tensor) -> list[Tensor]:
        """Images (N, channels, H, W) -> C4, C5 and the extra feature maps."""
        found = []
        for index, row in enumerate(self.rows):
            if index != self.detector.c4_row:
                x = row(x)
            elif self.detector.taps_expansion:
                assert isinstance(row, BneckRow)
                y = x
                for name, part in row.named_children():
                    y = part(y)
                    if name == "expand":
                        found.append(y)
                x = x + y if row.adds else y
            else:
                found.append(x)
                x = row(x)
        found.append(x)
        for block in self.extras:
            x = block(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, channels, H, W) -> offsets (N, anchors, 4), logits (N, anchors, slots)."""
        offsets, logits = [], []
        for one, boxes, scores in zip(self.maps(x), self.boxes, self.scores, strict=True):
            offsets.append(_by_anchor(boxes(one), 4))
            logits.append(_by_anchor(scores(one), self.detector.slots))
        return torch.cat(offsets, 1), torch.cat(logits, 1)


def _by_anchor(x: Tensor, numbers: int) -> Tensor:
    """(N, anchors per cell x numbers, H, W) -> (N, H x W x anchors per cell, numbers)."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, numbers)


def build_detector(detector: Detector, *, seed: int = 0) -> DetectorNet:
    """The module of a detector, freshly initialised; the same seed gives the same weights.

    Backbone and extra feature maps begin as a classification network does; the heads' last convs with
    a standard deviation of 0.03 as the authors have them, and scores at 0.01.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = DetectorNet(detector)
        initialise(net)
        # The authors' settings ask for scores of 0.01, though their code did not do it; a focal loss
        # needs no warm-up then.
        for heads, bias in ((net.boxes, 0.0), (net.scores, math.log(PRIOR / (1 - PRIOR)))):
            for head in heads:
                conv = head.get_submodule("predict.conv")
                assert isinstance(conv, nn.Conv2d)
                assert conv.bias is not None
                nn.init.normal_(conv.weight, std=HEAD_STD)
                nn.init.constant_(conv.bias, bias)
    return net
