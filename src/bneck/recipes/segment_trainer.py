"""How a search trains and judges segmenters: scenes read by every process, mIOU as the judge."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bneck.data.memory import room
from bneck.data.pairs import Scenery, list_pairs
from bneck.data.scenes import SETS, Scenes, Survey, Vary
from bneck.nets.segmenter import SegmentNet, build_segmenter, load_segmenter
from bneck.nets.shrink_wrapped import shrink_segmenter
from bneck.recipes.held_out import Indices, held_out
from bneck.recipes.run import Run
from bneck.recipes.segment import (
    SegmentOptions,
    adopt_segment,
    evaluate_segment,
    segment_settings,
)
from bneck.recipes.segment_export import export_segment
from bneck.recipes.settings import SegmentTask
from bneck.recipes.shipping import format_of
from bneck.recipes.trainer import Judged
from bneck.specs.network import NetSpec
from bneck.specs.wrapper import Aspp
from bneck.tasks.segment import evaluate
from bneck.train.loop import Settings, fit
from bneck.train.segment import segment_lessons

Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTrainer:
    """Which scenes, and what is trained on: crops of scenes brought to the wrapper's shape.

    `empty` are train scenes whose pixels are all ignored; `weights` are the classes' in the loss;
    `processes` train side by side on one machine, and share its memory.
    """

    data: Path
    task: SegmentTask
    crop: Size
    wrapper: Aspp
    empty: tuple[int, ...]
    weights: tuple[float, ...]
    heldout_share: float
    seed: int
    processes: int

    @property
    def metric(self) -> str:
        return "mIOU"

    @property
    def chance(self) -> float:
        """One class everywhere: right in its own share of the pixels, and wrong in all other classes."""
        return 1 / self.wrapper.classes

    def prepared(self, spec: NetSpec) -> NetSpec:
        return spec

    def open(self) -> _Opened:
        """Scenes to fit on and to judge by."""
        return _open(self)

    def fitted(self) -> int:
        return len(self.open().fit)

    def build(self, spec: NetSpec, seed: int) -> SegmentNet:
        return build_segmenter(self.wrapper.segmenter(spec), seed=seed)

    def load(self, spec: NetSpec, weights: Path) -> SegmentNet:
        return load_segmenter(self.wrapper.segmenter(spec), weights)

    def shrink(self, net: SegmentNet, spec: NetSpec) -> SegmentNet:
        return shrink_segmenter(net, self.wrapper.segmenter(spec))

    def fit(self, net: SegmentNet, settings: Settings, *, heldout: bool, **how: Any) -> None:
        opened = self.open()
        indices = opened.fit if heldout else opened.all
        lessons = segment_lessons(
            net, opened.train, indices, settings, crop=self.crop, vary=Vary(), weights=self.weights
        )
        fit(net, lessons, settings, **how)

    def judge(self, net: SegmentNet, *, heldout: bool) -> Judged:
        """mIOU: of held-out scenes at the size that is trained at, of val at the masks' own."""
        opened = self.open()
        score = evaluate(net, opened.heldout if heldout else opened.val).score.miou
        return Judged(score=score, expected=score)

    def ship(self, run: Run, spec: NetSpec, weights: Path) -> dict[str, Any]:
        """The found network as a finished run of segmentation, in `found` of the search's folder."""
        path, seg = run.folder.found, self.wrapper.segmenter(spec)
        record = adopt_segment(path, seg, weights, self.data, self._options(run), run.progress)
        shipped: dict[str, Any] = {"export": record["export"]}
        on = run.settings.deployment
        if not on.is_plain:
            exported = export_segment(
                path, format=format_of(on), precision=on.precision, progress=run.progress
            )
            file = Path(exported["file"])
            judged = evaluate_segment(file, progress=run.progress)
            shipped["shipped"] = {
                **exported, "file": f"{path.name}/{file.name}", "score": judged["miou"],
            }  # fmt: skip
        return shipped

    def _options(self, run: Run) -> SegmentOptions:
        training, task = run.settings.training, self.task
        return SegmentOptions(
            classes=task.classes,
            ignore=task.ignore,
            size=self.wrapper.shape,
            crop=self.crop,
            epochs=training.epochs,
            batch=training.batch,
            lr=training.lr,
            balance=task.balance,
            seed=training.seed,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """`heldout` and `val` are whole; `fit` and `all` are indices of `train`."""

    train: Scenes
    fit: Indices
    all: Indices
    heldout: Scenes
    val: Scenes


@lru_cache(maxsize=1)
def _open(trainer: SegmentTrainer) -> _Opened:
    scenery = _scenery(trainer.data, trainer.task, trainer.seed)
    shape, labels = trainer.wrapper.shape, scenery.labels
    kept = room(SETS, trainer.processes)
    train = Scenes(scenery.split("train"), labels, size=shape, kept_bytes=kept)
    usable = np.setdiff1d(np.arange(len(train)), np.array(trainer.empty, np.int64))
    fitted, held = held_out(usable, trainer.heldout_share, trainer.seed)
    return _Opened(
        train,
        fitted,
        usable,
        Scenes([train.pairs[i] for i in held], labels, size=shape, kept_bytes=kept),
        Scenes(scenery.split("val"), labels, size=shape, whole_masks=True, kept_bytes=kept),
    )


def _scenery(data: Path, task: SegmentTask, seed: int) -> Scenery:
    classes = None if task.classes is None else Path(task.classes)
    return list_pairs(data, classes=classes, ignore=task.ignore, seed=seed)


def segment_trainer(run: Run) -> SegmentTrainer:
    """Look at all masks of the run once.

    Raises:
        InputError: no such data, or masks that do not fit.
    """
    settings, task = run.settings, run.settings.segment
    assert task is not None
    assert run.data is not None
    scenery = _scenery(run.data, task, settings.seed)
    classes = len(scenery.labels.names)
    options = SegmentOptions(size=task.size, crop=task.crop)
    chosen = segment_settings(scenery, run.data, options)
    first = Scenes(scenery.split("train")[:1], scenery.labels, size=task.size).read(0)[1]
    stride = settings.seed_segmenter().output_stride
    survey = _survey(run, scenery, task)
    return SegmentTrainer(
        data=run.data.resolve(),
        task=task,
        crop=(chosen["crop"][0], chosen["crop"][1]),
        wrapper=Aspp(
            shape=task.size or (first.shape[0], first.shape[1]),
            classes=classes,
            head=task.head,
            filters=task.filters,
            stride=stride,
            global_pool=task.global_pool,
        ),
        empty=survey.empty,
        weights=survey.weights() if task.balance else (),
        heldout_share=settings.heldout,
        seed=settings.seed,
        # A node of a cluster runs as many at once as it has cores.
        processes=settings.workers if settings.cluster is None else os.cpu_count() or 1,
    )


def _survey(run: Run, scenery: Scenery, task: SegmentTask) -> Survey:
    """What the train masks hold, looked at once a run."""
    if "data" in run.record:
        kept = run.record["data"]
        return Survey(np.array(kept["pixels"], np.int64), tuple(kept["empty"]))
    train = Scenes(scenery.split("train"), scenery.labels, size=task.size)
    run.progress.stage("reading the masks", len(train))
    survey = train.survey(run.progress.advance)
    usable = np.setdiff1d(np.arange(len(train)), np.array(survey.empty, np.int64))
    held = held_out(usable, run.settings.heldout, run.settings.seed)[1]
    assert run.data is not None
    run.record["data"] = {
        "name": run.data.name,
        "classes": list(scenery.labels.names),
        "resolution": run.settings.resolution,
        "train": len(train),
        "val": len(scenery.split("val")),
        "heldout": len(held),
        "bad": [[str(train.pairs[i].mask), "all pixels are ignored"] for i in survey.empty],
        "pixels": survey.pixels.tolist(),
        "empty": list(survey.empty),
    }
    run.save()
    return survey
