"""Training, for every task: begin, resume, adopt; from random or given weights, or distilled."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bneck.costs.count import count_whole
from bneck.nets.weights import load_weights, save_weights
from bneck.records.files import write_bytes, write_json, write_text
from bneck.records.progress import Progress, Silent
from bneck.records.run import RunFolder
from bneck.runs.answers import ModuleAnswers
from bneck.runs.data import data_record, find_images, prepared
from bneck.runs.files import write_file
from bneck.runs.folder import (
    begin,
    check_empty,
    finish,
    fresh_folder,
    new_record,
    record_of,
    resumed,
)
from bneck.runs.load import trained, wrapper_of
from bneck.runs.progress import Steps
from bneck.runs.report import write_training_report
from bneck.runs.start import find_start, fitting, narrows, started
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import Normalisation
from bneck.specs.text import load, to_text
from bneck.specs.wrapper import Wrapper
from bneck.tasks.contract import Data, Scores, Task
from bneck.tasks.options import TrainOptions, parted, stored
from bneck.tasks.registry import DEFAULT, task, tasks
from bneck.training.log import TrainingLog
from bneck.training.loop import fit
from bneck.training.processes import ALONE, ProcessGroup, joined, partners
from bneck.training.settings import Settings, changed, stored_settings

KIND = "train"
CHECKED = 8  # val images that an exported file is compared with the module on


def train(
    network: str | Path | NetSpec | None,
    data: str | Path | None = None,
    *,
    task: str = DEFAULT,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train a network for a task on your images, score it, and export it.

    Args:
        network: a zoo name, a spec file, a run's folder or a spec; None takes the task's usual one.
        data: images, as the task reads them (docs/reference/data.md); None takes the built-in images,
            which only classification has.
        task: "classify", "detect", "segment" or another registered task.
        out: the run's folder, new or empty; None makes one under runs/.
        progress: receives what happens.
        **options: options of `bneck train` (docs/commands.md): `start`, `epochs`, ..., and those of the
            task.

    Returns:
        The run's record as in its `run.json`, with its folder under "run"; an empty one in processes
        of a group that are not its first.

    Raises:
        InputError: wrong input; the message is one sentence.
    """
    with joined(options.get("compute")) as group:
        plan = planned(network, data, task, options, progress if group.first else None)
        plan.settings.check(group)
        folder = RunFolder(Path(group.share(str(out or fresh_folder(KIND)))))
        if group.first:
            check_empty(folder.path)
            told = progress or Silent()
            told.say(f"{plan.data['name']}: {plan.data['found']}")
            told.say(plan.sentence(folder.path, group.size))
        work = Work(plan.task, group, progress)
        if not group.first:
            return work.follow(folder)
        return begin(folder, plan.spec, plan.record(), work.carry)


