"""What a training run reports on the way: json lines, TensorBoard scalars, images per second."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bneck.records.files import write_text
from bneck.records.ledger import Ledger
from bneck.specs.errors import InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVERY_S = 1.0  # a line at most so often, and one at the end of an epoch


class TrainingLog:
    """Keeps `training.jsonl` of one training run, and event files where TensorBoard is installed.

    A line has "step", and of the steps since the last line the mean "loss", the last "lr", "images_per_s"
    and "waiting", the fraction of the time spent waiting for input. Lines of an epoch's end have what was
    found out then. A resumed run drops the lines of steps that it repeats.
    """

    def __init__(self, folder: Path, *, batch: int) -> None:
        self.folder, self.batch = folder, batch
        self.images_per_s = self.waiting = 0.0

    def begin(self, done: int) -> None:
        """Continue after step `done`, 0 for a new run."""
        path = self.folder / "training.jsonl"
        kept = [entry for entry in Ledger(path).entries if entry.get("step", 0) <= done]
        if path.exists():
            write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
        self.lines = Ledger(path)
        self.events = _tensorboard(self.folder / "tensorboard", done)
        self._done = done
        self.restart()

    def restart(self) -> None:
        """Count time from now, steps from those written down."""
        self._since = time.perf_counter()
        self._from, self._losses, self._waited = self._done, list[float](), 0.0

    def step(self, done: int, loss: float, lr: float, waited_s: float) -> None:
        """Steps up to `done` are over, `waited_s` of their time was spent waiting for images."""
        self._done, self._lr = done, lr
        self._losses.append(loss)
        self._waited += waited_s
        if time.perf_counter() - self._since >= EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write down the steps since the last line."""
        if not (steps := self._done - self._from):
            return
        seconds = max(time.perf_counter() - self._since, 1e-9)
        self.images_per_s = steps * self.batch / seconds
        self.waiting = min(1.0, self._waited / seconds)
        loss = sum(self._losses) / len(self._losses)
        self.write(
            self._done, loss=loss, lr=self._lr, images_per_s=self.images_per_s, waiting=self.waiting
        )
        self.restart()

    def write(self, done: int, **figures: float) -> None:
        """A line about the net as it is after `done` steps."""
        self.lines.append({"step": done, **figures})
        if self.events is not None:
            with _disk(self.folder / "tensorboard"):
                for name, value in figures.items():
                    self.events.add_scalar(name, value, done)
                self.events.flush()  # so that a kill takes nothing, and TensorBoard shows it now

    def close(self) -> None:
        """Let go of the event files; a point that is written later begins a new one."""
        if self.events is not None:
            self.events.close()

    def best(self, key: str) -> dict[str, float] | None:
        """The line with the highest value of a key; None where no line has it."""
        found = [line for line in self.lines.entries if key in line]
        return max(found, key=lambda line: float(line[key]), default=None)


def _tensorboard(folder: Path, done: int) -> SummaryWriter | None:
    """A writer of event files that takes back every point after step `done`; None without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    with _disk(folder):
        return SummaryWriter(str(folder), purge_step=done + 1)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{path} cannot be written: {reason}; free some space and go on with --resume"
        ) from None
