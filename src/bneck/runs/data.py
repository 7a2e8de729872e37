"""A run's images in its record: what was found, what is used, and how to open them again."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from bneck.tasks.contract import Data, Dataset, Task


def data_record(dataset: Dataset, place: str | None) -> dict[str, Any]:
    """A dataset as records hold it; `place` is None for the built-in images."""
    return {
        "name": dataset.name,
        "path": place,
        "splits": dict(dataset.splits),
        "left_out": [[left.what, left.why] for left in dataset.left_out],
        **dataset.facts(),
    }


def prepared_record(data: Data) -> dict[str, Any]:
    """Images that are ready, as plain JSON values; all but where they are kept."""
    values: Any = data
    return {
        one.name: _plain(getattr(values, one.name))
        for one in fields(values)
        if one.name != "scratch"
    }


def reopened(task: Task, stored: dict[str, Any], scratch: Path) -> Data:
    """Images that an earlier process has made ready."""
    kind = task.data_type()
    hints = get_type_hints(kind)
    values = {name: _typed(hints[name], value) for name, value in stored.items()}
    made: Data = kind(**values, scratch=scratch)
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _typed(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_typed(None, one) for one in value)
    return Path(value) if value is not None and "Path" in str(hint) else value
