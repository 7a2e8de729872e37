"""Widths fitted to a latency: the last fine adjustment of a network whose rows are settled.

A space of blocks has few widths, NetAdapt cuts in steps; widths in eights are finer than either. Here
all widths are multiplied by one factor, as a uniform width does, and what is then left goes into
single widths. No accuracy is looked at: the proportions of the network stay as they were chosen.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

from bneck.costs.table import TableError
from bneck.nas.netadapt import ALL, LEAST, Kind, places
from bneck.nas.widths import width_at
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck
from bneck.specs.transforms import beside, fix_skips, squeezed_like, with_expanded, with_out

MOST = 2.0  # no width grows beyond this multiple of the network's
HALVINGS = 10  # of the common factor
CLOSE = 0.002  # a share of the target; nothing nearer is looked for
UPWARD = 2  # widths that a single place may stand above the common factor

Place: TypeAlias = tuple[Kind, tuple[int, ...]]
Estimate: TypeAlias = Callable[[NetSpec], float]


def fit_widths(
    spec: NetSpec,
    target_ms: float,
    estimate: Estimate,
    *,
    widest: NetSpec | None = None,
    least: float = LEAST,
    most: float = MOST,
    kinds: Collection[Kind] = ALL,
) -> NetSpec:
    """The version of `spec` whose estimated latency is next to `target_ms`, never above it.

    Args:
        spec: rows and proportions of widths.
        target_ms: what to come near, in milliseconds.
        estimate: spec -> latency in milliseconds; a width for which it raises `TableError` is none.
        widest: the same rows with the greatest widths allowed; None: `most` times those of `spec`.
        least: no width falls below this share of the network's.
        most: no width grows beyond this multiple of the network's.
        kinds: which widths change.

    Returns:
        The network with residuals written down, under its own name. Where even the narrowest version is
        above the target that one comes back; where the widest is below, that one.
    """
    spec = fix_skips(spec)
    options = {
        place: _options(spec, place, estimate, widest, least, most) for place in places(spec, kinds)
    }
    own = {place: width_at(spec, place[0], place[1][0]) for place in options}

    def at(widths: Mapping[Place, int]) -> float:
        try:
            return estimate(_with_widths(spec, widths, options))
        except TableError:
            return math.inf

    best = {place: widths[0] for place, widths in options.items()}
    best_ms = at(best)
    low, high = math.log(least), math.log(most)
    for _ in range(HALVINGS):
        factor = math.exp((low + high) / 2)
        widths = {
            place: min(known, key=lambda width, p=place, f=factor: abs(width - f * own[p]))  # type: ignore[misc]
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
    return _with_widths(spec, best, options)


def _options(
    spec: NetSpec,
    place: Place,
    estimate: Estimate,
    widest: NetSpec | None,
    least: float,
    most: float,
) -> list[int]:
    """The widths that a place may have, rising: its own, and multiples of 8 that are estimated."""
    own = width_at(spec, place[0], place[1][0])
    top = int(most * own) if widest is None else width_at(widest, place[0], place[1][0])
    known = [width for width in range(8, top + 1, 8) if width >= least * own and width != own]

    def estimated(width: int) -> bool:
        try:
            estimate(_with_widths(spec, {place: width}, {place: [width]}))
        except TableError:
            return False
        return True

    # What a table covers lies between two widths, so that the ends tell.
    below = [width for width in known if width < own]
    above = [width for width in known if width > own]
    below = below[bisect_left(below, True, key=estimated) :]
    above = above[: bisect_left(above, True, key=lambda width: not estimated(width))]
    return [*below, own, *above]


def _with_widths(
    spec: NetSpec, widths: Mapping[Place, int], options: Mapping[Place, list[int]]
) -> NetSpec:
    """`spec` with other widths; outputs first, as what an expansion may be depends on its input."""
    changed = spec
    for place, width in sorted(widths.items(), key=lambda entry: entry[0][0] == "expansion"):
        kind, rows = place
        if kind != "expansion":
            changed = with_out(changed, rows, width)
            continue
        row = spec.rows[rows[0]]
        assert isinstance(row, Bneck)
        width = beside(changed.width_into(rows[0]), width, most=options[place][-1], fused=row.fused)
        changed = with_expanded(changed, rows[0], width)
    return squeezed_like(changed, spec)
