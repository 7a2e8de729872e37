"""The one traversal behind every form of a network: graphs that are written and 8-bit emulation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

from bneck.specs.network import Layer

T = TypeVar("T")


class Traversal(ABC, Generic[T]):
    """Goes through layers with a value of type T: a tensor's name, its description, or the tensor."""

    def through(self, walk: Iterable[Layer], x: T) -> T:
        """What `x` becomes behind a run of layers, residuals included."""
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
            self.passed(layer, x)
        return x

    def passed(self, layer: Layer, x: T) -> None:
        """Called with what came out of every layer; nothing is made of it here."""

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
