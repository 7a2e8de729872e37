"""The modern Figure 1: published accuracy over latency here, of every network that is published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from bneck.paper.timing import Timing
from bneck.report.numbers import NONE
from bneck.report.scatter import Chart, Mark, Point, Series
from bneck.report.tables import Table, columns
from bneck.runs.choose.known import USUAL, Known, known_networks
from bneck.specs.zoo import family

# Colours are those of the other charts of the figure.
FAMILIES: dict[str, tuple[int, Callable[[str], bool]]] = {
    "V3-Large": (0, lambda name: name == "v3-large"),
    "V3-Small": (1, lambda name: name == "v3-small"),
    "V2": (2, lambda name: name == "v2"),
    "V4": (6, lambda name: name.startswith("v4-")),
    "LCNet": (4, lambda name: name == "lcnet"),
    "others": (5, lambda name: True),
}
MARKS: tuple[Mark, Mark] = ("circle", "diamond")  # at the usual resolution, and at others


def named(one: Known) -> str:
    """What a published network goes by where it is timed: as the paper's tables call it."""
    return one.network if one.resolution == USUAL else f"{one.network}@{one.resolution}"


def published_here(timing: Timing) -> tuple[Chart, Table]:
    """The picture, without series where nothing was measured, and the table that has its sources."""
    scored = [one for one in known_networks() if one.top1 is not None]
    timed = sorted(
        ((one, ms) for one in scored if (ms := timing.ms(named(one)).ours) is not None),
        key=lambda pair: pair[1],
    )
    front = [one for (one, _), ahead in zip(timed, _ahead(timed), strict=True) if ahead]
    series = (
        Series(name="front", points=_points(front, timing), colour=7, joined=True, named=True),
    )
    chart = Chart(
        title="Published until today, here", x="latency here (ms)", y="published top-1 (%)", log_x=True,
        series=(*series, *_families([one for one, _ in timed], timing)) if timed else (),
        note="Each network at the best accuracy that is published of it, at 224 px where its name has no other "
        "resolution. No faster network is as accurate as one of the front. Sources are in the table, weights "
        "in bneck zoo --published",
    )  # fmt: skip
    return chart, _table(timed, [one for one in scored if one not in dict(timed)])


def _ahead(timed: Sequence[tuple[Known, float]]) -> list[bool]:
    """Of networks in order of latency, whether each is more accurate than all before it."""
    scores = [one.top1 or 0.0 for one, _ in timed]
    return [
        score > before
        for score, before in zip(scores, accumulate(scores, max, initial=0.0), strict=False)
    ]


def _families(timed: Sequence[Known], timing: Timing) -> list[Series]:
    """Points in the colour of their family; V3's other resolutions are diamonds."""
    found, left = [], list(timed)
    for label, (colour, belongs) in FAMILIES.items():
        own = [one for one in left if belongs(family(one.network))]
        left = [one for one in left if one not in own]
        usual = [one for one in own if one.resolution == USUAL]
        other = [one for one in own if one.resolution != USUAL]
        for name, rows, mark in ((label, usual, MARKS[0]), (f"{label}, other px", other, MARKS[1])):
            points = _points(rows, timing)
            found.append(Series(name=name, points=points, colour=colour, hollow=True, mark=mark))
    return [one for one in found if one.points]


def _points(rows: Sequence[Known], timing: Timing) -> tuple[Point, ...]:
    points = []
    for one in rows:
        pair = timing.ms(named(one))
        assert pair.ours is not None
        assert one.top1 is not None
        said = f"{named(one)}: {pair.ours:.3g} ms here, {one.top1:g} % ({one.source})"
        points.append(Point(pair.ours, one.top1, said, pair.low, pair.high))
    return tuple(points)


def _table(timed: Sequence[tuple[Known, float]], rest: Sequence[Known]) -> Table:
    """The networks with their sources, the fastest first, those that were not measured last."""
    rows = [
        (named(one), f"{one.top1:g}", str(one.source), f"{ms:.3g}", "yes" if ahead else "")
        for (one, ms), ahead in zip(timed, _ahead(timed), strict=True)
    ]
    rows += [(named(one), f"{one.top1:g}", str(one.source), NONE, "") for one in rest]
    heads = ("network", "top-1 (%)", "source", "latency here (ms)", "front")
    return Table(
        title="What is published until today, and how fast it is here.",
        columns=columns(*heads, text=(0, 2, 4)), rows=tuple(rows),
    )  # fmt: skip
