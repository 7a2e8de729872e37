"""A trained detector's or segmenter's weights in one round a narrower network; see `nets.shrink`.

The rows keep their strongest channels; what stands behind them keeps all of its own and follows its
input: heads on C4 the expansion's channels, those on C5 the last row's, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bneck.nets.ops import ConvBnAct
from bneck.nets.shrink import Kept, ShrinkError, shrink_rows, slice_conv, slice_scores
from bneck.tasks.detect.head import Detector
from bneck.tasks.detect.module import DetectorNet
from bneck.tasks.segment.head import Segmenter
from bneck.tasks.segment.module import LrAspp, RAspp, SegmentNet

ONE = torch.arange(1)  # a depthwise filter has one input


@torch.no_grad()
def shrink_detector(net: DetectorNet, detector: Detector) -> DetectorNet:
    """A new detector round a narrower network that holds the strongest channels of `net`.

    Raises:
        ShrinkError: the detectors differ in more than narrower widths of their networks.
    """
    wide = net.detector
    if (wide.classes, wide.extras) != (detector.classes, detector.extras):
        raise ShrinkError(
            f"detectors of {wide.classes} and {detector.classes} classes, further maps {wide.extras} and "
            f"{detector.extras}: shrinking can only narrow the network"
        )
    narrow = DetectorNet(detector)
    narrow.normalisation = net.normalisation
    kept = shrink_rows(net.rows, narrow.rows, wide.network, detector.network)
    maps = list(_maps(detector, kept))
    for heads, slim in ((net.boxes, narrow.boxes), (net.scores, narrow.scores)):
        for one, other, into in zip(heads, slim, maps, strict=True):
            depthwise, predict = _convs(one)
            narrow_depthwise, narrow_predict = _convs(other)
            slice_conv(depthwise, narrow_depthwise, into, ONE)
            slice_conv(predict, narrow_predict, _all(predict), into)
    for i, (block, other) in enumerate(zip(net.extras, narrow.extras, strict=True)):
        reduce, *others = _convs(block)
        narrow_reduce, *narrow_others = _convs(other)
        slice_conv(reduce, narrow_reduce, _all(reduce), kept.last if i == 0 else _into(reduce))
        for conv, same in zip(others, narrow_others, strict=True):
            same.load_state_dict(conv.state_dict())
    return narrow.train(net.training)


@torch.no_grad()
def shrink_segmenter(net: SegmentNet, seg: Segmenter) -> SegmentNet:
    """A new segmenter round a narrower network that holds the strongest channels of `net`.

    Raises:
        ShrinkError: the segmenters differ in more than narrower widths of their networks.
    """
    if net.seg.settings() != seg.settings():
        raise ShrinkError(
            f"{seg.name} is not {net.seg.name} round a narrower network; shrinking can only narrow it"
        )
    narrow = SegmentNet(seg)
    kept = shrink_rows(net.rows, narrow.rows, net.seg.network, seg.network)
    head, slim = net.head, narrow.head
    slice_conv(head.conv, slim.conv, _all(head.conv), kept.last)
    if isinstance(head, LrAspp) and isinstance(slim, LrAspp):
        slice_scores(head.gate, slim.gate, kept.last)
        slice_scores(head.low, slim.low, kept.inner[seg.tap])
        slim.classifier.load_state_dict(head.classifier.state_dict())
    elif isinstance(head, RAspp) and isinstance(slim, RAspp):
        slice_conv(head.pooled, slim.pooled, _all(head.pooled), kept.last)
        slim.project.load_state_dict(head.project.state_dict())
        slim.classifier.load_state_dict(head.classifier.state_dict())
    return narrow.train(net.training)


def _maps(detector: Detector, kept: Kept) -> Iterator[Tensor]:
    """Kept channels of every map that has heads."""
    row = detector.c4_row
    yield kept.inner[row] if detector.taps_expansion else kept.out[row - 1]
    yield kept.last
    for width in detector.extras:
        yield torch.arange(width)


def _convs(block: nn.Module) -> list[ConvBnAct]:
    found = []
    for part in block.children():
        assert isinstance(part, ConvBnAct)
        found.append(part)
    return found


def _all(conv: ConvBnAct) -> Tensor:
    return torch.arange(conv.conv.weight.shape[0])


def _into(conv: ConvBnAct) -> Tensor:
    return torch.arange(conv.conv.weight.shape[1])
