"""Widths by the clock: proposals whose aim follows what was measured, until two times of day agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import log, sqrt
from statistics import fmean, median

from bneck.runs.search.latency import Latencies
from bneck.specs.network import NetSpec

TRIES = 8
CLOCKS = 4  # measurements of a choice at different times before it is trained
# Shares of the target: a later measurement of a network near either end may come out beyond 0.97 or 1.
LOW, AIM, HIGH = 0.976, 0.985, 0.992
PUSH = 0.005  # of the aim, each time that a network comes again
# Standard deviations: of networks from their estimates, and of a measurement until repeats tell what it is.
DEVIATION, NOISE = 0.01, 0.01
PRIOR = 2  # repeats that `NOISE` counts for


def by_clocks(
    latencies: Latencies,
    limit_ms: float,
    proposals: Mapping[str, Callable[[float], NetSpec]],
    first: int = 0,
) -> tuple[NetSpec, ...]:
    """For each proposal what runs next below a limit, still so when it is measured later.

    Args:
        latencies: of the run's device.
        limit_ms: what a network may take at most.
        proposals: by name, (estimated milliseconds to aim at) -> a network.
        first: the number of the first measurement. What was measured under a later number is not looked
            at, so that a resumed run chooses as it did.
    """
    every = [_Tries(latencies, limit_ms, propose) for propose in proposals.values()]
    for number in range(first, first + CLOCKS):
        noise = _noise(every, number)
        specs = [tries.chosen(number, noise) for tries in every]
        latencies.measure_again(specs, number)
        noise = _noise(every, number + 1)
        if all(
            tries.meets(spec, number + 1, noise) for tries, spec in zip(every, specs, strict=True)
        ):
            break
    return tuple(specs)


@dataclass(frozen=True, slots=True)
class _Tries:
    """Networks of one proposal, by digest, and what they are likely to take."""

    latencies: Latencies
    limit_ms: float
    propose: Callable[[float], NetSpec]
    tried: dict[str, NetSpec] = field(default_factory=dict)

    def chosen(self, number: int, noise: float) -> NetSpec:
        """What is likely to run next below the limit: of those tried, or else of new ones."""
        aim_ms, again = AIM * self.limit_ms, 0
        for _ in range(TRIES):
            if self.tried:
                best = self._best(number, noise)
                if self.meets(best, number, noise):
                    return best
                # Where networks come again, the step is made longer, in its own direction.
                slow = self._likely_ms(best, number, noise) > HIGH * self.limit_ms
                push = again * (-PUSH if slow else PUSH)
                aim_ms = AIM * self.limit_ms / self._off(number) * (1 + push)
            spec = self.propose(aim_ms)
            again += spec.digest() in self.tried
            self.tried[spec.digest()] = spec
        return self._best(number, noise)

    def meets(self, spec: NetSpec, number: int, noise: float) -> bool:
        """Whether a network is likely to run next below the limit, by what was measured before a number."""
        return LOW * self.limit_ms <= self._likely_ms(spec, number, noise) <= HIGH * self.limit_ms

    def _best(self, number: int, noise: float) -> NetSpec:
        """The slowest that is likely within the limit, or else the fastest."""
        likely = {key: self._likely_ms(spec, number, noise) for key, spec in self.tried.items()}
        within = [key for key, ms in likely.items() if ms <= HIGH * self.limit_ms]
        best = (
            max(within, key=likely.__getitem__) if within else min(likely, key=likely.__getitem__)
        )
        return self.tried[best]

    def _likely_ms(self, spec: NetSpec, number: int, noise: float) -> float:
        """Between what was measured and what its neighbours let expect, by how well each is known."""
        times = self.latencies.times_ms(spec, number)
        expected = self.latencies.table.estimate_ms(spec) * self._off(number)
        share = DEVIATION**2 / (DEVIATION**2 + noise**2 / len(times))
        return float(expected * (fmean(times) / expected) ** share)

    def _off(self, number: int) -> float:
        """Measured over estimated, a ratio that neighbours share; the median, for some times are far off."""
        return median(
            fmean(self.latencies.times_ms(one, number)) / self.latencies.table.estimate_ms(one)
            for one in self.tried.values()
        )


def _noise(every: Iterable[_Tries], number: int) -> float:
    """The standard deviation of a measurement, by the networks measured several times before a number."""
    squares, repeats = PRIOR * NOISE**2, PRIOR
    for tries in every:
        for spec in tries.tried.values():
            logs = [log(ms) for ms in tries.latencies.times_ms(spec, number)]
            squares += sum((one - fmean(logs)) ** 2 for one in logs)
            repeats += len(logs) - 1
    return sqrt(squares / repeats)
