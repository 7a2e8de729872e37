"""The section on a search from scratch: what was tried, the front, and the finalists."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bneck.records.run import SearchRecord
from bneck.report.blocks import Block, Heading, Paragraph, Picture
from bneck.report.numbers import NONE, ms, percent, several
from bneck.report.scatter import Chart, Point, Series, draw_charts
from bneck.report.tables import Column, Table

SHOWN = 15  # networks of a front
MOST_TRIALS = 500  # drawn; of more, every so manieth


def block_search(record: SearchRecord) -> Iterator[Block]:
    """Nothing for a run that did not search blocks."""
    blocks = record.get("blocks")
    if not blocks:
        return
    trials: list[dict[str, Any]] = blocks["trials"]
    stopped = sum(trial["stopped"] for trial in trials)
    failed = sum(trial.get("failed") is not None for trial in trials)
    yield Heading("Block search")
    error = blocks["table"]
    yield Paragraph(
        f"{several(len(trials), 'network')} of the {float(blocks['networks']):.2g} in the space "
        f"{blocks['space']} were trained, {stopped} of them stopped early"
        f"{f', {failed} failed as their loss diverged' if failed else ''}; latencies up to "
        f"{ms(blocks['aim_ms'])} ms were looked for. The space's latency table was off by "
        f"{percent(error['median'])} % in the median and {percent(error['p95'])} % at the 95th percentile "
        f"on {several(error['networks'], 'network')} that calibrated nothing. Accuracy is the mean "
        "probability of the right class on images kept out of training."
    )
    shared = blocks.get("supernet")
    if shared and "failed" in shared:
        yield Paragraph(
            f"The training of the supernet failed ({shared['failed']}), so every trial was trained by itself."
        )
    elif shared:
        tau = shared["tau"]
        yield Paragraph(
            f"Trials were judged by the weights of a supernet, trained for {shared['epochs']:g} epochs. Its "
            f"ranking agrees with that of {several(len(shared['checked']), 'network')} trained alone to a "
            f"Kendall tau of {NONE if tau is None else f'{tau:.2f}'} (1: the same order, 0: none)."
        )
    if judged := [trial for trial in trials if trial.get("failed") is None]:
        yield _pictures(blocks, judged)
    yield _finalists(blocks["finalists"], record.get("metric", "top-1"))
    yield _front(blocks["front"], trials)


def _pictures(blocks: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> Picture:
    """All trials over latency with their front, and the best so far as the search went on."""
    aim, known = blocks["aim_ms"], {trial["number"]: trial for trial in trials}
    front = sorted((known[n] for n in blocks["front"]), key=lambda trial: trial["latency_ms"])
    best: list[Mapping[str, Any]] = []
    for trial in sorted(trials, key=lambda trial: trial["number"]):
        within = trial["latency_ms"] <= aim
        if within and (not best or trial["accuracy"] > best[-1]["accuracy"]):
            best.append(trial)
    every = -(-len(trials) // MOST_TRIALS)
    tradeoff = Chart(
        title="Trials",
        x="estimated latency (ms)",
        y="accuracy, short training (%)",
        series=(
            Series(
                name="trial", points=_points(trials[::every], "latency_ms"), colour=7, mark="cross"
            ),
            Series(name="front", points=_points(front, "latency_ms"), joined=True),
        ),
        lines=((aim, f"aim {ms(aim)} ms"),),
        note="Accuracy is the mean probability of the right class on images kept out of training",
    )
    climb = Chart(
        title="Best so far",
        x="trial",
        y="accuracy, short training (%)",
        series=(
            Series(name="trial", points=_points(trials[::every], "number"), colour=7, mark="cross"),
            Series(
                name="best within the aim", points=_points(best, "number"), joined=True, colour=2
            ),
        ),
        note="What each trial added, in their order; the true optimum is unknown, so this is no regret",
    )
    return draw_charts("report-blocks", "Block search", (tradeoff, climb))


def _points(trials: Sequence[Mapping[str, Any]], x: str) -> tuple[Point, ...]:
    return tuple(
        Point(
            trial[x],
            100 * trial["accuracy"],
            f"trial {trial['number']}: {ms(trial['latency_ms'])} ms, {percent(trial['accuracy'])} %",
        )
        for trial in trials
    )


def _finalists(finalists: Sequence[Mapping[str, Any]], metric: str) -> Table:
    return Table(
        title="Finalists, trained in full, the best first; ties within one standard error go to the faster.",
        columns=(
            Column("trial"),
            Column("estimated (ms)"),
            Column("measured (ms)"),
            Column("accuracy, short training (%)"),
            Column("accuracy, full training (%)"),
            Column(f"{metric} held out (%)"),
        ),
        rows=tuple(
            (
                str(entry["number"]),
                ms(entry["estimated_ms"]),
                ms(entry["measured_ms"]),
                percent(entry["proxy"]),
                percent(statistics.mean(entry["expected"])) if entry["expected"] else NONE,
                ", ".join(percent(score) for score in entry["heldout_score"]) or NONE,
            )
            for entry in finalists
        ),
    )


def _front(numbers: Sequence[int], trials: Sequence[Mapping[str, Any]]) -> Table:
    known = {trial["number"]: trial for trial in trials}
    shown = [numbers[i] for i in _spread(len(numbers))]
    more = f", {len(shown)} of {len(numbers)}" if len(shown) < len(numbers) else ""
    return Table(
        title=f"Front of accuracy and estimated latency after the short trainings{more}.",
        columns=(Column("trial"), Column("estimated (ms)"), Column("accuracy (%)")),
        rows=tuple(
            (str(n), ms(known[n]["latency_ms"]), percent(known[n]["accuracy"])) for n in shown
        ),
    )


def _spread(count: int) -> list[int]:
    """Indices from first to last, `SHOWN` at most."""
    if count <= SHOWN:
        return list(range(count))
    return [round(i * (count - 1) / (SHOWN - 1)) for i in range(SHOWN)]
