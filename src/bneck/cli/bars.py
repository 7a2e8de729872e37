"""How a long run is shown: a bar with the time to go on a terminal, lines in a file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from bneck.records.progress import about

# A stage in a file says how far it is after so long, then ever more rarely.
SAY_S, MOST_S = 60.0, 600.0
LEAST_S = 10.0  # that a run still takes where this part of it is not the last
WIDE = 80  # columns, from which a bar says more and help has panels


@contextmanager
def bars(console: Console | None = None, say_s: float = SAY_S) -> Iterator[Bars]:
    """Show a run on stderr while in `with`: bars on a terminal, lines where it is none or cannot move.

    There a stage that takes longer than `say_s` says now and then how far it is.
    """
    console = console or Console(stderr=True)
    with _Live(console) as live:
        yield Bars(live, say_s)


class _Live(Progress):
    """The bar of the present stage, and under it how the whole run stands."""

    def __init__(self, console: Console) -> None:
        self.course: tuple[int, int, float | None] = (0, 0, None)  # part, of so many, when it ends
        self.note = ""
        # A name that is too long ends in dots; all else keeps its place.
        name = TextColumn("{task.description}", markup=False,
                          table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))  # fmt: skip
        wide = console.width >= WIDE
        columns: list[ProgressColumn] = [name, BarColumn(bar_width=30 if wide else 12)]
        columns += [TaskProgressColumn(), TimeRemainingColumn(compact=True), TextColumn("left")]
        super().__init__(
            *columns,
            console=console,
            disable=not console.is_interactive,
            transient=True,
            expand=True,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, and a line below it."""
        yield from super().get_renderables()
        if line := "; ".join(filter(None, (self.left(), self.note))):
            yield Text(line, style="dim", no_wrap=True, overflow="ellipsis")

    def left(self) -> str:
        """How long the whole run takes from now."""
        number, of, ends = self.course
        if ends is None:
            return ""
        # An estimate of the whole may be outrun by the one stage that is under way.
        stage_s = max((one.time_remaining or 0.0 for one in self.tasks), default=0.0)
        left_s = max(stage_s, ends - time.monotonic())
        # Nothing where the estimate was too short, as it is where other parts are to come.
        least_s = 0.0 if number == of else LEAST_S
        return f"{about(left_s)} left in all" if left_s > least_s else ""


class Bars:
    """A `records.progress.Progress` that moves the bar of the present stage."""

    def __init__(self, live: _Live, say_s: float) -> None:
        self._live, self._say_s = live, say_s
        self._task: TaskID | None = None
        self._next_s = self._pause_s = 0.0

    def course(self, number: int, of: int, left_s: float | None) -> None:
        """Where a long run is, shown with every stage from now on."""
        self._live.course = (number, of, None if left_s is None else time.monotonic() + left_s)

    def stage(self, name: str, total: int) -> None:
        """A new bar instead of the last one."""
        if self._task is not None:
            self._live.remove_task(self._task)
        number, of, _ = self._live.course
        place, self._live.note = f"[{number}/{of}] " if of else "", ""
        self._task = self._live.add_task(place + name, total=total)
        self._pause_s = self._say_s
        self._next_s = time.monotonic() + self._pause_s
        if self._live.disable:
            count = f" ({total})" if total > 1 else ""
            left = f", {said}" if (said := self._live.left()) else ""
            self._print(f"{place}{name}{count}{left}")

    def advance(self, done: float) -> None:
        """Move the bar; in a file, say now and then how far it is."""
        if self._task is None:
            return
        self._live.advance(self._task, done)
        if self._live.disable and time.monotonic() >= self._next_s:
            self._pause_s = min(2 * self._pause_s, MOST_S)
            self._next_s = time.monotonic() + self._pause_s
            task = next(one for one in self._live.tasks if one.id == self._task)
            self._print(
                "  " + "; ".join(filter(None, (_how_far(task), self._live.left(), self._live.note)))
            )

    def note(self, text: str) -> None:
        """A few words below the bar."""
        self._live.note = text

    def say(self, sentence: str) -> None:
        """A line above the bar."""
        self._print(sentence)

    def on_round(self, done: int, of: int) -> None:
        """A round of a measurement is over."""
        if done == 1:  # not before: what cannot be measured is refused without a bar
            self.stage("measuring", of)
        self.advance(1)

    def _print(self, line: str) -> None:
        # On a terminal lines end between words; in a file each stays one line.
        console = self._live.console
        console.print(
            line, highlight=False, markup=False, emoji=False, soft_wrap=not console.is_terminal
        )


def _how_far(task: Task) -> str:
    left = task.time_remaining
    return f"{task.percentage:.0f} %" + ("" if left is None else f", {about(left)} left")
