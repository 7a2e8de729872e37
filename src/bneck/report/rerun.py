"""How to run it again: the command, what the run was made with, and what lies in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bneck.records.run import SearchRecord
from bneck.report import text
from bneck.report.blocks import Block, Code, Heading
from bneck.report.numbers import several
from bneck.report.tables import Table, columns

SHOWN = 20  # of a list that may be long: bad images, classes
TIMING = {
    "n": "timed runs (n)", "rounds": "rounds", "warmup": "warm-up runs", "repeated": "repeated bursts",
}  # fmt: skip


def rerun(record: SearchRecord, files: Sequence[tuple[str, str, str]]) -> Iterator[Block]:
    """The report's last section; `files` as `sections.blocks` takes them."""
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
