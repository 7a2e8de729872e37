"""What a report shows first: the front of accuracy and latency, next to the networks in few numbers."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from bneck.records.run import SearchRecord
from bneck.report import text
from bneck.report.blocks import Beside, Block, Paragraph, Picture, Tile, Tiles, Tone
from bneck.report.numbers import NONE, ms, percent, signed_percent, spread_text
from bneck.report.pictures import final_chart
from bneck.report.scatter import draw_charts
from bneck.report.tables import Table, columns


def first_screen(record: SearchRecord) -> Iterator[Block]:
    """Warnings, the tiles, and the picture of the front beside the table of networks."""
    for sentence in (text.missing_sentence(record), text.disagreement_sentence(record)):
        if sentence:
            yield Paragraph(sentence, "warning")
    if record.get("allocation", {}).get("shipped", "found") not in ("found", "lower"):
        yield Paragraph(text.shipped_sentence(record), "warning")
    if tiles := tuple(_tiles(record)):
        yield Tiles(tiles)
    table, picture = _table(record), _front(record)
    if picture is not None and table is not None:
        yield Beside(picture, table)
    elif table is not None:
        yield table


def _front(record: SearchRecord) -> Picture | None:
    chart = final_chart(record)
    return (
        None if chart is None else draw_charts("report-tradeoff", "Accuracy over latency", [chart])
    )


def _table(record: SearchRecord) -> Table | None:
    """The networks by latency, score, and what the found one is better by."""
    ours = record.get("found", {}).get("scores")
    rows, strong = list[tuple[str, ...]](), set[int]()
    for role, title, network in text.named(record):
        scores = network.get("scores")
        gap = NONE
        if ours and scores and role != "found":
            gap = signed_percent(fmean(ours) - fmean(scores))
        if role == "found":
            strong.add(len(rows))
        rows.append(
            (title, ms(text.measured(network)[0]), percent(fmean(scores)) if scores else NONE, gap)
        )
    if not rows:
        return None
    return Table(
        title="The found network, the seed network and simpler ways to the same latency",
        columns=columns(
            "network", "measured (ms)", f"{text.metric(record)} (%)", "found is better by (points)"
        ),
        rows=tuple(rows), strong=frozenset(strong),
    )  # fmt: skip


def _tiles(record: SearchRecord) -> Iterator[Tile]:
    measured, met = text.measured_ms(record), text.meets_target(record)
    if measured is not None:
        tones: dict[bool | None, Tone] = {True: "good", False: "bad", None: "plain"}
        words = {True: "met", False: "NOT met", None: "unknown"}
        remark = f"target {text.target_text(record)}: {words[met]}"
        yield Tile("Measured latency", f"{ms(measured)} ms", remark, tones[met])
    scores = record.get("found", {}).get("scores")
    if not scores:
        return
    remark = text.repeats(scores) if len(scores) > 1 else "one final training run"
    yield Tile(f"{text.metric(record, first=True)}, found network", spread_text(scores), remark)
    baseline, verdict = record.get("uniform", {}).get("scores"), text.baseline_verdict(record)
    if baseline and verdict:
        gap = f"{signed_percent(fmean(scores) - fmean(baseline))} points"
        apart = "the ranges of the training runs do not overlap"
        if min(len(scores), len(baseline)) == 1:
            apart = "from one training run, so it may be chance"
        said: dict[text.Verdict, tuple[str, Tone]] = {
            "above": (f"above: {apart}", "good"),
            "tie": ("a tie: within the range of the training runs", "even"),
            "below": (f"BELOW: {apart}", "bad"),
        }
        yield Tile("Against uniform width", gap, *said[verdict])
