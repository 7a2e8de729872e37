"""Train one classifier: from scratch, or from the weights of an import or an earlier run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from bneck.costs.count import count
from bneck.data.batches import eval_batches
from bneck.export.files import export_file
from bneck.nets.build import Net, build
from bneck.nets.transfer import is_folded, restore_statistics, transferred
from bneck.nets.weights import load_net, load_weights, save_weights
from bneck.recipes.folder import begin, check_empty, finish, fresh_folder, go_on, new_record
from bneck.recipes.imports import import_weights
from bneck.recipes.material import Material, count_train, material
from bneck.recipes.networks import Network
from bneck.recipes.networks import build as build_named
from bneck.recipes.progress import Progress, Silent, Steps
from bneck.recipes.training import RECIPES, changed, stored_settings
from bneck.records.files import write_json, write_text
from bneck.records.run import RunFolder
from bneck.report.classify import write_classify_report
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.specs.text import load, resolve, to_text
from bneck.specs.transforms import with_classes, with_resolution
from bneck.tasks.classify.score import Accuracy, evaluate
from bneck.train.journal import Journal
from bneck.train.loop import Data, Settings, train
from bneck.train.team import Team, join, leave

KIND = "classify"
BUILTIN_RESOLUTION = 48
STATISTICS_IMAGES = 512  # from which folded batch norms learn their statistics
CHECK_IMAGES = 256
EVAL_BATCH = 250


class TrainOptions(TypedDict, total=False):
    """What `train_classify` may be told; every one has a default.

    `start` is the folder of an import or a run to take weights from, or a file of published weights of
    the network; a narrower network keeps the strongest channels. Without one it begins from scratch.
    `teacher` is the folder of an import or a run whose answers are learnt too. `recipe` is "small-data"
    (the default), "finetune" (the default with a start), "paper" or "imagenet"; `epochs`, `batch` (of
    all processes together; the rate follows it) and `lr`, the peak, replace the recipe's, and
    `changes`, as "precision=bf16", its others (`recipes.training.SETTABLE`). `frozen` trains only what
    stands behind the pool. `resolution` is 48 for the built-in images, else the network's own.
    `stream` decodes images anew in every epoch instead of once into a pack; `bad_share` of them (1 %)
    may be unreadable. Everything random follows from `seed`.
    """

    start: str | Path | None
    teacher: str | Path | None
    recipe: str | None
    frozen: bool
    resolution: int | None
    epochs: float | None
    batch: int | None
    lr: float | None
    changes: Sequence[str]
    stream: bool
    bad_share: float
    seed: int


def train_classify(
    network: Network,
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **options: Unpack[TrainOptions],
) -> dict[str, Any]:
    """Train a network on labelled images, judge it, export it; see docs/training.md.

    Args:
        network: a zoo name, a spec file, a run's folder; what is trained.
        data: a folder `train/CLASS/*` and `val/CLASS/*`, or `CLASS/*`, which is split; a folder or URL
            of tar shards; a Hugging Face dataset on disk; None takes the built-in images.
        out: the run's folder, new or empty; None makes one under runs/.
        progress: receives what happens; None tells nobody.
        options: see `TrainOptions`.

    Returns:
        The run's record, as in its `run.json`, with its folder under "run"; an empty one in processes
        of a team that are not its first.

    Raises:
        InputError: wrong input; the message is one sentence.
    """
    spec = resolve(network)
    side = options.get("resolution") or (BUILTIN_RESOLUTION if data is None else spec.resolution)
    if side < 32:
        raise InputError(f"resolution is {side}; it must be at least 32")
    place = None if data is None else str(data)
    settings = _settings(options, place)
    for path in (options.get("start"), options.get("teacher")):
        if path is not None:
            _check_start(Path(path))
    record = new_record(KIND, "bneck.train_classify(...)")
    record["settings"] = _stored(options, place, side, settings)
    team = join()
    try:
        settings.check(team)
        folder = Path(team.share(str(out or fresh_folder("train"))))
        if team.first:
            check_empty(folder)
        return _run(folder, team, progress, with_resolution(spec, side), record)
    finally:
        leave(team)


def _stored(
    options: TrainOptions, data: str | None, side: int, settings: Settings
) -> dict[str, Any]:
    stream, bad_share = options.get("stream", False), options.get("bad_share", 0.01)
    if stream and data is None:
        raise InputError("the built-in images are always packed; leave --stream out or give --data")
    if not 0 <= bad_share <= 1:
        raise InputError(f"bad_share is {bad_share}; it must be a share from 0 to 1")
    start, teacher = options.get("start"), options.get("teacher")
    return {
        "data": data if data is None or "://" in data else str(Path(data).resolve()),
        "start": None if start is None else str(Path(start).resolve()),
        "teacher": None if teacher is None else str(Path(teacher).resolve()),
        "resolution": side,
        "stream": stream,
        "bad_share": bad_share,
        "seed": settings.seed,
        "training": asdict(settings),
    }


def resume_classify(run: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Go on with a training that was broken off, from its last checkpoint.

    Raises:
        InputError: no training run, or one that another process works on.
    """
    team = join()
    try:
        return _run(Path(run), team, progress)
    finally:
        leave(team)


