"""A segmenter as a value: a network without its classifier, and R-ASPP or LR-ASPP after it (6.4).

`segmenter_layers` walks its operators as `network.layers` walks a network's; counting and building
read it, so they cannot disagree. Parameter names are its names: `rows.4.expand`, `head.conv`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from bneck.specs.network import GATES, Gate, Layer, NetSpec, Size, as_size, layers
from bneck.specs.operators import Operators, Pair, Values
from bneck.specs.rows import Bneck, Pool, SpecError
from bneck.specs.tails import OUTPUT_STRIDES, output_stride
from bneck.specs.wrapper import Output, Placed, Tensors, placed_conv, placed_rows
from bneck.tasks.segment.graph import Gating, class_scores, split_project

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
            if getattr(self, name) not in known:
                raise SpecError(
                    f"{name} is {getattr(self, name)!r}; allowed are {', '.join(known)}"
                )
        for name, least in (("classes", 1), ("filters", 1), ("window", 0)):
            _check_whole(name, getattr(self, name), least)
        if not isinstance(self.window_stride, tuple) or len(self.window_stride) != 2:
            raise SpecError(f"window_stride is {self.window_stride!r}; it must be (down, right)")
        for stride in self.window_stride:
            _check_whole("window_stride", stride, 1)
        self._check_shares()
        if self.tap not in _tappable(self.network, self.features):
            raise SpecError(
                f"tap is {self.tap!r}; it must be a bneck of {self.network.name} at 1/{LOW_STRIDE} "
                "of the image"
            )

    def _check_shares(self) -> None:
        for name in ("dropout", "bn_eps", "bn_momentum"):
            value, drops = getattr(self, name), name == "dropout"
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not (0 <= value < 1 if drops else 0 < value <= 1):
                allowed = "from 0 to below 1" if drops else "above 0 and at most 1"
                raise SpecError(f"{name} is {value!r}; it must be a number {allowed}")

    @property
    def name(self) -> str:
        """`v3-large+rf2+os16 lraspp128`."""
        return f"{self.network.name} {self.head}{self.filters}"

    @property
    def features(self) -> int:
        """How many rows of the network give the features, see `features_end`."""
        return features_end(self.network)

    @property
    def output_stride(self) -> int:
        """Image pixels a pixel of the last map, along a side."""
        return reached_stride(self.network, self.features)

    @property
    def rounded(self) -> Mapping[str, Values]:
        """What is rounded between the head's layers."""
        wide = (-6.0, 6.0)
        return {
            "head.gated": (0.0, 6.0),
            "head.gate.pre": wide,
            "head.project.map": wide,
            "head.project.pixel": wide,
        }

    def layers(self, size: Size) -> Iterator[Layer]:
        """Those of `segmenter_layers`."""
        return segmenter_layers(self, size)

    def feeds(self) -> Mapping[str, str]:
        """What takes the last map, and LR-ASPP's `low`, which takes the low-level map."""
        walk = [layer for layer in layers(self.network) if layer.row < self.features]
        taking = ("conv", "pool", "gate" if self.head == "lraspp" else "pooled")
        found = {f"head.{name}": walk[-1].name for name in taking}
        if self.head == "lraspp":
            low = next(layer for layer in walk if layer.row == self.tap and is_spatial(layer))
            found["head.low"] = low.name
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
        walk, gating = list(self.layers(size)), None
        if self.head == "lraspp":
            pool = next(layer for layer in walk if layer.name == "head.pool")
            window = self.pool_window(pool.size_in)
            gating = Gating(self.feeds()["head.low"], window, self.window_stride, self.gate)
        scores = class_scores(graph, image, size, walk, gating)
        return {"classes": graph.best("classes", scores)} if finished else {"scores": scores}

    def arranged(self, weights: Tensors) -> Tensors:
        """With R-ASPP's `project` cut in two."""
        return split_project(weights)

    def pool_window(self, size: Pair) -> Pair:
        """The pooling window on a map of `size`, cut to the map; (height, width)."""
        if self.window == 0 or self.head == "raspp":
            return size
        return min(self.window, size[0]), min(self.window, size[1])

    def settings(self) -> dict[str, Any]:
        """All fields but the network, as plain values for a record; `from_settings` reads them."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "network"}
        return values | {"window_stride": list(self.window_stride)}


def segmenter(
    network: NetSpec,
    *,
    classes: int = 19,
    head: Head = "lraspp",
    filters: int = 128,
    stride: int | None = None,
    global_pool: bool = False,
    gate: Gate = "hsigmoid",
) -> Segmenter:
    """R-ASPP or LR-ASPP round any network, zoo or searched, with the paper's numbers (6.4).

    Args:
        network: with its reduced tail, if it is to have one (`variants.rf2`).
        classes: at least 1.
        head: "lraspp" or "raspp".
        filters: F of Table 7.
        stride: the output stride, 8, 16 or 32, reached by dilation; None keeps the network's.
        global_pool: pool the whole map instead of 49 x 49 windows.
        gate: the paper's figure shows a sigmoid, the authors' networks have the hard one.

    Raises:
        SpecError: the network has no bneck at 1/8 of the image, cannot have that output stride, or
            one of the numbers cannot be.
    """
    end = features_end(network)
    rows = _tappable(network, end)
    if not rows:
        raise SpecError(
            f"{network.name} has no bneck at 1/{LOW_STRIDE} of the image, where the low-level map "
            "is taken; choose a network with strides of 2 up to there"
        )
    tap = rows[-1]  # before dilation brings later rows to 1/8
    if stride is not None:
        network = output_stride(network, stride)
    reached = reached_stride(network, end)
    if reached not in OUTPUT_STRIDES:
        raise SpecError(
            f"{network.name} has output stride {reached}; allowed are "
            f"{', '.join(map(str, OUTPUT_STRIDES))}, set with the variant +osN"
        )
    window, strides = WINDOWS[reached]
    return Segmenter(
        network=network,
        tap=tap,
        classes=classes,
        head=head,
        filters=filters,
        window=0 if global_pool else window,
        window_stride=strides,
        gate=gate,
    )


def from_settings(network: NetSpec, settings: dict[str, Any]) -> Segmenter:
    """The segmenter whose `settings` these are.

    Raises:
        SpecError: an unknown or missing field, or a value that cannot be.
    """
    known = {f.name for f in fields(Segmenter)} - {"network"}
    if set(settings) != known:
        odd = ", ".join(sorted(set(settings) ^ known))
        raise SpecError(
            f"the settings of a segmenter are {', '.join(sorted(known))}; missing or unknown: {odd}"
        )
    strides = settings["window_stride"]
    pair = tuple(strides) if isinstance(strides, list) else strides
    return Segmenter(network=network, **{**settings, "window_stride": pair})


def features_end(network: NetSpec) -> int:
    """Index of the first row that segmentation leaves out.

    The map behind the last conv before the pool in a network with the efficient last stage (V3),
    that behind the last bneck in any other (V2: its 320 channels, without the 1280 conv).
    """
    if network.pool_at + 1 < len(network.rows):
        return network.pool_at
    bnecks = [i for i, row in enumerate(network.rows) if isinstance(row, Bneck)]
    return bnecks[-1] + 1 if bnecks else network.pool_at


def segmenter_layers(seg: Segmenter, size: Size) -> Iterator[Layer]:
    """Walk the operators from the image to the class scores before the last resize.

    Head layers have the row index `seg.features`. Resizes, products, sums and concatenation have no
    parameters and are no layers. `size` is a side or (height, width) in pixels.
    """
    last, low = None, None
    for layer in layers(seg.network, size):
        if layer.row >= seg.features:
            break
        yield layer
        last = layer
        if layer.row == seg.tap and is_spatial(layer):
            low = layer
    assert last is not None
    assert low is not None
    head = _lraspp if seg.head == "lraspp" else _raspp
    yield from head(seg, last, low)


def is_spatial(layer: Layer) -> bool:
    """Whether a bneck's layer is its spatial convolution, whose output is the low-level map."""
    return layer.kind == "depthwise" or (layer.kind == "conv" and layer.kernel > 1)


