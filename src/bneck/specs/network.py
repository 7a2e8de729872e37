"""`NetSpec`: a network as a value, and the one traversal that everything else reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Literal, TypeAlias, get_args

from bneck.specs.rows import Act, Bneck, Conv, Pool, Row, SpecError, check_sizes

Padding: TypeAlias = Literal["symmetric", "same"]
Gate: TypeAlias = Literal["hsigmoid", "sigmoid"]
Size: TypeAlias = int | tuple[int, int]
PADDINGS: tuple[str, ...] = get_args(Padding)
GATES: tuple[str, ...] = get_args(Gate)

MOST_RESOLUTION = 8192  # of an input, whose images of 0.2 GB each are decoded several at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class NetSpec:
    """A network: its rows from stem to head, and what holds for all of them.

    A row's input width is never stored; it follows from the row above. The classifier (1 x 1
    convolution to `classes`, the tables' last line) comes after the last row.

    Raises:
        SpecError: the rows cannot be a network; the message names the row.
    """

    name: str
    rows: tuple[Row, ...]
    resolution: int = 224
    channels: int = 3
    classes: int = 1000
    padding: Padding = "symmetric"
    se_gate: Gate = "hsigmoid"
    bn_eps: float = 1e-3
    bn_momentum: float = 0.01
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise SpecError(
                f"name is {self.name!r}; it must be text (in a spec file: in quotes) and not blank"
            )
        check_sizes(resolution=self.resolution, channels=self.channels, classes=self.classes)
        if self.resolution > MOST_RESOLUTION:
            raise SpecError(
                f"resolution is {self.resolution}; it must be at most {MOST_RESOLUTION}"
            )
        for name, known in (("padding", PADDINGS), ("se_gate", GATES)):
            if (chosen := getattr(self, name)) not in known:
                raise SpecError(f"{name} is {chosen!r}; allowed are {', '.join(known)}")
        for name in ("bn_eps", "bn_momentum", "dropout"):
            value, drops = getattr(self, name), name == "dropout"
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not (0 <= value < 1 if drops else 0 < value <= 1):
                allowed = "from 0 to below 1" if drops else "above 0 and at most 1"
                raise SpecError(f"{name} is {value!r}; it must be a number {allowed}")
            object.__setattr__(self, name, float(value))  # 0 and 0.0 have one digest
        self._check_rows()

    def _check_rows(self) -> None:
        if not isinstance(self.rows, tuple) or not all(isinstance(row, Row) for row in self.rows):
            raise SpecError(f"rows is {self.rows!r}; it must be a tuple of Conv, Bneck and Pool")
        pools = [i for i, row in enumerate(self.rows) if isinstance(row, Pool)]
        if not self.rows or not isinstance(self.rows[0], Conv):
            raise SpecError("row 0 must be a conv: a network starts with its stem")
        if len(pools) != 1:
            raise SpecError(f"there are {len(pools)} pool rows; a network has exactly one")
        width = self.channels
        for i, row in enumerate(self.rows):
            if isinstance(row, Pool):
                continue
            if i > pools[0] and (not isinstance(row, Conv) or row.kernel != 1 or row.stride != 1):
                raise SpecError(f"row {i} stands after the pool; only 1x1 convs may stand there")
            if isinstance(row, Bneck) and row.skip == "yes" and not _adds_up(row, width):
                raise SpecError(
                    f"row {i} asks for a residual that cannot add up: stride {row.stride}, "
                    f"{width} channels in and {row.out} out; it needs stride 1 and equal widths"
                )
            if isinstance(row, Bneck) and row.needs_expansion and row.expanded == width:
                why = f"start {row.start}" if row.start else "kernel 0"
                raise SpecError(
                    f"row {i} has {why} and no expansion: {width} channels enter it and expanded is {width}; "
                    "give it another expansion, or a kernel alone"
                )
            width = row.out

    @property
    def pool_at(self) -> int:
        """Index of the pool row: rows before it are the features, rows after it the head."""
        return next(i for i, row in enumerate(self.rows) if isinstance(row, Pool))

    def width_into(self, index: int) -> int:
        """Channels that enter row `index`; `len(rows)` gives what enters the classifier."""
        for row in reversed(self.rows[:index]):
            if not isinstance(row, Pool):
                return row.out
        return self.channels

    def expands(self, index: int) -> bool:
        """Whether row `index` has an expand convolution, 1 x 1 or fused."""
        row = self.rows[index]
        return isinstance(row, Bneck) and (row.fused or row.expanded != self.width_into(index))

    def has_skip(self, index: int) -> bool:
        """Whether row `index` adds its input to its output."""
        row = self.rows[index]
        if not isinstance(row, Bneck) or row.skip == "no":
            return False
        return _adds_up(row, self.width_into(index))

    def digest(self) -> str:
        """Twelve hex digits that name this network's content, whatever it is called."""
        # Columns at their default are left out, so that a new column leaves old digests alone.
        head = [getattr(self, f.name) for f in fields(self) if f.name not in ("name", "rows")]
        rows = [
            (row.op, [(f.name, v) for f in fields(row) if (v := getattr(row, f.name)) != f.default])
            for row in self.rows
        ]
        return hashlib.sha256(repr((head, rows)).encode()).hexdigest()[:12]


