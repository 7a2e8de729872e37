"""Resuming a run of whatever kind: a training, a search or a choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.records.progress import Progress
from bneck.records.run import RunFolder
from bneck.runs.choose.main import KIND as CHOICE
from bneck.runs.choose.main import resume_choice
from bneck.runs.search.main import resume_search
from bneck.runs.search.run import KIND as SEARCH
from bneck.runs.train import resume_training


def resume(run: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Resume a training, a search or a choice that was interrupted; a finished one gets its report again.

    Raises:
        InputError: not such a run, or one that another process works on.
    """
    kinds = {SEARCH: resume_search, CHOICE: resume_choice}
    resumes = kinds.get(RunFolder(Path(run)).read().get("kind", SEARCH), resume_training)
    return resumes(run, progress=progress)
