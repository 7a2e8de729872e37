"""Which images and masks a folder holds, by split, and what its classes are."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bneck.data.depth import FULL
from bneck.data.folders import Found, held_out
from bneck.data.images import set_bits
from bneck.data.intake.lists import UNDIVIDED, listed_stem, split_lists
from bneck.data.intake.walk import DataError, images_below, subfolders
from bneck.tasks.segment.intake.class_list import CLASS_LISTS, find_list, read_labels, voc_labels
from bneck.tasks.segment.intake.encoding import settled
from bneck.tasks.segment.intake.matching import ANNOT, Matched, Pair, match
from bneck.tasks.segment.intake.turns import with_turns
from bneck.tasks.segment.masks import Labels, cityscapes_labels

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)
VAL_SHARE = 0.2  # where there is no val split
DEPTH = 3  # folders that are looked into for those of Cityscapes and VOC
LISTS = Path("ImageSets", "Segmentation")


@dataclass(frozen=True, slots=True)
class Scenery:
    """The pairs of a dataset by split, and its classes. `layout` is how they were found."""

    layout: str
    labels: Labels
    splits: dict[str, tuple[Pair, ...]]
    found: Found = field(default_factory=Found)
    bits: int = FULL  # of values of more than 8 bits, see `data.images.set_bits`

    def split(self, name: str) -> tuple[Pair, ...]:
        """The pairs of a split; DataError where there is none of that name."""
        if name not in self.splits:
            raise DataError(f"there is no split {name!r}; the data has {', '.join(self.splits)}")
        return self.splits[name]


def list_pairs(
    root: Path, *, classes: Path | None = None, ignore: Sequence[int] = (), seed: int = 0,
    divide: bool = True,
) -> Scenery:  # fmt: skip
    """Find images and masks under `root`.

    Cityscapes is told by its folders (`leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` with
    `gtFine/SPLIT/CITY/*_gtFine_labelIds.png`, or `..._labelTrainIds.png`). In all else, masks are found by
    the names of folders and files, see `matching.match`. Splits are folders, or VOC's lists in
    `ImageSets/Segmentation`; without val a fifth of train is split off by a hash of seed and name, the same
    on every machine. `divide` False is for images to score alone: those of a single split, or of none, are val
    as they are.

    `classes` is the class list, see `class_list.read_labels`; None takes one of `CLASS_LISTS` in `root`.
    Cityscapes and VOC need none, nor masks of two values. `ignore` are ids of masks that mean no class, next
    to 255. What the masks hold is settled by `encoding.settled`.

    Raises:
        DataError: no layout fits, images have no masks, or the class list is missing or wrong.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; check the path")
    if low := next((value for value in ignore if value < 0), None):
        raise DataError(f"--ignore is {low}; ids in masks are from 0, so give one that they hold")
    inside = _folders(root)
    if "leftimg8bit" in inside and "gtfine" in inside:
        return _cityscapes(root, inside["leftimg8bit"], inside["gtfine"])
    left: Counter[str] = Counter()
    matched = match(root, images_below(root, left))
    if not matched.masks:
        raise DataError(
            f"{root} has no images with masks; it must hold 'images' and 'masks', or 'train' and "
            "'trainannot', or Cityscapes' 'leftImg8bit' and 'gtFine'"
        )
    notes = [f"not used: {matched.elsewhere} images in other folders"] if matched.elsewhere else []
    _check_several(matched, notes)
    used = sum(map(len, matched.pairs.values())) + sum(len(m) for _, m in matched.several)
    if used < matched.masks:
        notes.append(f"{matched.masks - used} masks have no image")
    lists = _lists(root)
    found = _listed(matched, lists, notes) if lists is not None else _divided(matched, root, notes)
    how = "given"
    if not divide and len(found) == 1:
        ((name, only),) = found.items()
        found = dict.fromkeys(SPLITS if name == TRAIN else (TRAIN, VAL, name), only)
    if TRAIN not in found:
        raise DataError(f"{root} has {', '.join(found)} but no folder 'train' to train on")
    if VAL not in found:
        how = f"split off by seed {seed}"
        found[TRAIN], found[VAL] = _split(found[TRAIN], root, seed)
    found, turns = with_turns(found)
    known, told = _labels(root, classes, ignore, found[TRAIN], voc=lists is not None)
    camvid = any(path.name.lower().endswith(ANNOT) for path in inside.values())
    ordered = {name: found[name] for name in SPLITS if name in found}
    said = Found(how, dict(left), (*notes, *turns, *told))
    files = [pair.image for pair in found[TRAIN]]
    bits = set_bits(files.__getitem__, len(files))
    return Scenery("camvid" if camvid else "pairs", known, ordered, said, bits)


