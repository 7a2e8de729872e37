"""The timing protocol (6.1.2): one thread, pinned, warmed up, interleaved in shuffled rounds.

Wall time and process CPU time are both recorded; a burst in which they differ was disturbed by
another process and is repeated. A reference network runs before and after every burst and tells
what slows the machine (its clock, a neighbour on the same core or cache) apart from what makes models
differ: each burst is divided by the slowdown factor, the reference's time just before and after over
its nominal time.

Networks feel a neighbour differently: on a shared machine a narrow one takes up to 7 % less of the wide
reference's time than on a quiet one. Only what both take undisturbed compares between times of day. So what a
search decides by is their fastest runs (`Samples.undisturbed_ms`), not medians.

All this is the same for every device; only the `devices.timing.Timer` of a burst differs.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

from bneck.devices.timing import Burst, Timer
from bneck.specs.errors import InputError

REFERENCE = "reference"
REFERENCE_SHARE = 0.5  # length of its bursts, of which there are twice as many
# Whatever ran before has cleared the caches; how far depends on what it was, and must not show.
REFERENCE_WARMUP = 3


class TimingError(InputError):
    """The machine was too busy for a figure worth reporting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How often to run, and when to distrust.

    A burst is `burst_ms` of runs of one model, at least `least_runs`, after `warmup` runs. It is
    repeated while its wall time exceeds its CPU time by the factor `max_wall_over_cpu`, at most
    `max_repeats` times. `max_spread` is the largest (p90 - p10) / median of paced round medians
    that is still reported. Everything is loaded again `loads` times, for `rounds` each: where a
    runtime puts a network's buffers makes copies of one network differ by up to 7 % as long as they live.
    """

    threads: int = 1
    warmup: int = 2
    rounds: int = 12
    loads: int = 1
    burst_ms: float = 20.0
    least_runs: int = 3
    max_wall_over_cpu: float = 1.05
    max_repeats: int = 6
    max_spread: float = 0.5
    first_warmup: int = 10

    def seconds(self, models: int, reference_ms: float, model_ms: float = 0.0) -> float:
        """How long the bursts of so many models take; loading them and repeated bursts come on top."""
        least, own_ms = self.least_runs + self.warmup, self.burst_ms + self.warmup * model_ms
        reference = REFERENCE_SHARE * self.burst_ms / reference_ms
        runs = max(self.least_runs, reference) + max(self.warmup, REFERENCE_WARMUP)
        each_ms = max(least * model_ms, own_ms) + runs * reference_ms
        return self.loads * self.rounds * models * each_ms / 1000


@dataclass(slots=True)
class Samples:
    """Times of one model: every run's wall and CPU time, and their medians per burst, in milliseconds.

    `runs` is how many runs they are of. `beside_ms` has the reference's fastest run just before or after every
    burst. There are no CPU times of a device that tells none.
    """

    runs: int = 0
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    round_ms: list[float] = field(default_factory=list)
    round_cpu_ms: list[float] = field(default_factory=list)
    pace: list[float] = field(default_factory=list)
    beside_ms: list[float] = field(default_factory=list)
    repeated: int = 0

    def extend(self, other: Samples) -> None:
        """Add the times of another race."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    @property
    def paced_ms(self) -> list[float]:
        """Medians of bursts, each divided by its slowdown factor."""
        return [ms / pace for ms, pace in zip(self.round_ms, self.pace, strict=True)]

    def undisturbed_ms(self, nominal_ms: float) -> float:
        """Milliseconds of the fastest run, where the fastest run of the reference takes `nominal_ms`."""
        return nominal_ms * min(self.wall_ms) / max(min(self.beside_ms), 1e-6)


