"""A page as html and as Markdown, and the report of a search as such a page, from the run folder alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from bneck.records.files import write_text
from bneck.records.ledger import Ledger
from bneck.records.run import RunFolder, SearchRecord
from bneck.report import text
from bneck.report.blocks import (
    Beside,
    Block,
    Heading,
    Picture,
    html_block,
    html_prose,
    markdown_block,
)
from bneck.report.numbers import file_size
from bneck.report.sections import blocks
from bneck.report.style import STYLE
from bneck.report.tables import html_text, markdown_text

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

MISTAKES = "mistakes"  # the folder of images that the found network gets wrong

# The page's only script: tables sort by their headers, points say what they are when touched. It is
# inlined, and the page's policy allows it alone, by its digest. Without it a page is complete.
SCRIPT = """\
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = head.firstElementChild;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows];
      const key = (row) => {
        const text = row.cells[column].textContent.trim();
        const number = parseFloat(text.replace(/,/g, "").replace("\\u2212", "-"));
        return head.classList.contains("number") ? (isNaN(number) ? null : number) : text;
      };
      rows.sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === null || y === null) return (x === null) - (y === null);
        const order = typeof x === "number" ? x - y : x.localeCompare(y, undefined, {numeric: true});
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
}
const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);
function show(point) {
  const title = point.querySelector("title");
  if (title) { point.dataset.tip = title.textContent; title.remove(); }
  tip.textContent = point.dataset.tip;
  tip.hidden = false;
  const box = point.querySelector(".mark").getBoundingClientRect();
  const width = tip.offsetWidth, room = document.documentElement.clientWidth;
  const left = Math.min(Math.max(box.x + box.width / 2 - width / 2, 8), room - width - 8);
  const above = box.y - tip.offsetHeight - 8;
  tip.style.left = left + scrollX + "px";
  tip.style.top = (above > 4 ? above : box.bottom + 8) + scrollY + "px";
}
for (const point of document.querySelectorAll(".point")) {
  point.addEventListener("pointerenter", () => show(point));
  point.addEventListener("focus", () => show(point));
  point.addEventListener("pointerleave", () => { tip.hidden = true; });
  point.addEventListener("blur", () => { tip.hidden = true; });
}
"""


def write_search_report(folder: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.md`, with the latter's pictures, into a run folder.

    An unfinished run is reported as far as it is.

    Raises:
        InputError: no run folder, one of another version, or a full disk.
    """
    run = RunFolder(folder)
    record = cast(SearchRecord, run.read())
    name = f"bneck search report of {folder.resolve().name}"
    when = record.get("finished") or record.get("started")
    parts = (name, record.get("state"), when and f"{when[:16].replace('T', ' ')} UTC")
    photos = {
        f"{MISTAKES}/{path.name}": path.read_bytes() for path in (folder / MISTAKES).glob("*.jpg")
    }
    page, twin, *_ = write_pages(
        folder / "report", text.headline(record),
        blocks(record, Ledger(run.ledger).entries, list_files(folder), photos),
        head=", ".join(filter(None, parts)),
    )  # fmt: skip
    return page, twin


def list_files(folder: Path) -> list[tuple[str, str, str]]:
    """(name, what it is, size) of a run folder's own files, the well-known ones first."""
    known = [name for name in FILES if (folder / name).is_file()]
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and path.name not in known and not path.name.startswith((".", "report"))
    )
    return [
        (name, FILES.get(name, ""), file_size((folder / name).stat().st_size))
        for name in (*known, *others)
    ]


def write_pages(path: Path, title: str, blocks: Sequence[Block], *, head: str) -> list[Path]:
    """Write a page as `path` with .html and with .md, then its pictures next to them; returns the files.

    Raises:
        InputError: the disk is full or not writable.
    """
    texts = {
        f"{path.name}.html": html_page(title, blocks, head=head),
        f"{path.name}.md": markdown_page(title, blocks, head=head),
        **{f"{one.name}.svg": one.whole for one in _pictures(blocks)},
    }
    for name, content in texts.items():
        write_text(path.parent / name, content)
    return [path.parent / name for name in texts]


def _pictures(blocks: Sequence[Block]) -> Iterator[Picture]:
    for one in blocks:
        if isinstance(one, Beside):
            yield one.picture
        elif isinstance(one, Picture):
            yield one


def html_page(title: str, blocks: Sequence[Block], *, head: str) -> str:
    """A whole page in one file: nothing is fetched, and no script but the page's own may run."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    lines = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{html_text(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<section>",
        f'<p class="head">{html_text(head)}</p>\n<h1>{html_prose(title)}</h1>',
    ]
    for block in blocks:
        lines += ["</section>\n<section>"] * isinstance(block, Heading) + [html_block(block)]
    lines.append(f"</section>\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n")
    return "\n".join(lines)


def markdown_page(title: str, blocks: Sequence[Block], *, head: str) -> str:
    """The same page in Markdown."""
    parts = [f"# {markdown_text(title)}", markdown_text(head), *map(markdown_block, blocks)]
    return "\n\n".join(filter(None, parts)) + "\n"
