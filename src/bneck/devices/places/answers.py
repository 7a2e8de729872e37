"""Reading a device's answers: what they should be, or a `Lost` that quotes them."""

from __future__ import annotations

import math
from typing import Any

from bneck.devices.places.contract import Lost


def rubbish(answer: object) -> Lost:
    """An answer that means nothing."""
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)
    return Lost(f"answered rubbish ({text[:60]!r})")


def times(answer: dict[str, Any], key: str, count: int) -> tuple[float, ...]:
    """`count` finite times of an answer, in milliseconds.

    Raises:
        Lost: it has not.
    """
    found = answer.get(key)
    if (
        not isinstance(found, list)
        or len(found) != count
        or not all(isinstance(ms, int | float) and 0 <= ms < math.inf for ms in found)
    ):
        raise rubbish(answer)
    return tuple(float(ms) for ms in found)


def last_line(said: bytes) -> str:
    """What a program said last, as the end of a sentence: ": why", or nothing."""
    lines = said[-2000:].decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1].strip().rstrip('.')}" if lines else ""
