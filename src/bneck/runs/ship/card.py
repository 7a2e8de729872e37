"""The model card next to a shipped file: what it is, what it takes, where it was measured, how to run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bneck.devices.runtimes import runtime
from bneck.report.numbers import from_to, ms, percent, printable
from bneck.runs.answers import FileAnswers
from bneck.runs.load import Trained
from bneck.runs.ship.rows import Row

LISTED = 50  # class names that a card spells out; the file's metadata has all
CODE = """\
import numpy as np
from PIL import Image
{imports}
pixels = np.asarray(Image.open("photo.jpg").convert("RGB").resize(({width}, {height})), np.float32)
image = np.ascontiguousarray(((pixels / 255 - {mean}) / {std}).transpose(2, 0, 1)[None], np.float32)
{usage}
"""


def card(record: Mapping[str, Any], run: Trained, picked: Row, folder: Path) -> str:
    """The card as Markdown; the file lies in `folder` already."""
    answers = FileAnswers(folder / picked.file, picked.runtime)
    assert answers.size is not None
    height, width = answers.size
    shape = (1, run.spec.channels, height, width)
    outputs = answers(np.zeros(shape, np.float32))
    names = [one.name for one in run.net.wrapped.outputs(answers.size)]
    told = ", ".join(f"`{name}` {one.shape}" for name, one in zip(names, outputs, strict=True))
    mean, std = list(answers.normalisation.mean), list(answers.normalisation.std)
    engine = runtime(picked.runtime)
    code = CODE.format(
        imports=engine.usage[0], usage=engine.usage[1].format(file=picked.file), mean=mean, std=std,
        width=width, height=height,
    )  # fmt: skip
    lines = [
        f"# {printable(picked.file)}",
        "",
        f"{printable(run.spec.name)} ({run.task.summary}), {picked.precision}, {picked.size_mb:.2f} MB, for "
        f"{picked.runtime} {picked.runtime_version}. Written by bneck ship.",
        "",
        "| | |",
        "|---|---|",
        f"| classes | {_classes(run.labels)} |",
        f"| input | RGB, {height} x {width} pixels (height x width), float32 from 0 to 1, then normalized |",
        f"| normalization | mean {mean}, std {std}, per channel |",
        f"| output | {told} for one image, float32, {run.task.answer} |",
        f"| weights started from | {_start(run.record)} |",
        f"| {record['metric']} | {percent(picked.score)} % on {record['images']['val']} val images of "
        f"{printable(Path(record['data']).name)}; float {percent(record['float'])} % |",
        f"| latency | {_latency(record, picked)} |",
        f"| memory | {_memory(picked.memory_mb)} MB more to load it and run it once |",
        "",
        "```python",
        code.rstrip(),
        "```",
        "",
        f"`bneck predict {printable(picked.file)} photo.jpg` crops or resizes photos as they were scored, and "
        "names the classes.",
        "",
        "Files that were compared:",
        "",
        f"| runtime | precision | MB | {record['metric']} % | points lost | median ms | p10 to p90 | memory MB "
        "|",
        "|---|---|--:|--:|--:|--:|--:|--:|",
        *(_row(one) for one in record["rows"]),
        "",
        *(f"- {printable(note)}" for note in record["notes"]),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _row(one: Mapping[str, Any]) -> str:
    times = one["latency_ms"] or {}
    memory = _memory(one["memory_mb"])
    lost = "-" if one["loss"] is None else f"{one['loss']:.1f}"
    cells = (
        one["runtime"], f"{one['precision']}{' QAT' if one['epochs'] else ''}", f"{one['size_mb']:.2f}",
        percent(one["score"]), lost,
        ms(times.get("median")), from_to(times.get("p10"), times.get("p90")), memory,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _memory(megabytes: float | None) -> str:
    return "unknown" if megabytes is None else f"{megabytes:.1f}"


def _classes(labels: tuple[str, ...]) -> str:
    more = (
        f" and {len(labels) - LISTED} more, in the file's metadata" if len(labels) > LISTED else ""
    )
    names = ", ".join(printable(name).replace("|", "/") for name in labels[:LISTED])
    return f"{len(labels)}, in the order of the outputs: {names}{more}"


def _start(record: Mapping[str, Any]) -> str:
    source = record.get("source")
    if not source:
        return "random values"
    named = source.get("repository") or source.get("file") or source.get("path") or "other weights"
    license = source.get("license")
    said = f"license {license}" if license else "their license is not known: ask who published them"
    return printable(f"{named}; {said}").replace("|", "/")


def _latency(record: Mapping[str, Any], picked: Row) -> str:
    if picked.latency_ms is None or picked.measured_on is None:
        return "not measured: the machine was too busy"
    where, times = picked.measured_on, picked.latency_ms
    threads = f"{record['threads']} thread{'s' * (record['threads'] > 1)}"
    return (
        f"{ms(times['median'])} ms ({from_to(times['p10'], times['p90'])}), one image, {threads}, on "
        f"{record['device']}: {printable(where['processor'])}, {where['system']}"
    )
