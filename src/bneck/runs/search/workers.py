"""A pool of worker processes that outlives the death of its members.

A worker that dies (killed, out of memory) takes nothing finished with it: what it had not
finished is given to a fresh pool.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any, TypeVar

from bneck.specs.errors import InputError

T = TypeVar("T")
Arguments = Sequence[tuple[Any, ...]]
MAX_TRIES = 3


class WorkerPool:
    """Worker processes with one torch thread each; use it in a `with` block."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: Any = None

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all workers, busy or not."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=True)
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

    def _start(self) -> Any:
        if self._pool is None:
            from loky import ProcessPoolExecutor
            from loky.backend import get_context

            numbers = get_context().Queue()
            for number in range(self.workers):
                numbers.put(number)
            self._pool = ProcessPoolExecutor(
                max_workers=self.workers, initializer=_begin, initargs=(os.getpid(), numbers)
            )
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
    import torch

    global _number
    _number = numbers.get()
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # A run that was killed outright cannot end its workers; they notice and go by themselves. Its
    # process id may live on, as a zombie or another process, but it is no longer theirs.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
