"""Annotated images: found as COCO json, stored decoded once, and fed to training and scoring."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bneck.data.folders import Found, look_alike
from bneck.data.images import set_bits
from bneck.data.read import read_images
from bneck.records.files import write_bytes
from bneck.records.progress import Progress
from bneck.specs.errors import InputError, few
from bneck.specs.network import NetSpec
from bneck.tasks.data import (
    Answers,
    Data,
    Dataset,
    Indices,
    Learning,
    Left,
    Opened,
    Scores,
    check_divided,
    known_bits,
)
from bneck.tasks.detect.average_precision import average_precision, check_evaluator
from bneck.tasks.detect.images import MARGIN, Batch, BoxAugment, box_batches, store, varied
from bneck.tasks.detect.intake.coco import Annotated, ground_truth
from bneck.tasks.detect.intake.find import find_splits
from bneck.tasks.detect.loss import DetectionLoss, check_loss, divergence
from bneck.tasks.detect.scoring import found_in, results, score
from bneck.training.processes import ProcessGroup
from bneck.training.settings import Settings

CHANCE = 0.005  # mAP of a detector that has learned nothing
LISTED = "boxes or images, listed in run.json"
BATCH = 8  # images scored at a time
ANNOTATED = "annotated.pickle"  # train and val as the run began with them
PLAIN = BoxAugment(crop=False, flip=False, colour=0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnnotatedImages(Dataset):
    """Train and val as found, with the same classes."""

    train: Annotated
    val: Annotated

    def by_class(self, split: str) -> dict[str, list[int]]:
        pictures = (self.val if split == "val" else self.train).pictures
        return {
            name: [i for i, one in enumerate(pictures) if number in one.labels]
            for number, name in enumerate(self.classes, 1)
        }


def find(data: str | None, options: Any, *, seed: int) -> AnnotatedImages:
    """The train and val splits of a folder, see `find.find_splits`.

    Raises:
        InputError: there are none, val has a class that train lacks, or the train split has one image or
            nothing to learn from.
    """
    assert data is not None  # None is for tasks with built-in images
    root, images = Path(data), None if options.images is None else Path(options.images)
    splits = find_splits(root, images=images, seed=seed)
    train = splits.read("train", root)
    val = aligned(splits.read("val", root), train.classes, str(train.file), train.ids)
    files = [picture.path for picture in train.pictures]
    bits = set_bits(files.__getitem__, len(files))
    train, val = replace(train, bits=bits), replace(val, bits=bits)
    if len(train.pictures) < 2:
        raise InputError(f"{train.file} has 1 image; batch norm needs at least 2, add images")
    if not objects(train):
        crowds = sum(len(picture.boxes) for picture in train.pictures)
        why = "it has no boxes"
        if crowds:
            why = f"its {crowds} boxes are all crowds or difficult ones"
        elif train.dropped:
            first = train.dropped[0]
            why = f"all its boxes are left out, the first ({first.what}) because {first.reason}"
        raise InputError(f"{train.file} has nothing to learn from: {why}; annotate some objects")
    parts = {"train": train, "val": val}
    dropped = sum(len(part.dropped) for part in parts.values())
    told = [f"{name}: {note}" for name, part in parts.items() for note in part.notes]
    notes = [
        *splits.notes,
        *told,
        *look_alike(train.classes),
        *["test is left alone"] * ("test" in splits.readers),
    ]
    if not objects(val):
        notes.append("val has no boxes, so mAP is undefined")
    return AnnotatedImages(
        name=root.name, place=data, classes=train.classes, train=train, val=val,
        splits={name: len(part.pictures) for name, part in parts.items()},
        files={name: [one.path for one in part.pictures] for name, part in parts.items()},
        left_out=[Left(what=o.what, why=o.reason) for part in parts.values() for o in part.dropped],
        facts={
            "files": {name: str(part.file) for name, part in parts.items()},
            "objects": {name: objects(part) for name, part in parts.items()},
            "category_ids": list(train.ids),
        },
        bits=bits, found=Found(splits.val, {LISTED: dropped} if dropped else {}, tuple(notes)),
    )  # fmt: skip


def renumbered(
    dataset: AnnotatedImages, labels: Sequence[str], record: Mapping[str, Any]
) -> AnnotatedImages:
    """The same with the network's classes, which may be more, as `evaluate` takes them.

    Raises:
        InputError: images have a class that the network lacks.
    """
    train, val = (aligned(part, labels, "the network") for part in (dataset.train, dataset.val))
    return replace(dataset, classes=tuple(labels), train=train, val=val)


def aligned(
    annotated: Annotated, classes: Sequence[str], where: str, ids: Sequence[int] | None = None
) -> Annotated:
    """Annotated images with their classes numbered as those wanted, by name; some may be missing.

    Classes without boxes that are not wanted are left out.

    `ids` are the categories' ids then, None keeps the file's.

    Raises:
        InputError: they have a class that is not wanted.
    """
    if tuple(annotated.classes) == tuple(classes):
        return annotated
    used = {int(label) for picture in annotated.pictures for label in picture.labels}
    kept = [
        (name, number)
        for number, name in enumerate(annotated.classes, 1)
        if number in used or name in classes
    ]
    if unknown := [name for name, _ in kept if name not in classes]:
        raise InputError(
            f"{annotated.file} has the classes {few(unknown)}, and {where} has {few(classes)}; they must be "
            "the same: rename them, or take their boxes out"
        )
    numbers = np.zeros(1 + len(annotated.classes), np.int64)
    for name, number in kept:
        numbers[number] = list(classes).index(name) + 1
    pictures = tuple(replace(one, labels=numbers[one.labels]) for one in annotated.pictures)
    if ids is None:
        own = dict(zip(annotated.classes, annotated.ids, strict=True))
        free = 1 + max(annotated.ids)
        ids = [own.get(name, free + place) for place, name in enumerate(classes)]
    return replace(annotated, classes=tuple(classes), ids=tuple(ids), pictures=pictures)


def objects(annotated: Annotated) -> int:
    """How many there are, crowds aside."""
    return sum(int((~picture.crowd).sum()) for picture in annotated.pictures)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionData(Data):
    """A run's annotated images, decoded once into `scratch`."""

    resolution: int
    loss: str

    @property
    def chance(self) -> float:
        return CHANCE

    def annotated(self) -> tuple[Annotated, Annotated]:
        """Train and val as they were found."""
        train, val = pickle.loads((self.scratch / ANNOTATED).read_bytes())
        return train, val

    def read(self) -> Opened:
        train, val = self.annotated()
        stored = store(train, round(self.resolution * MARGIN), self.scratch, name="train")
        return self.split(stored, val, np.arange(len(stored.images)))

    def learning(
        self, net: Any, settings: Settings, indices: Indices, group: ProcessGroup
    ) -> Learning:
        """The detection loss on crops."""
        train, own = self.open().train, DetectionLoss(net.wrapped, self.loss)

        def batches(epoch: int, first: int) -> Iterable[Batch]:
            return box_batches(
                train, resolution=self.resolution, batch=settings.batch, augment=BoxAugment(),
                seed=settings.seed, epoch=epoch, first=first, normalisation=net.normalisation,
                indices=indices, share=(group.rank, group.size),
            )  # fmt: skip

        return Learning(batches, lambda out, batch: own.of(out, batch[1], batch[2]), divergence)

    def evaluate(
        self, answers: Answers, split: str, progress: Progress, *,
        group: ProcessGroup | None = None, out: Path | None = None,
    ) -> Scores:  # fmt: skip
        """COCO's mAP: the precision over all scores and overlaps moves with every box.

        Held-out images are the stored ones, whole; of a group the first process does all the work.
        """
        opened = self.open()
        if split != "heldout":
            return score(answers, opened.others, split, progress, out=out)
        train, found = opened.train, []
        kept = replace(
            train.annotated, pictures=tuple(train.annotated.pictures[i] for i in opened.held)
        )
        for start in range(0, len(opened.held), BATCH):
            part = opened.held[start : start + BATCH]
            pixels, _, _ = varied(
                train, part, self.resolution, PLAIN, (0, 0), answers.normalisation
            )
            found += found_in(answers, pixels)
        entries = results(list(kept.pictures), found, kept.ids)
        value = average_precision(ground_truth(kept), entries)["AP"] or 0.0
        return Scores(split=split, images=len(found), score=value, expected=value)

    def counts(self) -> dict[str, int]:
        opened = self.open()
        return {"train": len(opened.train.images), "val": len(opened.others.pictures)}

    def left_out(self) -> list[Left]:
        known, kept = set(self.annotated()[0].dropped), self.open().train.annotated
        return [Left(what=one.what, why=one.reason) for one in kept.dropped if one not in known]

    def images(self, net: Any, split: str, count: int) -> Tensor:
        opened, side = self.open(), self.resolution
        if split == "val":
            files = [picture.path for picture in opened.others.pictures]
            return read_images(
                files, (side, side), count, net.normalisation, bits=opened.others.bits
            )
        indices = np.unique(np.linspace(0, len(opened.usable) - 1, count).astype(np.int64))
        return varied(opened.train, indices, side, PLAIN, (0, 0), net.normalisation)[0]