def resume_training(run: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Resume a training run from its last checkpoint; a finished one gets its report again.

    Raises:
        InputError: not a training run, or one that another process works on.
    """
    folder = RunFolder(Path(run))
    record = record_of(folder, KIND)
    with joined(record["options"].get("compute")) as group:
        work = Work(task(record["task"]), group, progress)
        return resumed(folder, work.carry) if group.first else work.follow(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A training that was checked and not begun."""

    task: Task
    classes: tuple[str, ...]
    data: dict[str, Any]  # see `data.data_record`
    spec: NetSpec
    wrapper: Wrapper
    settings: Settings
    common: TrainOptions
    own: Any
    source: dict[str, Any] | None = None  # of the weights that it starts from
    normalisation: Normalisation | None = (
        None  # of the input, where that is known before the training
    )

    def sentence(self, folder: Path, processes: int = 1) -> str:
        """What the training will do; how long it takes, its first steps tell."""
        how, images = self.settings, self.data["splits"]["train"]
        epochs = f"{how.epochs:g} epoch{'' if how.epochs == 1 else 's'}"
        start = f"the weights of {self.common.start}" if self.common.start else "random weights"
        frozen = ", the backbone frozen" if how.frozen else ""
        several = f" in {processes} processes" if processes > 1 else ""
        return (
            f"training {self.spec.name} from {start}{frozen}: {epochs} of {images} images in "
            f"batches of {how.batch}{several}, then scored and exported; files go to {folder}"
        )

    def record(self) -> dict[str, Any]:
        """What `run.json` holds at the beginning."""
        costs = count_whole(self.spec, self.wrapper)
        common = asdict(self.common)
        known = (
            {} if self.normalisation is None else {"normalisation": self.normalisation.as_json()}
        )
        if common["teacher"] is not None:
            common["teacher"] = str(Path(common["teacher"]).resolve())
        return {
            **new_record(KIND, "bneck.train(...)"), "task": self.task.name,
            "metric": self.task.metric.name, "name": self.spec.name, "digest": self.spec.digest(),
            "params": costs.params, "madds": costs.madds,
            "wrapper": self.task.stored(self.spec, self.wrapper), "classes": list(self.classes),
            "data": self.data, "source": self.source,
            "options": {**common, "task": asdict(self.own)},
            "training": asdict(self.settings), **known,
        }  # fmt: skip


def planned(
    network: str | Path | NetSpec | None,
    data: str | Path | None,
    name: str,
    options: Mapping[str, Any],
    progress: Progress | None = None,
) -> Plan:
    """Check all that was asked for before a folder is made.

    Raises:
        InputError: no such task, network or data, or options that cannot be.
    """
    chosen = task(name)
    common, own = parted(chosen, "train", options, tasks())
    common.check()
    place = data_path(chosen, data)
    dataset = find_images(chosen, place, own, seed=common.seed)
    start = None
    if common.start is not None:
        start = find_start(common.start, network, progress)
        start.tell(progress)
        common = replace(common, start=start.text)
    usual = chosen.default_network if start is None else start.folder
    spec, wrapper = chosen.arrange(network or usual, own, dataset)
    if start is not None:
        spec = fitting(
            chosen, spec, wrapper, start,
            advice="leave --from out, or leave the network out to train that of the weights",
        )  # fmt: skip
        if common.keep is not None and not narrows(start.folder, spec, wrapper):
            raise InputError(
                f"--keep {common.keep} chooses among the channels of wider weights, and {spec.name} is as wide "
                f"as {common.start}; remove --keep, or pass a narrower network"
            )
    if common.teacher is not None:
        trained(Path(common.teacher), wanted=chosen, classes=dataset.classes)
    if common.stream and place is None:
        raise InputError("the built-in images are always cached; leave --stream out or pass --data")
    settings = chosen.recipe(
        common.recipe, images=dataset.splits["train"], epochs=common.epochs,
        started=common.start is not None, seed=common.seed,
    )  # fmt: skip
    if common.batch is not None:
        lr = settings.lr * common.batch / settings.batch  # linear in the batch
        settings = replace(settings, batch=common.batch, lr=lr)
    if common.lr is not None:
        settings = replace(settings, lr=common.lr)
    settings = changed(replace(settings, frozen=common.frozen), common.changes)
    return Plan(
        task=chosen, classes=tuple(dataset.classes), spec=spec,
        data=data_record(dataset, place), wrapper=wrapper, common=common,
        own=own, settings=settings,
        source=None if start is None else start.record(),
    )  # fmt: skip


def data_path(chosen: Task, data: str | Path | None) -> str | None:
    """Where the data is, absolute; None for the built-in images.

    Raises:
        InputError: the task has no built-in images.
    """
    if data is None:
        if not chosen.builtin:
            raise InputError(
                f"the task {chosen.name} has no built-in images; pass a folder of yours with --data"
            )
        return None
    return str(data) if "://" in str(data) else str(Path(data).resolve())


class Work:
    """Takes a training run from wherever it stands to its end, in one process of a group.

    `data` are its images where they are at hand.
    """

    folder: RunFolder
    record: dict[str, Any]

    def __init__(
        self, chosen: Task, group: ProcessGroup, progress: Progress | None, data: Data | None = None
    ) -> None:
        self.task, self.group = chosen, group
        self.progress = progress if progress is not None and group.first else Silent()
        self._data = data

    def follow(self, folder: RunFolder) -> dict[str, Any]:
        """What a process does that is not the first: everything but writing."""
        self.group.wait()  # for the folder's first files
        resumed(folder, self.carry, writes=False)
        return {}

    def carry(self, folder: RunFolder, record: dict[str, Any]) -> dict[str, Any]:
        """The whole run; only the first process writes."""
        self.folder, self.record = folder, record
        if self.group.first:
            self.group.wait()
        if record["state"] != "finished":
            if not folder.weights.is_file():
                self._train()
            self._finish()
        if self.group.first:
            write_training_report(folder.path)
            shutil.rmtree(folder.scratch, ignore_errors=True)
        self.group.wait()  # for the files, whose writing may be refused
        return {"run": str(folder.path), **record}

    @property
    def data(self) -> Data:
        """The run's images, made ready when they are first needed."""
        if self._data is None:
            options, spec = self.record["options"], load(self.folder.spec)
            self._data = prepared(
                self.task, self.folder, self.record, stored(self.task.Options, options["task"]),
                spec=spec, wrapper=wrapper_of(self.task, spec, self.record), seed=options["seed"],
                stream=options["stream"], bad_share=options["bad_share"],
                processes=self.group.size, group=self.group, progress=self.progress,
            )  # fmt: skip
        return self._data

    def _train(self) -> None:
        folder, record, data = self.folder, self.record, self.data
        settings, options = stored_settings(record["training"]), record["options"]
        net = self._first_net(settings)
        record["normalisation"] = net.normalisation.as_json()
        log = steps = teacher = None
        if self.group.first:
            log = TrainingLog(folder.path, batch=settings.batch)
            steps = Steps(self.progress, f"training {net.spec.name}", log)
            write_text(folder.spec, to_text(net.spec))
            write_json(folder.run_json, record)
        if options["teacher"] is not None:
            teacher = trained(Path(options["teacher"]), wanted=self.task).net
        problem = data.problem(net, settings, group=self.group, teacher=teacher)
        self.group.wait()  # from here on all exchange numbers, and no refusals
        begun = time.perf_counter()
        fit(
            net, problem, settings, group=self.group, checkpoint=folder.scratch / "checkpoint",
            on_epoch=self._watch(net, log, steps) if self.task.scores_epochs else None,
            on_step=steps, log=log,
        )  # fmt: skip
        if log is None or steps is None:
            return
        record["speed"] = {
            "train_seconds": time.perf_counter() - begun, "images_per_s": log.images_per_s,
            "waiting": log.waiting,
        }  # fmt: skip
        record["final_loss"] = float(np.mean(steps.losses[-20:])) if steps.losses else None
        best = log.best(f"val_{self.task.metric.key}")
        record["best"] = None if best is None else {**best, "chosen_on": "val"}
        state = load_weights(folder.scratch / "checkpoint")
        last = {k.removeprefix("net/"): v for k, v in state.items() if k.startswith("net/")}
        save_weights(last, folder.path / "weights-last.safetensors")
        write_json(folder.run_json, record)
        save_weights(net.state_dict(), folder.weights)  # last: they say that the training is done

    def _first_net(self, settings: Settings) -> Any:
        spec, options = load(self.folder.spec), self.record["options"]
        wrapper = wrapper_of(self.task, spec, self.record)
        if options["start"] is None:
            return self.task.module(spec, wrapper, seed=settings.seed)
        folder = find_start(options["start"], spec, self.progress).folder
        # The weights of a checkpoint replace these, so it does not matter which channels are kept; and
        # runs from before there was a choice kept those of the largest norms.
        goes_on = (self.folder.scratch / "checkpoint").is_file()
        begun = started(
            self.task, spec, wrapper, folder, self.data, settings=settings, progress=self.progress,
            keep="l2" if goes_on else options.get("keep", "l2") or "fisher", group=self.group,
        )  # fmt: skip
        if not goes_on:
            self.record["channels"] = begun.channels
        return begun.net

    def _watch(
        self, net: Any, log: TrainingLog | None, steps: Steps | None
    ) -> Callable[[int, dict[str, Tensor]], None]:
        """Scores the EMA weights after every epoch, logs the score and keeps the best weights."""
        watched: Any = self.task.module(net.spec, wrapper_of(self.task, net.spec, self.record))
        watched.normalisation = net.normalisation
        key = f"val_{self.task.metric.key}"

        def on_epoch(done: int, state: dict[str, Tensor]) -> None:
            watched.load_state_dict(state)
            found = self._scores(watched, (), "val")
            if log is None or steps is None:
                return
            best, score = log.best(key), found.score or 0.0
            numbers = {f"val_{k}": v for k, v in found.details.items() if isinstance(v, float)}
            log.write(done, **numbers, **{key: score, "val_loss": found.loss or 0.0})
            if best is None or score > best[key]:
                steps.best = f"best so far {self.task.metric.name} {score:.1%}"
                save_weights(state, self.folder.path / "weights-best.safetensors")

        return on_epoch

    def _finish(self) -> None:
        """Score val and test, write the files, finish; processes that write nothing only score."""
        record, data = self.record, self.data
        self.group.wait()  # for the weights
        run = trained(self.folder.path)
        record["scores"] = {}
        for split in (name for name in record["data"]["splits"] if name != "train"):
            with partners(self.group):
                found = self._scores(run.net, run.labels, split, out=self.folder.path)
            record["scores"][split] = found.as_json()
        if not self.group.first:
            return
        seen = record["data"]["left_out"]
        seen += [e for one in data.left_out() if (e := [one.what, one.why]) not in seen]
        net = run.net.cpu()
        images = data.images(net, "val", CHECKED)
        record["files"] = {
            name: write_file(
                run.task, net, self.folder.path / name, images, record=run.record, options=options
            )
            for name, options in run.task.variants()
        }
        finish(self.folder, record)

    def _scores(
        self, net: Any, labels: tuple[str, ...], split: str, *, out: Path | None = None
    ) -> Scores:
        """What a net scores on a split; every process of the group looks at its part."""
        answers = ModuleAnswers(self.task, net.to(self.group.device), labels)
        place = out if self.group.first else None
        told = self.progress if out else Silent()  # between epochs the bar is the training's
        return self.data.evaluate(answers, split, told, group=self.group, out=place)


def adopt(path: Path, plan: Plan, weights: Path, data: Data, progress: Progress) -> dict[str, Any]:
    """A run whose training took place elsewhere: scored, exported, reported.

    Args:
        path: the run's folder; one that was interrupted is resumed.
        plan: what was trained, and how.
        weights: the file of its trained weights.
        data: what it was trained on.
        progress: receives what happens.
    """
    folder = RunFolder(path)
    if not folder.run_json.is_file():
        write_text(folder.spec, to_text(plan.spec))
        write_bytes(folder.weights, weights.read_bytes())
        write_json(folder.run_json, plan.record())
    return resumed(folder, Work(plan.task, ALONE, progress, data).carry)
