"""The layout on disk: train.csv and val.csv, each with a column `file` and columns of numbers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from bneck.specs.errors import InputError
from bneck.tasks.contract import Dataset

Row = tuple[Path, float]  # an image file and its number


def find(data: str | None, options: Any, *, seed: int) -> Dataset:
    assert data is not None  # None is for tasks with built-in images
    root = Path(data)
    rows = {split: read_table(root / f"{split}.csv", options.column) for split in ("train", "val")}
    numbers = [number for _, number in rows["train"]]
    return Dataset(
        name=root.name, place=data, classes=(options.column,),
        splits={split: len(rows[split]) for split in rows},
        files={split: [file for file, _ in rows[split]] for split in rows},
        facts={"low": min(numbers), "high": max(numbers)},
    )  # fmt: skip


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
