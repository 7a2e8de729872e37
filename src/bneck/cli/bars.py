"""Progress bars with a time to go, for stages that take longer than a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def bars() -> Iterator[Bars]:
    """Draw a run's stages on stderr while in `with`; where that is no terminal, print one line per stage."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("to go"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        console=console, disable=not console.is_terminal, transient=True,
    ) as progress:  # fmt: skip
        yield Bars(progress)


class Bars:
    """A `records.progress.Progress` that moves the bar of the present stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def stage(self, name: str, total: int) -> None:
        """A new bar instead of the last one."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name, total=total, note="")
        if self._progress.disable:
            self._progress.console.print(f"{name} ({total})", highlight=False)

    def advance(self, done: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.advance(self._task, done)

    def note(self, text: str) -> None:
        """Words after the bar."""
        if self._task is not None:
            self._progress.update(self._task, note=text)

    def say(self, sentence: str) -> None:
        """A line above the bar."""
        self._progress.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def on_round(self, done: int, of: int) -> None:
        """A round of a measurement is over."""
        if done == 1:  # not before: what cannot be measured is refused without a bar
            self.stage("measuring", of)
        self.advance(1)