def prepare(
    dataset: AnnotatedImages, spec: NetSpec, wrapper: Any, options: Any, *, scratch: Path, seed: int,
    heldout: float = 0.0, progress: Progress, **unused: Any,
) -> DetectionData:  # fmt: skip
    """Decode the train images into `scratch` once.

    Raises:
        InputError: too many unreadable images, no boxes, no such loss, or no faster-coco-eval.
    """
    check_loss(options.loss)
    check_evaluator()
    progress.stage("reading images", len(dataset.train.pictures))
    side = round(spec.resolution * MARGIN)
    stored = store(dataset.train, side, scratch, name="train", on_image=progress.advance)
    if not objects(stored.annotated):
        raise InputError(f"{dataset.train.file} has no boxes to learn from; annotate some images")
    # Handed to all processes, which neither parse the json nor open the images again.
    write_bytes(scratch / ANNOTATED, pickle.dumps((dataset.train, dataset.val)))
    return DetectionData(
        scratch=scratch, resolution=spec.resolution, loss=options.loss, classes=dataset.classes,
        heldout_share=heldout, seed=seed,
    )  # fmt: skip


def evaluate(
    answers: Answers, data: str | None, options: Any, *, split: str, record: Mapping[str, Any],
    seed: int, progress: Progress, out: Path | None = None,
) -> Scores:  # fmt: skip
    """COCO's numbers on a split of a folder or a json file; None: of the run's own images.

    Raises:
        InputError: no images, or other classes than the network knows.
    """
    known = (record.get("data") or {}).get("path")
    if data is None and known is None:
        raise InputError(
            "this file is not in a run folder, so its dataset is unknown; pass the folder of a COCO "
            "json with --data"
        )
    root, images = Path(str(known if data is None else data)), options.images
    own = data is None or str(root) == str(known)
    if images is None and data is None:
        images = record["options"]["task"].get("images")
    place = None if images is None else Path(images)
    splits = find_splits(root, images=place, seed=seed, divide=own)
    if own:
        check_divided(splits.val, record, root)
    annotated = splits.read(split, root)
    annotated = aligned(annotated, answers.labels, "the network")
    annotated = replace(annotated, bits=known_bits(answers, record))
    return score(answers, annotated, split, progress, out=out)