def _lraspp(seg: Segmenter, last: Layer, low: Layer) -> Iterator[Layer]:
    """Fig. 10: conv, pool and gate on the last map; a 1x1 conv to the classes on both maps."""
    size, wide = last.size_out, seg.filters
    window = seg.pool_window(size)
    pooled = tuple(
        (side - reach) // step + 1
        for side, reach, step in zip(size, window, seg.window_stride, strict=True)
    )
    grid = (pooled[0], pooled[1])
    yield _conv(seg, "conv", last.out, wide, size, bn=True)
    yield _pool(seg, last.out, size, grid)
    yield _conv(seg, "gate", last.out, wide, grid)
    yield _conv(seg, "classifier", wide, seg.classes, low.size_out)
    yield _conv(seg, "low", low.out, seg.classes, low.size_out)


def _raspp(seg: Segmenter, last: Layer, low: Layer) -> Iterator[Layer]:
    """V2's head: a 1x1 conv beside the pooled map's, joined, one more, the classes. No low-level map."""
    size, wide = last.size_out, seg.filters
    yield _conv(seg, "conv", last.out, wide, size, bn=True)
    yield _pool(seg, last.out, size, (1, 1))
    yield _conv(seg, "pooled", last.out, wide, (1, 1), bn=True)
    yield _conv(seg, "project", 2 * wide, wide, size, bn=True)
    yield _conv(seg, "classifier", wide, seg.classes, size)


