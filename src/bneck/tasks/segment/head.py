"""A segmenter as a value: a network without its classifier, and R-ASPP or LR-ASPP after it (6.4).

`Segmenter.layers` walks its operators as `network.layers` walks a network's; counting and building
read it, so they cannot disagree. Parameter names are its names: `rows.4.expand`, `head.conv`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import chain
from math import prod
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from bneck.specs.network import GATES, Gate, Layer, NetSpec, Size, layers
from bneck.specs.operators import Operators, Pair, Values
from bneck.specs.rows import Bneck, Conv, Pool, SpecError
from bneck.specs.tails import OUTPUT_STRIDES, output_stride
from bneck.specs.wrapper import Output, Placed, Tensors, placed_conv, placed_rows
from bneck.tasks.segment.graph import class_scores, split_project

T = TypeVar("T")
Head: TypeAlias = Literal["lraspp", "raspp"]
HEADS: tuple[str, ...] = get_args(Head)
LOW_STRIDE = 8  # of the low-level map that LR-ASPP adds (Fig. 10)
# Window and strides (down, right) of LR-ASPP's pool by output stride. At 16 the paper's; at 8 the
# same pixels; at 32 those of the authors' released networks. Each spans a crop of 769 pixels.
WINDOWS = {8: (97, (32, 40)), 16: (49, (16, 20)), 32: (25, (4, 5))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmenter:
    """What a segmentation network is made of; `segmenter` fills in the paper's numbers.

    `tap` is the row whose spatial convolution, before squeeze-and-excite, gives LR-ASPP its
    low-level map. `filters` is the tables' F. `window` is the side of the pooling window in pixels
    of the last map, 0 for the whole map; a window larger than the map is cut to it. `window_stride`
    is (down, right). `dropout` is R-ASPP's. R-ASPP always pools the whole map.

    Raises:
        SpecError: numbers that cannot be; the message names the field.
    """

    network: NetSpec
    tap: int
    classes: int = 19
    head: Head = "lraspp"
    filters: int = 128
    window: int = 49
    window_stride: tuple[int, int] = (16, 20)
    gate: Gate = "hsigmoid"
    dropout: float = 0.1
    bn_eps: float = 1e-5
    bn_momentum: float = 3e-4

    def __post_init__(self) -> None:
        for name, known in (("head", HEADS), ("gate", GATES)):
            value = getattr(self, name)
            if value not in known:
                raise SpecError(f"{name} is {value!r}; allowed are {', '.join(known)}")
        if not isinstance(self.window_stride, tuple) or len(self.window_stride) != 2:
            raise SpecError(f"window_stride is {self.window_stride!r}; it must be (down, right)")
        sides = [("window_stride", value, 1) for value in self.window_stride]
        counts = [(name, getattr(self, name), 1) for name in ("classes", "filters")]
        for name, value, least in [*counts, ("window", self.window, 0), *sides]:
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise SpecError(
                    f"{name} is {value!r}; it must be a whole number of at least {least}"
                )
        # A network has fields of the same names, and refuses what cannot be.
        replace(
            self.network, dropout=self.dropout, bn_eps=self.bn_eps, bn_momentum=self.bn_momentum
        )
        if self.tap not in _tappable(self.network, self.features):
            raise SpecError(
                f"tap is {self.tap!r}; it must be a bneck of {self.network.name} at 1/{LOW_STRIDE} "
                "of the image"
            )

    @property
    def name(self) -> str:
        """`v3-large+rf2+os16 lraspp128`."""
        return f"{self.network.name} {self.head}{self.filters}"

    @property
    def features(self) -> int:
        """How many rows of the network give the features."""
        return _features_end(self.network)

    @property
    def output_stride(self) -> int:
        """Image pixels per pixel of the last map, along a side."""
        return _reached_stride(self.network)

    @property
    def rounded(self) -> Mapping[str, Values]:
        wide = (-6.0, 6.0)
        return {
            "head.gated": (0.0, 6.0), "head.gate.pre": wide, "head.project.map": wide,
            "head.project.pixel": wide,
        }  # fmt: skip

    def layers(self, size: Size) -> Iterator[Layer]:
        """Walk the operators from the image to the class scores before the last resize.

        Head layers have the row index `features`. Resizes, products, sums and concatenation have no
        parameters and are not layers. `size` is a side or (height, width) in pixels.
        """
        walk = [layer for layer in layers(self.network, size) if layer.row < self.features]
        low = next(layer for layer in walk if self.is_low(layer))
        return chain(walk, _head_layers(self, walk[-1], low))

    def is_low(self, layer: Layer) -> bool:
        """Whether it is the spatial convolution of `tap`, whose output is the low-level map."""
        row = self.network.rows[self.tap]
        if not isinstance(row, Bneck):
            return layer.row == self.tap
        return layer.name == f"rows.{self.tap}.{'expand' if row.fused else 'depthwise'}"

    def feeds(self) -> Mapping[str, str]:
        """What takes the last map, and LR-ASPP's `low`, which takes the low-level map."""
        walk = [layer for layer in layers(self.network) if layer.row < self.features]
        taking = ("conv", "pool", "gate" if self.head == "lraspp" else "pooled")
        found = {f"head.{name}": walk[-1].name for name in taking}
        if self.head == "lraspp":
            found["head.low"] = next(layer.name for layer in walk if self.is_low(layer))
        return found

    def outputs(self, size: Pair, *, finished: bool = False) -> tuple[Output, ...]:
        """Scores of every class and pixel; the best class of every pixel if `finished`."""
        if finished:
            return (Output("classes", ("batch", *size), whole=True),)
        return (Output("scores", ("batch", self.classes, *size)),)

    def answer(
        self, graph: Operators[T], image: T, size: Pair, *, finished: bool = False
    ) -> dict[str, T]:
        """`scores` (N, classes, *size), or if `finished` the best, `classes` (N, *size)."""
        scores = class_scores(graph, image, size, self)
        return {"classes": graph.best("classes", scores)} if finished else {"scores": scores}

    def arranged(self, weights: Tensors) -> Tensors:
        return split_project(weights)

    def pool_window(self, size: Pair) -> Pair:
        """The pooling window on a map of `size`, cut to the map; (height, width)."""
        if self.window == 0 or self.head == "raspp":
            return size
        return min(self.window, size[0]), min(self.window, size[1])

    def settings(self) -> dict[str, Any]:
        """All fields but the network, as plain values for a record."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "network"}
        return values | {"window_stride": list(self.window_stride)}


def segmenter(
    network: NetSpec, *, classes: int = 19, head: Head = "lraspp", filters: int = 128,
    stride: int | None = None, global_pool: bool = False,
) -> Segmenter:  # fmt: skip
    """R-ASPP or LR-ASPP around any network, zoo or searched, with the paper's numbers (6.4).

    The network comes with its reduced tail, if it is to have one (`variants.rf2`). `filters` is F of
    Table 7. `stride` is the output stride, 8, 16 or 32, reached by dilation; None keeps the network's.
    `global_pool` pools the whole map instead of 49 x 49 windows. The gate is the hard sigmoid of the
    authors' networks; the paper's figure shows a sigmoid.

    Raises:
        SpecError: the network has no bneck at 1/8 of the image, cannot have that output stride, or
            one of the numbers cannot be.
    """
    rows = _tappable(network, _features_end(network))
    if not rows:
        raise SpecError(
            f"{network.name} has no row at 1/{LOW_STRIDE} of the image, where the low-level map "
            "is taken; choose a network with strides of 2 up to there"
        )
    tap = rows[-1]  # before dilation brings later rows to 1/8
    if stride is not None:
        network = output_stride(network, stride)
    reached = _reached_stride(network)
    if reached not in OUTPUT_STRIDES:
        raise SpecError(
            f"{network.name} has output stride {reached}; allowed are "
            f"{', '.join(map(str, OUTPUT_STRIDES))}, set with the variant +osN"
        )
    window, strides = WINDOWS[reached]
    return Segmenter(
        network=network, tap=tap, classes=classes, head=head, filters=filters,
        window=0 if global_pool else window, window_stride=strides,
    )  # fmt: skip


def _head_layers(seg: Segmenter, last: Layer, low: Layer) -> Iterator[Layer]:
    """LR-ASPP (Fig. 10): conv, pool and gate on the last map; a 1x1 conv to the classes on both maps.

    R-ASPP (V2): a 1x1 conv next to that of the pooled map, joined, one more, the classes.
    """
    size, into, wide = last.size_out, last.out, seg.filters

    def conv(name: str, into: int, out: int, size: Pair, *, bn: bool = False) -> Layer:
        """A 1x1 conv: batch norm and ReLU, or a bias and nothing."""
        return Layer(
            name=f"head.{name}", kind="conv", row=seg.features, width_in=into, out=out, size_in=size,
            size_out=size, act="relu" if bn else "linear", bn=bn,
        )  # fmt: skip

    window, strides = seg.pool_window(size), seg.window_stride
    down, right = ((size[i] - window[i]) // strides[i] + 1 for i in (0, 1))
    yield conv("conv", into, wide, size, bn=True)
    yield Layer(
        name="head.pool", kind="pool", row=seg.features, width_in=into, out=into, size_in=size,
        size_out=(down, right),
    )  # fmt: skip
    if seg.head == "lraspp":
        yield conv("gate", into, wide, (down, right))
        yield conv("classifier", wide, seg.classes, low.size_out)
        yield conv("low", low.out, seg.classes, low.size_out)
    else:
        yield conv("pooled", into, wide, (down, right), bn=True)
        yield conv("project", 2 * wide, wide, size, bn=True)
        yield conv("classifier", wide, seg.classes, size)


def _features_end(network: NetSpec) -> int:
    """Index of the first row that segmentation leaves out.

    The map after the last conv before the pool in a network with the efficient last stage (V3),
    that after the last bneck in any other (V2: its 320 channels, without the 1280 conv).
    """
    if network.pool_at + 1 < len(network.rows):
        return network.pool_at
    bnecks = [i for i, row in enumerate(network.rows) if isinstance(row, Bneck)]
    return bnecks[-1] + 1 if bnecks else network.pool_at


def _tappable(network: NetSpec, end: int) -> list[int]:
    """Bnecks at 1/8 of the image in front of the first that dilation keeps there; without one, convs."""
    found: list[int] = []
    convs: list[int] = []
    reached = 1
    for i, row in enumerate(network.rows[:end]):
        if isinstance(row, Pool):
            break
        reached *= row.stride
        if isinstance(row, Bneck) and row.dilation > 1:
            # The row before the first dilated one is the one that lost its stride.
            return (found[:-1] if reached == LOW_STRIDE else found) or convs
        if reached == LOW_STRIDE and isinstance(row, Conv):
            convs.append(i)
        elif reached == LOW_STRIDE and isinstance(row, Bneck) and row.kernel:
            found.append(i)
    return found or convs


def _reached_stride(network: NetSpec) -> int:
    rows = network.rows[: _features_end(network)]
    return prod(1 if isinstance(row, Pool) else row.stride for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aspp:
    """R-ASPP or LR-ASPP (6.4) for images of a `shape` (height, width); the others as in `segmenter`."""

    shape: Pair
    classes: int = 19
    head: Head = "lraspp"
    filters: int = 128
    stride: int | None = 16
    global_pool: bool = False

    @property
    def key(self) -> str:
        shape = f"{self.shape[0]}x{self.shape[1]}"
        pool = "global" if self.global_pool else "windows"
        return f"{self.head}{self.filters} {self.classes} {shape} os{self.stride} {pool}"

    def around(self, spec: NetSpec) -> Segmenter:
        # The name of a network that has the stride already is to stay as it is.
        stride = None if _reached_stride(spec) == self.stride else self.stride
        return segmenter(
            spec, classes=self.classes, head=self.head, filters=self.filters, stride=stride,
            global_pool=self.global_pool,
        )  # fmt: skip

    def network(self, spec: NetSpec) -> NetSpec:
        """The network at the wrapper's output stride."""
        return self.around(spec).network

    def size(self, spec: NetSpec) -> Pair:
        return self.shape

    def layers(self, spec: NetSpec) -> Iterator[Layer]:
        return self.around(spec).layers(self.shape)

    def rows(self, spec: NetSpec) -> Iterator[Placed]:
        """Rows up to the last map; the head's pool and 1x1 convs."""
        seg = self.around(spec)
        follows = seg.feeds()
        yield from placed_rows(seg.network, seg.features, self.shape)
        for layer in seg.layers(self.shape):
            if layer.row < seg.features:
                continue
            if layer.kind == "pool":
                yield Placed(Pool(), layer.width_in, layer.size_in, False, (True, False))
            else:
                yield placed_conv(layer, free=layer.name in follows)
