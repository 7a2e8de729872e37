"""The operators of a network and its head, implemented by file writers and simulated quantization.

`through` is the only walk through a run of layers, and a task's head is written once over these
operators. In int8 every output has its own range, and is a real number before outputs are joined,
added or resized.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeAlias, TypeVar

from bneck.specs.network import Gate, Layer

T = TypeVar("T")
Pair: TypeAlias = tuple[int, int]
Values: TypeAlias = tuple[float, float]


class LayerOperators(ABC, Generic[T]):
    """Operators of layers on a value of type T: a tensor's name, its description, or the tensor."""

    def through(self, walk: Iterable[Layer], x: T) -> T:
        """What `x` becomes after a run of layers, residuals included."""
        made = x
        for _, made in self.behind(walk, x):  # noqa: B007, the last is wanted
            pass
        return made

    def behind(self, walk: Iterable[Layer], x: T) -> Iterator[tuple[Layer, T]]:
        """Every layer of a run with what `x` has become after it."""
        row, row_input = -1, x
        for layer in walk:
            if layer.row != row:
                row, row_input = layer.row, x
            match layer.kind:
                case "pool":
                    x = self.pool(layer, x)
                case "squeeze":
                    x = self.squeeze(layer, x)
                case _:
                    x = self.conv(layer, x)
            if layer.adds:
                x = self.add(layer, x, row_input)
            yield layer, x

    @abstractmethod
    def conv(self, layer: Layer, x: T) -> T:
        """Convolution, full or depthwise, and its nonlinearity."""

    @abstractmethod
    def squeeze(self, layer: Layer, x: T) -> T:
        """Squeeze-and-excite: pool, reduce, ReLU, gate, product."""

    @abstractmethod
    def pool(self, layer: Layer, x: T) -> T:
        """Mean over the map."""

    @abstractmethod
    def add(self, layer: Layer, x: T, row_input: T) -> T:
        """The residual."""


class Operators(LayerOperators[T]):
    """Those of layers, and what stands between and after them in a head."""

    @abstractmethod
    def real(self, x: T) -> T:
        """8-bit numbers as the real ones that they stand for; real ones as they are."""

    @abstractmethod
    def flat(self, name: str, x: T) -> T:
        """A map of one pixel -> (N, channels)."""

    @abstractmethod
    def listed(self, name: str, x: T, numbers: int) -> T:
        """A map of boxes a cell x `numbers` channels -> (N, boxes, numbers), by row and column."""

    @abstractmethod
    def joined(self, name: str, parts: Sequence[T]) -> T:
        """Real (N, boxes, numbers) behind one another."""

    @abstractmethod
    def mean(self, name: str, x: T) -> T:
        """The mean over the map, one pixel, rounded as point `name`."""

    @abstractmethod
    def windows(self, layer: Layer, x: T, window: Pair, strides: Pair) -> T:
        """Means of windows (height, width), `strides` (down, right) apart, rounded as the layer."""

    @abstractmethod
    def opened(self, layer: Layer, x: T, gate: Gate) -> T:
        """A 1x1 convolution and the gate after it, from 0 to 1."""

    @abstractmethod
    def product(self, name: str, x: T, gate: T) -> T:
        """A map times a gate, which may be one pixel, rounded as point `name`."""

    @abstractmethod
    def resized(self, name: str, x: T, size: Pair, have: Pair, gate: Gate | None = None) -> T:
        """A map from `have` to `size`, bilinear, corners on corners; that of a `gate` stays 8-bit."""

    @abstractmethod
    def total(self, name: str, x: T, y: T) -> T:
        """The sum of two real maps."""

    @abstractmethod
    def raised(self, name: str, x: T, by: T) -> T:
        """A map plus one pixel, and ReLU, rounded as point `name`."""

    @abstractmethod
    def best(self, name: str, x: T) -> T:
        """The channel with the largest number of every pixel: (N, height, width) whole numbers."""
