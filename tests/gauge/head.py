"""The head as a value: the backbone up to its pooling layer, then one 1x1 convolution. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from bneck.specs.network import Layer, NetSpec, layers
from bneck.specs.operators import Operators
from bneck.specs.wrapper import Output, Placed, Plain, PlainNetwork, placed_conv, placed_rows

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gauge(PlainNetwork):
    """A backbone with the head, which outputs 0 for the number `low` and 1 for `high`."""

    low: float
    high: float

    def settings(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}

    def layers(self, size: Any) -> Iterator[Layer]:
        end, one = self.network.pool_at, (1, 1)
        walk = [layer for layer in layers(self.network, size) if layer.row <= end]
        yield from walk
        yield Layer(
            name="head", kind="conv", row=end + 1, width_in=walk[-1].out, out=1, size_in=one,
            size_out=one, bn=False,
        )  # fmt: skip

    def feeds(self) -> dict[str, str]:
        return {"head": f"rows.{self.network.pool_at}"}

    def outputs(self, size: Any, *, finished: bool = False) -> tuple[Output, ...]:
        return (Output("number", ("batch", 1)),)

    def answer(
        self, graph: Operators[T], image: T, size: Any, *, finished: bool = False
    ) -> dict[str, T]:
        return {"number": graph.flat("number", graph.through(self.layers(size), image))}


@dataclass(frozen=True, slots=True)
class GaugeHead(Plain):
    """Puts any backbone into a `Gauge`; `key` names its latency tables."""

    low: float = 0.0
    high: float = 1.0
    key = "gauge"

    def around(self, spec: NetSpec) -> Gauge:
        return Gauge(spec, self.low, self.high)

    def rows(self, spec: NetSpec) -> Iterator[Placed]:
        yield from placed_rows(spec, spec.pool_at + 1, self.size(spec))
        yield placed_conv(list(self.layers(spec))[-1], free=True)
