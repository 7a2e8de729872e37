"""The layout on disk: train.csv and val.csv, each with a column `file` and columns of numbers."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from bneck.specs.errors import InputError
from bneck.tasks.contract import Left

Row = tuple[Path, float]  # an image file and its number


@dataclass(frozen=True, slots=True)
class Readings:
    """The tables of a folder by split; `classes` names the outputs."""

    root: Path
    name: str
    classes: tuple[str, ...]
    rows: dict[str, list[Row]]
    splits: dict[str, int]
    left_out: tuple[Left, ...] = ()

    def facts(self) -> dict[str, float]:
        numbers = [number for _, number in self.rows["train"]]
        return {"low": min(numbers), "high": max(numbers)}


def find(root: Path, column: str) -> Readings:
    rows = {split: read_table(root / f"{split}.csv", column) for split in ("train", "val")}
    return Readings(root, root.name, (column,), rows, {k: len(v) for k, v in rows.items()})


def read_table(table: Path, column: str) -> list[Row]:
    try:
        with table.open(encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines)
            return [(table.parent / row["file"], float(row[column])) for row in rows]
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{table} is not a table with a file and a number in {column!r} per line ({error}); mend it, "
            "or pass another --column or --data"
        ) from None
