"""Rows of csv files as spreadsheets write them: with commas, semicolons or tabs, blanks, byte order marks."""

from __future__ import annotations

import csv
from pathlib import Path

from bneck.data.intake.texts import read_text

DELIMITERS = ",;\t"


def csv_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv file by column; names of columns in small letters, without blanks around values.

    Raises:
        DataError: it cannot be read, or is not text.
    """
    lines = [line for line in read_text(path, "the table").splitlines() if line.strip()]
    if not lines:
        return []
    delimiter = max(DELIMITERS, key=lines[0].count)
    heads = [head.strip().lower() for head in next(csv.reader(lines[:1], delimiter=delimiter))]
    rows = csv.reader(lines[1:], delimiter=delimiter)
    return [dict(zip(heads, (value.strip() for value in row), strict=False)) for row in rows]
