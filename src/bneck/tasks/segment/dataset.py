"""Images with masks: found, surveyed once, and fed to training and scoring as image-mask pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.data.held_out import held_out
from bneck.data.memory import room
from bneck.records.progress import Progress
from bneck.specs.errors import InputError
from bneck.tasks.contract import Answers, Indices, Left, Scores, Size
from bneck.tasks.options import sized
from bneck.tasks.segment.loss import divergence, loss
from bneck.tasks.segment.masks import Labels
from bneck.tasks.segment.pairs import Scenery, list_pairs
from bneck.tasks.segment.scenes import SETS, Scenes, Survey, Vary, crop_batches
from bneck.training.distill import DistillationLoss
from bneck.training.loop import TrainingProblem, backbone, in_pieces
from bneck.training.processes import ALONE, ProcessGroup
from bneck.training.settings import Settings, TrainingError

CROP = 769  # side of the DeepLab line's crops, in pixels
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class MaskedImages:
    """Image-mask pairs by split, as found; `shape` is the (height, width) that is trained at."""

    root: Path
    scenery: Scenery
    shape: Size
    crop: Size

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.scenery.labels.names)

    @property
    def splits(self) -> dict[str, int]:
        return {name: len(pairs) for name, pairs in self.scenery.splits.items()}

    @property
    def left_out(self) -> Sequence[Left]:
        return ()

    def facts(self) -> dict[str, Any]:
        """The layout, the classes' colours and ids, the shape and the crop that are trained at."""
        return {
            "layout": self.scenery.layout, "labels": labels_record(self.scenery.labels),
            "shape": list(self.shape), "crop": list(self.crop),
        }  # fmt: skip


def labels_record(labels: Labels) -> dict[str, Any]:
    """Names, colours and ids of the classes as plain values."""
    return {
        "names": list(labels.names),
        "colours": [list(colour) for colour in labels.colours],
        "ids": [int(v) for v in labels.ids()[: len(labels.names)]],
    }


