"""Calling `bneck` in this process, for tests of the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Answer]


# What a run says before it does anything: what it found, and what it will do.
BEGINNING = re.compile(
    r".+: \d+ class(es)? \(.*\); \d+ train, |search from .+ in \d+ parts: |training .+; files go to "
)


def refusal(answer: Answer, *, after: int = 0) -> str:
    """The one sentence of a refusal; `after` stages that were announced before it, the beginning aside."""
    assert answer.code == 2
    assert answer.out == ""
    lines = answer.err.splitlines()
    while BEGINNING.match(lines[0]):
        del lines[0]
    assert len(lines) == after + 1, answer.err
    assert lines[-1].startswith("bneck: ")
    assert not lines[-1].endswith(".")
    return lines[-1].removeprefix("bneck: ")
