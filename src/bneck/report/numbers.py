"""Numbers as a reader wants them, and text that came from outside made safe to print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

PLUS_MINUS = "\u00b1"
ARROW = "\u2192"
MINUS = "\u2212"
NONE = "\u2013"  # a cell with nothing in it
_JOINERS = "\u200c\u200d"  # not printable by Python's rule, but needed by several scripts


def ms(value: float | None) -> str:
    """Milliseconds with three significant digits, never in powers of ten.

    >>> ms(0.41234), ms(9.996), ms(1234.5)
    ('0.412', '10.0', '1230')
    """
    if value is None:
        return NONE
    if value == 0:
        return "0"
    rounded = float(f"{value:.2e}")
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{decimals}f}".replace("-", MINUS)


def from_to(low: float | None, high: float | None) -> str:
    """A spread in milliseconds, without the unit; empty unless both ends are known."""
    return NONE if low is None or high is None else f"{ms(low)} to {ms(high)}"


def percent(share: float | None, decimals: int = 1) -> str:
    """A share of 1 in percent, without the sign: its header names it."""
    if share is None:
        return NONE
    return f"{100 * share:.{decimals}f}".replace("-", MINUS)


def signed_percent(share: float | None) -> str:
    """A difference of shares, in percent or points, always with its sign.

    >>> signed_percent(0.0312), signed_percent(0.00001)
    ('+3.1', '0.0')
    """
    if share is None:
        return NONE
    text = f"{100 * share:+.1f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)


def millions(value: float | None) -> str:
    """Parameters or multiply-adds in millions, three significant digits."""
    return ms(None if value is None else value / 1e6)


def seconds(value: float) -> str:
    """Seconds for a table: tenths below 100."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def duration(value: float) -> str:
    """Seconds as a person says them.

    >>> duration(3.25), duration(200), duration(7500)
    ('3.2 s', '3 min 20 s', '2 h 5 min')
    """
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def file_size(value: int) -> str:
    """Bytes for a list of files."""
    if value < 1e6:
        return f"{max(value / 1e3, 0.1):.1f} kB"
    return f"{value / 1e6:.1f} MB"


def several(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: 1 training, 3 trainings."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """Words in a row: a, b and c."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def spread_text(shares: Sequence[float]) -> str:
    """Mean of repeated trainings in percent, with half their range where there are several."""
    text = percent(fmean(shares))
    if len(shares) > 1:
        text += f" {PLUS_MINUS} {percent((max(shares) - min(shares)) / 2)}"
    return f"{text} %"


def printable(text: str) -> str:
    """One line that every file and terminal can hold: names and paths come from outside."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() or c in _JOINERS else "\ufffd" for c in line)
