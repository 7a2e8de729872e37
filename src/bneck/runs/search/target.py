"""What a person means by a target: "5ms", "800us", "70%"."""

from __future__ import annotations

import re

from bneck.specs.errors import InputError

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|us|s|%)\s*")
_MS = {"ms": 1.0, "us": 1e-3, "s": 1e3}


def target_ms(text: str, seed_ms: float) -> float:
    """The latency to reach in milliseconds; a percentage is one of the seed network's.

    Raises:
        InputError: `text` is no positive time or percentage.
    """
    match = _FORM.fullmatch(text)
    if match is None or float(match[1]) <= 0:
        raise InputError(
            f"the target is {text!r}; write a time with its unit, as 5ms, or a share of the seed network's "
            "latency, as 70%"
        )
    value, unit = float(match[1]), match[2]
    return value / 100 * seed_ms if unit == "%" else value * _MS[unit]
