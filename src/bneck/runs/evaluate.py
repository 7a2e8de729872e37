"""Scoring a trained network, for every task: a run, an import, or an exported file in its runtime."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bneck.records.files import locked, write_json
from bneck.records.progress import Progress, Silent
from bneck.records.run import RunFolder, task_run
from bneck.runs.answers import answering
from bneck.runs.data import data_name, names_own
from bneck.runs.report import write_training_report
from bneck.specs.errors import InputError
from bneck.tasks.options import parted
from bneck.tasks.registry import tasks


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
            which is scored in its own runtime.
        data: images, as the task reads them. None takes the run's own data, split as the run split it;
            for a file, those of the run that it lies in.
        split: "val", "test", "train" or another that the data has.
        compute: "cpu", "cuda" or "cuda:1" for a module; None takes a GPU if there is one.
        progress: receives what happens.
        **options: options of the task that evaluate takes (docs/commands.md).

    Returns:
        split, images, score and the task's other numbers, with the network, where the data is (the
        name of built-in images) and the task's metric; `notes` are sentences.

    Raises:
        InputError: no trained network, no such split, or other classes than the network's.
    """
    begun, told = time.perf_counter(), progress or Silent()
    answers, record, folder = answering(network, compute)
    _, own = parted(answers.task, "evaluate", options, tasks())
    by_name = names_own(record, data)
    place = None if data is None or by_name else str(data)
    file = task_run(network)
    if data is None and not record and file.is_file() and RunFolder(file.parent).run_json.is_file():
        raise InputError(
            f"{network} lies in the folder of a run, but is a file of another network, {answers.spec.name} "
            f"with {len(answers.labels)} classes; pass the images to score it on with --data"
        )
    if place is not None or own != answers.task.Options() or record.get("kind") != "train":
        folder = None  # only scores of the run's own images, as it was trained, go into its record
    found = answers.task.evaluate(
        answers, place, own, split=split, record=record, progress=told,
        seed=(record.get("options") or {}).get("seed", 0),
        out=None if folder is None else folder.path,
    ).as_json()  # fmt: skip
    if folder is not None:
        with locked(folder.path / ".lock"):
            record.setdefault("scores", {})[split] = found
            write_json(folder.run_json, record)
            write_training_report(folder.path)
    note = f"{data} is what the run was trained on: scored on its {split} images alone"
    return {
        "network": str(task_run(network)), "name": answers.spec.name, "task": answers.task.name,
        "metric": answers.task.metric.name, "data": data_name(record, data),
        "precision": answers.metadata.get("precision", "fp32"), **found,
        "notes": [*found.get("notes", ()), *[note] * by_name],
        "seconds": time.perf_counter() - begun,
    }  # fmt: skip
