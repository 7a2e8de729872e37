"""Two networks row by row: what stands against what, and what differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from bneck.costs.count import count
from bneck.report.blocks import Block, Paragraph
from bneck.report.numbers import ARROW, NONE, several
from bneck.report.tables import Column, Table
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
    one, other = before_name or before.name, after_name or after.name
    pairs = row_pairs(before, after)
    changed = [pair for pair in pairs if pair.differs]
    if not changed:
        yield Paragraph(f"{other} has the rows of {one}.")
        return
    old, new = count(before).rows, count(after).rows
    rows = []
    for pair in changed:
        madds = [
            None if i is None else costs[i].madds / 1e6
            for i, costs in ((pair.before, old), (pair.after, new))
        ]
        rows.append(
            (
                _index(pair.before),
                _index(pair.after),
                *(a if a == b else f"{a} {ARROW} {b}" for a, b in pair.cells),
                " ".join((*(NONE if m is None else f"{m:.2f}" for m in madds[:1]), ARROW,
                          *(NONE if m is None else f"{m:.2f}" for m in madds[1:]))),
            )
        )  # fmt: skip
    yield Table(
        title=f"{one} {ARROW} {other}: {several(len(changed), 'row')} of {len(pairs)} "
        f"{'differs' if len(changed) == 1 else 'differ'}; the others are equal.",
        columns=(
            Column("row"),
            Column("its row"),
            Column("operator", number=False),
            *(Column(name, number=name != "NL") for name in COLUMNS[1:]),
            Column("MAdds (M)"),
        ),
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
    match row:
        case Pool():
            return ("pool", NONE, NONE, NONE, NONE, NONE, NONE)
        case Bneck():
            name = "fused" if row.fused else "bneck"
            return (
                name + (f", rate {row.dilation}" if row.dilation > 1 else ""), str(row.kernel),
                str(row.expanded), str(row.out), str(row.se) if row.se else NONE, row.act, str(row.stride),
            )  # fmt: skip
        case _:
            name = "conv" if row.bn else "conv, no BN"
            return (name, str(row.kernel), NONE, str(row.out), NONE, row.act, str(row.stride))


def _index(value: int | None) -> str:
    return NONE if value is None else str(value)
