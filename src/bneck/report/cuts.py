"""What was cut where: the rows of the seed network next to those of the found one."""

from __future__ import annotations

from dataclasses import dataclass

from bneck.costs.count import count
from bneck.records.run import SearchRecord
from bneck.report.numbers import ARROW, listed, percent, several
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Pool, operator_words
from bneck.specs.text import from_text


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCut:
    """One row's widths as (seed, found), in channels, and the share of its MAdds that was kept.

    `expanded` is None for a row that has no expansion.
    """

    row: int
    operator: str
    expanded: tuple[int, int] | None
    out: tuple[int, int]
    madds_kept: float

    @property
    def changed(self) -> bool:
        """Whether a width of this row's own differs."""
        return any(pair is not None and pair[0] != pair[1] for pair in (self.expanded, self.out))


def cuts(record: SearchRecord) -> list[RowCut] | None:
    """Row by row, or None where there are not yet two networks of the same rows."""
    seed, found = spec_of(record, "seed_network"), spec_of(record, "found")
    if seed is None or found is None or len(seed.rows) != len(found.rows):
        return None
    before, after = count(seed).rows, count(found).rows
    rows = []
    for i, (wide, narrow) in enumerate(zip(seed.rows, found.rows, strict=True)):
        if type(wide) is not type(narrow):
            return None
        if isinstance(wide, Pool) or isinstance(narrow, Pool):
            if record.get("wrapper"):
                break  # what follows it takes no part
            continue
        expanded = None
        if isinstance(wide, Bneck) and isinstance(narrow, Bneck):
            expanded = (wide.expanded, narrow.expanded)
        words = [operator_words(wide)]
        words += [f"stride {wide.stride}"] if wide.stride != 1 else []
        words += ["SE"] if isinstance(wide, Bneck) and wide.se else []
        kept = after[i].madds / before[i].madds
        out = (wide.out, narrow.out)
        rows.append(
            RowCut(row=i, operator=", ".join(words), expanded=expanded, out=out, madds_kept=kept)
        )
    return rows


def cut_sentences(rows: list[RowCut]) -> str:
    """How many rows were narrowed, the deepest cuts, and what was left alone."""
    changed = [row for row in rows if row.changed]
    if not changed:
        return "No width was changed: the found network has the seed network's widths."
    widths = [(row.row, "expansion", row.expanded) for row in changed if row.expanded]
    widths += [(row.row, "output", row.out) for row in changed]
    deepest = sorted(widths, key=lambda cut: cut[2][1] / cut[2][0])[:3]
    named = [
        f"the {kind} of row {row} ({wide} {ARROW} {narrow}, {percent(narrow / wide, 0)} % kept)"
        for row, kind, (wide, narrow) in deepest
        if narrow < wide
    ]
    text = f"{len(changed)} of {several(len(rows), 'row')} changed in width."
    if named:
        text += f" The deepest cuts: {listed(named)}."
    if untouched := [str(row.row) for row in rows if not row.changed]:
        noun = "row" if len(untouched) == 1 else "rows"
        text += f" Left as they were: {noun} {listed(untouched)}."
    return text


def spec_of(record: SearchRecord, name: str) -> NetSpec | None:
    """The spec of "seed_network" or "found"; None where the record has none that can be read."""
    network = record.get("seed_network") if name == "seed_network" else record.get("found")
    text = network.get("spec") if network else None
    try:
        return from_text(text) if text else None
    except InputError:
        return None
