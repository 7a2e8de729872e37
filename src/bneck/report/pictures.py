"""The pictures of a search's report: the trade-off, and the networks as rows of blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from bneck.records.run import NetworkRecord, SearchRecord
from bneck.report import text
from bneck.report.blocks import Picture
from bneck.report.difference import changed_rows
from bneck.report.network_picture import Drawn, draw_networks
from bneck.report.numbers import ms, percent
from bneck.report.scatter import Chart, Mark, Point, Series
from bneck.specs.network import NetSpec

Trial = tuple[float, float]  # estimated ms, held-out score
MARKS: dict[str, tuple[Mark, int, str]] = {
    "seed": ("square", 5, "seed network"),
    "found": ("circle", 0, "found network"),
    "uniform": ("triangle", 1, "uniform width"),
    "uniform-2": ("triangle", 7, "uniform width, other form"),
    "narrowed": ("circle", 2, "by importance"),
    "lower": ("circle", 6, "by importance, lower resolution"),
    "scratch": ("triangle", 3, "uniform width from random weights"),
    "resolution": ("diamond", 4, "lower resolution"),
}
MOST_TRIALS = 500  # drawn; of more, every so manieth


def judged_trials(entries: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """The trials of a ledger that have a latency and a score."""
    trials = [
        (entry.get("estimated_ms"), entry.get("accuracy"))
        for entry in entries
        if entry.get("event") == "trial" and "failed" not in entry
    ]
    return [(x, y) for x, y in trials if x is not None and y is not None]


def final_chart(record: SearchRecord) -> Chart | None:
    """Score over measured latency of the networks after their final training, those of all targets."""
    targets: list[Any] = [record, *record.get("family", [])]  # these have the keys of a record
    finals: dict[str, list[NetworkRecord]] = {}
    for one in targets:
        for role, _, network in text.named(one):
            if network.get("measured_ms") is not None and network.get("scores"):
                finals.setdefault(role, []).append(network)
    if not finals:
        return None
    metric = text.metric(record)
    return Chart(
        title="After the final training", x="measured latency (ms)", y=f"{metric}, validation images (%)",
        series=tuple(series for final in finals.items() for series in _final(*final)),
        lines=_target(record) if len(targets) == 1 else tuple(_share(one) for one in targets),
        note=f"measured latency (bar from the 10th to the 90th percentile) and mean {metric} on validation "
        "images after the final training (a cross for each training run)",
    )  # fmt: skip


def search_chart(record: SearchRecord, entries: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Score over estimated latency of the seed network, the accepted steps and all trials.

    It shares no axis with `final_chart`: images, training and where latency is from differ.
    """
    seed, trials = record.get("seed_network", {}), judged_trials(entries)
    steps = [(step["estimated_ms"], step["accuracy"]) for step in record.get("steps") or []]
    if not steps and not trials:
        return None
    at = seed.get("estimated_ms"), seed.get("heldout_score")
    start = [(at[0], at[1])] if at[0] is not None and at[1] is not None else []
    metric = text.metric(record)
    return Chart(
        title="During the search", x="estimated latency (ms)", y=f"{metric}, held-out images (%)",
        series=tuple(_search(start, steps, trials)), lines=_target(record),
        note=f"estimated latency, and {metric} on held-out images after a short fine-tuning. Other images and "
        "other training than the final networks, so heights in the two panels do not compare.",
    )  # fmt: skip


def draw_blocks(
    seed: NetSpec, found: NetSpec, whole: Sequence[tuple[int, int] | None] = (None, None)
) -> Picture:
    """The seed network and the found one, rows that differ marked; `whole` as in `Drawn`."""
    drawn = [
        Drawn(f"seed: {seed.name}", seed, whole=whole[0]),
        Drawn(f"found: {found.name}", found, changed_rows(seed, found), whole[1]),
    ]
    return draw_networks("report-networks", "The seed network and the found network", drawn)


def _target(record: SearchRecord) -> tuple[tuple[float, str], ...]:
    target = record.get("target_ms")
    return () if target is None else ((target, f"target {ms(target)} ms"),)


def _share(record: SearchRecord) -> tuple[float, str]:
    """The line of one target of several, with a short name: there is no room for more."""
    return record["target_ms"], record["target"]


def _final(role: str, networks: list[NetworkRecord]) -> list[Series]:
    """The networks of one role, joined where several targets have one each."""
    mark, colour, name = MARKS.get(role, ("square", 6, networks[0].get("title", role)))
    middles, single = [], []
    for network in networks:
        latency, scores = network["measured_ms"], network["scores"]
        words = f"{name}: {ms(latency)} ms"
        _, p10, p90 = text.measured(network)
        middles.append(Point(
            latency, 100 * fmean(scores), f"{words}, {percent(fmean(scores))} %",
            latency if p10 is None else p10, latency if p90 is None else p90,
        ))  # fmt: skip
        if len(scores) > 1:
            single += [
                Point(latency, 100 * score, f"{words}, training {number}: {percent(score)} %")
                for number, score in enumerate(scores, 1)
            ]
    middles.sort(key=lambda point: point.x)
    # Crosses come first: what is drawn later covers what was drawn before.
    crosses = [Series(name="", points=tuple(single), colour=colour, mark="cross")] if single else []
    points = tuple(middles)
    return [*crosses, Series(name=name, points=points, colour=colour, mark=mark, joined=True)]


def _search(start: list[Trial], steps: list[Trial], trials: list[Trial]) -> list[Series]:
    shown, found = _without_strays(trials, [*start, *steps]), []
    if shown:
        strays, every = len(trials) - len(shown), -(-len(shown) // MOST_TRIALS)
        name = "judged trial" + (f" ({strays} lie below)" if strays else "")
        name += f", one in {every}" if every > 1 else ""
        points = tuple(_point(trial, "trial") for trial in shown[::every])
        found.append(Series(name=name, points=points, colour=7, mark="cross"))
    seed = tuple(_point(at, "seed network") for at in start)
    if steps:
        points = (*seed, *(_point(at, f"step {i}") for i, at in enumerate(steps, 1)))
        found.append(
            Series(name="accepted step", points=points, colour=4, mark="diamond", joined=True)
        )
    if seed:
        mark, colour, name = MARKS["seed"]
        found.append(Series(name=name, points=seed, colour=colour, mark=mark))
    return found


def _without_strays(trials: list[Trial], line: list[Trial]) -> list[Trial]:
    """Leave out the few ruined trials that would flatten the picture."""
    kept = [score for _, score in line]
    if not kept:
        return trials
    floor = min(kept) - max(0.03, 3 * (max(kept) - min(kept)))
    return [trial for trial in trials if trial[1] >= floor]


def _point(at: Trial, name: str) -> Point:
    return Point(at[0], 100 * at[1], f"{name}: {ms(at[0])} ms, {percent(at[1])} %")
