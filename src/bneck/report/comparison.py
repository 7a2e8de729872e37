"""Networks and runs side by side: costs, scores, the trade-off, their blocks, and how they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bneck.report.blocks import Block, Heading, Paragraph
from bneck.report.difference import changed_rows, difference
from bneck.report.network_picture import Drawn, draw_networks
from bneck.report.numbers import NONE, from_to, millions, ms, percent
from bneck.report.scatter import Chart, Point, Series, draw_charts
from bneck.report.subjects import Subject
from bneck.report.tables import Column, Table, columns

SHOWN = 12  # networks that are drawn and told apart row by row


def comparison_blocks(subjects: Sequence[Subject]) -> Iterator[Block]:
    """The page below its headline; the first subject is the reference of the others."""
    yield _table(subjects)
    data = dict.fromkeys(s.data for s in subjects if s.scores)
    if len(data) > 1:
        yield Paragraph(
            "The scores are of different images, so they do not compare: " + "; ".join(data) + ".",
            "warning",
        )
    if charts := _charts(subjects):
        yield Heading("Trade-off")
        yield draw_charts("compare-tradeoff", "Trade-off", charts)
    first, drawn = subjects[0], subjects[:SHOWN]
    yield Heading("Row by row")
    networks = [
        Drawn(s.label, s.spec, changed_rows(first.spec, s.spec), (s.params, s.madds)) for s in drawn
    ]
    yield draw_networks("compare-networks", "The networks as rows of blocks", networks)
    if len(drawn) > 1:
        yield Paragraph(f"Rows with a colored background differ from {first.label}.", "note")
        yield Heading("What differs")
        for other in drawn[1:]:
            yield from difference(first.spec, other.spec, first.label, other.label)


def _table(subjects: Sequence[Subject]) -> Table:
    base = subjects[0]
    heads = list(columns(
        "network", "kind", "px", "params (M)", "MAdds (M)", "MAdds / first", text=(0, 1)
    ))  # fmt: skip
    rows = [
        [
            s.label, s.kind, str(s.spec.resolution), millions(s.params), millions(s.madds),
            f"{s.madds / base.madds:.3f}",
        ]
        for s in subjects
    ]  # fmt: skip
    if any(s.latency_ms is not None for s in subjects):
        heads += [Column("measured (ms)"), Column("p10 to p90 (ms)")]
        for row, s in zip(rows, subjects, strict=True):
            row += [ms(s.latency_ms), from_to(s.p10_ms, s.p90_ms)]
    kinds = list(dict.fromkeys((s.metric, s.data) for s in subjects if s.scores))
    if kinds:
        heads.append(Column(f"{kinds[0][0] if len(kinds) == 1 else 'score'} (%)"))
        heads += [Column("of", number=False)] if len(kinds) > 1 else []
        for row, s in zip(rows, subjects, strict=True):
            row.append(" / ".join(map(percent, s.scores)) or NONE)
            row += [f"{s.metric}, {s.data}" if s.scores else NONE] if len(kinds) > 1 else []
    where = "; ".join(dict.fromkeys(s.where for s in subjects if s.where))
    measured = f" Latency, medians: {where}." if where else ""
    scored = f" {kinds[0][0]} of every training on {kinds[0][1]}." if len(kinds) == 1 else ""
    return Table(
        title=f"Counts are exact, for one image.{scored}{measured}",
        columns=tuple(heads), rows=tuple(map(tuple, rows)), narrow="cards",
    )  # fmt: skip


def _charts(subjects: Sequence[Subject]) -> list[Chart]:
    """Score over latency and over multiply-adds, as far as they are there; else the costs."""
    scored = [s for s in subjects if s.score is not None]
    timed = [s for s in subjects if s.latency_ms is not None]
    score = f"{' or '.join(dict.fromkeys(s.metric for s in scored))} (%)"
    madds, latency = "multiply-adds (M)", "measured latency (ms)"
    charts = [
        _chart("Score over latency", latency, score, [
            (s, Point(s.latency_ms or 0.0, 100 * (s.score or 0.0),
                      f"{s.label}: {ms(s.latency_ms)} ms, {percent(s.score)} %", s.p10_ms, s.p90_ms))
            for s in scored if s.latency_ms is not None
        ]),
        _chart("Score over multiply-adds", madds, score, [
            (s, Point(s.madds / 1e6, 100 * (s.score or 0.0),
                      f"{s.label}: {millions(s.madds)}M multiply-adds, {percent(s.score)} %"))
            for s in scored
        ]),
        _chart("Latency over multiply-adds", madds, latency, [
            (s, Point(s.madds / 1e6, s.latency_ms or 0.0,
                      f"{s.label}: {millions(s.madds)}M multiply-adds, {ms(s.latency_ms)} ms"))
            for s in timed
        ]),
        _chart("Costs", madds, "parameters (M)", [
            (s, Point(s.madds / 1e6, s.params / 1e6,
                      f"{s.label}: {millions(s.madds)}M multiply-adds, {millions(s.params)}M parameters"))
            for s in subjects
        ]),
    ]  # fmt: skip
    # One point compares nothing. The costs alone are drawn only where no score is known.
    found = [chart for chart in charts if sum(len(one.points) for one in chart.series) > 1]
    return [chart for chart in charts[:2] if chart in found] or found[:1]


def _chart(title: str, x: str, y: str, points: Sequence[tuple[Subject, Point]]) -> Chart:
    series = []
    for number, kind in enumerate(dict.fromkeys(subject.kind for subject, _ in points)):
        own = tuple(point for subject, point in points if subject.kind == kind)
        series.append(Series(name=kind, points=own, colour=number, named=True))
    return Chart(title=title, x=x, y=y, series=tuple(series))