def _run(
    path: Path,
    team: Team,
    progress: Progress | None,
    spec: NetSpec | None = None,
    record: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Begin a run if there is a record of a new one, else go on; every process of the team does."""
    folder = RunFolder(path)
    work = _Work(team, progress if progress is not None and team.first else Silent())
    if not team.first:
        team.wait()  # for the folder's first files
        go_on(folder, KIND, work.carry, writes=False)
        return {}
    if record is None or spec is None:
        return go_on(folder, KIND, work.carry)
    return begin(folder, spec, record, work.carry)


class _Work:
    """Takes a run from wherever it stands to its end."""

    def __init__(self, team: Team, progress: Progress) -> None:
        self.team, self.progress = team, progress

    def carry(self, folder: RunFolder, record: dict[str, Any]) -> dict[str, Any]:
        """All of it; every process of a team does, and the first one writes."""
        if self.team.first:
            self.team.wait()
        if record["state"] != "finished":
            images = material(folder, record, self.progress, self.team)
            net = self._trained(folder, record, images)
            accuracy = self.judged(net, images)
            if self.team.first:
                _finish(folder, record, net.cpu(), images, accuracy)
        if self.team.first:
            write_classify_report(folder.path)
            shutil.rmtree(folder.scratch, ignore_errors=True)
        return {"run": str(folder.path), **record}

    def _trained(self, folder: RunFolder, record: dict[str, Any], images: Material) -> Net:
        settings = stored_settings(record["settings"]["training"])
        spec = with_classes(load(folder.spec), len(images.classes))
        net = self._begun(folder, record, spec, settings, images)
        record["normalisation"] = net.normalisation.as_json()
        journal = Journal(folder.path, batch=settings.batch) if self.team.first else None
        if self.team.first:
            write_text(folder.spec, to_text(net.spec))
            write_json(folder.run_json, record)
        watch = _Watch(self, folder, images, journal, net)
        begun = time.perf_counter()
        train(
            net,
            Data(images.train, np.arange(len(images.train.labels)), spec.resolution),
            settings,
            teacher=self._teacher(record, images),
            team=self.team,
            checkpoint=folder.scratch / "checkpoint",
            on_epoch=watch,
            **(
                Steps(self.progress, f"training {spec.name}", journal).watching() if journal else {}
            ),
        )
        if journal is not None:
            record["speed"] = {
                "train_seconds": time.perf_counter() - begun,
                "images_per_s": journal.images_per_s,
                "waiting": journal.waiting,
            }
            record["best"] = max(
                (line for line in journal.lines.entries if "val_top1" in line),
                key=lambda line: line["val_top1"],
                default=None,
            )
            record["data"]["bad"] += images.bad()
        return net

    def _begun(
        self,
        folder: RunFolder,
        record: dict[str, Any],
        spec: NetSpec,
        settings: Settings,
        images: Material,
    ) -> Net:
        start = record["settings"]["start"]
        if start is None:
            return build(spec, seed=settings.seed)
        source = build_named(self._imported(folder, Path(start)))
        net = transferred(source, spec, seed=settings.seed)
        if is_folded(net):
            self.progress.say(
                "batch norm was folded in the start's weights: its statistics are made from the images"
            )
            restore_statistics(net, _some(images, spec.resolution, net.normalisation))
        return net

    def _imported(self, folder: RunFolder, start: Path) -> Path:
        """The folder of the start's weights; a file is imported into the run's scratch first."""
        if not start.is_file():
            return start
        place = folder.scratch / "start"
        if self.team.first and not RunFolder(place).run_json.is_file():
            shutil.rmtree(place, ignore_errors=True)
            import_weights(start, load(folder.spec), out=place)
        self.team.wait()
        return place

    def _teacher(self, record: dict[str, Any], images: Material) -> Net | None:
        name = record["settings"].get("teacher")
        if name is None:
            return None
        net = build_named(name)
        known = RunFolder(Path(name)).read().get("data", {}).get("classes")
        if net.spec.classes != len(images.classes) or known not in (None, list(images.classes)):
            raise InputError(
                f"the teacher {name} knows {net.spec.classes} classes, and the images have "
                f"{len(images.classes)}; they must be the same, in the same order"
            )
        return net

    def judged(self, net: Net, images: Material) -> Accuracy:
        """Accuracy on val; every process looks at its share, each image once."""
        team = self.team
        mine = np.arange(len(images.val.labels))[team.rank :: team.size]
        batches = eval_batches(
            images.val,
            mine,
            resolution=net.spec.resolution,
            batch=EVAL_BATCH,
            normalisation=net.normalisation,
            device=team.device,
        )

        def total(sums: Tensor) -> Tensor:
            return team.sum(sums.to(team.device)).cpu()

        return evaluate(net.to(team.device), batches if len(mine) else [], total=total)


class _Watch:
    """Judges the averaged weights behind every epoch, writes that down and keeps the best."""

    def __init__(
        self, work: _Work, folder: RunFolder, images: Material, journal: Journal | None, net: Net
    ) -> None:
        self.work, self.folder, self.images, self.journal = work, folder, images, journal
        self.net = build(net.spec)
        self.net.normalisation = net.normalisation

    def __call__(self, done: int, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict(state)
        accuracy = self.work.judged(self.net, self.images)
        if self.journal is None:
            return
        best = max(
            (e["val_top1"] for e in self.journal.lines.entries if "val_top1" in e), default=-1
        )
        self.journal.write(
            done, val_top1=accuracy.top1, val_top5=accuracy.top5, val_loss=accuracy.loss
        )
        if accuracy.top1 > best:
            save_weights(state, self.folder.path / "weights-best.safetensors")


def _some(images: Material, resolution: int, normalisation: Normalisation) -> Iterator[Tensor]:
    """Central crops of train images, spread evenly."""
    last = len(images.train.labels) - 1
    indices = np.unique(np.linspace(0, last, STATISTICS_IMAGES).astype(np.int64))
    batches = eval_batches(
        images.train, indices, resolution=resolution, batch=32, normalisation=normalisation
    )
    return (images for images, _ in batches)


def _finish(
    folder: RunFolder, record: dict[str, Any], net: Net, images: Material, accuracy: Accuracy
) -> None:
    side, last = net.spec.resolution, len(images.val.labels) - 1
    state = load_weights(folder.scratch / "checkpoint")
    unaveraged = {k.removeprefix("net/"): v for k, v in state.items() if k.startswith("net/")}
    save_weights(unaveraged, folder.path / "weights-last.safetensors")
    save_weights(net.state_dict(), folder.weights)
    some = np.unique(np.linspace(0, last, CHECK_IMAGES).astype(np.int64))
    how: dict[str, Any] = {"resolution": side, "normalisation": net.normalisation}
    seen = torch.cat([x for x, _ in eval_batches(images.val, some, batch=len(some), **how)])
    check = export_file(load_trained(folder), folder.model, seen, classes=images.classes)
    costs = count(net.spec)
    record |= {
        "name": net.spec.name,
        "digest": net.spec.digest(),
        "params": costs.params,
        "madds": costs.madds,
        **asdict(accuracy),
        "export": check.as_json(),
    }
    finish(folder, record)


def load_trained(folder: RunFolder) -> Net:
    """The net of a run folder, with its normalisation."""
    net = load_net(load(folder.spec), folder.weights)
    stored = folder.read().get("normalisation")
    net.normalisation = IMAGENET if stored is None else Normalisation.from_json(stored)
    return net


def _settings(options: TrainOptions, data: str | None) -> Settings:
    started, frozen = options.get("start") is not None, options.get("frozen", False)
    epochs, batch, lr = options.get("epochs"), options.get("batch"), options.get("lr")
    seed = options.get("seed", 0)
    name = options.get("recipe") or ("finetune" if started else "small-data")
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}; known are {', '.join(RECIPES)}")
    if frozen and not started:
        raise InputError("frozen rows need weights to keep; name a start, or leave --frozen out")
    if epochs is not None and not 0 < epochs < float("inf"):
        raise InputError(f"epochs is {epochs}; it must be a number above 0")
    if batch is not None and batch < 2:
        raise InputError(f"batch is {batch}; batch norm needs at least 2 images")
    if lr is not None and not 0 < lr < float("inf"):
        raise InputError(f"lr is {lr}; it must be a number above 0")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; it must be at least 0 and below 2^32")
    settings = RECIPES[name](images=count_train(data, seed), epochs=epochs, seed=seed)
    if batch is not None:
        settings = replace(settings, batch=batch, lr=settings.lr * batch / settings.batch)
    if lr is not None:
        settings = replace(settings, lr=lr)
    return changed(replace(settings, frozen=frozen), options.get("changes", ()))


def _check_start(path: Path) -> None:
    if not path.is_file() and not RunFolder(path).weights.is_file():
        raise InputError(
            f"{path} has no trained weights; give the folder of a finished run or of bneck import"
        )
