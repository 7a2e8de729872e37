"""The report's sections in their order, each a function of what the run wrote down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bneck.records.run import NetworkRecord, ProposalRecord, SearchRecord
from bneck.report import text
from bneck.report.block_search import block_search
from bneck.report.blocks import Block, Heading, Items, Paragraph, Tile, Tiles, Tone
from bneck.report.cuts import cut_sentences, cuts, spec_of
from bneck.report.difference import difference
from bneck.report.numbers import (
    ARROW,
    NONE,
    mean,
    millions,
    ms,
    percent,
    seconds,
    several,
    signed_percent,
    spread_text,
)
from bneck.report.pictures import FinalPoint, SearchPath, draw_blocks, draw_tradeoff
from bneck.report.rerun import SHOWN, rerun
from bneck.report.tables import Column, Table

Trial = tuple[float, float]


def blocks(
    record: SearchRecord,
    entries: Sequence[Mapping[str, Any]],
    files: Sequence[tuple[str, str, str]],
) -> list[Block]:
    """Everything below the headline.

    Args:
        record: what `run.json` holds, whole or not.
        entries: the lines of the ledger.
        files: (name, what it is, size) of the files in the run folder.
    """
    return [
        *_summary(record),
        *_networks(record),
        *_tradeoff(record, entries),
        *block_search(record),
        *_cuts(record),
        *_steps(record, entries),
        *_latency(record),
        *_time(record),
        *_checks(record),
        *rerun(record, files),
    ]


def _summary(record: SearchRecord) -> Iterator[Block]:
    if sentence := text.missing_sentence(record):
        yield Paragraph(sentence, "warning")
    if sentence := text.disagreement_sentence(record):
        yield Paragraph(sentence, "warning")
    if sentence := text.accuracy_sentence(record):
        yield Paragraph(sentence, "lead")
    if record.get("found"):
        yield Paragraph(text.baseline_sentence(record), "lead")
    if sentence := text.task_sentence(record):
        yield Paragraph(sentence)
    if tiles := tuple(_tiles(record)):
        yield Tiles(tiles)


def _tiles(record: SearchRecord) -> Iterator[Tile]:
    measured, met = text.measured_ms(record), text.meets_target(record)
    if measured is not None:
        tones: dict[bool | None, Tone] = {True: "good", False: "bad", None: "plain"}
        words = {True: "met", False: "NOT met", None: "unknown"}
        remark = f"target {text.target_text(record)}: {words[met]}"
        yield Tile("Measured latency", f"{ms(measured)} ms", remark, tones[met])
    found, uniform = record.get("found", {}), record.get("uniform", {})
    scores, baseline = found.get("scores"), uniform.get("scores")
    if scores:
        title = f"{text.metric(record, first=True)}, found network"
        yield Tile(title, spread_text(scores), _remark(scores))
    verdict = text.baseline_verdict(record)
    if scores and baseline and verdict:
        gap = f"{signed_percent(mean(scores) - mean(baseline))} points"
        apart = "the ranges of the trainings are apart"
        if min(len(scores), len(baseline)) == 1:
            apart = "from one training, so it may be chance"
        remark = {
            "above": f"above: {apart}",
            "tie": "a tie: within the spread of the trainings",
            "below": f"BELOW: {apart}",
        }[verdict]
        side: dict[text.Verdict, Tone] = {"above": "good", "tie": "even", "below": "bad"}
        yield Tile("Against uniform width", gap, remark, side[verdict])


def _remark(scores: Sequence[float]) -> str:
    return (
        f"mean and half the range of {len(scores)} trainings"
        if len(scores) > 1
        else "one final training"
    )


def _networks(record: SearchRecord) -> Iterator[Block]:
    named = list(text.named(record))
    if not named:
        return
    yield Heading("Networks compared")
    rows = []
    for _, title, network in named:
        scores = network.get("scores") or []
        _, p10, p90 = _measured(network)
        rows.append(
            (
                title,
                millions(network.get("params")),
                millions(network.get("madds")),
                ms(network.get("estimated_ms")),
                ms(network.get("measured_ms")),
                NONE if p10 is None or p90 is None else f"{ms(p10)} to {ms(p90)}",
                signed_percent(text.estimate_error(network)),
                " / ".join(percent(value) for value in scores) or NONE,
                percent(mean(scores)) if scores else NONE,
            )
        )
    yield Table(
        title="Measured: median, and 10th to 90th percentile. Error: estimate against measurement.",
        columns=(
            Column("network", number=False),
            Column("params (M)"),
            Column("MAdds (M)"),
            Column("estimated (ms)"),
            Column("measured (ms)"),
            Column("p10 to p90 (ms)"),
            Column("error (%)"),
            Column(f"{text.metric(record)} per training (%)"),
            Column("mean (%)"),
        ),
        rows=tuple(rows),
        strong=frozenset(i for i, (role, _, _) in enumerate(named) if role == "found"),
        narrow="cards",
    )


def _tradeoff(record: SearchRecord, entries: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    yield Heading("Accuracy over latency")
    finals = []
    for role, _, network in text.named(record):
        median, p10, p90 = _measured(network)
        if median is not None and network.get("scores"):
            low, high = median if p10 is None else p10, median if p90 is None else p90
            scores = tuple(network["scores"])
            finals.append(
                FinalPoint(role=role, latency_ms=median, p10_ms=low, p90_ms=high, scores=scores)
            )
    seed, steps, trials = (
        record.get("seed_network", {}),
        record.get("steps") or [],
        _trials(entries),
    )
    start = _pair(seed.get("estimated_ms"), seed.get("heldout_score"))
    accepted = tuple((step["estimated_ms"], step["accuracy"]) for step in steps)
    path = SearchPath(start=start, steps=accepted, trials=trials) if accepted or trials else None
    if not finals:
        yield Paragraph("Not drawn yet: no network is both finally trained and measured.", "note")
    if path is None:
        yield Paragraph("Not drawn yet: the search has judged no trial.", "note")
    if picture := draw_tradeoff(finals, path, record.get("target_ms"), text.metric(record)):
        yield picture


def _cuts(record: SearchRecord) -> Iterator[Block]:
    yield Heading("What was cut where")
    seed, found = spec_of(record, "seed_network"), spec_of(record, "found")
    if seed is None or found is None:
        yield Paragraph("Missing: the rows of the seed network and of a found network.", "note")
        return
    rows = cuts(record)
    if rows is not None:
        yield Paragraph(cut_sentences(rows))
    networks = (record.get("seed_network", {}), record.get("found", {}))
    yield draw_blocks(
        seed, found, [(n["params"], n["madds"]) if "params" in n else None for n in networks]
    )
    if rows is None:
        yield from difference(seed, found)
        return
    yield Table(
        title=f"Widths, seed {ARROW} found. MAdds kept includes what the neighbours' cuts save.",
        columns=(
            Column("row"),
            Column("operator", number=False),
            Column("expanded (channels)"),
            Column("out (channels)"),
            Column("MAdds kept (%)"),
        ),
        rows=tuple(
            (
                str(row.row),
                row.operator,
                NONE if row.expanded is None else _widths(row.expanded),
                _widths(row.out),
                percent(row.madds_kept, 0),
            )
            for row in rows
        ),
    )


def _steps(record: SearchRecord, entries: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    yield Heading("Accepted steps")
    steps, judged = record.get("steps") or [], len(_trials(entries))
    if not steps:
        yield Paragraph(
            f"No accepted step is on record; {several(judged, 'trial')} judged.", "note"
        )
        return
    seed = record.get("seed_network", {})
    whole = seed.get("estimated_ms")
    rows = []
    if whole is not None:
        held = percent(seed.get("heldout_score"))
        rows.append(("0", "the seed network", NONE, ms(whole), "100.0", held, NONE))
    for step in steps:
        change = step["proposal"]
        rows.append(
            (
                str(step["number"]),
                _change(change),
                _widths((change["before"], change["after"])),
                ms(step["estimated_ms"]),
                percent(step["estimated_ms"] / whole) if whole else NONE,
                percent(step["accuracy"]),
                str(step["trials"]),
            )
        )
    failed = sum(entry.get("event") == "trial" and "failed" in entry for entry in entries)
    diverged = f" {several(failed, 'trial')} failed as the loss diverged." if failed else ""
    yield Paragraph(
        f"{several(len(steps), 'step')}, {several(judged, 'trial')} judged.{diverged} Held-out "
        f"{text.metric(record)} is on images kept out of training, after the short fine-tuning; it is "
        "not the final accuracy."
    )
    yield Table(
        title="Accepted steps in their order; step 0 is where the search began.",
        columns=(
            Column("step"),
            Column("what changed", number=False),
            Column("width (channels)"),
            Column("estimated (ms)"),
            Column("of the seed (%)"),
            Column(f"{text.metric(record)} held out (%)"),
            Column("trials"),
        ),
        rows=tuple(rows),
    )


def _latency(record: SearchRecord) -> Iterator[Block]:
    yield Heading("Predicted against measured latency")
    yield Paragraph(text.table_sentence(record) or "Missing: the latency table's error.")
    rows = []
    for _, title, network in text.named(record):
        measurement = network.get("measurement") or {}
        raw = (measurement.get("raw_latency_ms") or {}).get("median")
        if network.get("measured_ms") is not None:
            rows.append(
                (
                    title,
                    ms(network.get("estimated_ms")),
                    ms(network.get("measured_ms")),
                    signed_percent(text.estimate_error(network)),
                    ms(raw),
                    _plain(measurement.get("pace"), 3),
                )
            )
    if not rows:
        yield Paragraph("Missing: no network has been measured yet.", "note")
        return
    yield Table(
        title="Measured is wall time divided by the pace of the machine in the same rounds; raw is "
        "what the clock said.",
        columns=(
            Column("network", number=False),
            Column("estimated (ms)"),
            Column("measured (ms)"),
            Column("error (%)"),
            Column("raw (ms)"),
            Column("pace (1 = nominal)"),
        ),
        rows=tuple(rows),
        narrow="cards",
    )


def _time(record: SearchRecord) -> Iterator[Block]:
    yield Heading("Where the time went")
    stages, total = record.get("stages") or [], text.total_seconds(record)
    if not stages or not total:
        yield Paragraph("Missing: no stage has ended yet.", "note")
        return
    yield Paragraph(text.time_sentence(record))
    parts = [(stage["name"], stage["seconds"]) for stage in stages]
    rest = total - sum(stage["seconds"] for stage in stages)
    if rest > 0.005 * total:
        parts.append(("between stages", rest))
    yield Table(
        title="Wall time of each stage, over all resumes.",
        columns=(Column("stage", number=False), Column("time (s)"), Column("share (%)")),
        rows=tuple((name, seconds(spent), percent(spent / total)) for name, spent in parts),
    )


def _checks(record: SearchRecord) -> Iterator[Block]:
    yield Heading("Checks")
    yield Paragraph(text.export_sentence(record) or "Missing: the check of the exported file.")
    bad = text.bad_images(record)
    if not bad:
        return
    sentence = f"{several(len(bad), 'image')} could not be read and took no part."
    if len(bad) > SHOWN:
        sentence += f" The first {SHOWN}:"
    yield Paragraph(sentence)
    yield Items(tuple(f"{path}: {reason}" for path, reason in bad[:SHOWN]))


def _measured(network: NetworkRecord) -> tuple[float | None, float | None, float | None]:
    """Median, 10th and 90th percentile, as far as they are known."""
    spread = (network.get("measurement") or {}).get("latency_ms") or {}
    return network.get("measured_ms"), spread.get("p10"), spread.get("p90")


def _trials(entries: Sequence[Mapping[str, Any]]) -> tuple[Trial, ...]:
    pairs = (
        _pair(entry.get("estimated_ms"), entry.get("accuracy"))
        for entry in entries
        if entry.get("event") == "trial" and "failed" not in entry
    )
    return tuple(pair for pair in pairs if pair)


def _pair(first: object, second: object) -> tuple[float, float] | None:
    if isinstance(first, int | float) and isinstance(second, int | float):
        return float(first), float(second)
    return None


def _widths(pair: tuple[int, int]) -> str:
    before, after = pair
    return str(before) if before == after else f"{before} {ARROW} {after}"


def _change(proposal: ProposalRecord) -> str:
    rows = proposal["rows"]
    where = f"row {rows[0]}" if len(rows) == 1 else f"rows {rows[0]} to {rows[-1]}"
    return f"{proposal['kind']} of {where}"


def _plain(value: object, decimals: int) -> str:
    return f"{value:.{decimals}f}" if isinstance(value, int | float) else NONE
