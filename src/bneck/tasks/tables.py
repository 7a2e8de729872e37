"""What the tasks' tables have in common. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from bneck.specs.errors import InputError

R = TypeVar("R")


def matching(rows: Sequence[R], pattern: str, network: Callable[[R], str], lacks: str) -> list[R]:
    """The rows whose network fits a pattern, in their order.

    Args:
        rows: of the paper.
        pattern: shell-style, as "v3-small*"; a name without wildcards stands for what begins with it.
        network: the name of a row's network.
        lacks: the message where there is none, with places for {pattern!r} and the {known} names.

    Raises:
        InputError: there is none.
    """
    wanted = pattern if any(c in pattern for c in "*?[") else f"{pattern}*"
    found = [row for row in rows if fnmatchcase(network(row), wanted)]
    if not found:
        known = ", ".join(dict.fromkeys(map(network, rows)))
        raise InputError(lacks.format(pattern=pattern, known=known))
    return found


def percent(value: float | None) -> str:
    """With one decimal, "-" for what is undefined."""
    return "-" if value is None else f"{100 * value:.1f}"