def find(data: Path, options: Any, *, seed: int) -> MaskedImages:
    """Images and masks of a folder; see `pairs.list_pairs`.

    Raises:
        InputError: no layout fits, or a size or crop that cannot be.
    """
    scenery = list_pairs(
        data, classes=None if options.classes is None else Path(options.classes),
        ignore=options.ignore, seed=seed,
    )  # fmt: skip
    size = sized(options.size)
    if size is None:
        first = Scenes(scenery.split("train")[:1], scenery.labels).read(0)[1]
        size = (first.shape[0], first.shape[1])
    crop = sized(options.crop) or (min(size[0], CROP), min(size[1], CROP))
    return MaskedImages(data, scenery, size, crop)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationData:
    """A run's image-mask pairs; see `tasks.contract.Data`.

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
    classes: tuple[str, ...]
    scratch: Path
    heldout_share: float
    seed: int
    processes: int  # that train side by side and share the machine's memory

    @property
    def chance(self) -> float:
        """One class everywhere: right in its own fraction of the pixels, wrong in all other classes."""
        return 1 / len(self.classes)

    @property
    def held_out(self) -> int:
        return len(self.open().held)

    def open(self) -> Opened:
        """The pairs, and the indices of train to fit on and to hold out; once a process."""
        return _open(self)

    def fitted(self, *, heldout: bool) -> int:
        opened = self.open()
        return len(opened.fit if heldout else opened.usable)

    def problem(
        self,
        net: Any,
        settings: Settings,
        *,
        heldout: bool = False,
        group: ProcessGroup | None = None,
        teacher: Any = None,
    ) -> TrainingProblem[Batch]:
        """Cross-entropy over the pixels of random crops; each process works on its part of a batch.

        Raises:
            TrainingError: one image per batch for R-ASPP, or for crops whose last map is one pixel.
        """
        opened, group = self.open(), group or ALONE
        if net.wrapped.head == "raspp" and settings.batch < 2:
            raise TrainingError(
                "the batch is 1, and R-ASPP normalises one pooled pixel per image over the batch; choose a "
                "batch of at least 2, or the head lraspp"
            )
        if settings.batch < 2 and max(self.crop) <= net.wrapped.output_stride:
            raise TrainingError(
                f"the batch is 1, and the last map of a crop of {self.crop[0]} x {self.crop[1]} is one pixel, "
                "too few for batch norm; choose a batch of at least 2, or a larger --crop"
            )
        indices = opened.fit if heldout else opened.usable
        by_class = torch.tensor(self.weights, device=group.device) if self.weights else None

        def batches(epoch: int, first: int) -> Iterable[Batch]:
            return crop_batches(
                opened.train, indices, crop=self.crop, batch=settings.batch, vary=Vary(),
                seed=settings.seed, epoch=epoch, first=first, normalisation=net.normalisation,
                share=(group.rank, group.size),
            )  # fmt: skip

        distilled = DistillationLoss.of(teacher, net, settings, group, divergence)

        def step_loss(net: Any, batch: Batch) -> Tensor:
            images = batch[0].to(group.device).contiguous(memory_format=torch.channels_last)
            scores = net(images).float()
            own = loss(scores, batch[1].to(group.device), weights=by_class)
            return own if distilled is None else distilled.mixed(own, scores, images)

        return TrainingProblem(
            images=len(indices), batches=batches, loss=step_loss, pieces=in_pieces(settings, group),
            frozen=backbone(net) if settings.frozen else None,
        )  # fmt: skip

    def evaluate(
        self,
        answers: Answers,
        split: str,
        progress: Progress,
        *,
        group: ProcessGroup | None = None,
        out: Path | None = None,
    ) -> Scores:
        """mIOU: of held-out pairs at the size that is trained at, of the others at the masks' own.

        Of a group the first process does all the work.
        """
        from bneck.tasks.segment.scoring import score

        opened = self.open()
        if split == "heldout":
            pairs = [opened.train.pairs[i] for i in opened.held]
            scenes = Scenes(
                pairs, opened.train.labels, size=self.shape, kept_bytes=room(SETS, self.processes)
            )
        else:
            scenes = self._scenes(opened.scenery, split, whole_masks=True)
        return score(answers, scenes, split, progress, out=out)

    def _scenes(self, scenery: Scenery, split: str, *, whole_masks: bool = False) -> Scenes:
        size = self.shape if self.heldout_share else self.size
        return Scenes(
            scenery.split(split), scenery.labels, size=size, whole_masks=whole_masks,
            kept_bytes=room(SETS, self.processes),
        )  # fmt: skip

    def counts(self) -> dict[str, int]:
        return {name: len(pairs) for name, pairs in self.open().scenery.splits.items()}

    def left_out(self) -> list[Left]:
        train = self.open().train
        return [
            Left(what=str(train.pairs[i].mask), why="all its pixels are ignored")
            for i in self.empty
        ]

    def images(self, net: Any, split: str, count: int) -> Tensor:
        from bneck.data.read import read_images

        files = [pair.image for pair in self.open().scenery.split(split)]
        return read_images(files, self.shape, count, net.normalisation)


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """Train pairs with the indices that are usable, fitted on and held out; the others by split."""

    train: Scenes
    usable: Indices
    fit: Indices
    held: Indices
    scenery: Scenery


@lru_cache(maxsize=1)
def _open(data: SegmentationData) -> Opened:
    scenery = list_pairs(
        data.root, classes=None if data.class_list is None else Path(data.class_list),
        ignore=data.ignore, seed=data.seed,
    )  # fmt: skip
    if tuple(scenery.labels.names) != data.classes:
        raise InputError(
            f"{data.root} has other classes than when the run was begun; start a new run"
        )
    train = data._scenes(scenery, "train")
    usable = np.setdiff1d(np.arange(len(train)), np.array(data.empty, np.int64))
    if not data.heldout_share:
        return Opened(train, usable, usable, np.arange(0), scenery)
    return Opened(train, usable, *held_out(usable, data.heldout_share, data.seed), scenery)


def prepare(
    dataset: MaskedImages,
    options: Any,
    *,
    scratch: Path,
    seed: int,
    heldout: float,
    processes: int,
    progress: Progress,
) -> SegmentationData:
    """Read all train masks once; what they hold is kept in `scratch`.

    Raises:
        InputError: a bad file, or nothing but ignored pixels everywhere.
    """
    survey = _survey(dataset, sized(options.size), scratch, heldout, progress)
    return SegmentationData(
        root=dataset.root, class_list=options.classes, ignore=tuple(options.ignore),
        size=sized(options.size), shape=dataset.shape, crop=dataset.crop,
        pixels=tuple(int(n) for n in survey.pixels), empty=survey.empty,
        weights=survey.weights() if options.balance else (), classes=dataset.classes, scratch=scratch,
        heldout_share=heldout, seed=seed, processes=processes,
    )  # fmt: skip


def _survey(
    dataset: MaskedImages, size: Size | None, scratch: Path, heldout: float, progress: Progress
) -> Survey:
    import json

    from bneck.records.files import write_json

    kept = scratch / "survey.json"
    if kept.is_file():
        held = json.loads(kept.read_text("utf-8"))
        return Survey(np.array(held["pixels"], np.int64), tuple(held["empty"]))
    scenery = dataset.scenery
    train = Scenes(scenery.split("train"), scenery.labels, size=dataset.shape if heldout else size)
    progress.stage("reading the masks", len(train))
    survey = train.survey(progress.advance)
    if survey.empty:
        progress.say(
            f"{len(survey.empty)} of {len(train)} masks are left out: all their pixels are ignored, the "
            f"first is {train.pairs[survey.empty[0]].mask}"
        )
    names = scenery.labels.names
    unseen = [name for name, n in zip(names, survey.pixels, strict=True) if not n]
    if unseen:
        progress.say(f"no mask of train has a pixel of {', '.join(unseen)}")
    scratch.mkdir(parents=True, exist_ok=True)
    write_json(kept, {"pixels": survey.pixels.tolist(), "empty": list(survey.empty)})
    return survey
