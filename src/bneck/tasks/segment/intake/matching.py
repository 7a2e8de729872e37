"""Which file is the mask of which image, by the names that people and tools give to files and folders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bneck.data.intake.splits import only_a_split, split_of, words
from bneck.data.intake.walk import SUFFIXES

_MASKS = frozenset((
    "mask", "masks", "label", "labels", "ann", "anns", "anno", "annos", "annotation", "annotations", "annot",
    "annots", "segmentation", "segmentations", "segmentationclass", "stuffthingmaps", "seg", "segs", "gt",
    "gts", "groundtruth", "truth", "target", "targets",
))  # fmt: skip
_IMAGES = frozenset((
    "image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture", "pictures", "input", "inputs",
    "rgb", "original", "originals", "leftimg",
))  # fmt: skip
_NEITHER = ("segmentationobject", "imagesets")  # VOC's masks of instances
_END = re.compile(
    r"[ _.-](masks?|labels?|gt|seg|segmentations?|annotation|groundtruth|ground_truth|l|p|matte)$",
    re.I,
)
_START = re.compile(r"^(mask|label|gt|seg|segmentation)[ _.-]", re.I)
# Of images that are told from their masks by a word: x_image.png and x_label.png, IMG_1.jpg and MASK_1.png.
_IMAGE_END = re.compile(r"[ _.-](images?|img|photo|rgb|orig|original|input|sat)$", re.I)
_IMAGE_START = re.compile(r"^(image|img|photo|rgb|orig|original|input)[ _.-]", re.I)
_PHOTOS = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".jpe",
    ".webp",
    ".heic",
    ".tif",
    ".tiff",
    ".bmp",
)  # next to a png
ANNOT = "annot"  # CamVid-style: train and trainannot

Key = tuple[str | None, tuple[str, ...], str]  # split, folders, stem


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its mask; `turn` is EXIF's orientation of an image whose mask is for it as it is stored."""

    image: Path
    mask: Path
    turn: int = 1


@dataclass(slots=True)
class Matched:
    """Pairs by split (None: of no split), images without a mask, and those with several."""

    pairs: dict[str | None, list[Pair]] = field(default_factory=dict)
    lost: dict[str | None, list[Path]] = field(default_factory=dict)
    several: list[tuple[Path, list[Path]]] = field(default_factory=list)
    elsewhere: int = 0  # images in folders that are not those of images
    masks: int = 0
    first: Path | None = None  # of the masks


@dataclass(frozen=True, slots=True)
class _File:
    """An image file with what the folders above it say: of which split, and whether of masks."""

    path: Path
    key: Key
    kind: bool | None  # whether it is a mask, None where no folder says


def match(root: Path, files: Iterable[Path]) -> Matched:
    """Pair the image files below a folder.

    A mask lies in a folder of masks (masks, labels, annotations, SegmentationClass, trainannot ...) next to
    a folder of images or nested alike, or its name is its image's with a word more (_mask, _label,
    _segmentation, mask_ before it) or another word (x_image and x_label, IMG_1 and MASK_1), with a second
    suffix (x.jpg.png), or it is a png next to a photo.
    """
    told = _shortened([one for path in files if (one := _told(root, path))])
    marked = any(one.kind is False for one in told)
    exact: dict[Key, list[Path]] = {}
    loose: dict[Key, list[Path]] = {}
    images: list[_File] = []
    found = Matched()
    photos = {one.key for one in told if not one.kind and one.path.suffix.lower() in _PHOTOS}
    apart = any(one.kind for one in told)  # masks have folders of their own
    stems = {one.key[2] for one in told}
    for one in told:
        stem = _bare(one.key[2])
        if one.kind is None and stem not in stems:
            stem = None  # an image that is called so
        if one.kind or (one.kind is None and stem is not None):
            found.masks += 1
            if one.kind:
                exact.setdefault(one.key, []).append(one.path)
            if stem is not None:
                loose.setdefault((*one.key[:2], stem), []).append(one.path)
        elif (
            one.key in photos and one.path.suffix.lower() not in _PHOTOS and not (marked and apart)
        ):
            found.masks += 1
            exact.setdefault(one.key, []).append(one.path)
        elif one.kind is None and marked and one.key[0] is None:
            found.elsewhere += 1
        else:
            images.append(one)
    found.first = min(
        (path for paths in (*exact.values(), *loose.values()) for path in paths), default=None
    )
    _pair(images, exact, loose, found)
    return found


