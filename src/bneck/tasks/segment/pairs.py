"""Which images and masks belong together: Cityscapes, CamVid-style folders, any folder of pairs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bneck.data.folders import SUFFIXES, DataError, held_out
from bneck.tasks.segment.masks import Labels, cityscapes_labels, read_labels

TRAIN, VAL, TEST = "train", "val", "test"
SPLIT_NAMES = {TRAIN: ("train", "training"), VAL: ("val", "valid", "validation"), TEST: ("test",)}
IMAGES = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit")
MASKS = ("masks", "mask", "labels", "label", "annotations", "annots", "segmentationclass", "gt")
VAL_SHARE = 0.2  # where there is no val split
ANNOT = "annot"  # CamVid-style: train and trainannot
ENDINGS = ("_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_l")  # of a mask's name
CLASS_LISTS = ("classes.txt", "class_dict.csv", "label_colors.txt", "labels.txt")
Folders = tuple[Path, Path]  # of images and of masks


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its mask."""

    image: Path
    mask: Path


@dataclass(frozen=True, slots=True)
class Scenery:
    """The pairs of a dataset by split, and its classes. `layout` is how they were found."""

    layout: str
    labels: Labels
    splits: dict[str, tuple[Pair, ...]]

    def split(self, name: str) -> tuple[Pair, ...]:
        """The pairs of a split; DataError where there is none of that name."""
        if name not in self.splits:
            raise DataError(f"there is no split {name!r}; the data has {', '.join(self.splits)}")
        return self.splits[name]


