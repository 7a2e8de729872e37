"""Progress bars with a time to go, for stages that take longer than a moment."""

from __future__ import annotations

from types import TracebackType

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


class Bars:
    """Draws a run's stages on stderr; on no terminal it prints one line a stage."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("to go"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not self.live,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def stage(self, name: str, total: int) -> None:
        """A new bar, in place of the last."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name, total=total, note="")
        if not self.live:
            self.console.print(f"{name} ({total})", highlight=False)

    def advance(self, done: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.advance(self._task, done)

    def note(self, text: str) -> None:
        """Words behind the bar."""
        if self._task is not None:
            self._progress.update(self._task, note=text)

    def say(self, sentence: str) -> None:
        """A line above the bar."""
        self._progress.console.print(sentence, highlight=False, markup=False, soft_wrap=True)
