"""Widths by the clock, against a clock whose errors are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bneck.runs.search.widths.by_importance import missed
from bneck.runs.search.widths.clocks import CLOCKS, HIGH, LOW, by_clocks
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool


def network(channels: int) -> NetSpec:
    rows = (
        Conv(3, 16, "hswish", 2),
        Bneck(3, 16, channels, 0, "relu", 2),
        Pool(),
        Conv(1, 8, "hswish", bn=False),
    )
    return NetSpec(name=f"n{channels}", resolution=32, classes=3, rows=rows)


class Clock:
    """A network of n channels takes n us on the table, and `ms(n, number)` at the number-th time."""

    def __init__(self, ms: Callable[[int, int], float]) -> None:
        self.ms, self.table = ms, self
        self.first, self.again = dict[str, int](), dict[str, set[int]]()

    def estimate_ms(self, spec: NetSpec) -> float:
        return int(spec.name[1:]) / 1000

    def measure_again(self, specs: list[NetSpec], number: int) -> None:
        for spec in specs:
            self.again.setdefault(spec.name, set()).add(number)

    def times_ms(self, spec: NetSpec, before: int) -> list[float]:
        first = self.first.setdefault(spec.name, before - 1)
        known = [first, *(one for one in self.again.get(spec.name, ()) if one < before)]
        return [self.ms(int(spec.name[1:]), one) for one in known]

    def choose(self, limit_ms: float, first: int = 0) -> int:
        def proposal(aim_ms: float) -> NetSpec:
            return network(int(1000 * aim_ms))

        clock: Any = self
        (found,) = by_clocks(clock, limit_ms, {"found": proposal}, first)
        return int(found.name[1:])


@pytest.mark.parametrize("off", [0.8, 0.95, 1.0, 1.1, 1.4])
def test_an_estimate_that_is_off_is_corrected(off: float) -> None:
    found = Clock(lambda channels, number: off * channels / 1000).choose(1.0)
    assert LOW <= off * found / 1000 <= HIGH


def test_a_network_that_measures_faster_later_is_chosen_wider() -> None:
    """The first measurements are 10 % too long, all later ones are right."""
    clock = Clock(lambda channels, number: channels / 1000 * (1.1 if number < 0 else 1.0))
    found = clock.choose(1.0)
    assert LOW <= found / 1000 <= HIGH


def test_later_measurements_do_not_change_what_was_chosen_before_them() -> None:
    """A run that is killed in its second round chooses for the first as it did."""
    clock = Clock(lambda channels, number: channels / 1000 * (0.9 if number >= CLOCKS else 1.0))
    first = clock.choose(1.0)
    clock.measure_again([network(first)], CLOCKS)  # at the end of the first round
    second = clock.choose(1.0, CLOCKS + 1)
    assert second > first
    assert clock.choose(1.0) == first
    assert clock.choose(1.0, CLOCKS + 1) == second


def test_a_choice_that_still_holds_is_not_sought_again() -> None:
    """Of two choices one, with an odd number of channels, takes 4 % longer from the second time on."""
    clock = Clock(
        lambda channels, number: channels / 1000 * (1.04 if channels % 2 and number >= 0 else 1.0)
    )
    asked = {"even": 0, "odd": 0}

    def proposal(name: str) -> Callable[[float], NetSpec]:
        def propose(aim_ms: float) -> NetSpec:
            asked[name] += 1
            return network(int(500 * aim_ms) * 2 + (name == "odd"))

        return propose

    found: Any = clock
    even, odd = by_clocks(found, 1.0, {name: proposal(name) for name in asked})
    assert (even.name, asked["even"]) == ("n984", 1)
    assert asked["odd"] > 1
    assert LOW <= 1.04 * int(odd.name[1:]) / 1000 <= HIGH


@pytest.mark.parametrize(
    ("ms", "mean_ms", "side"),
    [
        (1.001, 0.98, "above"),
        (1.0, 0.97, None),
        (0.95, 0.98, None),
        (0.99, 0.969, "below"),
        (1.2, 0.9, "above"),
    ],
)
def test_a_target_is_met_from_three_percent_below_it_on(
    ms: float, mean_ms: float, side: str | None
) -> None:
    assert missed(2 * ms, 2 * mean_ms, 2.0) == side
