"""What a long run tells the person who waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bneck.devices.machine import THIS
from bneck.records.progress import Progress, Silent, about
from bneck.training.log import TrainingLog

LEAST = 0.005  # of a job: a bar does not move by less
POLL_S = 0.5
PATIENCE_S = 3.0  # a silence that needs no word
TIMED_STEPS, TIMED_S = 3, 1.0  # at least, before a training says how long it takes


class Courteous(Silent):
    """Called at every step of a training or an evaluation: lets other processes time in peace."""

    def __call__(self, done: int, total: int, loss: float) -> None:
        THIS.give_way()

    def advance(self, done: float) -> None:
        THIS.give_way()


class Steps:
    """Moves a training's bar and says how fast it goes; keeps the losses of this process's steps.

    `best` is what the best weights so far score, in words.
    """

    def __init__(
        self, progress: Progress, stage: str, log: TrainingLog | None = None, *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.progress, self.stage, self.log, self.clock = progress, stage, log, clock
        self.losses: list[float] = []
        self.done, self.best = 0, ""
        self._timed: tuple[float, int] | None = (
            None  # when the first step was over, and which it was
        )

    def __call__(self, done: int, total: int, loss: float) -> None:
        THIS.give_way()
        if not self.losses:
            self.progress.stage(self.stage, total)
            self._timed = self.clock(), done
        self.losses.append(loss)
        self.progress.advance(done - self.done)
        self.done = done
        self._say_how_long(total)
        speed = self.log.images_per_s if self.log is not None else 0.0
        said = (f"{speed:.0f} images/s" if speed else "", self.best)
        self.progress.note("; ".join(filter(None, said)))

    def _say_how_long(self, total: int) -> None:
        """Once, from the first steps; the very first one also warms up and is not counted."""
        if self._timed is None:
            return
        begun, first = self._timed
        spent, steps = self.clock() - begun, self.done - first
        if steps >= TIMED_STEPS and spent >= TIMED_S:
            self._timed, left = None, spent / steps * (total - self.done)
            if left > PATIENCE_S:
                self.progress.say(
                    f"{self.stage}: {total} steps, {about(left)} left; the first {steps} took "
                    f"{1000 * spent / steps:.0f} ms each"
                )


class Staged:
    """Shows (what, done, all), as a table that is filled calls it: a stage for each `what`."""

    def __init__(self, progress: Progress, verb: str) -> None:
        self.progress, self.verb = progress, verb
        self.what, self.done = "", 0

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self.what:
            self.progress.stage(f"{self.verb} {what}", total)
            self.what, self.done = what, 0
        self.progress.advance(done - self.done)
        self.done = done


class Replaying:
    """Says that a searcher replays what it learned, once that has taken some seconds."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._began = self._said = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 1:
            self._began, self._said = now, 0.0
        spent = now - self._began
        if not self._said and spent > PATIENCE_S:
            self._said = now
            left = spent / done * (total - done)
            self.progress.say(
                f"the searcher replays the {total} updates of the trials so far, {left:.0f} s more"
            )
        if self._said:
            self.progress.note("" if done == total else f"replaying {done} of {total} updates")


class Following:
    """Moves a stage's bar by what worker processes write into their mark files, while in `with`.

    A mark file holds the fraction of a job that is done (see `Marker`). The stage counts jobs.
    `Progress.advance` is called from a thread of its own.
    """

    def __init__(self, progress: Progress, marks: Iterable[Path]) -> None:
        self.progress, self.marks, self.shown = progress, list(marks), 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Following:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        self._thread.join()
        for mark in self.marks:
            mark.unlink(missing_ok=True)

    def _follow(self) -> None:
        while not self._over.wait(POLL_S):
            done = sum(map(_read, self.marks))
            if done > self.shown + LEAST:
                self.progress.advance(done - self.shown)
                self.shown = done


class Marker:
    """Called at every step of a training: writes the fraction that is done into a mark file now and then."""

    def __init__(self, mark: Path) -> None:
        self.mark, self.last = mark, 0.0

    def __call__(self, done: int, total: int, loss: float) -> None:
        THIS.give_way()
        now = time.perf_counter()
        if done == total or now - self.last > POLL_S:
            self.last = now
            with suppress(OSError):  # a bar that stands still is no reason to lose a training
                self.mark.write_text(f"{done / total:.4f}", encoding="ascii")


def _read(mark: Path) -> float:
    try:
        return float(mark.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not begun, or read in the middle of a write
        return 0.0
