"""What a long run tells the one who waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from bneck.records.progress import Progress
from bneck.training.log import TrainingLog

PERCENT = 100
POLL_S = 0.5
PATIENCE_S = 3.0  # a silence that needs no word


class Steps:
    """Moves a training's bar, and says how fast it goes; keeps the losses of this process's steps."""

    def __init__(self, progress: Progress, stage: str, log: TrainingLog) -> None:
        self.progress, self.stage, self.log = progress, stage, log
        self.losses: list[float] = []
        self.done = 0

    def __call__(self, done: int, total: int, loss: float) -> None:
        if not self.losses:
            self.progress.stage(self.stage, total)
        self.losses.append(loss)
        self.progress.advance(done - self.done)
        self.done = done
        if self.log.images_per_s:
            self.progress.note(f"{self.log.images_per_s:.0f} images/s")

    def watching(self) -> dict[str, Any]:
        """What `train.loop.fit` is to be told."""
        return {"on_step": self, "log": self.log}


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

    A mark file holds the share of a job that is done, from 0 to 1. The stage counts percent of jobs.
    `Progress.advance` is called from a thread of its own.
    """

    def __init__(self, progress: Progress, marks: Iterable[Path]) -> None:
        self.progress, self.marks, self.shown = progress, list(marks), 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Following:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        for mark in self.marks:
            mark.unlink(missing_ok=True)

    def _follow(self) -> None:
        while not self._over.wait(POLL_S):
            done = int(PERCENT * sum(map(_read, self.marks)))
            if done > self.shown:
                self.progress.advance(done - self.shown)
                self.shown = done


def write_mark(mark: Path, share: float) -> None:
    """Write down the share of a job that is done; a mark that cannot be written is no loss."""
    with suppress(OSError):
        mark.write_text(f"{share:.4f}", encoding="ascii")


def _read(mark: Path) -> float:
    try:
        return float(mark.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not begun, or read in the middle of a write
        return 0.0
