"""One table, two languages: html and Markdown from the same rows of cells."""

from __future__ import annotations

import html
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from bneck.report.numbers import printable

Narrow = Literal["scroll", "cards"]
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$!])")


@dataclass(frozen=True, slots=True)
class Column:
    """One column's header, units included. Numbers stand to the right."""

    title: str
    number: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of plain text; `strong` are the indexes of rows to stress.

    `narrow` says what becomes of a table too wide for a phone: it scrolls, or its rows become
    cards with a line for each column.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()
    narrow: Narrow = "scroll"

    def __post_init__(self) -> None:
        # A row of another length would shift its cells under the wrong headers.
        assert all(len(row) == len(self.columns) for row in self.rows), self.title


def columns(*titles: str, text: Collection[int] = (0,)) -> tuple[Column, ...]:
    """Columns of numbers, except for those whose places are in `text`."""
    return tuple(Column(title, number=i not in text) for i, title in enumerate(titles))


def html_text(text: str) -> str:
    """Text for html, between tags or in quotes."""
    return html.escape(printable(text))


def markdown_text(text: str) -> str:
    """Text for Markdown: neither marks nor html of its own survive."""
    escaped = _MARKDOWN.sub(r"\\\1", printable(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def html_table(table: Table) -> str:
    """The table as html, in a frame that scrolls where it is wider than the page."""
    titles = [html_text(column.title) for column in table.columns]
    kinds = [' class="number"' if column.number else "" for column in table.columns]
    head = "".join(
        f'<th scope="col"{kind}><button type="button">{title}</button></th>'
        for kind, title in zip(kinds, titles, strict=True)
    )
    title = html_text(table.title)
    lines = [
        f'<div class="frame {table.narrow}" role="region" tabindex="0" aria-label="{title}">',
        f'<table class="sortable"><caption><span>{title}</span></caption>',
        f"<thead><tr>{head}</tr></thead>\n<tbody>",
    ]
    for index, row in enumerate(table.rows):
        first, *others = [
            f'{kind} data-label="{label}">{html_text(cell)}</'
            for kind, label, cell in zip(kinds, titles, row, strict=True)
        ]
        strong = ' class="strong"' if index in table.strong else ""
        cells = "".join(f"<td{cell}td>" for cell in others)
        lines.append(f'<tr{strong}><th scope="row"{first}th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table></div>"])


def markdown_table(table: Table) -> str:
    """The table in Markdown, columns aligned as far as their text allows."""
    lines = [[markdown_text(column.title) for column in table.columns]]
    for index, row in enumerate(table.rows):
        stars = "**" * (index in table.strong)
        lines.append([f"{stars}{markdown_text(cell)}{stars}" for cell in row])
    widths = [max(3, *map(len, cells)) for cells in zip(*lines, strict=True)]
    layout = list(zip(widths, (column.number for column in table.columns), strict=True))
    rules = ["-" * (width - 1) + ("-", ":")[number] for width, number in layout]
    text = []
    for line in [lines[0], rules, *lines[1:]]:
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, (width, number) in zip(line, layout, strict=True)
        ]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)