def _adds_up(row: Bneck, width_in: int) -> bool:
    return row.stride == 1 and row.out == width_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One primitive operator of a network, with its place and sizes; height and width in pixels.

    `kind` is "conv", "depthwise", "squeeze" (SE's pool, two 1x1 convs, gate, product) or "pool".
    `row` is the index of its row, `len(spec.rows)` for the classifier. The row's input is added to
    the output of the layer that `adds`. `mid` is the squeeze width of a "squeeze" layer.
    """

    name: str
    kind: Literal["conv", "depthwise", "squeeze", "pool"]
    row: int
    width_in: int
    out: int
    size_in: tuple[int, int]
    size_out: tuple[int, int]
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    act: Act = "linear"
    bn: bool = True
    mid: int = 0
    adds: bool = False


def layers(spec: NetSpec, resolution: Size | None = None) -> Iterator[Layer]:
    """Walk the network's operators from the image to the class scores.

    Counting, building, graph writing and latency tables all read this walk, so they cannot
    disagree. `resolution` is a side or (height, width) in pixels; None takes the spec's own.
    """
    size = as_size(spec.resolution if resolution is None else resolution)
    width = spec.channels
    for i, row in enumerate(spec.rows):
        place = partial(Layer, name=f"rows.{i}", row=i, width_in=width, size_in=size)
        if isinstance(row, Pool):
            size = (1, 1)
            yield place(kind="pool", out=width, size_out=size)
            continue
        if isinstance(row, Conv):
            yield place(
                kind="conv", out=row.out, size_out=strided(size, row.stride), kernel=row.kernel,
                stride=row.stride, act=row.act, bn=row.bn,
            )  # fmt: skip
        else:
            expands, skip = spec.expands(i), spec.has_skip(i)
            yield from bneck_layers(i, row, width, size, expands=expands, skip=skip)
        width, size = row.out, strided(size, row.stride)
    yield Layer(
        name="classifier", kind="conv", row=len(spec.rows), width_in=width, out=spec.classes,
        size_in=size, size_out=size, bn=False,
    )  # fmt: skip


def bneck_layers(
    index: int, row: Bneck, width: int, size: tuple[int, int], *, expands: bool, skip: bool
) -> Iterator[Layer]:
    """The operators of one bneck row that `width` channels of `size` pixels enter."""
    name, wide, size_out = f"rows.{index}", row.expanded, strided(size, row.stride)
    if row.start:
        step = 1 if row.kernel else row.stride
        begun = strided(size, step)
        yield Layer(
            name=f"{name}.start", kind="depthwise", row=index, width_in=width, out=width, size_in=size,
            size_out=begun, kernel=row.start, stride=step, dilation=row.dilation,
        )  # fmt: skip
        size = begun
    spatial = partial(
        Layer, row=index, out=wide, size_in=size, size_out=size_out, kernel=row.kernel,
        stride=row.stride, dilation=row.dilation, act=row.act,
    )  # fmt: skip
    if row.fused:
        yield spatial(name=f"{name}.expand", kind="conv", width_in=width)
    else:
        if expands:
            yield Layer(
                name=f"{name}.expand", kind="conv", row=index, width_in=width, out=wide,
                size_in=size, size_out=size, act=row.act,
            )  # fmt: skip
        if row.kernel:
            yield spatial(name=f"{name}.depthwise", kind="depthwise", width_in=wide)
    after = partial(Layer, row=index, width_in=wide, size_in=size_out, size_out=size_out)
    if row.se:
        yield after(name=f"{name}.se", kind="squeeze", out=wide, mid=row.se, bn=False)
    yield after(name=f"{name}.project", kind="conv", out=row.out, act=row.out_act, adds=skip)


def as_size(resolution: Size) -> tuple[int, int]:
    """(height, width) of a side or a pair, in pixels."""
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """(height, width) after a convolution."""
    # Odd kernels under either padding give ceil(size / stride).
    return (-(-size[0] // stride), -(-size[1] // stride))
