"""A spec as text: a yaml file with one aligned row a line, like the paper's tables.

Reading what was written gives the same spec, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from bneck.specs import zoo
from bneck.specs.network import NetSpec
from bneck.specs.rows import ROW_KINDS, Row, SpecError

FORMAT = 1
_HEADER = tuple(f.name for f in fields(NetSpec) if f.name != "rows")


def to_text(spec: NetSpec) -> str:
    """The spec as yaml, one line a row, columns aligned."""
    lines = [f"bneck: {FORMAT}"]
    lines += [f"{key}: {_scalar(getattr(spec, key))}" for key in _HEADER]
    lines.append("rows:")
    cells = [[f"{key}: {_scalar(value)}" for key, value in _row_items(row)] for row in spec.rows]
    widths: dict[tuple[str, int], int] = {}
    for row, row_cells in zip(spec.rows, cells, strict=True):
        for column, cell in enumerate(row_cells):
            widths[row.op, column] = max(widths.get((row.op, column), 0), len(cell))
    for row, row_cells in zip(spec.rows, cells, strict=True):
        padded = [
            f"{cell},".ljust(widths[row.op, column] + 1)
            for column, cell in enumerate(row_cells[:-1])
        ]
        lines.append("- {" + " ".join([*padded, row_cells[-1]]) + "}")
    return "\n".join(lines) + "\n"


def from_text(text: str) -> NetSpec:
    """The spec that a yaml text holds.

    Raises:
        SpecError: not yaml, an unknown or missing key, a value that cannot be; the row is named.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" near line {place.line + 1}" if place else ""
        raise SpecError(
            f"the text is not yaml{where}; a spec begins with 'bneck: {FORMAT}'"
        ) from None
    if not isinstance(data, dict) or "bneck" not in data:
        raise SpecError(f"the text is not a spec; a spec begins with 'bneck: {FORMAT}'")
    if data.pop("bneck") != FORMAT:
        raise SpecError(f"the spec is of another format; this version reads 'bneck: {FORMAT}'")
    rows = data.pop("rows", None)
    if not isinstance(rows, list) or not rows:
        raise SpecError("the spec has no rows; write one '- {op: ..., ...}' a row under 'rows:'")
    _check_keys(data, _HEADER, {"name"}, "the spec")
    data["name"] = str(data["name"])
    return NetSpec(rows=tuple(_row(i, row) for i, row in enumerate(rows)), **data)


def load(path: Path) -> NetSpec:
    """Read a spec from a yaml file.

    Raises:
        SpecError: no such file, or its text is not a spec; the file is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not utf-8 text"
        raise SpecError(f"{path} cannot be read: {reason}") from None
    try:
        return from_text(text)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def resolve(network: str | Path | NetSpec) -> NetSpec:
    """What a person writes where a network is wanted: a zoo name, a spec file, or a run folder.

    Raises:
        SpecError: it is none of them.
    """
    if isinstance(network, NetSpec):
        return network
    path = Path(network)
    if path.is_dir() and (path / "spec.yaml").is_file():
        return load(path / "spec.yaml")
    if isinstance(network, Path) or path.is_file() or path.suffix in (".yaml", ".yml"):
        return load(path)
    return zoo.network(network)


def _row(index: int, data: object) -> Row:
    if not isinstance(data, dict) or data.get("op") not in ROW_KINDS:
        raise SpecError(
            f"row {index} is {data!r}; it must be {{op: ...}} with op one of {', '.join(ROW_KINDS)}"
        )
    kind = ROW_KINDS[data["op"]]
    values = {key: value for key, value in data.items() if key != "op"}
    known = [f.name for f in fields(kind)]
    needed = {f.name for f in fields(kind) if f.default is MISSING}
    _check_keys(values, known, needed, f"row {index} ({kind.op})")
    if isinstance(values.get("skip"), bool):  # yaml reads a bare yes and no as truth values
        values["skip"] = "yes" if values["skip"] else "no"
    try:
        return kind(**values)
    except SpecError as error:
        raise SpecError(f"row {index} ({kind.op}): {error}") from None


def _check_keys(data: Mapping[str, Any], known: Any, needed: set[str], what: str) -> None:
    unknown = [str(key) for key in data if key not in known]
    if unknown:
        raise SpecError(f"{what} has an unknown key {unknown[0]!r}; known are {', '.join(known)}")
    missing = sorted(needed - set(data))
    if missing:
        raise SpecError(f"{what} lacks {', '.join(missing)}")


def _row_items(row: Row) -> list[tuple[str, object]]:
    return [("op", row.op), *((f.name, getattr(row, f.name)) for f in fields(row))]


def _scalar(value: object) -> str:
    if isinstance(value, str):
        # One line of yaml that safe_load gives back as the same string ("no", "1", "a: b" too).
        return (
            yaml.safe_dump(value, default_style=None, width=10**9).removesuffix("\n...\n").strip()
        )
    return str(value).lower() if isinstance(value, bool) else repr(value)
