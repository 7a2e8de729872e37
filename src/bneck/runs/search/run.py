"""A run under way: its folder, its record, its ledger, its clock; new or resumed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bneck.runs.folder import check_empty
from bneck.runs.progress import Progress
from bneck.runs.search.settings import BlockSettings, SearchSettings, stored_task
from bneck.tasks.classify.recipes import stored_settings
from bneck.records.commit import commit
from bneck.records.files import write_text
from bneck.records.ledger import Ledger
from bneck.records.run import FORMAT, RunFolder, SearchRecord, StageRecord
from bneck.specs.errors import InputError
from bneck.specs.text import to_text
from bneck.specs.wrapper import PLAIN, Wrapper

METRICS = {"classify": "top-1", "detect": "mAP", "segment": "mIOU"}


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
    """One search under way. `data` is the images' folder, None for the built-in ones."""

    def __init__(
        self,
        folder: RunFolder,
        settings: SearchSettings,
        data: Path | None,
        record: SearchRecord,
        progress: Progress,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.data = data
        self.record = record
        self.progress = progress
        self.wrapper: Wrapper = PLAIN  # the task's, once its images are known
        # A copy, so that a resumed run narrows what it began with, from wherever it is resumed.
        self.seed_file = folder.scratch / "seed.yaml"
        folder.scratch.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(folder.ledger)

    @property
    def metric(self) -> str:
        """What scores of this run are."""
        return METRICS[self.settings.task]

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
        self.record["finished"] = _now()
        self.save()


def new_run(
    path: Path, settings: SearchSettings, data: Path | None, progress: Progress, command: str
) -> Run:
    """Begin a run in an empty or new folder.

    Raises:
        InputError: a setting that cannot be, or a folder that holds something else.
    """
    check_new(path, settings)
    seed = settings.seed_spec()
    record = SearchRecord(
        format=FORMAT,
        kind="search",
        state="running",
        version=metadata.version("bneck"),
        commit=commit(),
        command=command,
        started=_now(),
        task=settings.task,
        metric=METRICS[settings.task],
        settings={**asdict(settings), "data": str(data.resolve()) if data else None},
    )
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
    """Open a run to go on with.

    Raises:
        InputError: no run, or one of another version.
    """
    folder = RunFolder(path)
    record: Any = folder.read()
    try:
        stored = dict(record["settings"])
        data = stored.pop("data")
        settings = SearchSettings(
            **{
                **stored,
                "kinds": tuple(stored["kinds"]),
                "training": stored_settings(stored["training"]),
                "tuning": stored_settings(stored["tuning"]),
                "blocks": BlockSettings(**blocks) if (blocks := stored.get("blocks")) else None,
                **stored_task(stored),
            }
        )
    except (LookupError, TypeError, ValueError):
        raise InputError(
            f"{folder.run_json} lacks the settings of a search; start a new run"
        ) from None
    return Run(folder, settings, Path(data) if data else None, record, progress)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
