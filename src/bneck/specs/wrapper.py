"""What a task puts round a network, as a value: nothing, SSDLite (6.3), or R-ASPP and LR-ASPP (6.4).

A search changes the network and leaves the wrapper as it is. Counting, latency tables and files read
a wrapped network through the walks here, so that they cannot disagree about what belongs to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from bneck.specs.network import Layer, NetSpec, layers
from bneck.specs.rows import Bneck, Conv, Pool, Row
from bneck.tasks.detect.head import COCO_IDS, EXTRAS, Detector, extra_layers, features, head_layers
from bneck.tasks.detect.head import layers as detector_layers
from bneck.tasks.segment.head import (
    Head,
    Segmenter,
    features_end,
    reached_stride,
    segmenter,
    segmenter_layers,
)

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Placed:
    """A row with what enters it: channels, and a map of `size` (height, width).

    `expands` says whether a bneck has an expand convolution. `free` is (input, other widths): whether
    a narrower network has them narrower.
    """

    row: Row
    width_in: int
    size: Size
    expands: bool
    free: tuple[bool, bool]


class Wrapper(Protocol):
    """What stands round a network. It is compared and hashed by its content."""

    @property
    def key(self) -> str:
        """Names the content; "" where nothing stands round the network."""

    def network(self, spec: NetSpec) -> NetSpec:
        """The network as it is wrapped.

        Raises:
            SpecError: this network cannot be.
        """

    def size(self, spec: NetSpec) -> Size:
        """(height, width) of its image in pixels."""

    def layers(self, spec: NetSpec) -> Iterator[Layer]:
        """All operators, from the image to what comes out."""

    def rows(self, spec: NetSpec) -> Iterator[Placed]:
        """All operators as rows: those of the network that take part, then what stands behind them.

        Whatever has no row and does not change with the network's widths (resizes) is left out.
        """


@dataclass(frozen=True, slots=True)
class Plain:
    """Nothing: a network classifies by itself."""

    @property
    def key(self) -> str:
        """Nothing to name."""
        return ""

    def network(self, spec: NetSpec) -> NetSpec:
        """The network itself."""
        return spec

    def size(self, spec: NetSpec) -> Size:
        """A square of its resolution."""
        return (spec.resolution, spec.resolution)

    def layers(self, spec: NetSpec) -> Iterator[Layer]:
        """Those of `network.layers`."""
        return layers(spec)

    def rows(self, spec: NetSpec) -> Iterator[Placed]:
        """Its rows and the classifier."""
        yield from _placed(spec, len(spec.rows), self.size(spec))
        classifier = Conv(1, spec.classes, "linear", bn=False)
        yield Placed(classifier, spec.width_into(len(spec.rows)), (1, 1), False, (True, False))


PLAIN = Plain()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ssdlite:
    """SSDLite (6.3): `classes` to detect, channels of the further maps. The side is the network's."""

    classes: int = COCO_IDS
    extras: tuple[int, ...] = EXTRAS

    @property
    def key(self) -> str:
        """Classes and further maps."""
        return f"ssdlite {self.classes} {self.extras}"

    def detector(self, spec: NetSpec) -> Detector:
        """The detector round a network, at the network's resolution."""
        return Detector(
            network=spec, classes=self.classes, resolution=spec.resolution, extras=self.extras
        )

    def network(self, spec: NetSpec) -> NetSpec:
        """The network itself."""
        return self.detector(spec).network

    def size(self, spec: NetSpec) -> Size:
        """A square of its resolution."""
        return (spec.resolution, spec.resolution)

    def layers(self, spec: NetSpec) -> Iterator[Layer]:
        """Those of `specs.detector.layers`."""
        return detector_layers(self.detector(spec))

    def rows(self, spec: NetSpec) -> Iterator[Placed]:
        """Rows up to C5; a conv and a bneck for every further map; a bneck for every head.

        Separable convolutions are bnecks without an expand convolution.
        """
        detector = self.detector(spec)
        taking = list(features(detector))
        yield from _placed(spec, taking[-1].row + 1, self.size(spec))
        extras = list(extra_layers(detector))
        for reduce, depthwise, expand in zip(extras[::3], extras[1::3], extras[2::3], strict=True):
            narrowed = reduce is extras[0]  # C5's channels enter the first
            yield _conv(reduce, free=narrowed)
            yield _separable(depthwise, expand, free=False)
        heads = list(head_layers(detector))
        for depthwise, predict in zip(heads[::2], heads[1::2], strict=True):
            on_network = depthwise.name.split(".")[1] in ("0", "1")  # C4 and C5
            yield _separable(depthwise, predict, free=on_network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aspp:
    """R-ASPP or LR-ASPP (6.4) for images of a `shape` (height, width); the others as in `segmenter`."""

    shape: Size
    classes: int = 19
    head: Head = "lraspp"
    filters: int = 128
    stride: int | None = 16
    global_pool: bool = False

    @property
    def key(self) -> str:
        """All fields."""
        shape = f"{self.shape[0]}x{self.shape[1]}"
        pool = "global" if self.global_pool else "windows"
        return f"{self.head}{self.filters} {self.classes} {shape} os{self.stride} {pool}"

    def segmenter(self, spec: NetSpec) -> Segmenter:
        """The segmenter round a network."""
        has = reached_stride(spec, features_end(spec))
        return segmenter(
            spec,
            classes=self.classes,
            head=self.head,
            filters=self.filters,
            stride=None if has == self.stride else self.stride,
            global_pool=self.global_pool,
        )

    def network(self, spec: NetSpec) -> NetSpec:
        """The network at the wrapper's output stride."""
        return self.segmenter(spec).network

    def size(self, spec: NetSpec) -> Size:
        """The images' shape, whatever the network's resolution."""
        return self.shape

    def layers(self, spec: NetSpec) -> Iterator[Layer]:
        """Those of `segmenter_layers`."""
        return segmenter_layers(self.segmenter(spec), self.shape)

    def rows(self, spec: NetSpec) -> Iterator[Placed]:
        """Rows up to the last map; the head's pool and 1x1 convs."""
        seg = self.segmenter(spec)
        yield from _placed(seg.network, seg.features, self.shape)
        for layer in segmenter_layers(seg, self.shape):
            if layer.row < seg.features:
                continue
            from_network = layer.name.rpartition(".")[2] not in ("classifier", "project")
            if layer.kind == "pool":
                yield Placed(Pool(), layer.width_in, layer.size_in, False, (True, False))
            else:
                yield _conv(layer, free=from_network)


def _placed(spec: NetSpec, end: int, size: Size) -> Iterator[Placed]:
    """Rows of a network up to `end`."""
    width = spec.channels
    for i, row in enumerate(spec.rows[:end]):
        yield Placed(row, width, size, spec.expands(i), (i > 0, True))
        if isinstance(row, Pool):
            size = (1, 1)
        else:
            width, size = row.out, (-(-size[0] // row.stride), -(-size[1] // row.stride))


def _conv(layer: Layer, *, free: bool) -> Placed:
    row = Conv(layer.kernel, layer.out, layer.act, layer.stride, bn=layer.bn)
    return Placed(row, layer.width_in, layer.size_in, False, (free, False))


def _separable(depthwise: Layer, point: Layer, *, free: bool) -> Placed:
    row = Bneck(
        depthwise.kernel, depthwise.out, point.out, 0, depthwise.act, depthwise.stride,
        skip="no", out_act=point.act,
    )  # fmt: skip
    return Placed(row, depthwise.width_in, depthwise.size_in, False, (free, False))
