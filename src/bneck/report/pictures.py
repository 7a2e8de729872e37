"""The pictures of a search's report: the trade-off, and the networks as rows of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bneck.report.blocks import Picture
from bneck.report.difference import changed_rows
from bneck.report.network_picture import Drawn, draw_networks
from bneck.report.numbers import mean, ms, percent
from bneck.report.scatter import Chart, Mark, Point, Series, draw_charts
from bneck.specs.network import NetSpec

MARKS: dict[str, tuple[Mark, int, str]] = {
    "seed": ("square", 5, "seed network"),
    "found": ("circle", 0, "found network"),
    "uniform": ("triangle", 1, "uniform width"),
}
MOST_TRIALS = 500  # drawn; of more, every so manieth
FINALS = (
    "measured latency (bar from the 10th to the 90th percentile) and mean {metric} on "
    "validation images after the final training (a cross for each training)"
)
SEARCH = (
    "estimated latency, and {metric} on held-out images after a short fine-tuning. Other "
    "images and other training than the final networks, so heights in the two panels do not "
    "compare."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalPoint:
    """A network after its final trainings: `role` is a key of `MARKS`, latency is measured."""

    role: str
    latency_ms: float
    p10_ms: float
    p90_ms: float
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPath:
    """(estimated ms, held-out accuracy) of the seed, of the accepted steps and of all trials."""

    start: tuple[float, float] | None
    steps: tuple[tuple[float, float], ...]
    trials: tuple[tuple[float, float], ...]


def draw_tradeoff(
    finals: Sequence[FinalPoint],
    path: SearchPath | None,
    target_ms: float | None,
    metric: str = "top-1",
) -> Picture | None:
    """Accuracy over latency: final networks in one panel, the search in another.

    The panels share no axis: they differ in images, in training, and in where latency is from.
    """
    lines = () if target_ms is None else ((target_ms, f"target {ms(target_ms)} ms"),)
    charts = []
    if finals:
        charts.append(
            Chart(
                title="After the final training",
                x="measured latency (ms)",
                y=f"{metric}, validation images (%)",
                series=tuple(series for point in finals for series in _final(point)),
                note=FINALS.format(metric=metric),
                lines=lines,
            )
        )
    if path is not None:
        charts.append(
            Chart(
                title="During the search",
                x="estimated latency (ms)",
                y=f"{metric}, held-out images (%)",
                series=_search(path),
                note=SEARCH.format(metric=metric),
                lines=lines,
            )
        )
    return draw_charts("report-tradeoff", "Accuracy over latency", charts) if charts else None


def draw_blocks(
    seed: NetSpec, found: NetSpec, whole: Sequence[tuple[int, int] | None] = (None, None)
) -> Picture:
    """The seed network and the found one, rows that differ marked; `whole` as in `Drawn`."""
    drawn = [
        Drawn(f"seed: {seed.name}", seed, whole=whole[0]),
        Drawn(f"found: {found.name}", found, changed_rows(seed, found), whole[1]),
    ]
    return draw_networks("report-networks", "The seed network and the found network", drawn)


def _final(point: FinalPoint) -> list[Series]:
    mark, colour, name = MARKS[point.role]
    words = f"{name}: {ms(point.latency_ms)} ms"
    middle = Point(
        point.latency_ms,
        100 * mean(point.scores),
        f"{words}, {percent(mean(point.scores))} %",
        point.p10_ms,
        point.p90_ms,
    )
    found = [Series(name=name, points=(middle,), colour=colour, mark=mark)]
    if len(point.scores) > 1:
        single = tuple(
            Point(point.latency_ms, 100 * score, f"{words}, training {number}: {percent(score)} %")
            for number, score in enumerate(point.scores, 1)
        )
        found.insert(0, Series(name="", points=single, colour=colour, mark="cross"))
    return found


def _search(path: SearchPath) -> tuple[Series, ...]:
    line = ([path.start] if path.start else []) + list(path.steps)
    trials = _without_strays(path.trials, line)
    found = []
    if trials:
        strays, every = len(path.trials) - len(trials), -(-len(trials) // MOST_TRIALS)
        name = "judged trial" + (f" ({strays} lie below)" if strays else "")
        name += f", one in {every}" if every > 1 else ""
        points = tuple(_point(trial, "trial") for trial in trials[::every])
        found.append(Series(name=name, points=points, colour=7, mark="cross"))
    if path.steps:
        numbered = [_point(at, f"step {i}") for i, at in enumerate(path.steps, 1)]
        start = [_point(path.start, "seed network")] if path.start else []
        found.append(
            Series(
                name="accepted step",
                points=(*start, *numbered),
                colour=4,
                mark="diamond",
                joined=True,
            )
        )
    if path.start:
        mark, colour, name = MARKS["seed"]
        found.append(
            Series(name=name, points=(_point(path.start, name),), colour=colour, mark=mark)
        )
    return tuple(found)


def _without_strays(
    trials: Sequence[tuple[float, float]], line: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Leave out the few ruined trials that would flatten the picture."""
    kept = [accuracy for _, accuracy in line]
    if not kept:
        return list(trials)
    floor = min(kept) - max(0.03, 3 * (max(kept) - min(kept)))
    return [trial for trial in trials if trial[1] >= floor]


def _point(at: tuple[float, float], name: str) -> Point:
    return Point(at[0], 100 * at[1], f"{name}: {ms(at[0])} ms, {percent(at[1])} %")
