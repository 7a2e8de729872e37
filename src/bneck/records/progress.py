"""What a long run reports while it works."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Progress(Protocol):
    """Receives what happens; the command line draws bars from it."""

    def course(self, number: int, of: int, left_s: float | None) -> None:
        """A long run is in part `number` of so many, and has about `left_s` seconds to go in all."""

    def stage(self, name: str, total: int) -> None:
        """A new stage begins, of `total` units of work."""

    def advance(self, done: float) -> None:
        """`done` of the stage's units are finished."""

    def note(self, text: str) -> None:
        """A few words next to the stage's bar; they replace the last ones."""

    def say(self, sentence: str) -> None:
        """One line worth keeping."""


class Silent:
    """Ignores everything."""

    def course(self, number: int, of: int, left_s: float | None) -> None: ...

    def stage(self, name: str, total: int) -> None: ...

    def advance(self, done: float) -> None: ...

    def note(self, text: str) -> None: ...

    def say(self, sentence: str) -> None: ...


class Without:
    """Passes everything on but sentences that were said before, `known`."""

    def __init__(self, progress: Progress, known: Collection[str]) -> None:
        self.progress, self.known = progress, known

    def course(self, number: int, of: int, left_s: float | None) -> None:
        self.progress.course(number, of, left_s)

    def stage(self, name: str, total: int) -> None:
        self.progress.stage(name, total)

    def advance(self, done: float) -> None:
        self.progress.advance(done)

    def note(self, text: str) -> None:
        self.progress.note(text)

    def say(self, sentence: str) -> None:
        if sentence not in self.known:
            self.progress.say(sentence)


class Advancing:
    """Turns (done, all) into steps of a stage's bar."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.before = progress, 0

    def __call__(self, done: int, total: int) -> None:
        self.progress.advance(done - self.before)
        self.before = done


def about(seconds: float) -> str:
    """A time as people say it: "under 10 s", "about 40 s", "about 12 min", "about 2.5 h", "about 3 days"."""
    if seconds < 10:
        return "under 10 s"
    if seconds < 95:
        return f"about {round(seconds, -1):.0f} s"
    if seconds < 100 * 60:
        return f"about {seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"about {seconds / 3600:.1f} h"
    return f"about {seconds / 86400:.0f} days"
