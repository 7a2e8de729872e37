"""The error of everything that is caused by wrong input, and how its message names many things."""

from __future__ import annotations

from collections.abc import Sequence

MOST_NAMED = 5


class InputError(ValueError):
    """Wrong input. The message is one sentence: what came, what is allowed, what to do.

    The command line prints it and ends with exit code 2; Python callers may catch it as a
    ValueError.
    """


class RefusedElsewhere(InputError):
    """Another process of the same training refused; it says why, and this one only ends."""


def few(names: Sequence[str]) -> str:
    """The first five names and how many more there are, for a sentence that can be read."""
    rest = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
