"""Converting annotations into what training reads."""

from __future__ import annotations

from pathlib import Path

from bneck.specs.errors import InputError
from bneck.tasks.contract import Left
from bneck.tasks.registry import tasks


def convert(
    data: str | Path, out: str | Path | None = None
) -> tuple[dict[str, Path], tuple[Left, ...]]:
    """Write the annotations of a folder in the form that training reads: VOC xml as COCO json.

    Args:
        data: the folder with Annotations, JPEGImages and, where there are splits, ImageSets/Main.
        out: where the files go; None: `data`/annotations, where training finds them.

    Returns:
        The files by split, and what was left out.

    Raises:
        InputError: no annotations that a task converts.
    """
    for task in tasks():
        if task.converts:
            return task.convert(Path(data), None if out is None else Path(out))
    raise InputError("no task converts annotations")
