"""The report's sections in their order, each a function of what the run wrote down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from bneck.records.run import SearchRecord
from bneck.report import text
from bneck.report.block_search import block_search
from bneck.report.blocks import Block, Code, Heading, Items, Paragraph
from bneck.report.cuts import cut_sentences, cuts, spec_of
from bneck.report.difference import difference
from bneck.report.first_screen import first_screen
from bneck.report.mistakes import mistakes
from bneck.report.numbers import (
    ARROW,
    NONE,
    from_to,
    millions,
    ms,
    percent,
    seconds,
    several,
    signed_percent,
    spread_text,
)
from bneck.report.pictures import draw_blocks, judged_trials, search_chart
from bneck.report.scatter import draw_charts
from bneck.report.tables import Table, columns

Entries = Sequence[Mapping[str, Any]]
Files = Sequence[tuple[str, str, str]]  # (name, what it is, size)
SHOWN = 20  # of a list that may be long: bad images, classes
TIMING = {
    "n": "timed runs (n)", "rounds": "rounds", "warmup": "warm-up runs", "repeated": "repeated bursts",
}  # fmt: skip


def blocks(
    record: SearchRecord, entries: Entries, files: Files, pictures: Mapping[str, bytes]
) -> list[Block]:
    """Everything below the headline.

    Args:
        record: what `run.json` holds, whole or not.
        entries: the lines of the ledger.
        files: those in the run folder.
        pictures: the images that the found network gets wrong, by their names in the record.
    """
    return [
        *first_screen(record), *_summary(record), *_networks(record), *_family(record),
        *mistakes(record, pictures), *_trials(record, entries), *block_search(record), *_cuts(record),
        *_steps(record, entries), *_latency(record), *_time(record), *_checks(record),
        *_rerun(record, files),
    ]  # fmt: skip


def _summary(record: SearchRecord) -> Iterator[Block]:
    sentences = [text.accuracy_sentence(record)]
    if record.get("found"):
        sentences.append(text.baseline_sentence(record))
    sentences += [
        text.others_sentence(record), text.lose_sentence(record), text.seed_sentence(record),
        text.task_sentence(record),
    ]  # fmt: skip
    if any(sentences):
        yield Heading("In words")
    for sentence in filter(None, sentences):
        yield Paragraph(sentence)


def _networks(record: SearchRecord) -> Iterator[Block]:
    named = list(text.named(record))
    if not named:
        return
    yield Heading("Networks compared")
    rows = []
    for role, title, network in named:
        scores = network.get("scores") or []
        measured, p10, p90 = text.measured(network)
        rows.append((
            title, millions(network.get("params")), millions(network.get("madds")),
            ms(network.get("estimated_ms")), ms(measured), from_to(p10, p90),
            signed_percent(text.estimate_error(network)),
            " / ".join(map(percent, scores)) or NONE, percent(fmean(scores)) if scores else NONE,
            _behind(record, role, scores),
        ))  # fmt: skip
    yield Table(
        title="Measured: by the fastest runs, next to the seed network's. Error: estimate against measurement. "
        "Behind: the found score minus this one, run by run; training run n of each has the same seed.",
        columns=columns(
            "network", "params (M)", "MAdds (M)", "estimated (ms)", "measured (ms)", "p10 to p90 (ms)",
            "error (%)", f"{text.metric(record)} per training (%)", "mean (%)", "behind (points)",
        ),
        rows=tuple(rows),
        strong=frozenset(i for i, (role, _, _) in enumerate(named) if role == "found"),
        narrow="cards",
    )  # fmt: skip


def _family(record: SearchRecord) -> Iterator[Block]:
    """The networks of further targets; nothing where there are none."""
    family = record.get("family", [])
    if not family:
        return
    yield Heading("Further targets")
    rows = []
    for one in family:
        baseline = text.best_baseline(one)  # type: ignore[arg-type]  # it has the keys of a record
        behind = (
            NONE if baseline is None else f"{baseline[0]}: {spread_text(baseline[1]['scores'])}"
        )
        rows.append((
            one["target"], ms(one["target_ms"]), ms(one.get("measured_latency_ms")),
            spread_text(one["found"]["scores"]), behind, one["export"]["file"].partition("/")[0],
        ))  # fmt: skip
    yield Table(
        title=f"{text.metric(record, first=True)} of the network of each further target, and of the best other "
        "way to its latency.",
        columns=columns(
            "target", "target (ms)", "measured (ms)", "found (%)", "best other way", "folder", text=(0, 4, 5)
        ),
        rows=tuple(rows), narrow="cards",
    )  # fmt: skip


def _behind(record: SearchRecord, role: str, scores: Sequence[float]) -> str:
    ours = record.get("found", {}).get("scores") or []
    if role in ("seed", "found"):
        return NONE
    # What is far behind was trained once.
    return " / ".join(signed_percent(a - b) for a, b in zip(ours, scores, strict=False)) or NONE


def _trials(record: SearchRecord, entries: Entries) -> Iterator[Block]:
    """The picture of the trials of NetAdapt; a search by importance judges none."""
    if "allocation" in record:
        return
    yield Heading("During the search")
    if (chart := search_chart(record, entries)) is None:
        yield Paragraph("Not drawn yet: the search has judged no trial.", "note")
    else:
        yield draw_charts("report-search", "The trials of the search", [chart])


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
    heads = ("row", "operator", "expanded (channels)", "out (channels)", "MAdds kept (%)")
    yield Table(
        title=f"Widths, seed {ARROW} found. MAdds kept includes what the neighbors' cuts save.",
        columns=columns(*heads, text=(1,)),
        rows=tuple(
            (
                str(row.row), row.operator, NONE if row.expanded is None else _widths(*row.expanded),
                _widths(*row.out), percent(row.madds_kept, 0),
            )
            for row in rows
        ),
    )  # fmt: skip


def _allocation(record: SearchRecord) -> Iterator[Block]:
    yield Heading("Widths by importance per millisecond")
    known = record["allocation"]
    yield Paragraph(
        f"Cut by importance, measured on {known['images']} training images: {'; '.join(known['cuts'])}. The "
        f"uniform width keeps its channels by the same importance and is trained alike. "
        f"{text.shipped_sentence(record)}"
    )


def _steps(record: SearchRecord, entries: Entries) -> Iterator[Block]:
    if "allocation" in record:
        yield from _allocation(record)
        return
    yield Heading("Accepted steps")
    steps, judged = record.get("steps") or [], several(len(judged_trials(entries)), "trial")
    if not steps:
        yield Paragraph(f"No accepted step is on record; {judged} judged.", "note")
        return
    seed = record.get("seed_network", {})
    whole = seed.get("estimated_ms")
    rows = []
    if whole is not None:
        held = percent(seed.get("heldout_score"))
        rows.append(("0", "the seed network", NONE, ms(whole), "100.0", held, NONE))
    for step in steps:
        change = step["proposal"]
        first, last = change["rows"][0], change["rows"][-1]
        where = f"row {first}" if len(change["rows"]) == 1 else f"rows {first} to {last}"
        rows.append((
            str(step["number"]), f"{change['kind']} of {where}",
            _widths(change["before"], change["after"]), ms(step["estimated_ms"]),
            percent(step["estimated_ms"] / whole) if whole else NONE, percent(step["accuracy"]),
            str(step["trials"]),
        ))  # fmt: skip
    failed = sum(entry.get("event") == "trial" and "failed" in entry for entry in entries)
    diverged = f" {several(failed, 'trial')} failed as the loss diverged." if failed else ""
    yield Paragraph(
        f"{several(len(steps), 'step')}, {judged} judged.{diverged} Held-out {text.metric(record)} is on "
        "images kept out of training, after the short fine-tuning; it is not the final accuracy."
    )
    yield Table(
        title="Accepted steps in their order; step 0 is where the search began.",
        columns=columns(
            "step", "what changed", "width (channels)", "estimated (ms)", "of the seed (%)",
            f"{text.metric(record)} held out (%)", "trials", text=(1,),
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _latency(record: SearchRecord) -> Iterator[Block]:
    yield Heading("Predicted against measured latency")
    yield Paragraph(text.table_sentence(record) or "Missing: the latency table's error.")
    rows = []
    for _, title, network in text.named(record):
        measurement = network.get("measurement") or {}
        raw = (measurement.get("raw_latency_ms") or {}).get("median")
        pace = measurement.get("pace")
        if network.get("measured_ms") is not None:
            rows.append((
                title, ms(network.get("estimated_ms")), ms(network.get("measured_ms")),
                signed_percent(text.estimate_error(network)), ms(raw), NONE if pace is None else f"{pace:.3f}",
            ))  # fmt: skip
    if not rows:
        yield Paragraph("Missing: no network has been measured yet.", "note")
        return
    yield Table(
        title="Measured is wall time divided by the pace of the machine in the same rounds; raw is "
        "what the clock said.",
        columns=columns(
            "network", "estimated (ms)", "measured (ms)", "error (%)", "raw (ms)", "pace (1 = nominal)"
        ),
        rows=tuple(rows), narrow="cards",
    )  # fmt: skip


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
        columns=columns("stage", "time (s)", "share (%)"),
        rows=tuple((name, seconds(spent), percent(spent / total)) for name, spent in parts),
    )


def _checks(record: SearchRecord) -> Iterator[Block]:
    yield Heading("Checks")
    yield Paragraph(text.export_sentence(record) or "Missing: the check of the exported file.")
    bad = record.get("data", {}).get("left_out") or []
    if bad:
        more = f" The first {SHOWN}:" if len(bad) > SHOWN else ""
        yield Paragraph(f"{several(len(bad), 'image')} could not be read and took no part.{more}")
        yield Items(tuple(f"{path}: {reason}" for path, reason in bad[:SHOWN]))


def _rerun(record: SearchRecord, files: Files) -> Iterator[Block]:
    yield Heading("How to run it again")
    if record.get("command"):
        yield Code(record["command"])
    if facts := tuple((name, value) for name, value in _facts(record) if value):
        title = "What the run was made with."
        yield Table(title=title, columns=columns("what", "value", text=(0, 1)), rows=facts)
    heads = columns("file", "what it is", "size", text=(0, 1))
    yield Table(title="Files in the run folder.", columns=heads, rows=tuple(files))


def _facts(record: SearchRecord) -> Iterator[tuple[str, str]]:
    data = record.get("data", {})
    networks = sorted(text.named(record), key=lambda named: named[0] != "found")
    measurement = next((n["measurement"] for _, _, n in networks if n.get("measurement")), {})
    yield "target", text.target_text(record) if record.get("target") else ""
    yield "settings", _joined(record.get("settings", {}), "{0} {1}")
    yield "data", _words(data.get("name"))
    yield "found", _words(data.get("found"))
    images = {**data.get("splits", {}), "heldout": data.get("heldout")}
    yield "images", _joined(images, "{1} {0}")
    yield "classes", _words(record.get("classes"))
    yield "device", _device(record.get("device") or measurement.get("device") or {})
    names = ("runtime", "runtime_version", "precision")
    runtime = [_words(record.get(name, measurement.get(name))) for name in names]
    yield "runtime", " ".join(filter(None, runtime))
    yield "threads", _words(measurement.get("threads"))
    timing = {words: measurement.get(name) for name, words in TIMING.items()}
    yield "timing, a network", _joined(timing, "{1} {0}")
    yield "reference network", _words(measurement.get("reference"))
    yield "bneck", _words(record.get("version"))
    for name in ("commit", "started", "finished"):
        yield name, _words(record.get(name))


def _device(device: Mapping[str, Any]) -> str:
    cores, pinned = device.get("cores"), device.get("pinned")
    words = (
        _words(device.get("processor")),
        several(cores, "core") if isinstance(cores, int) else "",
        "" if pinned is None else "pinned" if pinned else "not pinned",
        _words(device.get("system")),
        _words(device.get("place")),
    )
    return ", ".join(filter(None, words))


def _joined(values: Mapping[str, object], form: str) -> str:
    named = [(name.replace("_", " "), _words(value)) for name, value in values.items()]
    return ", ".join(form.format(name, value) for name, value in named if value)


def _words(value: object) -> str:
    """Any value of a json file on one line; "" for none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        names = ", ".join(map(str, value[:SHOWN]))
        more = f", and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
        return f"{len(value)}: {names}{more}"
    return value if isinstance(value, str) else json.dumps(value)


def _widths(before: int, after: int) -> str:
    return str(before) if before == after else f"{before} {ARROW} {after}"
