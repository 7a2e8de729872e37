"""A spec as text: a yaml file with one aligned row a line, like the paper's tables.

Reading what was written gives the same spec, exactly.
"""

from __future__ import annotations

import os
import re
import reprlib
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


class _Loader(yaml.SafeLoader):
    """Takes 1e-3 for a number, as people do; yaml 1.1 wants 1.0e-3."""


class _Dumper(yaml.SafeDumper):
    """Puts a text that `_Loader` would take for a number in quotes."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), [*"-+0123456789"]
    )


def to_text(spec: NetSpec) -> str:
    """The spec as yaml, one line a row, columns aligned; columns that hold only defaults are left out."""
    shown = {
        (row.op, column.name)
        for row in spec.rows
        for column in fields(row)
        if getattr(row, column.name) != column.default
    }
    rows = []
    for row in spec.rows:
        columns = [column.name for column in fields(row) if (row.op, column.name) in shown]
        rows.append([f"{name}: {_scalar(getattr(row, name))}" for name in ("op", *columns)])
    widths: dict[tuple[str, int], int] = {}
    for cells in rows:
        for column, cell in enumerate(cells):
            widths[cells[0], column] = max(widths.get((cells[0], column), 0), len(cell))
    lines = [f"bneck: {FORMAT}", *(f"{key}: {_scalar(getattr(spec, key))}" for key in _HEADER)]
    lines.append("rows:")
    for *cells, last in rows:
        padded = [f"{cell},".ljust(widths[cells[0], i] + 1) for i, cell in enumerate(cells)]
        lines.append("- {" + " ".join([*padded, last]) + "}")
    return "\n".join(lines) + "\n"


def from_text(text: str) -> NetSpec:
    """The spec that a yaml text holds.

    Raises:
        SpecError: not yaml, an unknown or missing key, a value that cannot be; the row is named.
    """
    try:
        data = yaml.load(text, Loader=_Loader)
    except Exception as error:  # not only YAMLError: a date that cannot be is a plain ValueError
        place = getattr(error, "problem_mark", None)
        where = f" near line {place.line + 1}" if place else ""
        sentence = f"the text is not yaml{where}; a spec begins with 'bneck: {FORMAT}'"
        raise SpecError(sentence) from None
    if not isinstance(data, dict) or "bneck" not in data:
        raise SpecError(f"the text is not a spec; a spec begins with 'bneck: {FORMAT}'")
    if (version := data.pop("bneck")) != FORMAT:
        raise SpecError(f"the spec has format {version!r}; this version reads 'bneck: {FORMAT}'")
    rows = data.pop("rows", None)
    if not isinstance(rows, list) or not rows:
        raise SpecError("the spec has no rows; write one '- {op: ..., ...}' a row under 'rows:'")
    _check_keys(data, _HEADER, {"name"}, "the spec")
    return NetSpec(rows=tuple(_row(i, row) for i, row in enumerate(rows)), **data)


def load(path: Path) -> NetSpec:
    """Read a spec from a yaml file.

    Raises:
        SpecError: no such file, or its text is not a spec; the file is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not utf-8 text, save it as UTF-8"
        raise SpecError(f"{path} cannot be read: {reason}") from None
    try:
        return from_text(text)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def resolve(network: str | Path | NetSpec, *, scaled_tail: bool = False) -> NetSpec:
    """The network that a zoo name, a spec file, or a run folder means.

    `scaled_tail` is that of `zoo.network`; a spec file ignores it.

    Raises:
        SpecError: it is none of them.
    """
    if isinstance(network, NetSpec):
        return network
    path = Path(network)
    if os.path.isfile(path / "spec.yaml"):  # False, not an error, for what cannot be a path
        return load(path / "spec.yaml")
    if isinstance(network, Path) or os.path.isfile(path) or path.suffix in (".yaml", ".yml"):
        return load(path)
    if "/" in network:  # in no network's name
        what = "has no spec.yaml" if os.path.isdir(path) else "is no file or folder"
        raise SpecError(
            f"{network} {what}; pass a run's folder, a spec file or the name of a network"
        )
    return zoo.network(network, scaled_tail=scaled_tail)


def _row(index: int, data: object) -> Row:
    op = data.get("op") if isinstance(data, dict) else None
    allowed = ", ".join(ROW_KINDS)
    if not isinstance(data, dict) or not isinstance(op, str):
        raise SpecError(
            f"row {index} is {reprlib.repr(data)}; it must be {{op: ...}} with op one of {allowed}"
        )
    if op not in ROW_KINDS:
        raise SpecError(f"row {index}: op is {op!r}; allowed are {allowed}")
    kind = ROW_KINDS[op]
    values = {key: value for key, value in data.items() if key != "op"}
    known = ["op", *(f.name for f in fields(kind))]
    needed = {f.name for f in fields(kind) if f.default is MISSING}
    _check_keys(values, known, needed, f"row {index} ({kind.op})")
    if isinstance(values.get("skip"), bool):  # yaml reads a bare yes and no as truth values
        values["skip"] = "yes" if values["skip"] else "no"
    try:
        return kind(**values)
    except SpecError as error:
        raise SpecError(f"row {index} ({kind.op}): {error}") from None


def _check_keys(data: Mapping[str, Any], known: Any, needed: set[str], what: str) -> None:
    if unknown := [str(key) for key in data if key not in known]:
        raise SpecError(f"{what} has an unknown key {unknown[0]!r}; known are {', '.join(known)}")
    if missing := sorted(needed - set(data)):
        raise SpecError(f"{what} lacks {', '.join(missing)}")


def _scalar(value: object) -> str:
    """One line of yaml that is read back as the same value: "no", "1" and "a: b" as text, 1e-05."""
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    text = yaml.dump(value, Dumper=_Dumper, default_style=style, width=10**9, allow_unicode=True)
    return text.removesuffix("\n...\n").strip()
