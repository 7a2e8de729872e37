"""`Detector`: SSDLite around any network as a value, with its own walk of operators (section 6.3).

The structure is that of the authors' code: predictions are made on C4 (the expansion of the row
whose stride makes the last map), on C5 (what enters the pool) and on extra feature maps of half the size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from bneck.specs import zoo
from bneck.specs.network import Layer, NetSpec, Size, layers
from bneck.specs.operators import Operators, Pair, Values
from bneck.specs.rows import Bneck, Pool, SpecError
from bneck.specs.text import resolve
from bneck.specs.wrapper import Output, Placed, Tensors, placed_conv, placed_rows, placed_separable

RESOLUTION = 320  # pixels; Table 6
COCO_IDS = 90  # COCO's category ids go from 1 to 90, and the paper's heads have a slot for each
EXTRAS = (512, 256, 256, 128)
LEAST_EXTRA = 16
LEAST_RESOLUTION = 32
SMALLEST, LARGEST = 0.2, 0.95  # scales of the first and the last map, fractions of the image
RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)  # width / height of a map's boxes, as the authors print them
FIRST_MAP = ((0.1, 1.0), (0.2, 2.0), (0.2, 0.5))  # scale and ratio of the first map's fewer boxes

Anchor = tuple[float, float, float, float]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """SSDLite: a network's rows before the pool, extra feature maps, and two heads on every map.

    Each head is a 3x3 depthwise conv with batch norm and ReLU6, then a 1x1 conv with a bias: one
    outputs 4 numbers for every anchor, the other `slots` class logits, of which slot 0 is the background.

    Args:
        network: the backbone; its pool, its head and its classifier take no part.
        classes: what can be detected.
        resolution: side of the square input in pixels. Images are stretched to it.
        extras: channels of the maps after C5, each half as large as the one before it.

    Raises:
        SpecError: a number that cannot be, or a network without a row of stride 2 to take C4 from.
    """

    network: NetSpec
    classes: int = COCO_IDS
    resolution: int = RESOLUTION
    extras: tuple[int, ...] = EXTRAS

    def __post_init__(self) -> None:
        for name, least in (("classes", 1), ("resolution", LEAST_RESOLUTION)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise SpecError(
                    f"{name} is {value!r}; it must be a whole number of at least {least}"
                )
        object.__setattr__(self, "extras", tuple(self.extras))
        if not self.extras or not all(isinstance(w, int) and w > 1 for w in self.extras):
            raise SpecError(
                f"extras is {self.extras!r}; it must be one or more widths of at least 2 channels"
            )
        if self.c4_row == 0:
            raise SpecError(
                f"{self.network.name} has no row with stride 2 after its stem; a detector takes its "
                "first map from there"
            )

    @property
    def name(self) -> str:
        return self.network.name

    @property
    def rounded(self) -> Mapping[str, Values]:
        return {}  # every point is named after a layer

    def settings(self) -> dict[str, Any]:
        return {"classes": self.classes, "extras": list(self.extras)}

    def layers(self, size: Size | None = None) -> Iterator[Layer]:
        """Walk the operators: backbone, extra feature maps, heads; at `resolution` whatever the size.

        Counting, building and graph writing all read this walk. Row indices go on after the backbone's:
        one for every extra feature map, then one for the heads of every map.
        """
        return chain(features(self), extra_layers(self), head_layers(self))

    def feeds(self) -> Mapping[str, str]:
        """The first extra feature map takes C5, the heads of C4 and C5 take those."""
        c4, c5 = maps(self)[:2]
        found = {"extras.0.reduce": c5.layer}
        for head in ("boxes", "scores"):
            for i, source in enumerate((c4, c5)):
                depthwise = f"{head}.{i}.depthwise"
                found |= {depthwise: source.layer, f"{head}.{i}.predict": depthwise}
        return found

    def outputs(self, size: Pair, *, finished: bool = False) -> tuple[Output, ...]:
        """Offsets and logits of every anchor; boxes, scores and labels of one image if `finished`."""
        if finished:
            boxes, scores = Output("boxes", ("found", 4)), Output("scores", ("found",))
            return boxes, scores, Output("labels", ("found",), whole=True)
        count = len(anchors(self))
        offsets = Output("offsets", ("batch", count, 4))
        return offsets, Output("logits", ("batch", count, self.slots))

    def answer(
        self, graph: Operators[T], image: T, size: Pair, *, finished: bool = False
    ) -> dict[str, T]:
        """`offsets` (N, anchors, 4) and `logits` (N, anchors, slots), real numbers.

        `finished`: `boxes` (K, 4), corners in normalized coordinates, `scores` (K,) and `labels` (K,)
        from 1, best first: the authors' decoding and class-by-class NMS. ONNX alone has it.

        Raises:
            InputError: decoding in another format.
        """
        taken, made = [source.layer for source in maps(self)], {}
        for layer, x in graph.behind([*features(self), *extra_layers(self)], image):
            if layer.name in taken:
                made[layer.name] = x
        walk = list(head_layers(self))
        found = {}
        for name, head, numbers in (("offsets", "boxes", 4), ("logits", "scores", self.slots)):
            parts = []
            for index, source in enumerate(taken):
                own = [layer for layer in walk if layer.name.startswith(f"{head}.{index}.")]
                part = graph.through(own, made[source])
                parts.append(graph.real(graph.listed(f"{head}.{index}.flat", part, numbers)))
            found[name] = graph.joined(name, parts)
        if not finished:
            return found
        from bneck.tasks.detect.decoding import decoded

        return decoded(graph, anchors(self), found["offsets"], found["logits"], slots=self.slots)

    def arranged(self, weights: Tensors) -> Tensors:
        return weights

    @property
    def slots(self) -> int:
        """Class logits of an anchor: the background and the classes."""
        return self.classes + 1

    @property
    def c4_row(self) -> int:
        """Index of the row whose stride makes the last map: C4 is taken inside or before it."""
        rows = self.network.rows[: self.network.pool_at]
        strided = [i for i, row in enumerate(rows) if not isinstance(row, Pool) and row.stride == 2]
        return max(strided, default=0)

    @property
    def taps_expansion(self) -> bool:
        """Whether C4 is the expansion of its row.

        Where nothing expands (V1), or only behind the stride (no depthwise convolution after the
        expansion), it is the row's input.
        """
        row = self.network.rows[self.c4_row]
        before = isinstance(row, Bneck) and not row.fused and row.kernel > 0
        return before and self.network.expands(self.c4_row)


@dataclass(frozen=True, slots=True)
class Map:
    """A map that predictions are made on: the layer it comes from, its channels, its size in cells."""

    layer: str
    width: int
    size: tuple[int, int]


def ssdlite(
    network: str | Path | NetSpec, *, classes: int = COCO_IDS, resolution: int | None = None
) -> Detector:
    """The detector of a network as Table 6 has it.

    A width in a zoo name also scales what classification keeps wide: the conv before the pool and
    the extra feature maps (at least 16 channels). A spec, a spec file or a run's folder stays as it is.
    `classes` is by default the paper's, COCO's 90 ids. `resolution` is the side of the input in pixels;
    None takes the name's (`v3-small@256`), else 320.

    Raises:
        SpecError: no such network, or it cannot be a backbone.
    """
    spec = resolve(network, scaled_tail=True)
    by_name = isinstance(network, str) and spec.name == network.strip().lower()
    width = zoo.width_of(spec.name) if by_name else 1.0
    named = spec.resolution if by_name and "@" in spec.name else RESOLUTION
    return Detector(
        network=spec, classes=classes, resolution=named if resolution is None else resolution,
        extras=tuple(max(LEAST_EXTRA, int(out * width)) for out in EXTRAS),
    )  # fmt: skip


def features(detector: Detector) -> Iterator[Layer]:
    """The operators of the backbone, from the image to C5."""
    spec = detector.network
    return (one for one in layers(spec, detector.resolution) if one.row < spec.pool_at)


def maps(detector: Detector) -> tuple[Map, ...]:
    """C4, C5 and the extra feature maps, largest first."""
    walk = list(features(detector))
    first = next(i for i, layer in enumerate(walk) if layer.row == detector.c4_row)
    expansion = f"rows.{detector.c4_row}.expand"
    c4 = next((layer for layer in walk if layer.name == expansion), walk[first - 1])
    taken = (c4 if detector.taps_expansion else walk[first - 1], walk[-1])
    found = [Map(layer.name, layer.out, layer.size_out) for layer in taken]
    for i, out in enumerate(detector.extras):
        height, width = found[-1].size
        found.append(Map(f"extras.{i}.expand", out, (-(-height // 2), -(-width // 2))))
    return tuple(found)


def extra_layers(detector: Detector) -> Iterator[Layer]:
    """The operators of the extra feature maps: 1x1 to half the channels, 3x3 depthwise stride 2, 1x1."""
    into = maps(detector)[1]
    for i, made in enumerate(maps(detector)[2:]):
        row = detector.network.pool_at + i
        half = max(LEAST_EXTRA, made.width // 2)
        yield Layer(
            name=f"extras.{i}.reduce", kind="conv", row=row, width_in=into.width, out=half,
            size_in=into.size, size_out=into.size, act="relu6",
        )  # fmt: skip
        yield Layer(
            name=f"extras.{i}.depthwise", kind="depthwise", row=row, width_in=half, out=half,
            size_in=into.size, size_out=made.size, kernel=3, stride=2, act="relu6",
        )  # fmt: skip
        yield Layer(
            name=made.layer, kind="conv", row=row, width_in=half, out=made.width,
            size_in=made.size, size_out=made.size, act="relu6",
        )  # fmt: skip
        into = made


def head_layers(detector: Detector) -> Iterator[Layer]:
    """The operators of the heads: for every map boxes, then scores; no weights are shared."""
    row = detector.network.pool_at + len(detector.extras)
    for i, source in enumerate(maps(detector)):
        per_cell = len(FIRST_MAP) if i == 0 else len(RATIOS) + 1
        for head, out in (("boxes", 4 * per_cell), ("scores", detector.slots * per_cell)):
            yield Layer(
                name=f"{head}.{i}.depthwise", kind="depthwise", row=row + i, width_in=source.width,
                out=source.width, size_in=source.size, size_out=source.size, kernel=3, act="relu6",
            )  # fmt: skip
            yield Layer(
                name=f"{head}.{i}.predict", kind="conv", row=row + i, width_in=source.width, out=out,
                size_in=source.size, size_out=source.size, bn=False,
            )  # fmt: skip


def anchors(detector: Detector) -> list[Anchor]:
    """Anchor boxes (centre x, centre y, width, height) in normalized coordinates.

    In the order of the predictions: by map, row, column, box of the cell. Scales of the maps go in
    equal steps from 0.2 to 0.95, with one more box between each scale and the next (1.0 after the
    last). The first map has only 3 boxes per cell. Boxes are not cut at the image's edge.
    """
    found: list[Anchor] = []
    last = len(detector.extras) + 1
    scales = [SMALLEST + (LARGEST - SMALLEST) * i / last for i in range(last + 1)] + [1.0]
    for index, source in enumerate(maps(detector)):
        between = math.sqrt(scales[index] * scales[index + 1])
        shapes = [*((scales[index], ratio) for ratio in RATIOS), (between, 1.0)]
        sides = [
            (scale * math.sqrt(ratio), scale / math.sqrt(ratio))
            for scale, ratio in (FIRST_MAP if index == 0 else shapes)
        ]
        rows, columns = source.size
        found += [
            ((x + 0.5) / columns, (y + 0.5) / rows, width, height)
            for y in range(rows)
            for x in range(columns)
            for width, height in sides
        ]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Ssdlite:
    """SSDLite (6.3): `classes` to detect, channels of the extra feature maps. The side is the network's."""

    classes: int = COCO_IDS
    extras: tuple[int, ...] = EXTRAS

    @property
    def key(self) -> str:
        return f"ssdlite {self.classes} {self.extras}"

    def around(self, spec: NetSpec) -> Detector:
        side = spec.resolution
        return Detector(network=spec, classes=self.classes, resolution=side, extras=self.extras)

    def network(self, spec: NetSpec) -> NetSpec:
        return self.around(spec).network

    def size(self, spec: NetSpec) -> Pair:
        return (spec.resolution, spec.resolution)

    def layers(self, spec: NetSpec) -> Iterator[Layer]:
        return self.around(spec).layers()

    def rows(self, spec: NetSpec) -> Iterator[Placed]:
        """Rows up to C5; a conv and a bneck for every extra feature map; a bneck for every head.

        Separable convolutions are bnecks without an expand convolution.
        """
        detector = self.around(spec)
        follows = detector.feeds()
        taking = list(features(detector))
        yield from placed_rows(spec, taking[-1].row + 1, self.size(spec))
        extras = list(extra_layers(detector))
        for reduce, depthwise, expand in zip(extras[::3], extras[1::3], extras[2::3], strict=True):
            yield placed_conv(reduce, free=reduce.name in follows)
            yield placed_separable(depthwise, expand, free=False)
        heads = list(head_layers(detector))
        for depthwise, predict in zip(heads[::2], heads[1::2], strict=True):
            yield placed_separable(depthwise, predict, free=depthwise.name in follows)
