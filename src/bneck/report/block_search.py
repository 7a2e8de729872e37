"""The section on a search from scratch: what was tried, the front, and the finalists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from bneck.records.run import SearchRecord
from bneck.report.blocks import Block, Heading, Paragraph, Picture
from bneck.report.numbers import NONE, ms, percent, several
from bneck.report.scatter import Chart, Point, Series, draw_charts
from bneck.report.tables import Table, columns

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
        "probability of the true class on images kept out of training."
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
    shown = trials[:: -(-len(trials) // MOST_TRIALS)]
    accuracy = "accuracy, short training (%)"
    tradeoff = Chart(
        title="Trials", x="estimated latency (ms)", y=accuracy, lines=((aim, f"aim {ms(aim)} ms"),),
        series=(
            Series(name="trial", points=_points(shown, "latency_ms"), colour=7, mark="cross"),
            Series(name="front", points=_points(front, "latency_ms"), joined=True),
        ),
        note="Accuracy is the mean probability of the true class on images kept out of training",
    )  # fmt: skip
    climb = Chart(
        title="Best so far", x="trial", y=accuracy,
        series=(
            Series(name="trial", points=_points(shown, "number"), colour=7, mark="cross"),
            Series(name="best within the aim", points=_points(best, "number"), joined=True, colour=2),
        ),
        note="What each trial added, in their order; the true optimum is unknown, so this is no regret",
    )  # fmt: skip
    return draw_charts("report-blocks", "Block search", (tradeoff, climb))


def _points(trials: Sequence[Mapping[str, Any]], x: str) -> tuple[Point, ...]:
    words = "trial {}: {} ms, {} %"
    return tuple(
        Point(t[x], 100 * t["accuracy"],
              words.format(t["number"], ms(t["latency_ms"]), percent(t["accuracy"])))
        for t in trials
    )  # fmt: skip


def _finalists(finalists: Sequence[Mapping[str, Any]], metric: str) -> Table:
    return Table(
        title="Finalists, trained in full, the best first; ties within one standard error go to the faster.",
        columns=columns(
            "trial", "estimated (ms)", "measured (ms)", "accuracy, short training (%)",
            "accuracy, full training (%)", f"{metric} held out (%)", text=(),
        ),
        rows=tuple(
            (
                str(entry["number"]), ms(entry["estimated_ms"]), ms(entry["measured_ms"]),
                percent(entry["proxy"]), percent(fmean(entry["expected"])) if entry["expected"] else NONE,
                ", ".join(map(percent, entry["heldout_score"])) or NONE,
            )
            for entry in finalists
        ),
    )  # fmt: skip


def _front(front: Sequence[int], trials: Sequence[Mapping[str, Any]]) -> Table:
    known = {trial["number"]: trial for trial in trials}
    last, count = len(front) - 1, min(SHOWN, len(front))
    shown = [known[front[round(i * last / (count - 1)) if i else 0]] for i in range(count)]
    more = f", {count} of {len(front)}" if count < len(front) else ""
    return Table(
        title=f"Front of accuracy and estimated latency after the short training runs{more}.",
        columns=columns("trial", "estimated (ms)", "accuracy (%)", text=()),
        rows=tuple((str(t["number"]), ms(t["latency_ms"]), percent(t["accuracy"])) for t in shown),
    )