def _shortened(told: Sequence[_File]) -> list[_File]:
    """Images whose names have a word more, under the name that a single mask has too and no other image."""
    masks: Counter[Key] = Counter()
    for one in told:
        names = {_bare(one.key[2]), one.key[2] if one.kind else None} - {None}
        masks.update((*one.key[:2], str(name)) for name in names if one.kind is not False)
    taken = {one.key for one in told if not one.kind}
    shorter = {
        one.path: (*one.key[:2], bare)
        for one in told
        if not one.kind
        for bare in {p.sub("", one.key[2]) for p in (_IMAGE_END, _IMAGE_START)} - {one.key[2], ""}
    }
    images = Counter(shorter.values())
    certain = {
        path: key
        for path, key in shorter.items()
        if masks[key] == images[key] == 1 and key not in taken
    }
    return [replace(one, key=certain.get(one.path, one.key)) for one in told]


def _pair(
    images: Sequence[_File],
    exact: dict[Key, list[Path]],
    loose: dict[Key, list[Path]],
    found: Matched,
) -> None:
    keys = [one.key for one in images]
    if not any(_masks(key, exact, loose) for key in keys):
        # Folders that are called otherwise: by name alone, where that is certain.
        exact, loose = _flat(exact), _flat(loose)
        keys = [(split, (), stem) for split, _, stem in keys]
        if len(set(keys)) < len(keys):
            exact, loose = {}, {}
    for one, key in sorted(zip(images, keys, strict=True), key=lambda entry: entry[0].path):
        masks = _masks(key, exact, loose)
        if len(masks) > 1:
            found.several.append((one.path, masks))
        elif masks:
            found.pairs.setdefault(key[0], []).append(Pair(one.path, masks[0]))
        else:
            found.lost.setdefault(key[0], []).append(one.path)


def _flat(masks: dict[Key, list[Path]]) -> dict[Key, list[Path]]:
    """By split and name, without folders."""
    found: dict[Key, list[Path]] = {}
    for (split, _, stem), paths in masks.items():
        found.setdefault((split, (), stem), []).extend(paths)
    return found


def _masks(key: Key, exact: dict[Key, list[Path]], loose: dict[Key, list[Path]]) -> list[Path]:
    anywhere: Key = (None, *key[1:])
    places = ((exact, key), (loose, key), (exact, anywhere), (loose, anywhere))
    return next((masks for part, where in places if (masks := part.get(where, []))), [])


def _told(root: Path, path: Path) -> _File | None:
    split, kind, kept = None, None, []
    for depth, part in enumerate(path.relative_to(root).parts[:-1]):
        spelled = set(words(part))
        if part.lower() in _NEITHER:
            return None
        if part.lower().endswith(ANNOT) and split_of(part[: -len(ANNOT)]):
            split, kind = split_of(part[: -len(ANNOT)]), True
        elif spelled & (_MASKS | _IMAGES):
            kind = bool(spelled & _MASKS)
            split = split_of(part) or split
        elif only_a_split(part):
            split = split_of(part)
        else:
            split = split_of(part) if depth == 0 else split  # as in ISIC-2017_Training_Data
            kept.append(part)
    return _File(path, (split, tuple(kept), path.stem), kind)


def _bare(stem: str) -> str | None:
    """The image's stem that a mask's name holds; None where it has no word or suffix more."""
    for bare in (_END.sub("", stem), _START.sub("", stem)):
        if bare and bare != stem:
            return bare
    second = Path(stem)
    return second.stem if second.suffix.lower() in SUFFIXES else None
