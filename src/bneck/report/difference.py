"""Two networks row by row: what stands against what, and what differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from bneck.costs.count import count
from bneck.report.blocks import Block, Paragraph
from bneck.report.numbers import ARROW, NONE, several
from bneck.report.tables import Table, columns
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Pool

COLUMNS = ("operator", "kernel", "exp", "out", "SE", "NL", "stride")


@dataclass(frozen=True, slots=True)
class RowPair:
    """Row indexes that stand against each other; None where one network has no such row."""

    before: int | None
    after: int | None
    cells: tuple[tuple[str, str], ...]

    @property
    def differs(self) -> bool:
        """Whether a column differs, or one side has no such row."""
        return None in (self.before, self.after) or any(a != b for a, b in self.cells)


def row_pairs(before: NetSpec, after: NetSpec) -> list[RowPair]:
    """Rows of two networks aligned: by operator, and by how often the map was halved before them."""
    keys, other = _keys(before), _keys(after)
    pairs: list[RowPair] = []
    # autojunk would ignore operators that repeat, as most rows of a long network do.
    matcher = SequenceMatcher(a=keys, b=other, autojunk=False)
    for _, a, a_end, b, b_end in matcher.get_opcodes():
        same = min(a_end - a, b_end - b) if keys[a:a_end] == other[b:b_end] else 0
        pairs += [_pair(before, after, a + i, b + i) for i in range(same)]
        pairs += [_pair(before, after, i, None) for i in range(a + same, a_end)]
        pairs += [_pair(before, after, None, i) for i in range(b + same, b_end)]
    return pairs


def difference(
    before: NetSpec, after: NetSpec, before_name: str = "", after_name: str = ""
) -> Iterator[Block]:
    """The rows that differ, as a table; a sentence where none does."""
    first, second = before_name or before.name, after_name or after.name
    pairs = row_pairs(before, after)
    changed = [pair for pair in pairs if pair.differs]
    if not changed:
        yield Paragraph(f"{second} has the rows of {first}.")
        return
    old, new = count(before).rows, count(after).rows
    rows = []
    for pair in changed:
        a, b = pair.before, pair.after
        madds = [NONE if a is None else f"{old[a].madds / 1e6:.2f}", ARROW,
                 NONE if b is None else f"{new[b].madds / 1e6:.2f}"]  # fmt: skip
        places = [NONE if place is None else str(place) for place in (a, b)]
        cells = [one if one == other else f"{one} {ARROW} {other}" for one, other in pair.cells]
        rows.append((*places, *cells, " ".join(madds)))
    differ = "differs" if len(changed) == 1 else "differ"
    yield Table(
        title=f"{first} {ARROW} {second}: {several(len(changed), 'row')} of {len(pairs)} {differ}; the others "
        "are equal.",
        columns=columns("row", "its row", *COLUMNS, "MAdds (M)", text=(2, 2 + COLUMNS.index("NL"))),
        rows=tuple(rows),
    )


def changed_rows(before: NetSpec, after: NetSpec) -> frozenset[int]:
    """Indexes of the rows of `after` that differ from `before` or are not in it."""
    return frozenset(
        pair.after for pair in row_pairs(before, after) if pair.differs and pair.after is not None
    )


def _keys(spec: NetSpec) -> list[tuple[str, int]]:
    keys, halvings = [], 0
    for row in spec.rows:
        halvings += 0 if isinstance(row, Pool) else row.stride == 2
        keys.append((row.op, halvings))
    return keys


def _pair(before: NetSpec, after: NetSpec, a: int | None, b: int | None) -> RowPair:
    old = (NONE,) * len(COLUMNS) if a is None else _cells(before, a)
    new = (NONE,) * len(COLUMNS) if b is None else _cells(after, b)
    return RowPair(a, b, tuple(zip(old, new, strict=True)))


def _cells(spec: NetSpec, index: int) -> tuple[str, ...]:
    row = spec.rows[index]
    if isinstance(row, Pool):
        return ("pool", *(NONE,) * (len(COLUMNS) - 1))
    expanded = squeeze = NONE
    kernel = row.kernels if isinstance(row, Bneck) else str(row.kernel)
    if isinstance(row, Bneck):
        name = ("fused" if row.fused else "bneck") + (
            f", rate {row.dilation}" if row.dilation > 1 else ""
        )
        expanded, squeeze = str(row.expanded), str(row.se or NONE)
    else:
        name = "conv" if row.bn else "conv, no BN"
    return (name, kernel, expanded, str(row.out), squeeze, row.act, str(row.stride))
