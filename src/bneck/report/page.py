"""The report of a run: one html page and its twin in Markdown, from the run folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from bneck.records.files import write_text
from bneck.records.ledger import Ledger
from bneck.records.run import RunFolder, SearchRecord
from bneck.report import text
from bneck.report.blocks import Picture, html_page, markdown_page
from bneck.report.numbers import file_size
from bneck.report.sections import blocks
from bneck.report.style import STYLE

FILES = {
    "run.json": "the run's record, from which this report is made",
    "ledger.jsonl": "every judged trial, one a line",
    "table.jsonl": "the latency table",
    "blocks.log": "the trials of the block search, an Optuna journal",
    "space-table.jsonl": "the latency table of the space of blocks",
    "space.yaml": "the space of blocks",
    "spec.yaml": "the found network as a spec",
    "found": "the found network as a finished run: its weights, files and report",
}


def write_search_report(folder: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.md`, with the latter's pictures, into a run folder.

    An unfinished run is reported as far as it is.

    Raises:
        InputError: no run folder, one of another version, or a full disk.
    """
    run = RunFolder(folder)
    record = cast(SearchRecord, run.read())
    entries = Ledger(run.ledger).entries
    head = f"bneck search report of {folder.resolve().name}"
    if record.get("state"):
        head += f", {record['state']}"
    if record.get("finished") or record.get("started"):
        head += f", {record.get('finished') or record['started']}"
    title = text.headline(record)
    parts = blocks(record, entries, list_files(folder))
    for part in parts:
        if isinstance(part, Picture):
            write_text(folder / f"{part.name}.svg", part.whole)
    page, twin = folder / "report.html", folder / "report.md"
    write_text(twin, markdown_page(title, parts, running_head=head))
    write_text(page, html_page(title, parts, style=STYLE, running_head=head))
    return page, twin


def list_files(folder: Path) -> list[tuple[str, str, str]]:
    """(name, what it is, size) of a run folder's own files, those that everybody knows first."""
    known = [folder / name for name in FILES if (folder / name).is_file()]
    others = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path not in known and not path.name.startswith((".", "report"))
    ]
    return [
        (path.name, FILES.get(path.name, ""), file_size(path.stat().st_size))
        for path in [*known, *others]
    ]
