"""The timing protocol (6.1.2): one thread, pinned, warmed up, interleaved in shuffled rounds.

Wall time and process CPU time are both recorded; a burst in which they differ was disturbed by
another process and is repeated. A reference runs before and behind every burst and tells what
slows the machine (its clock, a neighbour on the same core or cache) apart from what makes models
differ: every burst is divided by the reference's pace beside it.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from bneck.specs.errors import InputError

Run = Callable[[], object]
REFERENCE = "reference"
REFERENCE_SHARE = 0.5  # length of its bursts, of which there are twice as many
# Whatever ran before has cleared the caches; how far depends on what it was, and must not show.
REFERENCE_WARMUP = 3


class TimingError(InputError):
    """The machine was too busy for a figure worth reporting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How often to run, and when to distrust.

    A burst is `burst_ms` of runs of one model, at least `least_runs`, behind `warmup` runs. It is
    repeated while its wall time exceeds its CPU time by the factor `max_wall_over_cpu`, at most
    `max_repeats` times. `max_spread` is the largest (p90 - p10) / median of paced round medians
    that is still reported.
    """

    threads: int = 1
    warmup: int = 2
    rounds: int = 12
    burst_ms: float = 20.0
    least_runs: int = 3
    max_wall_over_cpu: float = 1.05
    max_repeats: int = 6
    max_spread: float = 0.5
    first_warmup: int = 10


@dataclass(slots=True)
class Samples:
    """Times of one model: every run's wall and CPU time, and their medians per burst, in milliseconds."""

    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    round_ms: list[float] = field(default_factory=list)
    round_cpu_ms: list[float] = field(default_factory=list)
    pace: list[float] = field(default_factory=list)
    repeated: int = 0

    @property
    def paced_ms(self) -> list[float]:
        """Medians of bursts divided by the reference's pace beside them."""
        return [ms / pace for ms, pace in zip(self.round_ms, self.pace, strict=True)]


def race(
    runs: Mapping[str, Run],
    reference: Run,
    protocol: Protocol,
    *,
    seed: int = 0,
    nominal_ms: float | None = None,
    on_round: Callable[[int, int], None] | None = None,
) -> dict[str, Samples]:
    """Time models against each other, interleaved in shuffled rounds.

    Args:
        runs: what to time; each call is one inference at batch 1.
        reference: runs before and behind every burst; its samples come back under `REFERENCE`.
        protocol: how often, and when to distrust.
        seed: of the order within rounds.
        nominal_ms: the reference's time that means pace 1; None takes its median here.
        on_round: called with (rounds done, rounds) for progress.

    Raises:
        TimingError: a model's paced times still spread too far, so no figure would mean much.
    """
    rng = random.Random(seed)
    samples = {name: Samples() for name in (*runs, REFERENCE)}
    beside: dict[str, list[float]] = {name: [] for name in runs}
    patient = replace(protocol, warmup=max(protocol.warmup, REFERENCE_WARMUP))
    with pinned(protocol.threads):
        bursts = {name: _size_burst(run, protocol.burst_ms, protocol) for name, run in runs.items()}
        few = _size_burst(reference, protocol.burst_ms * REFERENCE_SHARE, protocol)
        for number in range(protocol.rounds):
            before = _burst(reference, few, patient, samples[REFERENCE])
            for name in rng.sample(list(runs), len(runs)):
                _burst(runs[name], bursts[name], protocol, samples[name])
                behind = _burst(reference, few, patient, samples[REFERENCE])
                beside[name].append((before + behind) / 2)
                before = behind
            if on_round:
                on_round(number + 1, protocol.rounds)
    beside[REFERENCE] = samples[REFERENCE].round_ms
    nominal = nominal_ms or statistics.median(samples[REFERENCE].round_ms)
    for name, sample in samples.items():
        sample.pace = [ms / nominal for ms in beside[name]]
        _check_spread(name, sample, protocol)
    return samples


def _size_burst(run: Run, burst_ms: float, protocol: Protocol) -> int:
    for _ in range(protocol.first_warmup):
        run()
    start = time.perf_counter()
    run()
    once_ms = (time.perf_counter() - start) * 1e3
    return max(protocol.least_runs, int(burst_ms / max(once_ms, 1e-3)))


def _burst(run: Run, n: int, protocol: Protocol, samples: Samples) -> float:
    """Time a burst, again while it is disturbed; its median in milliseconds."""
    best: tuple[float, list[float], list[float]] | None = None
    for attempt in range(protocol.max_repeats + 1):
        for _ in range(protocol.warmup):
            run()
        wall, cpu = _time_runs(run, n)
        # CPU time of several threads adds up, so only one thread can be judged by it.
        disturbance = sum(wall) / max(sum(cpu), 1e-9) if protocol.threads == 1 else 1.0
        if best is None or disturbance < best[0]:
            best = (disturbance, wall, cpu)
        if disturbance <= protocol.max_wall_over_cpu:
            break
        samples.repeated += 1 if attempt < protocol.max_repeats else 0
    assert best is not None
    samples.wall_ms += best[1]
    samples.cpu_ms += best[2]
    samples.round_ms.append(statistics.median(best[1]))
    samples.round_cpu_ms.append(statistics.median(best[2]))
    return samples.round_ms[-1]


def _time_runs(run: Run, n: int) -> tuple[list[float], list[float]]:
    wall, cpu = [], []
    for _ in range(n):
        cpu_start, start = time.process_time_ns(), time.perf_counter_ns()
        run()
        end, cpu_end = time.perf_counter_ns(), time.process_time_ns()
        wall.append((end - start) / 1e6)
        cpu.append((cpu_end - cpu_start) / 1e6)
    return wall, cpu


def _check_spread(name: str, samples: Samples, protocol: Protocol) -> None:
    paced = sorted(samples.paced_ms)
    low, high = paced[len(paced) // 10], paced[-1 - len(paced) // 10]
    spread = (high - low) / statistics.median(paced)
    if spread > protocol.max_spread:
        raise TimingError(
            f"the times of {name} spread by {spread:.0%} after {samples.repeated} repeated bursts, so a "
            "median would mean nothing; stop what else runs on this machine and measure again"
        )


@contextmanager
def pinned(threads: int) -> Iterator[bool]:
    """Keep this thread on as many cores as it may use, where the system can; says whether."""
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, sorted(before, reverse=True)[:threads])
        can_pin = True
    except OSError:  # a sandbox may forbid it
        can_pin = False
    try:
        yield can_pin
    finally:
        if can_pin:
            os.sched_setaffinity(0, before)
