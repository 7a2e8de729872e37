"""Accuracy of a trained classifier on a folder of labelled images, whatever its classes are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.data.batches import normalise
from bneck.data.folders import Item
from bneck.data.images import CROPS, Crop, read_ahead, read_crop
from bneck.data.labels import Labelled, is_image_list, labelled_images, read_classes
from bneck.records.imported import class_places
from bneck.records.progress import Progress
from bneck.specs.errors import InputError
from bneck.tasks.classify.scoring import evaluate as score
from bneck.tasks.contract import Answers, Scores

BATCH = 32
BAD_SHARE = 0.01  # of the images may be unreadable
IMAGENET = 1000  # classes; some networks have a background class before them


def evaluate(
    answers: Answers,
    data: str | None,
    options: Any,
    *,
    split: str,
    record: Mapping[str, Any],
    seed: int,
    progress: Progress,
) -> Scores:
    """Top-1, top-5 and loss.

    Args:
        answers: a trained network or an exported file.
        data: a folder `CLASS/*` (or val/CLASS/* next to train), or images with a labels.csv (columns
            path and index). Class folders are found by the names or WNIDs that the network's record
            or `labels` has; else they are numbered in the order of their names.
        options: crop, resolution and labels of `ClassifyOptions`.
        split: what the scores are recorded as.
        record: that of the network's run, {} for a file.
        seed: of a split that is made here.
        progress: receives what happens.

    Raises:
        InputError: no images, classes that are not the network's, or more than one image in a
            hundred unreadable.
    """
    if options.crop not in CROPS:
        raise InputError(f"crop is {options.crop!r}; allowed are {', '.join(CROPS)}")
    if data is None:
        raise InputError("the images to score on are needed; pass their folder with --data")
    root, listed = Path(data), None if options.labels is None else Path(options.labels)
    # A module without a record has only numbers for labels; a file holds its own.
    known = class_places(record if answers.net else {"classes": list(answers.labels), **record})
    found = _labelled(root, known, listed)
    side = answers.spec.resolution if options.resolution is None else options.resolution
    if side < 1:
        raise InputError(f"resolution is {side}; it must be a whole number of at least 1")
    fit = _fit(found, answers.spec.classes, root)
    progress.stage(f"scoring {answers.spec.name}", len(fit.items))
    batches = _Batches(answers, fit, side, options.crop, progress)
    accuracy = score(answers, batches, background=fit.background)
    batches.check()
    return Scores(
        split=split, images=accuracy.n, score=accuracy.top1, expected=accuracy.expected,
        loss=accuracy.loss,
        details={
            "top5": accuracy.top5, "classes": answers.spec.classes, "crop": options.crop,
            "resolution": side, "padding": answers.spec.padding,
            "normalisation": answers.normalisation.as_json(),
            "left_out": batches.bad, "notes": list(fit.notes),
        },
    )  # fmt: skip


def _labelled(root: Path, known: dict[str, int] | None, listed: Path | None) -> Labelled:
    if listed is None:
        return labelled_images(root, known=known)
    if is_image_list(listed):
        return labelled_images(root, listed=listed)
    places = read_classes(listed).places
    found = labelled_images(root, known=places)
    if not found.named:
        raise InputError(f"{listed} does not name all class folders of {root}; add those it lacks")
    # Their indices are the list's, which may leave the background out.
    return Labelled(items=found.items, classes=None, named=False)


@dataclass(frozen=True, slots=True)
class Fit:
    """Images with labels as the scores have them; with `background`, without the first score."""

    items: tuple[Item, ...]
    background: bool
    notes: tuple[str, ...]


def _fit(found: Labelled, classes: int, root: Path) -> Fit:
    """Bring the data's classes and the network's together."""
    highest = max(item.label for item in found.items)
    held = found.classes or max(highest + 1, 1)
    if found.named:
        # By the network's own names, so its background counts; no image shows it.
        if classes == IMAGENET + 1 and all(item.label > 0 for item in found.items):
            return _shifted(found, True, "the network's background class is left out")
        return Fit(found.items, False, ())
    of_imagenet = held == IMAGENET if found.classes else held <= IMAGENET
    if classes == IMAGENET + 1 and of_imagenet:
        note = f"the network has {classes} classes, the data {IMAGENET}: its background class is left out"
        return Fit(found.items, True, (note,))
    if classes == IMAGENET and held == IMAGENET + 1:
        note = f"the data has {held} classes, the network {classes}: images of the background are left out"
        return _shifted(found, False, note)
    if held == classes or (found.classes is None and held < classes):
        return Fit(found.items, False, ())
    what = f"has {held} classes" if found.classes else f"has labels up to {highest}"
    raise InputError(
        f"{root} {what} and the network {classes} classes; say which is which with --labels (a list of "
        "the classes by index), or take data of the network's classes"
    )


def _shifted(found: Labelled, background: bool, note: str) -> Fit:
    items = tuple(Item(item.path, item.label - 1) for item in found.items if item.label > 0)
    return Fit(items, background, (note,))


class _Batches:
    """Crops of all readable images as batches, and what was unreadable."""

    def __init__(
        self, answers: Answers, fit: Fit, side: int, crop: Crop, progress: Progress
    ) -> None:
        self.answers, self.items, self.progress = answers, fit.items, progress
        self.read = partial(read_crop, side=side, crop=crop)
        self.bad: list[list[str]] = []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        pixels, labels = [], []
        crops = read_ahead([item.path for item in self.items], self.read)
        for number, (item, crop) in enumerate(zip(self.items, crops, strict=True), 1):
            if isinstance(crop, str):
                self.bad.append([str(item.path), crop])
                self.check()
            else:
                pixels.append(crop)
                labels.append(item.label)
            if pixels and (len(pixels) == BATCH or number == len(self.items)):
                images = normalise(torch.from_numpy(np.stack(pixels)), self.answers.normalisation)
                yield images, torch.tensor(labels)
                pixels, labels = [], []
            self.progress.advance(1)

    def check(self) -> None:
        """Raise InputError once too many were unreadable."""
        if len(self.bad) > BAD_SHARE * len(self.items):
            path, reason = self.bad[0]
            raise InputError(
                f"{len(self.bad)} of {len(self.items)} images cannot be read, more than the allowed "
                f"{BAD_SHARE:.1%}: {path} ({reason}); replace or delete them"
            )
