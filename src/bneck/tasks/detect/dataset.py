"""Annotated images: found as COCO json, stored decoded once, and fed to training and scoring."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.data.held_out import held_out
from bneck.records.files import write_bytes
from bneck.records.progress import Progress
from bneck.specs.errors import InputError
from bneck.tasks.contract import Answers, Indices, Left, Scores
from bneck.tasks.detect.average_precision import average_precision, check_evaluator
from bneck.tasks.detect.coco import (
    Annotated,
    find_annotations,
    ground_truth,
    read_coco,
)
from bneck.tasks.detect.images import (
    MARGIN,
    Batch,
    BoxAugment,
    Stored,
    box_batches,
    store,
    varied,
)
from bneck.tasks.detect.loss import DetectionLoss, divergence
from bneck.tasks.detect.scoring import found_in, results
from bneck.training.distill import DistillationLoss
from bneck.training.loop import TrainingProblem, backbone, in_pieces
from bneck.training.processes import ALONE, ProcessGroup
from bneck.training.settings import Settings, TrainingError

CHANCE = 0.005  # mAP of a detector that has learned nothing
BATCH = 8  # images scored at a time
ANNOTATED = "annotated.pickle"  # train and val as the run began with them
PLAIN = BoxAugment(crop=False, flip=False, colour=0.0)


@dataclass(frozen=True, slots=True, eq=False)
class AnnotatedImages:
    """Train and val as found, with the same classes."""

    root: Path
    train: Annotated
    val: Annotated
    others: Mapping[str, Path]  # json files of further splits

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def splits(self) -> dict[str, int]:
        return {"train": len(self.train.pictures), "val": len(self.val.pictures)}

    @property
    def left_out(self) -> list[Left]:
        return [
            Left(what=one.what, why=one.reason)
            for part in (self.train, self.val)
            for one in part.dropped
        ]

    def facts(self) -> dict[str, Any]:
        """The json files, how many objects each split has, and the categories' ids."""
        return {
            "files": {"train": str(self.train.file), "val": str(self.val.file)},
            "objects": {"train": objects(self.train), "val": objects(self.val)},
            "category_ids": list(self.train.ids),
        }


def find(root: Path, images: Path | None) -> AnnotatedImages:
    """The train and val splits of a folder.

    Args:
        root: with COCO json files, see `coco.find_annotations`.
        images: where images lie, if not next to the json files.

    Raises:
        InputError: there are none, they have not the same classes, or the train split has no boxes.
    """
    files = find_annotations(root)
    train, val = (read_coco(files[name], images=images) for name in ("train", "val"))
    check_classes(val, train.classes, str(train.file))
    if len(train.pictures) < 2:
        raise InputError(f"{train.file} has 1 image; batch norm needs at least 2, add images")
    return AnnotatedImages(root, train, val, {})


def check_classes(annotated: Annotated, classes: Sequence[str], where: str) -> None:
    """Raise InputError where data has other classes than those wanted, in their order."""
    if tuple(annotated.classes) != tuple(classes):
        raise InputError(
            f"{annotated.file} has the classes {', '.join(annotated.classes)}, and {where} has "
            f"{', '.join(classes)}; they must be the same, in the order of their ids"
        )


