"""Rows of csv files as spreadsheets write them: with commas, semicolons or tabs, blanks, byte order marks."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from bneck.data.intake.texts import read_text
from bneck.data.intake.walk import DataError
from bneck.specs.errors import few

DELIMITERS = ",;\t"
_SEPARATOR = re.compile(r"\"?sep=.\"?", re.I)


def csv_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv file by column; names of columns in small letters, without blanks around values.

    Lines before the names of columns are passed over where they are comments (#) or Excel's `sep=;`.

    Raises:
        DataError: it cannot be read, is not text, has a column twice, or a row has more values than columns.
    """
    lines = [line for line in read_text(path, "the table").splitlines() if line.strip()]
    while lines and (lines[0].startswith("#") or _SEPARATOR.fullmatch(lines[0].strip())):
        lines = lines[1:]
    if not lines:
        return []
    delimiter = max(DELIMITERS, key=lines[0].count)
    heads = [head.strip().lower() for head in next(csv.reader(lines[:1], delimiter=delimiter))]
    if twice := next((head for head in heads if head and heads.count(head) > 1), None):
        raise DataError(f"{path} has the column {twice!r} twice; delete or rename one")
    rows = []
    for line in csv.reader(lines[1:], delimiter=delimiter):
        values = [value.strip() for value in line]
        if any(values[len(heads) :]):
            raise DataError(
                f"{path} has a row of {len(values)} values under {len(heads)} columns, {few(values)}; put "
                f"values that hold {delimiter!r} in double quotes"
            )
        rows.append(dict(zip(heads, values, strict=False)))
    return rows
