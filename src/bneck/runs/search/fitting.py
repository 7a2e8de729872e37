"""Widths fitted to a latency by the clock: estimates say where to look, measurements what is right."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from bneck.costs.table import LatencyTable
from bneck.nas.fitting import fit_widths
from bneck.specs.network import NetSpec

TRIES = 6
STEP, STEPS = 0.995, 4  # where to look beside a network that was measured
# Shares of the limit: within 2 % of it is a hit, and from the last half percent a second measurement
# may come out above it.
LOW, AIM, HIGH = 0.98, 0.99, 0.995


@dataclass(frozen=True, slots=True)
class Fitted:
    """A network, its measured latency in milliseconds, and whether that is a hit."""

    spec: NetSpec
    measured_ms: float
    hit: bool


def fit_by_clock(
    spec: NetSpec,
    limit_ms: float,
    table: LatencyTable,
    measured: Callable[[NetSpec], float],
    *,
    widest: NetSpec | None = None,
) -> Fitted:
    """The version of `spec` that measures within 2 % below `limit_ms`, or as near below as was found.

    Args:
        spec: rows and proportions of widths.
        limit_ms: what it may take at most, in milliseconds.
        table: the device's estimates; what it does not cover is not proposed.
        measured: spec -> milliseconds by the clock.
        widest: see `nas.fitting.fit_widths`.

    Returns:
        Where nothing measured within the limit, what came nearest to it from above.
    """
    tried: dict[str, Fitted] = {}
    ratios: list[float] = []  # of measurements to estimates: neighbours share a table's error
    candidate: NetSpec | None = spec
    for _ in range(TRIES):
        if candidate is None:
            break
        ms = measured(candidate)
        one = Fitted(candidate, ms, LOW * limit_ms <= ms <= HIGH * limit_ms)
        tried[candidate.digest()] = one
        if one.hit:
            return one
        ratios.append(ms / table.estimate_ms(candidate))
        aim_ms = AIM * limit_ms / statistics.median(ratios)
        # The first version at or little below the aim that was not measured yet.
        looks = (
            fit_widths(spec, aim_ms * STEP**step, table.estimate_ms, widest=widest)
            for step in range(STEPS)
        )
        candidate = next((look for look in looks if look.digest() not in tried), None)
    within = [one for one in tried.values() if one.measured_ms <= HIGH * limit_ms]
    if within:
        return max(within, key=lambda one: one.measured_ms)
    return min(tried.values(), key=lambda one: one.measured_ms)
