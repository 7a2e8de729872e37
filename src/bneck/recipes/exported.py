"""Exported files: what they are made for, and the run that they lie beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.devices.runtimes import Session, file_runtimes, runtime
from bneck.records.run import RunFolder, task_run


def task_of(name: str | Path) -> str:
    """What a run's folder or an exported file is made to do: "classify", "detect" or "segment".

    Of anything else, a zoo name for one, it is "classify".

    Raises:
        InputError: a file that its runtime cannot load, or a run of another version.
    """
    path = Path(name)
    if path.is_file() and file_runtimes(path):
        return loaded(path).metadata.get("task", "classify")
    kind = RunFolder(task_run(path)).kind()
    return kind if kind in ("detect", "segment") else "classify"


def loaded(path: Path) -> Session:
    """An exported file in its own runtime, on one thread.

    Raises:
        InputError: its runtime cannot load it.
    """
    engine = runtime(file_runtimes(path)[0])
    return engine.load(engine.read(path), threads=1)


def settings_beside(path: Path, kind: str) -> dict[str, Any]:
    """The settings of the run of a kind in whose folder a file lies; nothing where there is none."""
    folder = RunFolder(path.parent)
    if not folder.run_json.is_file():
        return {}
    record = folder.read()
    return dict(record["settings"]) if record.get("kind") == kind else {}
