"""Images with masks: found, surveyed once, and fed to training and scoring as image-mask pairs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.data.folders import look_alike
from bneck.data.memory import room
from bneck.data.read import read_images
from bneck.records.files import write_json
from bneck.records.progress import Progress
from bneck.specs.errors import InputError, few
from bneck.specs.network import NetSpec
from bneck.tasks.data import Answers, Data, Dataset, Indices, Learning, Left, Opened, Scores, Size
from bneck.tasks.options import sized
from bneck.tasks.segment.intake.encoding import check_like
from bneck.tasks.segment.loss import divergence, loss
from bneck.tasks.segment.masks import Labels
from bneck.tasks.segment.pairs import Scenery, list_pairs
from bneck.tasks.segment.scenes import SETS, Scenes, Survey, Vary, crop_batches
from bneck.tasks.segment.scoring import score, split_scenes
from bneck.training.processes import ProcessGroup
from bneck.training.settings import Settings, TrainingError

CROP = 769  # side of the DeepLab line's crops, in pixels
LEAST_WINDOW = 32  # a side of a sliding window: one pixel of the coarsest map
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedImages(Dataset):
    """Image-mask pairs by split, as found; `shape` is the (height, width) that is trained at."""

    scenery: Scenery
    shape: Size
    crop: Size


def labels_record(labels: Labels) -> dict[str, Any]:
    """Names, colours and ids of the classes as plain values."""
    return {
        "names": list(labels.names),
        "colours": [list(colour) for colour in labels.colours],
        "ids": [int(v) for v in labels.ids()[: len(labels.names)]],
    }


def find(data: str | None, options: Any, *, seed: int) -> MaskedImages:
    """Images and masks of a folder; see `pairs.list_pairs`.

    Raises:
        InputError: no layout fits, or a size or crop that cannot be.
    """
    assert data is not None  # None is for tasks with built-in images
    root, listed = Path(data), None if options.classes is None else Path(options.classes)
    scenery = list_pairs(root, classes=listed, ignore=options.ignore, seed=seed)
    train, val = ([pair.mask for pair in scenery.split(name)] for name in ("train", "val"))
    check_like(scenery.labels, train, val)
    size = sized(options.size)
    if size is None:
        first = Scenes(scenery.split("train")[:1], scenery.labels).read(0)[1]
        size = (first.shape[0], first.shape[1])
    crop = sized(options.crop) or (min(size[0], CROP), min(size[1], CROP))
    return MaskedImages(
        name=root.name, place=data, classes=tuple(scenery.labels.names), scenery=scenery, shape=size,
        crop=crop, splits={name: len(pairs) for name, pairs in scenery.splits.items()},
        files={name: [one.image for one in pairs] for name, pairs in scenery.splits.items()},
        facts={
            "layout": scenery.layout, "labels": labels_record(scenery.labels), "shape": list(size),
            "crop": list(crop),
        },
        found=replace(scenery.found, notes=(*scenery.found.notes, *look_alike(scenery.labels.names))),
        bits=scenery.bits,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationData(Data):
    """A run's image-mask pairs.

    `size` is what images are brought to, None where they stay as they are. `empty` are train pairs
    whose pixels are all ignored; `weights` are the classes' in the loss, () for none.
    """

    root: Path
    class_list: str | None
    ignore: tuple[int, ...]
    size: Size | None
    shape: Size
    crop: Size
    pixels: tuple[int, ...]
    empty: tuple[int, ...]
    weights: tuple[float, ...]
    processes: int  # that train side by side and share the machine's memory
    least_batch = 1  # a crop's maps have many pixels; `learning` refuses those that have one

    # `chance` is that of one class everywhere: right in its own fraction of the pixels, wrong in all
    # other classes.

    def read(self) -> Opened:
        listed = None if self.class_list is None else Path(self.class_list)
        scenery = list_pairs(self.root, classes=listed, ignore=self.ignore, seed=self.seed)
        if tuple(scenery.labels.names) != self.classes:
            raise InputError(
                f"{self.root} has other classes than when the run was begun; start a new run"
            )
        train = self._scenes(scenery, "train")
        usable = np.setdiff1d(np.arange(len(train)), np.array(self.empty, np.int64))
        return self.split(train, scenery, usable)

    def _scenes(self, scenery: Scenery, split: str, *, whole_masks: bool = False) -> Scenes:
        return Scenes(
            scenery.split(split), scenery.labels, whole_masks=whole_masks,
            size=self.shape if self.heldout_share else self.size,
            kept_bytes=room(SETS, self.processes), bits=scenery.bits,
        )  # fmt: skip

    def learning(
        self, net: Any, settings: Settings, indices: Indices, group: ProcessGroup
    ) -> Learning:
        """Cross-entropy over the pixels of random crops.

        Raises:
            TrainingError: one image per batch for R-ASPP, or for crops whose last map is one pixel.
        """
        if net.wrapped.head == "raspp" and settings.batch < 2:
            raise TrainingError(
                "the batch is 1, and R-ASPP normalizes one pooled pixel per image over the batch; choose a "
                "batch of at least 2, or the head lraspp"
            )
        if settings.batch < 2 and max(self.crop) <= net.wrapped.output_stride:
            raise TrainingError(
                f"the batch is 1, and the last map of a crop of {self.crop[0]} x {self.crop[1]} is one pixel, "
                "too few for batch norm; choose a batch of at least 2, or a larger --crop"
            )
        train = self.open().train
        by_class = torch.tensor(self.weights, device=group.device) if self.weights else None

        def batches(epoch: int, first: int) -> Iterable[Batch]:
            return crop_batches(
                train, indices, crop=self.crop, batch=settings.batch, vary=Vary(), seed=settings.seed,
                epoch=epoch, first=first, normalisation=net.normalisation,
                share=(group.rank, group.size),
            )  # fmt: skip

        def step_loss(scores: Tensor, batch: Batch) -> Tensor:
            return loss(scores, batch[1].to(group.device), weights=by_class)

        return Learning(batches, step_loss, divergence)

    def evaluate(
        self, answers: Answers, split: str, progress: Progress, *,
        group: ProcessGroup | None = None, out: Path | None = None,
    ) -> Scores:  # fmt: skip
        """mIOU: of held-out pairs at the size that is trained at, of the others at the masks' own.

        Of a group the first process does all the work.
        """
        opened = self.open()
        if split == "heldout":
            scenes = Scenes(
                [opened.train.pairs[i] for i in opened.held], opened.train.labels, size=self.shape,
                kept_bytes=room(SETS, self.processes), bits=opened.others.bits,
            )  # fmt: skip
        else:
            scenes = self._scenes(opened.others, split, whole_masks=True)
        return score(answers, scenes, split, progress, out=out)

    def counts(self) -> dict[str, int]:
        return {name: len(pairs) for name, pairs in self.open().others.splits.items()}

    def left_out(self) -> list[Left]:
        masks = (str(self.open().train.pairs[i].mask) for i in self.empty)
        return [Left(what=mask, why="all its pixels are ignored") for mask in masks]

    def images(self, net: Any, split: str, count: int) -> Tensor:
        files = [pair.image for pair in self.open().others.split(split)]
        return read_images(
            files, self.shape, count, net.normalisation, bits=self.open().others.bits
        )


def prepare(
    dataset: MaskedImages, spec: NetSpec, wrapper: Any, options: Any, *, scratch: Path, seed: int,
    heldout: float = 0.0, processes: int = 1, progress: Progress, **unused: Any,
) -> SegmentationData:  # fmt: skip
    """Read all train masks once; what they hold is kept in `scratch`.

    Raises:
        InputError: a bad file, or nothing but ignored pixels everywhere.
    """
    size = sized(options.size)
    survey = _survey(dataset, dataset.shape if heldout else size, scratch, progress)
    return SegmentationData(
        root=Path(str(dataset.place)), class_list=options.classes, ignore=tuple(options.ignore), size=size,
        shape=dataset.shape, crop=dataset.crop, pixels=tuple(int(n) for n in survey.pixels),
        empty=survey.empty, weights=survey.weights() if options.balance else (),
        classes=dataset.classes, scratch=scratch, heldout_share=heldout, seed=seed, processes=processes,
    )  # fmt: skip


def _survey(dataset: MaskedImages, size: Size | None, scratch: Path, progress: Progress) -> Survey:
    kept = scratch / "survey.json"
    if kept.is_file():
        held = json.loads(kept.read_text("utf-8"))
        return Survey(np.array(held["pixels"], np.int64), tuple(held["empty"]))
    train = Scenes(dataset.scenery.split("train"), dataset.scenery.labels, size=size)
    progress.stage("reading the masks", len(train))
    survey = train.survey(progress.advance)
    if survey.empty:
        progress.say(
            f"{len(survey.empty)} of {len(train)} masks are left out: all their pixels are ignored, the "
            f"first is {train.pairs[survey.empty[0]].mask}"
        )
    unseen = [name for name, n in zip(dataset.classes, survey.pixels, strict=True) if not n]
    if unseen:
        progress.say(f"no mask of train has a pixel of {few(unseen)}")
    scratch.mkdir(parents=True, exist_ok=True)
    write_json(kept, {"pixels": survey.pixels.tolist(), "empty": list(survey.empty)})
    return survey


def evaluate(
    answers: Answers, data: str | None, options: Any, *, split: str, record: Mapping[str, Any],
    seed: int, progress: Progress, out: Path | None = None,
) -> Scores:  # fmt: skip
    """mIOU from one confusion matrix, at the masks' own size.

    Raises:
        InputError: no data, other classes than the network's, or a window that cannot be.
    """
    window = sized(options.sliding)
    if window is not None and answers.net is None:
        raise InputError("an exported file is made for one size; --sliding is for a run's folder")
    if window is not None and min(window) < LEAST_WINDOW:
        raise InputError(
            f"the window is {window[0]} x {window[1]} pixels; it must be at least {LEAST_WINDOW} per side"
        )
    scenes = split_scenes(answers, data, options, split, record, seed)
    return score(answers, scenes, split, progress, sliding=window, out=out)
