"""Widths fitted to a latency: the last fine adjustment of a network whose rows are settled.

A space of blocks has few widths, NetAdapt cuts in steps; widths in eights are finer than either. Here
all widths are multiplied by one factor, as a uniform width does, and what is then left goes into
single widths. No accuracy is looked at: the proportions of the network stay as they were chosen.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Set

from bneck.costs.table import TableError
from bneck.nas.netadapt import ALL, LEAST, Estimate, Place, places, width_at, with_widths
from bneck.specs.network import NetSpec
from bneck.specs.transforms import fix_skips

MOST = 2.0  # no width grows beyond this multiple of the network's, unless `widest` says how far
HALVINGS = 10  # of the common factor
CLOSE = 0.002  # a fraction of the target; nothing nearer is looked for
UPWARD = 2  # widths that a single place may stand above the common factor


def fit_widths(
    spec: NetSpec,
    target_ms: float,
    estimate: Estimate,
    *,
    widest: NetSpec | None = None,
    least: float = LEAST,
    kept: Set[int] = frozenset(),
) -> NetSpec:
    """The version of `spec` whose estimated latency is next to `target_ms`, never above it.

    Args:
        spec: rows and proportions of widths.
        target_ms: what to come near, in milliseconds.
        estimate: spec -> latency in milliseconds; widths for which it raises `TableError` are not taken.
        widest: the same rows with the greatest widths allowed; None: twice those of `spec`.
        least: no width falls below this fraction of its own.
        kept: rows whose outputs stay as wide as they are.

    Returns:
        The network with residuals written down, under its own name. Where even the narrowest version is
        above the target that one comes back; where the widest is below, that one.
    """
    spec = fix_skips(spec)
    options = {
        place: _options(spec, place, estimate, widest, least)
        for place in places(spec, ALL)
        if place[0] == "expansion" or kept.isdisjoint(place[1])
    }
    own = {place: width_at(spec, place) for place in options}
    tops = {place: known[-1] for place, known in options.items()}

    def at(widths: Mapping[Place, int]) -> float:
        try:
            return estimate(with_widths(spec, widths, tops))
        except TableError:
            return math.inf

    best = {place: known[0] for place, known in options.items()}
    best_ms = at(best)
    low, high = math.log(least), math.log(MOST)
    for _ in range(HALVINGS):
        factor = math.exp((low + high) / 2)
        widths = {
            place: min(known, key=lambda width, aim=factor * own[place]: abs(width - aim))  # type: ignore[misc]
            for place, known in options.items()
        }
        ms = at(widths)
        low, high = (math.log(factor), high) if ms <= target_ms else (low, math.log(factor))
        if best_ms < ms <= target_ms or (best_ms > target_ms and ms < best_ms):
            best, best_ms = widths, ms
    ceilings = {p: known[: known.index(best[p]) + 1 + UPWARD] for p, known in options.items()}
    while best_ms < target_ms * (1 - CLOSE):
        wider = [
            best | {place: width}
            for place, known in ceilings.items()
            for width in known
            if width > best[place]
        ]
        timed = [
            (ms, n) for n, widths in enumerate(wider) if best_ms < (ms := at(widths)) <= target_ms
        ]
        if not timed:
            break
        best_ms, n = max(timed)
        best = wider[n]
    return with_widths(spec, best, tops)


def _options(
    spec: NetSpec, place: Place, estimate: Estimate, widest: NetSpec | None, least: float
) -> list[int]:
    """The widths that a place may have, rising: its own, and multiples of 8 that are estimated."""
    own = width_at(spec, place)
    top = int(MOST * own) if widest is None else width_at(widest, place)

    def estimated(width: int) -> bool:
        try:
            estimate(with_widths(spec, {place: width}, {place: width}))
        except TableError:
            return False
        return True

    # What a table covers lies between two widths, so that the ends tell.
    below = [width for width in range(8, own, 8) if least * own <= width <= top]
    above = list(range(own // 8 * 8 + 8, top + 1, 8))
    below = below[bisect_left(below, True, key=estimated) :]
    above = above[: bisect_left(above, True, key=lambda width: not estimated(width))]
    return [*below, own, *above]
