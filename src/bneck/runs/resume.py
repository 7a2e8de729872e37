"""Resuming whatever a folder holds: a training or a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.records.progress import Progress
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError


def resume(run: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Resume a training or a search that was interrupted; a finished one gets its report again.

    Raises:
        InputError: not such a run, or one that another process works on.
    """
    kind = RunFolder(Path(run)).read().get("kind")
    if kind == "search":
        from bneck.runs.search.main import resume_search

        return resume_search(run, progress=progress)
    if kind == "train":
        from bneck.runs.train import resume_training

        return resume_training(run, progress=progress)
    raise InputError(f"{run} is a run of kind {kind!r}, which has nothing to resume")
