"""How long a burst of runs takes by the clock. It knows nothing else of bneck: it runs on devices too."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Burst:
    """Wall and process CPU times of `runs` runs behind each other, in milliseconds.

    A time a run, or a single one for all of them where a device tells no more. `cpu_ms` is empty
    where it does not tell CPU time.
    """

    runs: int
    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...] = ()


class Timer(ABC):
    """A network that is loaded somewhere and can be timed there, at batch 1."""

    @abstractmethod
    def burst(self, runs: int, warmup: int) -> Burst:
        """Run it `warmup` times, then time it `runs` times."""

    def close(self) -> None:
        """Let the device forget the network; the timer is of no more use."""
        return


class RunTimer(Timer):
    """Times what runs in this process, pinned to as many cores as it has threads."""

    def __init__(self, run: Run, threads: int = 1) -> None:
        self._run = run
        self._threads = threads

    def burst(self, runs: int, warmup: int) -> Burst:
        """Run it `warmup` times, then time it `runs` times."""
        run = self._run
        wall, cpu = [], []
        with pinned(self._threads):
            for _ in range(warmup):
                run()
            for _ in range(runs):
                cpu_start, start = time.process_time_ns(), time.perf_counter_ns()
                run()
                end, cpu_end = time.perf_counter_ns(), time.process_time_ns()
                wall.append((end - start) / 1e6)
                cpu.append((cpu_end - cpu_start) / 1e6)
        return Burst(runs, tuple(wall), tuple(cpu))


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
