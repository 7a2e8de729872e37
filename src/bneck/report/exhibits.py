"""The paper's tables and figures next to ours, as values, and as the blocks of a page.

A number that is not there is None and stays an empty cell: nothing is filled in, and what would fill it
is a command in `Exhibit.missing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bneck.report.blocks import Block, Code, Heading, Paragraph
from bneck.report.numbers import MINUS, NONE
from bneck.report.scatter import Chart, draw_charts
from bneck.report.tables import Table, columns


@dataclass(frozen=True, slots=True)
class Pair:
    """A printed number and ours, in one unit; `low` and `high` are the spread of ours."""

    paper: float | None = None
    ours: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours over the paper's."""
        return self.ours / self.paper if self.paper and self.ours is not None else None


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a pair of columns holds. `compared` adds the ratio of ours to the paper's.

    The paper's numbers are shown as printed, with `least` decimals or more, unless they are `derived`
    from printed ones. `absent` is what an empty cell of ours says; without it an empty column is left out.
    """

    title: str
    decimals: int
    compared: bool = True
    paper: str = "paper"
    ours: str = "ours"
    derived: bool = False
    least: int = 0
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table: its label, its network, a pair for every quantity."""

    label: str
    network: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table of pairs."""

    title: str
    quantities: tuple[Quantity, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """A table or figure of the paper, as far as it was reproduced.

    `plain` are tables of text (Tables 1 and 2), `missing` commands that would fill in what is not
    here, `notes` sentences.
    """

    name: str
    title: str
    comparisons: tuple[Comparison, ...] = ()
    plain: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()
    missing_what: str = ""
    missing: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values for a json file."""
        return {
            "name": self.name,
            "title": self.title,
            "comparisons": [
                {"title": table.title, "rows": [_row_json(table, line) for line in table.lines]}
                for table in self.comparisons
            ],
            "tables": [
                {"title": one.title, "columns": [column.title for column in one.columns],
                 "rows": [list(row) for row in one.rows]}
                for one in self.plain
            ],
            "charts": [asdict(chart) for chart in self.charts],
            "notes": list(self.notes),
            "missing": {"what": self.missing_what, "commands": list(self.missing)},
        }  # fmt: skip


def exhibit_blocks(exhibit: Exhibit) -> Iterator[Block]:
    """An exhibit as a section of a page."""
    yield Heading(exhibit.title)
    if exhibit.charts:
        yield draw_charts(exhibit.name, exhibit.title, exhibit.charts)
    yield from exhibit.plain
    yield from map(comparison_table, exhibit.comparisons)
    for note in exhibit.notes:
        yield Paragraph(note, "note")
    if exhibit.missing:
        yield Paragraph(f"Not here: {exhibit.missing_what}. What would fill it in:", "note")
        yield Code("\n".join(exhibit.missing))


def comparison_table(comparison: Comparison) -> Table:
    """The pairs as columns: the paper's, ours, and their ratio where it means something.

    A column that would be empty throughout is left out.
    """
    titles = ["network"]
    cells = [[line.label for line in comparison.lines]]
    for place, one in enumerate(comparison.quantities):
        pairs = [line.pairs[place] for line in comparison.lines]
        if any(pair.paper is not None for pair in pairs):
            titles.append(f"{one.title}, {one.paper}")
            cells.append([
                number(pair.paper, one.decimals, exact=not one.derived, least=one.least) for pair in pairs
            ])  # fmt: skip
        if one.absent or any(pair.ours is not None for pair in pairs):
            titles.append(f"{one.title}, {one.ours}")
            cells.append([_with_spread(pair, one) for pair in pairs])
        if one.compared and any(pair.ratio is not None for pair in pairs):
            titles.append("ours / paper")
            cells.append([number(pair.ratio, 3) for pair in pairs])
    rows = tuple(zip(*cells, strict=True))
    return Table(title=comparison.title, columns=columns(*titles), rows=rows)


def number(value: float | None, decimals: int, *, exact: bool = False, least: int = 0) -> str:
    """A number with so many decimals; an `exact` one as it was printed, with `least` or more."""
    if value is None:
        return NONE
    text = f"{value:g}" if exact else f"{value:.{decimals}f}"
    if exact and len(text.partition(".")[2]) < least:
        text = f"{value:.{least}f}"
    return text.replace("-", MINUS)


def _with_spread(pair: Pair, quantity: Quantity) -> str:
    ours, low, high = (
        number(value, quantity.decimals) for value in (pair.ours, pair.low, pair.high)
    )
    if pair.ours is None:
        return quantity.absent or ours
    return ours if pair.low is None or pair.high is None else f"{ours} ({low} to {high})"


def _row_json(table: Comparison, line: Line) -> dict[str, Any]:
    row: dict[str, Any] = {"label": line.label, "network": line.network}
    for quantity, pair in zip(table.quantities, line.pairs, strict=True):
        other = "" if quantity.paper == "paper" else f", {quantity.paper}"
        row[quantity.title + other] = {
            "paper": pair.paper, "ours": pair.ours,
            **({"p10": pair.low, "p90": pair.high} if pair.low is not None else {}),
            **({"ratio": pair.ratio} if quantity.compared else {}),
        }  # fmt: skip
    return row
