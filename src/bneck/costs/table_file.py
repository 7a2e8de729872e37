"""A latency table as a file: json lines, appended as they are measured, so that a kill loses none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from bneck.costs.table import Key, LatencyTable, RowShape, TableError, Widths
from bneck.records.ledger import Ledger
from bneck.specs.wrapper import PLAIN, Wrapper

FORMAT = 3


def read_table(path: Path, wrapper: Wrapper = PLAIN) -> LatencyTable:
    """Read a table; a last line torn by a kill is left out.

    Raises:
        TableError: no such file, not a table of this version, or one of networks in another wrapper.
    """
    unknown = TableError(f"{path} is not a latency table of this version; fill it again")
    entries = Ledger(path).entries if path.is_file() else []
    if not entries or entries[0].get("table") != FORMAT:
        raise unknown
    header = {key: value for key, value in entries[0].items() if key != "table"}
    if (kept := header.get("wrapper", "")) != wrapper.key:
        was, wanted = (key or "classifiers" for key in (kept, wrapper.key))
        raise TableError(f"{path} is a latency table of {was}, not of {wanted}; name another file")
    table = LatencyTable(header, wrapper=wrapper)
    try:
        for entry in entries[1:]:
            if "row" in entry:
                table.add_row(RowShape(*entry["row"]), tuple(entry["widths"]), entry["ms"])
            else:
                rows, measured_ms, held_out = entry["network"]
                keys = [(RowShape(*shape), tuple(widths)) for shape, widths in rows]
                table.add_network(keys, measured_ms, held_out)
    except (LookupError, TypeError, ValueError):
        raise unknown from None
    return table


def header_line(header: dict[str, Any]) -> dict[str, Any]:
    """The first line of a table file."""
    return {"table": FORMAT, **header}


def row_line(shape: RowShape, widths: Widths, ms: float) -> dict[str, Any]:
    """The line of one measured row."""
    return {"row": list(astuple(shape)), "widths": list(widths), "ms": ms}


def network_line(keys: Sequence[Key], measured_ms: float, held_out: bool) -> dict[str, Any]:
    """The line of one measured network, by its rows."""
    rows = [[list(astuple(shape)), list(widths)] for shape, widths in keys]
    return {"network": [rows, measured_ms, held_out]}
