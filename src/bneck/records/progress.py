"""What a long run reports while it works."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Progress(Protocol):
    """Receives what happens; the command line draws bars from it."""

    def stage(self, name: str, total: int) -> None:
        """A new stage begins, of `total` units of work."""

    def advance(self, done: int) -> None:
        """`done` of the stage's units are finished."""

    def note(self, text: str) -> None:
        """A few words next to the stage's bar; they replace the last ones."""

    def say(self, sentence: str) -> None:
        """One line worth keeping."""


class Silent:
    """Ignores everything."""

    def stage(self, name: str, total: int) -> None: ...

    def advance(self, done: int) -> None: ...

    def note(self, text: str) -> None: ...

    def say(self, sentence: str) -> None: ...


class Without:
    """Passes everything on but sentences that were said before, `known`."""

    def __init__(self, progress: Progress, known: Collection[str]) -> None:
        self.progress, self.known = progress, known

    def stage(self, name: str, total: int) -> None:
        self.progress.stage(name, total)

    def advance(self, done: int) -> None:
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