def _conv(
    seg: Segmenter, name: str, into: int, out: int, size: tuple[int, int], *, bn: bool = False
) -> Layer:
    """A 1x1 conv of the head: batch norm and ReLU, or a bias and nothing."""
    return Layer(
        name=f"head.{name}", kind="conv", row=seg.features, width_in=into, out=out, size_in=size,
        size_out=size, act="relu" if bn else "linear", bn=bn,
    )  # fmt: skip


def _pool(seg: Segmenter, width: int, size: tuple[int, int], grid: tuple[int, int]) -> Layer:
    return Layer(
        name="head.pool", kind="pool", row=seg.features, width_in=width, out=width, size_in=size,
        size_out=grid,
    )  # fmt: skip


def _tappable(network: NetSpec, end: int) -> list[int]:
    """Bnecks at 1/8 of the image in front of the first that dilation keeps there."""
    found: list[int] = []
    reached = 1
    rows = network.rows[:end]
    for i, row in enumerate(rows):
        if isinstance(row, Pool):
            break
        reached *= row.stride
        if isinstance(row, Bneck) and row.dilation > 1:
            # The row before the first dilated one is the one that lost its stride.
            return found[:-1] if reached == LOW_STRIDE else found
        if reached == LOW_STRIDE and isinstance(row, Bneck):
            found.append(i)
    return found


def reached_stride(network: NetSpec, end: int) -> int:
    """Image pixels a pixel of the map behind row `end`, along a side."""
    reached = 1
    for row in network.rows[:end]:
        reached *= 1 if isinstance(row, Pool) else row.stride
    return reached


def _check_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SpecError(f"{name} is {value!r}; it must be a whole number of at least {least}")


def paper_size(size: Size) -> tuple[int, int]:
    """The size at which Tables 7 and 8 count: one pixel more a side, a stride's multiple plus 1."""
    height, width = as_size(size)
    return height + 1, width + 1


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
        """All fields."""
        shape = f"{self.shape[0]}x{self.shape[1]}"
        pool = "global" if self.global_pool else "windows"
        return f"{self.head}{self.filters} {self.classes} {shape} os{self.stride} {pool}"

    def around(self, spec: NetSpec) -> Segmenter:
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
        return self.around(spec).network

    def size(self, spec: NetSpec) -> Pair:
        """The images' shape, whatever the network's resolution."""
        return self.shape

    def layers(self, spec: NetSpec) -> Iterator[Layer]:
        """Those of `segmenter_layers`."""
        return segmenter_layers(self.around(spec), self.shape)

    def rows(self, spec: NetSpec) -> Iterator[Placed]:
        """Rows up to the last map; the head's pool and 1x1 convs."""
        seg = self.around(spec)
        follows = seg.feeds()
        yield from placed_rows(seg.network, seg.features, self.shape)
        for layer in segmenter_layers(seg, self.shape):
            if layer.row < seg.features:
                continue
            if layer.kind == "pool":
                yield Placed(Pool(), layer.width_in, layer.size_in, False, (True, False))
            else:
                yield placed_conv(layer, free=layer.name in follows)