def list_pairs(
    root: Path, *, classes: Path | None = None, ignore: Sequence[int] = (), seed: int = 0
) -> Scenery:
    """Find images and masks under `root`.

    Three layouts, tried in this order: Cityscapes (`leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` with
    `gtFine/SPLIT/CITY/*_gtFine_labelIds.png`, or `..._labelTrainIds.png`); CamVid-style (`train` and
    `trainannot`, `val` and `valannot`, `test` and `testannot`); pairs (`images` and `masks`, with
    folders `train` and `val` inside, around, or not at all: then a fifth is split off by a hash of seed
    and name, the same on every machine).

    `classes` is the class list, see `masks.read_labels`; None takes one of `CLASS_LISTS` in `root`.
    Cityscapes needs none. `ignore` are ids of masks that mean no class, next to 255.

    Raises:
        DataError: no layout fits, images have no masks, or the class list is missing or wrong.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; check the path")
    inside = _folders(root)
    if "leftimg8bit" in inside and "gtfine" in inside:
        return _cityscapes(root, inside["leftimg8bit"], inside["gtfine"])
    camvid = _camvid(inside)
    splits = camvid or _pairs(inside)
    if not splits:
        raise DataError(
            f"{root} has no images with masks; it must hold 'images' and 'masks', or 'train' and "
            "'trainannot', or Cityscapes' 'leftImg8bit' and 'gtFine'"
        )
    found = {name: _matched(images, masks) for name, (images, masks) in splits.items()}
    if TRAIN not in found:
        raise DataError(f"{root} has {', '.join(found)} but no folder 'train' to train on")
    if VAL not in found:
        found[TRAIN], found[VAL] = _split(found[TRAIN], root, seed)
    known = read_labels(classes or _class_list(root), ignore=ignore)
    ordered = {name: found[name] for name in SPLIT_NAMES if name in found}
    return Scenery("camvid" if camvid else "pairs", known, ordered)


def _cityscapes(root: Path, images: Path, masks: Path) -> Scenery:
    found: dict[str, tuple[Pair, ...]] = {}
    train_ids = not any(masks.glob("*/*/*_gtFine_labelIds.png"))
    ending = "labelTrainIds" if train_ids else "labelIds"
    for split in SPLIT_NAMES:
        pairs: list[Pair] = []
        lost: list[Pair] = []
        for image in sorted((images / split).glob("*/*_leftImg8bit.*")):
            name = image.stem.removesuffix("_leftImg8bit")
            mask = masks / split / image.parent.name / f"{name}_gtFine_{ending}.png"
            (pairs if mask.is_file() else lost).append(Pair(image, mask))
        if lost and (pairs or split != TEST):  # the test set comes without masks
            raise _maskless(len(lost), lost[0].image, lost[0].mask)
        if pairs:
            found[split] = tuple(pairs)
    if TRAIN not in found or VAL not in found:
        raise DataError(
            f"{root} looks like Cityscapes but has no images of train and val; it must hold "
            "leftImg8bit/train/CITY/*_leftImg8bit.png and gtFine/train/CITY/*_gtFine_labelIds.png"
        )
    return Scenery("cityscapes", cityscapes_labels(train_ids=train_ids), found)


def _by_split(found: Callable[[str], Folders | None]) -> dict[str, Folders]:
    """What is found under one of the names that a split goes by, for all splits that have it."""
    named = ((split, found(name)) for split, names in SPLIT_NAMES.items() for name in names)
    return {split: folders for split, folders in named if folders}


def _camvid(inside: Mapping[str, Path]) -> dict[str, Folders]:
    return _by_split(lambda name: _both(inside, inside, [name], [name + ANNOT]))


def _pairs(inside: Mapping[str, Path]) -> dict[str, Folders]:
    """`images` and `masks` with splits inside, splits with both inside, or just both."""
    both = _both(inside, inside, IMAGES, MASKS)
    if both is None:

        def within(name: str) -> dict[str, Path]:
            return _folders(inside[name]) if name in inside else {}

        return _by_split(lambda name: _both(within(name), within(name), IMAGES, MASKS))
    images, masks = map(_folders, both)
    return _by_split(lambda name: _both(images, masks, [name], [name])) or {TRAIN: both}


def _both(
    images: Mapping[str, Path], masks: Mapping[str, Path], image_names: Sequence[str],
    mask_names: Sequence[str],
) -> Folders | None:  # fmt: skip
    image = next((images[name] for name in image_names if name in images), None)
    mask = next((masks[name] for name in mask_names if name in masks), None)
    return (image, mask) if image and mask else None


def _folders(folder: Path) -> dict[str, Path]:
    return {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_dir()}


def _matched(images: Path, masks: Path) -> tuple[Pair, ...]:
    """Every image with the mask of its name, `_mask`, `_label`, `_gt`, `_L` and such left out."""
    by_name: dict[str, Path] = {}
    for mask in _files(masks):
        name = mask.relative_to(masks).with_suffix("").as_posix()
        by_name.setdefault(name, mask)
        for ending in ENDINGS:
            if name.lower().endswith(ending):
                by_name.setdefault(name[: -len(ending)], mask)
    found = [
        (image, by_name.get(image.relative_to(images).with_suffix("").as_posix()))
        for image in _files(images)
    ]
    lost = [image for image, mask in found if mask is None]
    if lost:
        raise _maskless(len(lost), lost[0], masks / f"{lost[0].stem}.png")
    if not found:
        raise DataError(
            f"{images} has no images; add some (their names end in {' '.join(SUFFIXES)})"
        )
    return tuple(Pair(image, mask) for image, mask in found if mask)


def _files(folder: Path) -> list[Path]:
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sorted(p for p in found if p.name.lower().endswith(SUFFIXES) and p.name[0] != ".")


def _maskless(count: int, image: Path, mask: Path) -> DataError:
    what = "1 image has no mask" if count == 1 else f"{count} images have no mask"
    return DataError(f"{what}: for {image} there is no {mask}; add it or take the image away")


def _split(pairs: tuple[Pair, ...], root: Path, seed: int) -> list[tuple[Pair, ...]]:
    if len(pairs) < 2:
        raise DataError(
            f"{root} has a single image; at least two are needed, for training and for validation"
        )

    def rank(pair: Pair) -> bytes:
        name = os.fsencode(pair.image.relative_to(root).as_posix())
        return hashlib.sha256(b"%d/%s" % (seed, name)).digest()

    val = set(sorted(pairs, key=rank)[: held_out(len(pairs), VAL_SHARE)])
    return [tuple(p for p in pairs if p not in val), tuple(p for p in pairs if p in val)]


def _class_list(root: Path) -> Path:
    for name in CLASS_LISTS:
        if (root / name).is_file():
            return root / name
    raise DataError(
        f"{root} has no class list; write {root / CLASS_LISTS[0]} with one class per line, in the order of "
        "the ids in the masks, or name a file with --classes"
    )