def objects(annotated: Annotated) -> int:
    """How many there are, crowds aside."""
    return sum(int((~picture.crowd).sum()) for picture in annotated.pictures)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionData:
    """A run's annotated images, decoded once into `scratch`; see `tasks.contract.Data`."""

    scratch: Path
    resolution: int
    loss: str
    classes: tuple[str, ...]
    heldout_share: float
    seed: int

    @property
    def chance(self) -> float:
        return CHANCE

    @property
    def held_out(self) -> int:
        return len(self.open().held)

    def open(self) -> Opened:
        """The stored train images, the indices to fit on and held out, and val; once a process."""
        return _open(self)

    def fitted(self, *, heldout: bool) -> int:
        opened = self.open()
        return len(opened.fit) if heldout else len(opened.train.images)

    def problem(
        self,
        net: Any,
        settings: Settings,
        *,
        heldout: bool = False,
        group: ProcessGroup | None = None,
        teacher: Any = None,
    ) -> TrainingProblem[Batch]:
        """The detection loss on crops; every process works on its part of each batch."""
        opened, group = self.open(), group or ALONE
        if settings.batch < 2:
            raise TrainingError(
                f"the batch is {settings.batch}; batch norm needs at least 2 images"
            )
        indices = opened.fit if heldout else None
        images = len(opened.train.images) if indices is None else len(indices)
        own = DetectionLoss(net.wrapped, self.loss)

        def batches(epoch: int, first: int) -> Iterable[Batch]:
            return box_batches(
                opened.train, resolution=self.resolution, batch=settings.batch, augment=BoxAugment(),
                seed=settings.seed, epoch=epoch, first=first, normalisation=net.normalisation,
                indices=indices, share=(group.rank, group.size),
            )  # fmt: skip

        distilled = DistillationLoss.of(teacher, net, settings, group, divergence)

        def loss(net: Any, batch: Batch) -> Tensor:
            pixels = batch[0].to(group.device).contiguous(memory_format=torch.channels_last)
            outputs = tuple(one.float() for one in net(pixels))
            value = own.of(outputs, batch[1], batch[2])
            return value if distilled is None else distilled.mixed(value, outputs, pixels)

        return TrainingProblem(
            images=images, batches=batches, loss=loss, pieces=in_pieces(settings, group),
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
        """COCO's mAP: the precision over all scores and overlaps moves with every box.

        Held-out images are the stored ones, whole; of a group the first process does all the work.
        """
        from bneck.tasks.detect.scoring import score

        opened = self.open()
        if split != "heldout":
            return score(answers, opened.val, split, progress, out=out)
        kept = _chosen(opened.train.annotated, opened.held)
        found = []
        for start in range(0, len(opened.held), BATCH):
            part = opened.held[start : start + BATCH]
            pixels, _, _ = varied(
                opened.train, part, self.resolution, PLAIN, (0, 0), answers.normalisation
            )
            found += found_in(answers, pixels)
        numbers = average_precision(
            ground_truth(kept), results(list(kept.pictures), found, kept.ids)
        )
        value = numbers["AP"] or 0.0
        return Scores(split=split, images=len(found), score=value, expected=value)

    def counts(self) -> dict[str, int]:
        opened = self.open()
        return {"train": len(opened.train.images), "val": len(opened.val.pictures)}

    def left_out(self) -> list[Left]:
        train, _ = _annotated(self)
        kept, known = self.open().train.annotated, set(train.dropped)
        return [Left(what=one.what, why=one.reason) for one in kept.dropped if one not in known]

    def images(self, net: Any, split: str, count: int) -> Tensor:
        opened = self.open()
        if split != "val":
            last = len(opened.train.images) - 1
            indices = np.unique(np.linspace(0, last, count).astype(np.int64))
            return varied(opened.train, indices, self.resolution, PLAIN, (0, 0), net.normalisation)[
                0
            ]
        from bneck.data.read import read_images

        side = (self.resolution, self.resolution)
        files = [picture.path for picture in opened.val.pictures]
        return read_images(files, side, count, net.normalisation)


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """The stored train images, indices of them to fit on and held out, and the val split."""

    train: Stored
    fit: Indices
    held: Indices
    val: Annotated


@lru_cache(maxsize=1)
def _open(data: DetectionData) -> Opened:
    train, val = _annotated(data)
    side = round(data.resolution * MARGIN)
    stored = store(train, side, data.scratch, name="train")
    indices = np.arange(len(stored.images))
    if not data.heldout_share:
        return Opened(stored, indices, np.arange(0), val)
    return Opened(stored, *held_out(indices, data.heldout_share, data.seed), val)


def _annotated(data: DetectionData) -> tuple[Annotated, Annotated]:
    train, val = pickle.loads((data.scratch / ANNOTATED).read_bytes())
    return train, val


def _chosen(annotated: Annotated, indices: Indices) -> Annotated:
    return replace(annotated, pictures=tuple(annotated.pictures[i] for i in indices))


def prepare(
    dataset: AnnotatedImages,
    resolution: int,
    loss: str,
    *,
    scratch: Path,
    seed: int,
    heldout: float,
    progress: Progress,
) -> DetectionData:
    """Decode the train images into `scratch` once.

    Raises:
        InputError: too many unreadable images, no boxes, or no faster-coco-eval.
    """
    check_evaluator()
    progress.stage("reading images", len(dataset.train.pictures))
    side = round(resolution * MARGIN)
    stored = store(dataset.train, side, scratch, name="train", on_image=progress.advance)
    if not any(len(picture.boxes) for picture in stored.annotated.pictures):
        raise InputError(f"{dataset.train.file} has no boxes to learn from; annotate some images")
    # Handed to all processes, which neither parse the json nor open the images again.
    write_bytes(scratch / ANNOTATED, pickle.dumps((dataset.train, dataset.val)))
    return DetectionData(
        scratch=scratch, resolution=resolution, loss=loss,
        classes=dataset.classes, heldout_share=heldout, seed=seed,
    )  # fmt: skip
