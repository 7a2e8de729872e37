"""Calling `bneck` in this process, for tests of the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Answer]


def refusal(answer: Answer, *, after: int = 0) -> str:
    """The one sentence of a refusal; `after` stages that were announced before it."""
    assert answer.code == 2
    assert answer.out == ""
    lines = answer.err.splitlines()
    assert len(lines) == after + 1, answer.err
    assert lines[-1].startswith("bneck: ")
    assert not lines[-1].endswith(".")
    return lines[-1].removeprefix("bneck: ")
