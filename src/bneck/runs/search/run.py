"""A search under way: its folder, record and ledger, and while it works its images and its workers."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bneck.costs.count import count_whole
from bneck.costs.table import LatencyTable
from bneck.records.files import write_text
from bneck.records.imported import normalisation
from bneck.records.ledger import Ledger
from bneck.records.progress import Progress
from bneck.records.run import NetworkRecord, RunFolder, SearchRecord, StageRecord
from bneck.runs.data import data_record, prepared
from bneck.runs.folder import new_record, now
from bneck.runs.load import wrapper_of
from bneck.runs.report import write_report
from bneck.runs.search.cluster import open_pool
from bneck.runs.search.course import Course
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.settings import BlockSettings, SearchSettings, restored
from bneck.runs.search.speed import SpeedJob, measured_speed
from bneck.runs.search.workers import WorkerPool
from bneck.runs.start import Start
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.specs.text import load, to_text
from bneck.specs.wrapper import Wrapper
from bneck.tasks.contract import Dataset, Task

KIND = "search"


class Run:
    """One search under way. `data` is the path of its images, None for the built-in ones.

    `pool` and `experiment` exist inside `working`.
    """

    pool: WorkerPool
    experiment: Experiment

    def __init__(
        self, folder: RunFolder, settings: SearchSettings, data: str | None, record: SearchRecord,
        progress: Progress,
    ) -> None:  # fmt: skip
        self.folder, self.settings, self.data = folder, settings, data
        self.record, self.progress = record, progress
        self.course = Course(progress, settings)
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

    @property
    def blocks(self) -> BlockSettings:
        """The settings of its block search."""
        assert self.settings.blocks is not None
        return self.settings.blocks

    @cached_property
    def wrapper(self) -> Wrapper:
        """What surrounds every network of the search."""
        return wrapper_of(self.task, load(self.seed_file), self.record)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keep a worker pool, and prepare the images once for all of its processes.

        Raises:
            InputError: no such data, or data that changed since the run was begun or cannot be used.
        """
        settings = self.settings
        with open_pool(settings.workers, settings.cluster) as self.pool:
            with self.stage("images"):
                data = prepared(
                    self.task, self.folder, self.record, settings.options,
                    spec=load(self.seed_file), wrapper=self.wrapper, seed=settings.seed,
                    heldout=settings.heldout, bad_share=settings.bad_share, progress=self.progress,
                    # A node of a cluster runs as many processes at once as it has cores.
                    processes=settings.workers if settings.cluster is None else os.cpu_count() or 1,
                )  # fmt: skip
            self.experiment = Experiment(
                self.task.name, self.wrapper, data, settings.compute,
                Normalisation.from_json(self.record.get("normalisation", IMAGENET.as_json())),
            )  # fmt: skip
            yield

    def experiment_at(self, spec: NetSpec) -> Experiment:
        """The same images at the resolution of another network, made ready once."""
        settings = self.settings
        found = self.task.find(self.data, settings.options, seed=settings.seed)
        data = self.task.prepare(
            found, spec, self.wrapper, settings.options,
            scratch=self.folder.scratch / f"data-{spec.resolution}", seed=settings.seed,
            heldout=settings.heldout, bad_share=settings.bad_share,
            processes=settings.workers, progress=self.progress,
        )  # fmt: skip
        return replace(self.experiment, data=data)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count a stage's time; it is kept when the stage ends."""
        start = time.perf_counter()
        self.course.enter(name)
        yield
        self.course.leave()
        self.ledger.append({"event": "stage", "name": name, "seconds": time.perf_counter() - start})
        seconds: dict[str, float] = {}
        for entry in self.ledger.all(event="stage"):
            seconds[entry["name"]] = seconds.get(entry["name"], 0.0) + entry["seconds"]
        self.record["stages"] = [StageRecord(name=n, seconds=s) for n, s in seconds.items()]
        self.record["seconds"] = sum(seconds.values())
        self.save()

    def say_how_long(self, seed: NetSpec, seed_ms: float, others: Mapping[str, float]) -> None:
        """Time the seed network's first steps here, and say how long the rest takes.

        `others` are the seconds of stages that do not train, where they are known.
        """
        job = SpeedJob(spec=seed, experiment=self.experiment, settings=self.settings.training)
        speed = measured_speed(self.pool, job)
        self.course.timed(speed, self.record["data"]["splits"], seed_ms, others)

    def network_record(self, spec: NetSpec, table: LatencyTable | None = None) -> NetworkRecord:
        """A network as the run's record holds it, estimated where there is a table for it."""
        costs = count_whole(spec, self.wrapper)
        found = NetworkRecord(
            name=spec.name, digest=spec.digest(), spec=to_text(spec), params=costs.params,
            madds=costs.madds,
        )  # fmt: skip
        if table is not None:
            # What was expected before it was measured; since then the table knows better.
            known = self.ledger.find(event="verified", digest=spec.digest())
            found["estimated_ms"] = known["estimated_ms"] if known else table.estimate_ms(spec)
        return found

    def save(self) -> None:
        """Write the record."""
        self.folder.write(self.record)

    def finish(self) -> None:
        """Mark the run as finished, and close it."""
        self.record["state"], self.record["finished"] = "finished", now()
        self.save()
        self.close()

    def close(self) -> None:
        """Write a finished run's report; the same again where it was killed in the middle of that."""
        write_report(self.folder.path)
        shutil.rmtree(self.folder.scratch, ignore_errors=True)


def new_run(
    path: Path, settings: SearchSettings, dataset: Dataset, seed: NetSpec, wrapper: Wrapper,
    data: str | None, progress: Progress, start: Start | None = None,
) -> Run:  # fmt: skip
    """Begin a run in an empty or new folder, from a seed network in its wrapper and perhaps from weights."""
    task = settings.task_object
    record: Any = {
        **new_record(KIND, "bneck.search(...)"),
        "task": task.name,
        "metric": task.metric.name,
        "wrapper": task.stored(seed, wrapper),
        "classes": list(dataset.classes),
        "data": {**data_record(dataset, data), "resolution": seed.resolution},
        "settings": {**asdict(settings), "data": data},
    }
    progress.say(f"{dataset.name}: {record['data']['found']}")
    if start is not None:
        record["source"] = start.record()
        record["normalisation"] = normalisation(RunFolder(start.folder)).as_json()
    run = Run(RunFolder(path), settings, data, record, progress)
    write_text(run.seed_file, to_text(seed))
    run.save()
    run.course.announce(seed.name)
    return run


def resumed_run(folder: RunFolder, record: Any, progress: Progress) -> Run:
    """A run from its record, to resume.

    Raises:
        InputError: the record lacks the settings of a search.
    """
    try:
        stored = dict(record["settings"])
        data = stored.pop("data")
        settings = restored(stored)
    except (LookupError, TypeError, ValueError):
        raise InputError(
            f"{folder.run_json} lacks the settings of a search; start a new run"
        ) from None
    run = Run(folder, settings, data, record, progress)
    if record["state"] != "finished":
        run.course.announce(load(run.seed_file).name)
    return run