def race(
    timers: Mapping[str, Timer],
    reference: Timer,
    protocol: Protocol,
    *,
    seed: int = 0,
    nominal_ms: float | None = None,
    on_round: Callable[[int, int], None] | None = None,
) -> dict[str, Samples]:
    """Time models against each other, interleaved in shuffled rounds.

    Args:
        timers: what to time, each on the same device.
        reference: runs before and after every burst; its samples come back under `REFERENCE`.
        protocol: how often, and when to distrust.
        seed: of the order within rounds.
        nominal_ms: the reference's time at slowdown factor 1; None takes its median here.
        on_round: called with (rounds done, rounds) for progress.

    Raises:
        TimingError: a model's paced times still spread too far, so no figure would mean much.
    """
    rng = random.Random(seed)
    samples = {name: Samples() for name in (*timers, REFERENCE)}
    around: dict[str, list[float]] = {name: [] for name in timers}
    patient = replace(protocol, warmup=max(protocol.warmup, REFERENCE_WARMUP))
    bursts = {name: _runs_in(timer, protocol.burst_ms, protocol) for name, timer in timers.items()}
    few = _runs_in(reference, protocol.burst_ms * REFERENCE_SHARE, protocol)
    for number in range(protocol.rounds):
        before = _burst(reference, few, patient, samples[REFERENCE])
        for name in rng.sample(list(timers), len(timers)):
            _burst(timers[name], bursts[name], protocol, samples[name])
            after = _burst(reference, few, patient, samples[REFERENCE])
            around[name].append((_median(before) + _median(after)) / 2)
            samples[name].beside_ms.append(min(*before.wall_ms, *after.wall_ms))
            before = after
        if on_round:
            on_round(number + 1, protocol.rounds)
    around[REFERENCE] = samples[REFERENCE].round_ms
    samples[REFERENCE].beside_ms = [min(samples[REFERENCE].wall_ms)]
    nominal = nominal_ms or statistics.median(samples[REFERENCE].round_ms)
    for name, sample in samples.items():
        sample.pace = [ms / nominal for ms in around[name]]
        _check_spread(name, sample, protocol)
    return samples


def _runs_in(timer: Timer, burst_ms: float, protocol: Protocol) -> int:
    """How many runs fill a burst."""
    once_ms = _median(timer.burst(1, protocol.first_warmup))
    return max(protocol.least_runs, int(burst_ms / max(once_ms, 1e-3)))


def _burst(timer: Timer, n: int, protocol: Protocol, samples: Samples) -> Burst:
    """Time a burst, again while it is disturbed; the least disturbed one."""
    tries: list[tuple[float, Burst]] = []
    while len(tries) <= protocol.max_repeats:
        burst = timer.burst(n, protocol.warmup)
        # CPU time of several threads adds up, so it can only tell whether one thread was disturbed.
        known = protocol.threads == 1 and burst.cpu_ms
        disturbance = sum(burst.wall_ms) / max(sum(burst.cpu_ms), 1e-9) if known else 1.0
        tries.append((disturbance, burst))
        if disturbance <= protocol.max_wall_over_cpu:
            break
    samples.repeated += len(tries) - 1
    _, burst = min(tries, key=lambda one: one[0])
    samples.runs += burst.runs
    samples.wall_ms += burst.wall_ms
    samples.cpu_ms += burst.cpu_ms
    samples.round_ms.append(_median(burst))
    if burst.cpu_ms:
        samples.round_cpu_ms.append(statistics.median(burst.cpu_ms))
    return burst


def _median(burst: Burst) -> float:
    return statistics.median(burst.wall_ms)


def _check_spread(name: str, samples: Samples, protocol: Protocol) -> None:
    paced = sorted(samples.paced_ms)
    low, high = paced[len(paced) // 10], paced[-1 - len(paced) // 10]
    spread = (high - low) / statistics.median(paced)
    if spread > protocol.max_spread:
        raise TimingError(
            f"the times of {name} spread by {spread:.0%} after {samples.repeated} repeated bursts, so a "
            "median would mean nothing; stop what else runs on the device and measure again"
        )
