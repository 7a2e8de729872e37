"""One table, two languages: html and Markdown from the same rows of cells."""

from __future__ import annotations

import html
import re
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
        assert all(len(row) == len(self.columns) for row in self.rows), self.title


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
    head = "".join(
        f'<th scope="col"{_class(column)}><button type="button">{title}</button></th>'
        for column, title in zip(table.columns, titles, strict=True)
    )
    title = html_text(table.title)
    lines = [
        f'<div class="frame {table.narrow}" role="region" tabindex="0" aria-label="{title}">',
        f'<table class="sortable"><caption><span>{title}</span></caption>',
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
    ]
    for index, row in enumerate(table.rows):
        cells = []
        for place, (column, label, cell) in enumerate(zip(table.columns, titles, row, strict=True)):
            tag, scope = ("th", ' scope="row"') if place == 0 else ("td", "")
            cells.append(
                f'<{tag}{scope}{_class(column)} data-label="{label}">{html_text(cell)}</{tag}>'
            )
        strong = ' class="strong"' if index in table.strong else ""
        lines.append(f"<tr{strong}>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def markdown_table(table: Table) -> str:
    """The table in Markdown, columns aligned as far as their text allows."""
    titles = [markdown_text(column.title) for column in table.columns]
    body = []
    for index, row in enumerate(table.rows):
        cells = [markdown_text(cell) for cell in row]
        body.append([f"**{cell}**" for cell in cells] if index in table.strong else cells)
    widths = [max(3, *(len(line[i]) for line in [titles, *body])) for i in range(len(titles))]
    rules = [
        "-" * (width - 1) + ":" if column.number else "-" * width
        for column, width in zip(table.columns, widths, strict=True)
    ]
    return "\n".join(_markdown_line(line, widths, table.columns) for line in [titles, rules, *body])


def _markdown_line(cells: list[str], widths: list[int], columns: tuple[Column, ...]) -> str:
    padded = [
        cell.rjust(width) if column.number else cell.ljust(width)
        for cell, width, column in zip(cells, widths, columns, strict=True)
    ]
    return f"| {' | '.join(padded)} |"


def _class(column: Column) -> str:
    return ' class="number"' if column.number else ""
