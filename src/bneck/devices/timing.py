"""How long a burst of runs takes, measured. It imports little of bneck: it runs on devices too."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bneck.devices.machine import THIS, Machine

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Burst:
    """Wall and process CPU times of `runs` runs in a row, in milliseconds.

    One time per run, or a single one for all of them if a device tells no more. `cpu_ms` is empty if
    it does not tell CPU time.
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
        """Let the device forget the network; the timer cannot be used any more."""
        return


class RunTimer(Timer):
    """Times what runs in this process, pinned to as many cores as it has threads.

    No other bneck process on this machine times during a burst. `clock` has the functions of `time`.
    """

    def __init__(
        self, run: Run, threads: int = 1, *, machine: Machine = THIS, clock: Any = time
    ) -> None:
        self._run, self._threads, self._machine, self._clock = run, threads, machine, clock

    def burst(self, runs: int, warmup: int) -> Burst:
        run, wall_ns, cpu_ns = self._run, self._clock.perf_counter_ns, self._clock.process_time_ns
        wall, cpu = [], []
        with self._machine.turn(), pinned(self._threads, self._machine):
            for _ in range(warmup):
                run()
            for _ in range(runs):
                cpu_start, start = cpu_ns(), wall_ns()
                run()
                end, cpu_end = wall_ns(), cpu_ns()
                wall.append((end - start) / 1e6)
                cpu.append((cpu_end - cpu_start) / 1e6)
        return Burst(runs, tuple(wall), tuple(cpu))


@contextmanager
def pinned(threads: int, machine: Machine = THIS, system: Any = os) -> Iterator[bool]:
    """Keep this thread on as many cores as it may use, if the system can; yields whether.

    `system` has the functions of `os`; `machine` says which cores.
    """
    if not hasattr(system, "sched_setaffinity"):
        yield False
        return
    before = system.sched_getaffinity(0)
    try:
        system.sched_setaffinity(0, machine.cores(threads, before))
        can_pin = True
    except OSError:  # a sandbox may forbid it
        can_pin = False
    try:
        yield can_pin
    finally:
        if can_pin:
            system.sched_setaffinity(0, before)
