"""Accuracy of a trained classifier on a folder of labelled images, whatever its classes are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.data.batches import normalise
from bneck.data.depth import Encoded
from bneck.data.folders import Item, split_folder
from bneck.data.images import CROPS, Pixels, read_ahead, read_crop
from bneck.data.intake.named import find_named
from bneck.data.labels import LABELS_CSV, Labelled, is_image_list, labelled_images, read_classes
from bneck.data.sources import Source, file_source
from bneck.records.imported import class_places
from bneck.records.progress import Progress
from bneck.specs.errors import InputError, few
from bneck.specs.network import MOST_RESOLUTION
from bneck.tasks.classify.classes import IMAGENET, by_name
from bneck.tasks.classify.dataset import find, read_central
from bneck.tasks.classify.scoring import evaluate as score
from bneck.tasks.data import Answers, Scores, check_divided, known_bits

BATCH = 32
BAD_SHARE = 0.01  # of the images may be unreadable
Read = Callable[[Encoded], Pixels | str]


def evaluate(
    answers: Answers, data: str | None, options: Any, *, split: str, record: Mapping[str, Any],
    seed: int, progress: Progress, out: Path | None = None,
) -> Scores:  # fmt: skip
    """Top-1, top-5 and loss; there are no pictures to write.

    Args:
        answers: a trained network or an exported file.
        data: a folder `CLASS/*` (or val/CLASS/* next to train), images with a labels.csv (columns path and
            index), or with another table of classes (`named.find_named`). Classes are found by the names or
            WNIDs that the network's record or `labels` has (`classes.by_name`); those of other classes are
            left out. None takes the images of the network's run, split as the run split them, and sees of
            each what training scored.
        options: crop, resolution and labels of `ClassifyOptions`.
        split: "val", "train" or "test" where the images are divided, else only what the scores are called.
        record: that of the network's run, {} where there is none.
        seed: that the run split its images by.
        progress: receives what happens.

    Raises:
        InputError: no images, classes that are not the network's, labels for the run's own images,
            or more than one image in a hundred unreadable.
    """
    crop, how = _crop(options.crop, record)
    side = answers.spec.resolution if options.resolution is None else options.resolution
    if not 1 <= side <= MOST_RESOLUTION:
        raise InputError(f"resolution is {side}; it must be from 1 to {MOST_RESOLUTION}")
    listed = None if options.labels is None else Path(options.labels)
    own = (record.get("data") or {}).get("path")
    read: Read = partial(read_crop, side=side, crop=crop, **how)
    if listed is not None and is_image_list(listed):
        data = data or own  # it says itself which images are meant
    if data is not None and listed is None and not _has_table(Path(data)):
        data = str(split_folder(Path(data), split))
    if data is None:
        fit = _own(record, split, seed, listed)
        read = partial(read_central, side=side) if crop == "central" else read
    else:
        # A module without a record has only numbers for labels; a file holds its own.
        known = class_places(record if answers.net else _named(answers.labels) | dict(record))
        classes = answers.spec.classes
        found = _labelled(Path(data), known, listed, classes, split)
        fit = _fit(found, known is not None, classes, Path(data))
        fit = replace(fit, images=replace(fit.images, bits=known_bits(answers, record)))
    progress.stage(f"scoring {answers.spec.name}", len(fit.images.names))
    batches = _Batches(answers, fit, read, progress)
    accuracy = score(answers, batches, background=fit.background)
    batches.check()
    return accuracy.scores(
        split, classes=answers.spec.classes, crop=crop, **how, resolution=side,
        padding=answers.spec.padding, normalisation=answers.normalisation.as_json(),
        left_out=batches.bad, notes=list(fit.notes),
    )  # fmt: skip


def _crop(asked: str | None, record: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What is seen of an image: as asked for, else as the publisher of the weights evaluates."""
    published = record.get("preprocessing")
    chosen = asked or ("published" if published else "central")
    if chosen not in CROPS:
        raise InputError(f"crop is {chosen!r}; allowed are {', '.join(CROPS)}")
    if chosen != "published":
        return chosen, {}
    if not published:
        raise InputError(
            "nothing published says how this network's images are cropped, as a config.json next to imported "
            "weights does; choose --crop central or --crop resize"
        )
    return chosen, {"share": published["crop"], "filter": published["interpolation"]}


def _has_table(root: Path) -> bool:
    """Whether a table or the images' names, not folders, tell the classes."""
    return (root / LABELS_CSV).is_file() or find_named(root) is not None


def _labelled(
    root: Path, known: dict[str, int] | None, listed: Path | None, classes: int, split: str
) -> Labelled:
    images = listed if listed is not None and is_image_list(listed) else None
    if listed is None or images is not None:
        named = partial(by_name, known=known, classes=classes, where=str(root))
        return labelled_images(root, places=named, listed=images, known=known, split=split)
    places = read_classes(listed).places
    found = labelled_images(root, places=lambda folders: places, split=split)
    if found.unknown:
        raise InputError(
            f"{listed} does not name the class folders {few(list(found.unknown))} of {root}; add them"
        )
    return replace(found, folders=())  # its indices may leave the background out


@dataclass(frozen=True, slots=True)
class Fit:
    """Images with labels as the scores have them; with `background`, without the first score."""

    images: Source
    background: bool
    notes: tuple[str, ...]


def _own(record: Mapping[str, Any], split: str, seed: int, listed: Path | None) -> Fit:
    """A split of the images that a network was trained on."""
    known = record.get("data") or {}
    if "path" not in known:
        raise InputError("the images to score on are needed; pass their folder with --data")
    where = known["path"] or known["name"]
    if listed is not None:
        raise InputError(
            f"--labels numbers the classes of other images, and the run knows those of {where}, which it "
            "was trained on; leave --labels out"
        )
    found = find(known["path"], seed=seed)
    if list(found.classes) != list(record["classes"]):
        raise InputError(
            f"{where} has the classes {few(found.classes)} now, and the network was trained on "
            f"{few(record['classes'])}; bring these back, or pass other images with --data"
        )
    check_divided(found.found.val, record, where)
    splits = {"train": found.sources.train, "val": found.sources.val, "test": found.sources.test}
    images = splits.get(split)
    if images is None:
        has = ", ".join(name for name, source in splits.items() if source is not None)
        raise InputError(f"there is no split {split!r} of {where}; it has {has}")
    return Fit(images, False, ())


def _named(labels: Sequence[str]) -> dict[str, Any]:
    """The names of a file's classes as a record has them; numbers stand for none."""
    return {} if list(labels) == [str(i) for i in range(len(labels))] else {"classes": list(labels)}


def _fit(found: Labelled, named: bool, classes: int, root: Path) -> Fit:
    """Bring the data's classes and the network's together; `named`: by the network's own names."""
    highest = max(item.label for item in found.items)
    thousand = not named and len(found.folders) >= IMAGENET  # see `by_name`
    if named and found.folders:
        notes = _missing(found, classes)
        # Its background counts; no image shows it.
        if classes == IMAGENET + 1 and all(item.label > 0 for item in found.items):
            note = "the network's background class is left out"
            return _shifted(found, True, note, *notes)
        return Fit(_source(found.items), False, notes)
    notes = _missing(found, classes) if found.unknown else ()
    held = len(found.folders) if thousand else highest + 1
    of_imagenet = held == IMAGENET if thousand else held <= IMAGENET
    if classes == IMAGENET + 1 and of_imagenet:
        note = f"the network has {classes} classes, the data {IMAGENET}: its background class is left out"
        return Fit(_source(found.items), True, (note, *notes))
    if classes == IMAGENET and held == IMAGENET + 1:
        note = f"the data has {held} classes, the network {classes}: images of the background are left out"
        return _shifted(found, False, note, *notes)
    if held <= classes:
        return Fit(_source(found.items), False, notes)
    raise InputError(
        f"{root} has labels up to {highest} and the network {classes} classes; say which is which with "
        "--labels (a list of the classes by index), or take data of the network's classes"
    )


def _missing(found: Labelled, classes: int) -> tuple[str, ...]:
    """What of the data and of the network's classes is not scored."""
    notes, seen = [], len({item.label for item in found.items})
    if found.unknown:
        notes.append(
            f"left out: {sum(found.unknown.values())} images of {len(found.unknown)} classes that the network "
            f"does not know ({few(list(found.unknown))})"
        )
    if seen < classes:
        notes.append(f"the data has images of {seen} of the network's {classes} classes")
    return tuple(notes)


def _shifted(found: Labelled, background: bool, *notes: str) -> Fit:
    items = tuple(Item(item.path, item.label - 1) for item in found.items if item.label > 0)
    return Fit(_source(items), background, notes)


def _source(items: Sequence[Item]) -> Source:
    return file_source([item.path for item in items], [item.label for item in items])


class _Batches:
    """Crops of all readable images as batches, and what was unreadable."""

    def __init__(self, answers: Answers, fit: Fit, read: Read, progress: Progress) -> None:
        self.answers, self.images, self.progress = answers, fit.images, progress
        self.read = partial(fit.images.pixels, read)
        self.bad: list[list[str]] = []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        pixels, labels = [], []
        count = len(self.images.names)
        for number, crop in enumerate(read_ahead(range(count), self.read)):
            if isinstance(crop, str):
                self.bad.append([str(self.images.names[number]), crop])
                self.check()
            else:
                pixels.append(crop)
                labels.append(int(self.images.labels[number]))
            if pixels and (len(pixels) == BATCH or number + 1 == count):
                images = normalise(torch.from_numpy(np.stack(pixels)), self.answers.normalisation)
                yield images, torch.tensor(labels)
                pixels, labels = [], []
            self.progress.advance(1)

    def check(self) -> None:
        """Raise InputError once too many were unreadable."""
        if len(self.bad) > BAD_SHARE * len(self.images.names):
            path, reason = self.bad[0]
            raise InputError(
                f"{len(self.bad)} of {len(self.images.names)} images cannot be read, more than the allowed "
                f"{BAD_SHARE:.1%}: {path} ({reason}); replace or delete them"
            )
