"""A pool of worker processes that outlives the death of its members.

A worker that dies (killed, out of memory) takes nothing finished with it: what it had not
finished is given to a fresh pool.
"""

from __future__ import annotations

import heapq
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from bneck.specs.errors import InputError

T = TypeVar("T")
Arguments = Sequence[tuple[Any, ...]]
Kind = tuple[int, str, tuple[str, ...]]
MAX_TRIES = 3
ORDERS = 300  # that are tried for the earliest end
# Torch reads both when it is imported.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def earliest_end(seconds: Sequence[float], workers: int) -> list[int]:
    """The order of jobs, by their numbers, in which workers that take one after another end earliest.

    The given order, the longest first, or a random one: with few jobs, the longest first may end a tenth
    later than need be.
    """

    def end(order: Sequence[int]) -> float:
        free = [0.0] * workers
        for number in order:
            heapq.heapreplace(free, free[0] + seconds[number])
        return max(free)

    given, rng = list(range(len(seconds))), random.Random(0)
    longest = sorted(given, key=lambda number: -seconds[number])
    drawn = (rng.sample(given, len(given)) for _ in range(ORDERS))
    return min((given, longest, *drawn), key=end)


class IdleWorkers:
    """The workers of a pool that has ended, until the next pool of as many takes them over."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._kind: Kind | None = None

    def keep(self, pool: Any, workers: int) -> None:
        """Keep a pool's workers; those that are here already end."""
        self.stop()
        self._pool, self._kind = pool, _kind(workers)

    def take(self, workers: int) -> Any:
        """The workers if they are as many, with the same folder and modules, else None."""
        if self._kind != _kind(workers):
            return None
        pool, self._pool, self._kind = self._pool, None, None
        return pool

    def stop(self) -> None:
        """End them."""
        if self._pool is not None:
            _end(self._pool, busy=False)
        self._pool, self._kind = None, None


def _kind(workers: int) -> Kind:
    # Paths in their work may be relative, and what it names is imported there.
    return workers, os.getcwd(), tuple(sys.path)


def _end(pool: Any, *, busy: bool) -> None:
    # Killed workers leave semaphores behind, of which Python warns at the end.
    pool.shutdown(wait=True, kill_workers=busy)


_idle: IdleWorkers | None = None


@contextmanager
def kept_workers() -> Iterator[None]:
    """Let searches in this block use the same workers one after another: each takes two seconds to start."""
    global _idle
    before, _idle = _idle, IdleWorkers()
    try:
        yield
    finally:
        _idle.stop()
        _idle = before


def local_pool(workers: int) -> WorkerPool:
    """A pool on this machine, with the workers of the last one inside a block of `kept_workers`."""
    return WorkerPool(workers, _idle)


class WorkerPool:
    """Worker processes with one torch thread each; use it in a `with` block.

    They end with the block, or wait in `idle` for the next pool if all their work is done.
    """

    def __init__(self, workers: int, idle: IdleWorkers | None = None) -> None:
        self.workers = workers
        self._idle = idle
        self._pool: Any = None
        self._busy = False

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._idle is not None and self._pool is not None and not self._busy:
            self._idle.keep(self._pool, self.workers)
            self._pool = None
        else:
            self.stop()

    def stop(self) -> None:
        """End all workers, busy or not."""
        if self._pool is not None:
            _end(self._pool, busy=self._busy)
            self._pool = None

    def run(
        self, task: Callable[..., T], arguments: Arguments, on_done: Callable[[int, T], None]
    ) -> None:
        """Call `task` with every tuple of arguments, in parallel.

        `on_done` is called in this process with (index, result), in the order of finishing, once for
        every index.

        Raises:
            InputError: one task broke its worker three times.
        """
        open_tries = dict.fromkeys(range(len(arguments)), 0)
        self._busy = True
        while open_tries:
            futures: dict[Future[T], int] = {}
            with suppress(BrokenProcessPool):
                for index in open_tries:
                    futures[self._start().submit(task, *arguments[index])] = index
            for future in as_completed(futures):
                try:
                    result = future.result()
                except BrokenProcessPool:
                    continue  # the others go on: what finished before the death counts
                index = futures[future]
                del open_tries[index]
                on_done(index, result)
            if open_tries:
                self.stop()
                open_tries = {index: tries + 1 for index, tries in open_tries.items()}
                if max(open_tries.values()) >= MAX_TRIES:
                    raise InputError(
                        f"a worker process died {MAX_TRIES} times over the same work, most likely for want "
                        "of memory; run it again with --workers 1"
                    )
        self._busy = False

    def _start(self) -> Any:
        if self._pool is None and self._idle is not None:
            self._pool = self._idle.take(self.workers)
        if self._pool is None:
            from loky import ProcessPoolExecutor
            from loky.backend import get_context

            numbers = get_context().Queue()
            for number in range(self.workers):
                numbers.put(number)
            self._pool = ProcessPoolExecutor(
                max_workers=self.workers, initializer=_begin, initargs=(os.getpid(), numbers),
                env=ONE_THREAD,
            )  # fmt: skip
        return self._pool


_number = 0  # of this worker among those of its pool


def worker_device(compute: str | None) -> Any:
    """Where this worker trains: each has a GPU of its own where there are several; one is shared.

    `compute` as in `training.processes.device_of`; "cuda:1" puts all workers there.
    """
    import torch

    from bneck.training.processes import device_of

    device = device_of(compute)
    if device.type != "cuda" or (compute is not None and ":" in compute):
        return device
    return torch.device("cuda", _number % torch.cuda.device_count())


def _begin(parent: int, numbers: Any) -> None:
    global _number
    _number = numbers.get()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # A run that was killed outright cannot end its workers; they notice and go by themselves. Its
    # process id may live on, as a zombie or another process, but it is no longer theirs.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
