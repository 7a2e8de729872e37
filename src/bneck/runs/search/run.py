"""A search under way: its folder, its record, its trial log, its clock; new or resumed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from bneck.records.files import write_text
from bneck.records.ledger import Ledger
from bneck.records.progress import Progress
from bneck.records.run import RunFolder, SearchRecord, StageRecord
from bneck.runs.data import data_record
from bneck.runs.folder import check_empty, new_record, now
from bneck.runs.search.settings import SearchSettings, restored
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import load, to_text
from bneck.specs.wrapper import Wrapper
from bneck.tasks.contract import Dataset, Task

KIND = "search"


class Clock:
    """Adds up the seconds between starts and stops."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Count from now."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Count up to now."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None


class Run:
    """One search under way. `data` is the images' place, None for the built-in ones."""

    def __init__(
        self,
        folder: RunFolder,
        settings: SearchSettings,
        data: str | None,
        record: SearchRecord,
        progress: Progress,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.data = data
        self.record = record
        self.progress = progress
        # A copy, so that a resumed run narrows what it began with, from wherever it is resumed.
        self.seed_file = folder.scratch / "seed.yaml"
        folder.scratch.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(folder.ledger)

    @property
    def task(self) -> Task:
        """What its networks are for."""
        return self.settings.task_object

    @property
    def metric(self) -> str:
        """What scores of this run are."""
        return self.task.metric.name

    @cached_property
    def wrapper(self) -> Wrapper:
        """What stands around every network of the search."""
        spec = load(self.seed_file)
        return self.task.restored(spec, self.record["wrapper"], len(self.record["classes"]))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count a stage's time; it is kept when the stage ends."""
        start = time.perf_counter()
        yield
        self.ledger.append({"event": "stage", "name": name, "seconds": time.perf_counter() - start})
        seconds: dict[str, float] = {}
        for entry in self.ledger.all(event="stage"):
            seconds[entry["name"]] = seconds.get(entry["name"], 0.0) + entry["seconds"]
        self.record["stages"] = [StageRecord(name=n, seconds=s) for n, s in seconds.items()]
        self.record["seconds"] = sum(seconds.values())
        self.save()

    def save(self) -> None:
        """Write the record."""
        self.folder.write(self.record)

    def finish(self) -> None:
        """Mark the run as finished."""
        self.record["state"] = "finished"
        self.record["finished"] = now()
        self.save()


def new_run(
    path: Path,
    settings: SearchSettings,
    dataset: Dataset,
    seed: NetSpec,
    wrapper: Wrapper,
    data: str | None,
    progress: Progress,
) -> Run:
    """Begin a run in an empty or new folder, from a seed network in its wrapper.

    Raises:
        InputError: a setting that cannot be, or a folder that holds something else.
    """
    check_new(path, settings)
    task = settings.task_object
    begun: Any = new_record(KIND, "bneck.search(...)")
    record: SearchRecord = begun
    record["task"], record["metric"] = task.name, task.metric.name
    record["wrapper"] = task.stored(seed, wrapper)
    record["classes"] = list(dataset.classes)
    record["data"] = {**data_record(dataset, data), "resolution": seed.resolution}
    record["settings"] = {**asdict(settings), "data": data}
    path.mkdir(parents=True, exist_ok=True)
    run = Run(RunFolder(path), settings, data, record, progress)
    write_text(run.seed_file, to_text(seed))
    run.save()
    return run


def check_new(path: Path, settings: SearchSettings) -> None:
    """Raise InputError for a setting that cannot be, or a folder that holds something else."""
    settings.check()
    check_empty(path)


def resumed_run(path: Path, progress: Progress) -> Run:
    """Open a run to resume.

    Raises:
        InputError: no run, or one of another version.
    """
    folder = RunFolder(path)
    record: Any = folder.read()
    try:
        stored = dict(record["settings"])
        data = stored.pop("data")
        settings = restored(stored)
    except (LookupError, TypeError, ValueError):
        raise InputError(
            f"{folder.run_json} lacks the settings of a search; start a new run"
        ) from None
    return Run(folder, settings, data, record, progress)
