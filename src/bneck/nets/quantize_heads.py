"""Detectors and segmenters as an 8-bit runtime computes them, in torch; see `nets.quantize`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from bneck.graphs.forms import HSwish
from bneck.graphs.heads import Heads, Values, class_scores, predictions, split_project
from bneck.graphs.quantization import Ranges
from bneck.nets.build import Net
from bneck.nets.quantize import Emulation, Quantized, QuantizedNet, Weights
from bneck.specs.network import Gate, Layer, Size, as_size
from bneck.tasks.detect.head import Detector, layers, maps
from bneck.tasks.detect.module import DetectorNet
from bneck.tasks.segment.head import Segmenter, is_spatial, segmenter_layers
from bneck.tasks.segment.module import SIZE, SegmentNet, resize

AnyNet: TypeAlias = Net | DetectorNet | SegmentNet


class EmulatedHeads(Emulation, Heads[Tensor]):
    """A backbone and heads in emulation; `kept` names the layers whose maps the heads take."""

    kept: frozenset[str]

    def passed(self, layer: Layer, x: Tensor) -> None:
        if layer.name in self.kept:
            self.made[layer.name] = x

    def by_anchor(self, name: str, x: Tensor, numbers: int) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(len(x), -1, numbers)

    def joined(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), 1)

    def real(self, x: Tensor) -> Tensor:
        return x

    def mean(self, name: str, x: Tensor) -> Tensor:
        return self.point(name, x.mean((2, 3), keepdim=True), name)

    def windows(
        self, layer: Layer, x: Tensor, window: tuple[int, int], strides: tuple[int, int]
    ) -> Tensor:
        return self.point(layer.name, F.avg_pool2d(x, window, strides), layer.name)

    def opened(self, layer: Layer, x: Tensor, gate: Gate) -> Tensor:
        return self._gate(layer, layer.name, x, gate)

    def product(self, name: str, x: Tensor, gate: Tensor) -> Tensor:
        return self.point(name, x * gate, name)

    def resized(
        self,
        name: str,
        x: Tensor,
        size: tuple[int, int],
        have: tuple[int, int],
        values: Values | None = None,
    ) -> Tensor:
        y = resize(x, size)
        return y if values is None else self.fixed(y, values, name)

    def total(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def raised(self, name: str, x: Tensor, by: Tensor) -> Tensor:
        return self.point(name, F.relu(x + by), name)


class EmulatedDetector(EmulatedHeads):
    """A detector in emulation."""

    def __init__(
        self, detector: Detector, weights: Weights, hswish: HSwish, ranges: Ranges | None = None
    ) -> None:
        super().__init__(detector.network, weights, hswish, ranges)
        self.detector = detector
        self.kept = frozenset(source.layer for source in maps(detector))

    def walk(self, size: Size) -> Iterable[Layer]:
        return layers(self.detector)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, channels, H, W) -> offsets (N, anchors, 4), logits (N, anchors, slots)."""
        self.made = {}
        found = predictions(self, self.detector, self.point("image", images, "image"))
        self.made = {}
        return found


class EmulatedSegmenter(EmulatedHeads):
    """A segmenter in emulation."""

    def __init__(
        self, seg: Segmenter, weights: Weights, hswish: HSwish, ranges: Ranges | None = None
    ) -> None:
        super().__init__(seg.network, split_project(weights), hswish, ranges)
        self.seg = seg
        self.kept = frozenset(
            layer.name for layer in self.walk(SIZE) if layer.row == seg.tap and is_spatial(layer)
        )

    def walk(self, size: Size) -> Iterable[Layer]:
        return segmenter_layers(self.seg, as_size(size))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, channels, H, W) -> class scores (N, classes, H, W)."""
        self.made = {}
        size = (images.shape[2], images.shape[3])
        found = class_scores(self, self.seg, size, self.point("image", images, "image"))
        self.made = {}
        return found


def emulator(
    net: AnyNet, weights: Weights, hswish: HSwish, ranges: Ranges | None = None
) -> Emulation:
    """A net in emulation with other weights, in evaluation mode; in float where there are no ranges."""
    match net:
        case DetectorNet():
            made: Emulation = EmulatedDetector(net.detector, weights, hswish, ranges)
        case SegmentNet():
            made = EmulatedSegmenter(net.seg, weights, hswish, ranges)
        case _:
            made = QuantizedNet(net.spec, weights, hswish, ranges)
    return made.eval()


def emulated(net: AnyNet, quantized: Quantized) -> Emulation:
    """A net as its 8-bit file will answer, in evaluation mode."""
    return emulator(net, quantized.weights, quantized.hswish, quantized.ranges)


def flat(answer: Tensor | tuple[Tensor, ...]) -> Tensor:
    """All numbers of an answer behind one another, (N, numbers)."""
    parts = answer if isinstance(answer, tuple) else (answer,)
    return torch.cat([part.flatten(1) for part in parts], 1)
