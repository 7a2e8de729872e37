"""What a long run tells the one who waits."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what happens; the command line draws bars from it."""

    def stage(self, name: str, total: int) -> None:
        """A new stage begins, of `total` units of work."""
        ...

    def advance(self, done: int, note: str = "") -> None:
        """`done` of the stage's units are finished."""
        ...

    def say(self, sentence: str) -> None:
        """One line worth keeping."""
        ...


class Silent:
    """Tells nobody."""

    def stage(self, name: str, total: int) -> None:
        """Ignore."""

    def advance(self, done: int, note: str = "") -> None:
        """Ignore."""

    def say(self, sentence: str) -> None:
        """Ignore."""
