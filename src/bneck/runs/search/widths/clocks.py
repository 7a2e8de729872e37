"""Widths by the clock: proposals whose aim follows what was measured, until two times of day agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

from bneck.runs.search.latency import Latencies
from bneck.specs.network import NetSpec

TRIES = 8
CLOCKS = 4  # measurements of a choice at different times before it is trained
# Shares of the target: a later measurement of a network near either end may come out beyond 0.97 or 1.
LOW, AIM, HIGH = 0.976, 0.985, 0.992
PUSH = 0.005  # of the aim, each time that a network comes again


def by_clocks(
    latencies: Latencies,
    limit_ms: float,
    proposals: Mapping[str, Callable[[float], NetSpec]],
    first: int = 0,
) -> tuple[NetSpec, ...]:
    """For each proposal what measures next below a limit, still so when it is measured later.

    Args:
        latencies: of the run's device.
        limit_ms: what a network may take at most.
        proposals: by name, (estimated milliseconds to aim at) -> a network.
        first: the number of the first measurement. What was measured under a later number is not looked
            at, so that a resumed run chooses as it did.
    """
    for number in range(first, first + CLOCKS):
        specs = [_by_clock(latencies, limit_ms, one, number) for one in proposals.values()]
        latencies.measure_again(specs, number)
        times = [latencies.mean_ms(spec, number + 1) for spec in specs]
        if all(LOW * limit_ms <= ms <= HIGH * limit_ms for ms in times):
            break
    return tuple(specs)


def _by_clock(
    latencies: Latencies, limit_ms: float, propose: Callable[[float], NetSpec], number: int
) -> NetSpec:
    """What measures next below the target, of proposals whose aim follows what was measured."""
    aim_ms, tried, again = AIM * limit_ms, dict[str, tuple[float, NetSpec]](), 0
    for _ in range(TRIES):
        spec = propose(aim_ms)
        again += spec.digest() in tried
        ms = latencies.mean_ms(spec, number)
        tried[spec.digest()] = (ms, spec)
        if LOW * limit_ms <= ms <= HIGH * limit_ms:
            break
        # Estimates here are off by a ratio that neighbours share, and measurements by chance, some by far: the
        # median finds it. Where networks come again, the step is made longer, in its own direction.
        push = again * (PUSH if ms < LOW * limit_ms else -PUSH)
        off = median(ms / latencies.table.estimate_ms(one) for ms, one in tried.values())
        aim_ms = AIM * limit_ms / off * (1 + push)
    within = [one for one in tried.values() if one[0] <= HIGH * limit_ms]
    chosen = (
        max(within, key=lambda one: one[0]) if within else min(tried.values(), key=lambda x: x[0])
    )
    return chosen[1]