def _cityscapes(root: Path, images: Path, masks: Path) -> Scenery:
    found: dict[str, tuple[Pair, ...]] = {}
    train_ids = not any(masks.glob("*/*/*_gtFine_labelIds.png"))
    ending = "labelTrainIds" if train_ids else "labelIds"
    for split in SPLITS:
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


def _folders(root: Path) -> dict[str, Path]:
    """Folders by name in small letters, those of Cityscapes' zip files a folder deeper too."""
    inside = {name.lower(): path for name, path in subfolders(root).items()}
    for path in list(inside.values()):
        deeper = subfolders(path)
        for name in ("leftImg8bit", "gtFine"):
            if name in deeper:
                inside.setdefault(name.lower(), deeper[name])
    return inside


def _lists(root: Path) -> dict[str, list[str]] | None:
    """VOC's lists of images by split, where there are some here or a few folders deeper."""
    for depth in range(DEPTH):
        for place in sorted(root.glob("*/" * depth + str(LISTS))):
            if found := split_lists(place):
                return found
    return None


def _listed(
    matched: Matched, lists: dict[str, list[str]], notes: list[str]
) -> dict[str, tuple[Pair, ...]]:
    """The pairs that the lists name; images of no list, and lists of a test set without masks, stay out."""
    by_stem = {pair.image.stem: pair for pairs in matched.pairs.values() for pair in pairs}
    found: dict[str, tuple[Pair, ...]] = {}
    taken: set[str] = set()
    for split, lines in lists.items():
        stems = [listed_stem(line, by_stem) for line in lines]
        lost = [stem for stem in stems if stem not in by_stem]
        if lost and split == TEST:
            notes.append(f"not used: test, {len(lost)} of whose images have no mask")
            continue
        if lost:
            raise DataError(
                f"the list of {split or 'all'} images names {len(lost)} that have no image or no mask, first "
                f"{lost[0]!r}; add them, or take them off the list"
            )
        taken |= set(stems)
        found[TRAIN if split == UNDIVIDED else split] = tuple(
            by_stem[stem] for stem in sorted(stems)
        )
    spare = len(set(by_stem) - taken) + sum(map(len, matched.lost.values()))
    if spare:
        notes.append(f"{spare} images are on no list")
    return found


def _divided(matched: Matched, root: Path, notes: list[str]) -> dict[str, tuple[Pair, ...]]:
    """The pairs by the folders that they lie in."""
    pairs, lost = dict(matched.pairs), dict(matched.lost)
    if TRAIN in pairs and None in pairs:
        notes.append(f"not used: {len(pairs.pop(None))} images next to the splits")
        lost.pop(None, None)
    if TEST in lost and TEST not in pairs:
        notes.append(f"not used: {len(lost.pop(TEST))} images of test without masks")
    if lost := {split: images for split, images in lost.items() if images}:
        images = [image for found in lost.values() for image in found]
        if not pairs and matched.first is not None:
            raise DataError(
                f"no mask in {root} has the name of an image: the first image is {images[0].name}, the first "
                f"mask {matched.first.name}; name each mask as its image, or with _mask after it"
            )
        near = next((pair.mask.parent for found in pairs.values() for pair in found), root)
        raise _maskless(len(images), images[0], near / f"{images[0].stem}.png")
    return {split or TRAIN: tuple(found) for split, found in pairs.items()}


def _check_several(matched: Matched, notes: list[str]) -> None:
    """Images with several masks are left out, unless all have several."""
    if not matched.several:
        return
    image, masks = matched.several[0]
    if not matched.pairs:
        raise DataError(
            f"{image} has {len(masks)} masks: {', '.join(str(mask) for mask in masks[:3])}; move all but one "
            "of each image elsewhere"
        )
    notes.append(f"left out: {len(matched.several)} images with several masks, first {image.name}")


def _labels(
    root: Path, classes: Path | None, ignore: Sequence[int], train: Sequence[Pair], *, voc: bool
) -> tuple[Labels, tuple[str, ...]]:
    listed = classes or find_list(root)
    known = None if listed is None else read_labels(listed, ignore=ignore)
    if known is None and voc:
        known = voc_labels(ignore)
    missing = (
        f"{root} has no class list; write {root / CLASS_LISTS[0]} with one class per line, in the order of "
        "the ids in the masks, or name a file with --classes"
    )
    return settled(known, [pair.mask for pair in train], ignore=ignore, missing=missing)


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
