"""Scoring a trained network, for every task: a run, an import, or an exported file in its runtime."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bneck.records.files import locked, write_json
from bneck.records.progress import Progress, Silent
from bneck.records.run import RunFolder, task_run
from bneck.runs.answers import FileAnswers, ModuleAnswers
from bneck.runs.data import data_name, names_own
from bneck.runs.load import trained
from bneck.runs.report import write_training_report
from bneck.tasks.options import parted
from bneck.tasks.registry import tasks
from bneck.training.processes import device_of


def evaluate(
    network: str | Path,
    data: str | Path | None = None,
    *,
    split: str = "val",
    compute: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score a trained network on a split of a dataset.

    Scores of a run's own data, taken with no options, also go into its record and report, with pictures.

    Args:
        network: the folder of a run, of a search or of an import, or a file that export has written,
            which answers in its own runtime.
        data: what the task reads; None, and the run's own folder, take the run's own, split as the run
            split it; of a file those of the run it lies in.
        split: "val", "test", "train" or another that the data has.
        compute: "cpu", "cuda" or "cuda:1" for a module; None takes a GPU if there is one.
        progress: receives what happens.
        options: the fields of the task's `Options` that evaluate takes.

    Returns:
        split, images, score and the task's other numbers, with the network, where the data is (the
        name of built-in images) and the task's metric; `notes` are sentences.

    Raises:
        InputError: no trained network, no such split, or other classes than the network's.
    """
    begun = time.perf_counter()
    told, path = progress or Silent(), Path(task_run(network))
    answers: FileAnswers | ModuleAnswers
    if path.is_file():
        answers, record, folder = FileAnswers(path), record_next_to(path), None
    else:
        run = trained(path)
        answers = ModuleAnswers(run.task, run.net.to(device_of(compute)), run.labels)
        record, folder = run.record, run.folder
    _, own = parted(answers.task, "evaluate", options, tasks())
    by_name = names_own(record, data)
    place = None if data is None or by_name else str(data)
    plain = place is None and own == answers.task.Options()
    ours = plain and folder is not None and record.get("kind") == "train"
    found = answers.task.evaluate(
        answers,
        place,
        own,
        split=split,
        record=record,
        seed=(record.get("options") or {}).get("seed", 0),
        progress=told,
        out=folder.path if ours and folder is not None else None,
    ).as_json()
    if ours and folder is not None:
        with locked(folder.path / ".lock"):
            record.setdefault("scores", {})[split] = found
            write_json(folder.run_json, record)
            write_training_report(folder.path)
    return {
        "network": str(path),
        "name": answers.spec.name,
        "task": answers.task.name,
        "metric": answers.task.metric.name,
        "data": data_name(record, data),
        "precision": answers.metadata.get("precision", "fp32"),
        **found,
        "notes": [*found.get("notes", ()), *_notes(data, split, by_name)],
        "seconds": time.perf_counter() - begun,
    }


def _notes(data: str | Path | None, split: str, own: bool) -> list[str]:
    return [f"{data} is what the run was trained on: scored on its {split} images alone"] * own


def record_next_to(file: Path) -> dict[str, Any]:
    """The record of the run in whose folder a file lies; {} where there is none."""
    folder = RunFolder(file.parent)
    return folder.read() if folder.run_json.is_file() else {}
