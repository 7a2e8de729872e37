"""What surrounds a network, as a value. A task has its own kinds; the plain one is here.

A search changes the network and leaves the wrapper as it is. Counting, latency tables, modules, files
and simulated quantization all read a wrapped network through the walks here, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from bneck.specs.network import Layer, NetSpec, layers, strided
from bneck.specs.network import Size as AnySize
from bneck.specs.operators import Operators, Values
from bneck.specs.rows import Bneck, Conv, Pool, Row

Size = tuple[int, int]
T = TypeVar("T")
Tensors = Mapping[str, Any]
"""Arrays by name: folded weights."""


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


@dataclass(frozen=True, slots=True)
class Output:
    """One output: name, shape (channels first, open sides as text: "batch"), whether it is whole numbers."""

    name: str
    shape: tuple[int | str, ...]
    whole: bool = False


class Wrapped(Protocol):
    """A network with what surrounds it. Layers whose names begin with "rows." are the network's own."""

    @property
    def name(self) -> str:
        """What to call it."""

    @property
    def network(self) -> NetSpec:
        """The network inside."""

    @property
    def rounded(self) -> Mapping[str, Values]:
        """Points of 8-bit rounding that no layer is named after, with ranges of ordinary size."""

    def settings(self) -> dict[str, Any]:
        """Everything but the network, as plain values."""

    def layers(self, size: AnySize) -> Iterator[Layer]:
        """All operators that have parameters, for images of a size."""

    def feeds(self) -> Mapping[str, str]:
        """Head layers whose input narrows with the network -> the earlier layer whose channels they take."""

    def outputs(self, size: Size, *, finished: bool = False) -> tuple[Output, ...]:
        """What `answer` gives, in its order; `finished` as there."""

    def answer(
        self, graph: Operators[T], image: T, size: Size, *, finished: bool = False
    ) -> dict[str, T]:
        """Its outputs by name, real numbers, for images of (height, width), over any kind of operators.

        `finished` adds the task's last step, which has no weights.

        Raises:
            InputError: those operators do not have that step.
        """

    def arranged(self, weights: Tensors) -> Tensors:
        """Folded weights, named after `layers`, by the names that `answer` asks for."""


class Wrapper(Protocol):
    """What surrounds a network. It is compared and hashed by its content."""

    @property
    def key(self) -> str:
        """Names the content; "" where nothing surrounds the network."""

    def around(self, spec: NetSpec) -> Wrapped:
        """A network in it.

        Raises:
            SpecError: this network cannot be.
        """

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
        """All operators as rows: the network's that take part, then the head's.

        Operators without a row, whose cost does not depend on the network's widths (resizes), are left out.
        """


@dataclass(frozen=True, slots=True)
class PlainNetwork:
    """A network alone: it outputs `scores` (N, classes), and has no last step."""

    network: NetSpec

    @property
    def name(self) -> str:
        return self.network.name

    @property
    def rounded(self) -> Mapping[str, Values]:
        return {}

    def settings(self) -> dict[str, Any]:
        return {}

    def layers(self, size: AnySize) -> Iterator[Layer]:
        return layers(self.network, size)

    def feeds(self) -> Mapping[str, str]:
        return {"classifier": f"rows.{len(self.network.rows) - 1}"}

    def outputs(self, size: Size, *, finished: bool = False) -> tuple[Output, ...]:
        return (Output("scores", ("batch", self.network.classes)),)

    def answer(
        self, graph: Operators[T], image: T, size: Size, *, finished: bool = False
    ) -> dict[str, T]:
        return {"scores": graph.flat("scores", graph.through(self.layers(size), image))}

    def arranged(self, weights: Tensors) -> Tensors:
        return weights


@dataclass(frozen=True, slots=True)
class Plain:
    """Nothing: a network classifies by itself, images of its own resolution."""

    key = ""

    def around(self, spec: NetSpec) -> PlainNetwork:
        return PlainNetwork(spec)

    def network(self, spec: NetSpec) -> NetSpec:
        return spec

    def size(self, spec: NetSpec) -> Size:
        return (spec.resolution, spec.resolution)

    def layers(self, spec: NetSpec) -> Iterator[Layer]:
        return self.around(spec).layers(self.size(spec))  # a task's wrapper may inherit this walk

    def rows(self, spec: NetSpec) -> Iterator[Placed]:
        yield from placed_rows(spec, len(spec.rows), self.size(spec))
        classifier = Conv(1, spec.classes, "linear", bn=False)
        yield Placed(classifier, spec.width_into(len(spec.rows)), (1, 1), False, (True, False))


PLAIN = Plain()


def placed_rows(spec: NetSpec, end: int, size: Size) -> Iterator[Placed]:
    """Rows of a network up to `end`."""
    width = spec.channels
    for i, row in enumerate(spec.rows[:end]):
        yield Placed(row, width, size, spec.expands(i), (i > 0, True))
        if isinstance(row, Pool):
            size = (1, 1)
        else:
            width, size = row.out, strided(size, row.stride)


def placed_conv(layer: Layer, *, free: bool) -> Placed:
    """A convolution of a head; `free` says whether its input narrows with the network."""
    row = Conv(layer.kernel, layer.out, layer.act, layer.stride, bn=layer.bn)
    return Placed(row, layer.width_in, layer.size_in, False, (free, False))


def placed_separable(depthwise: Layer, point: Layer, *, free: bool) -> Placed:
    """A separable convolution of a head, as a bneck without an expand convolution."""
    row = Bneck(
        depthwise.kernel, depthwise.out, point.out, 0, depthwise.act, depthwise.stride,
        skip="no", out_act=point.act,
    )  # fmt: skip
    return Placed(row, depthwise.width_in, depthwise.size_in, False, (free, False))
