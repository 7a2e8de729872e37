"""Annotated images in COCO's json format: found, read, checked, and what is wrong reported."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bneck.data.depth import FULL
from bneck.data.folders import check_class_names
from bneck.data.images import LOOKED_AT, SIDEWAYS, image_size, orientation
from bneck.data.intake.image_files import ImageFiles, image_folders
from bneck.data.intake.texts import decoded
from bneck.data.intake.walk import DataError, has_images
from bneck.tasks.detect.boxes import Boxes, Labels, as_boxes
from bneck.tasks.detect.intake.coco_fields import cleaned, number

Measure: TypeAlias = Callable[[Path], tuple[int, int] | str]
Locate: TypeAlias = Callable[[Mapping[str, Any]], Path | None]

BAD_SHARE = 0.01  # of the images may be missing or unreadable
CACHED = 4  # splits that a process keeps: train, val and test of a dataset, and one more


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Picture:
    """An image and what is on it.

    `boxes` are corners (left, top, right, bottom) in normalized coordinates, `labels` count classes
    from 1. `crowd` marks boxes round several objects, which are neither trained on nor counted as
    misses. `size` is (width, height) in pixels. `keys` (N,) are the annotations' ids, and `given`
    (N, 5) is what the file says of each: x, y, width, height and area in pixels.
    """

    id: int
    path: Path
    size: tuple[int, int]
    boxes: Boxes
    labels: Labels
    crowd: npt.NDArray[np.bool_]
    keys: Labels
    given: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A box or an image that was left out: where, and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """One split of a dataset. `ids` are the categories' ids in the file, in the order of `classes`."""

    file: Path
    classes: tuple[str, ...]
    ids: tuple[int, ...]
    pictures: tuple[Picture, ...]
    dropped: tuple[Dropped, ...]
    bits: int = FULL  # of values of more than 8 bits, see `data.images.set_bits`
    notes: tuple[str, ...] = ()

    def without(self, bad: Mapping[int, str]) -> Annotated:
        """Without the pictures whose ids are given with a reason.

        Raises:
            DataError: more than one in a hundred, or all.
        """
        lost = [Dropped(str(p.path), bad[p.id]) for p in self.pictures if p.id in bad]
        _check_lost(lost, len(self.pictures), self.file)
        kept = tuple(p for p in self.pictures if p.id not in bad)
        return replace(self, pictures=kept, dropped=(*self.dropped, *lost))


def read_coco(
    path: Path, *, images: Path | None = None, measure: Measure = image_size
) -> Annotated:
    """Read a COCO json file and check it against the images, once per process.

    It is read again when the file has changed, or when files came into or left an image folder.

    Boxes without an area, or outside their image, are left out and listed in `dropped`; those that
    reach over an edge are cut there. Category ids may have gaps. Images without boxes stay.

    Fields that tools write otherwise are read where their meaning is certain, see `coco_fields.cleaned`;
    file names are looked for as `image_files.ImageFiles` does. `images` is the folder that file names are
    relative to; None looks next to the json. `measure` gives an image file's (width, height), or why it
    cannot be read.

    Raises:
        DataError: no such file, no COCO json, an id that occurs twice or is unknown, boxes that are corners
            or fractions, or more than one image in a hundred missing.
    """
    if images is None:
        folders = image_folders(path.parent, re.sub(r"^(instances|coco)_", "", path.stem))
    elif images.is_dir():
        folders = [images]
    else:
        raise DataError(f"there is no folder of images {images}; check the path")
    return _read(path, tuple(folders), measure, tuple(_state(place) for place in (path, *folders)))


@lru_cache(maxsize=CACHED)
def _read(
    path: Path, folders: tuple[Path, ...], measure: Measure, states: tuple[object, ...]
) -> Annotated:
    # `states` only tells the cache that a file or a folder has changed.
    # Below its folder, or that of its folder where only texts lie next to it.
    files = ImageFiles(folders[0] if has_images(folders[0]) else path.parent.parent, folders)

    def locate(entry: Mapping[str, Any]) -> Path | None:
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: image {entry.get('id')} has no file_name; add it")
        return files.named(name)

    return annotated(_load(path), path, locate, measure=measure)


def annotated(
    data: Any, where: Path, locate: Locate, *, measure: Measure = image_size
) -> Annotated:
    """Annotated images from what a COCO json holds, wherever that comes from; `where` is named in messages.

    `locate` gives the file of an entry of "images", None where there is none.

    Raises:
        DataError: as `read_coco`.
    """
    parts = cleaned(data, where)
    categories = sorted(parts["categories"], key=lambda one: int(one["id"]))
    ids = tuple(one["id"] for one in categories)
    boxes: dict[int, list[tuple[int, dict[str, Any], int]]] = {
        one["id"]: [] for one in parts["images"]
    }
    for entry in parts["annotations"]:
        boxes[entry["image_id"]].append((entry["id"], entry, ids.index(entry["category_id"]) + 1))
    dropped: list[Dropped] = []
    lost: list[Dropped] = []
    found: list[tuple[int, Path, tuple[int, int], bool | None]] = []
    for entry in parts["images"]:
        file = _found(entry, locate, measure)
        if isinstance(file, str):
            lost.append(Dropped(str(entry.get("file_name")), file))
        else:
            found.append((entry["id"], *file))
    _check_lost(lost, len(parts["images"]), where)
    turns, unclear = _turns([file[1:] for file in found])
    pictures = [
        _picture(image, file, size, _turned(boxes[image], size, turn), dropped)
        for (image, file, size, _), turn in zip(found, turns, strict=True)
    ]
    _check_form(pictures, where)
    classes = tuple(one["name"] for one in categories)
    check_class_names(classes, where)
    either = sum(odd and len(p.keys) > 0 for odd, p in zip(unclear, pictures, strict=True))
    counts = {
        "EXIF turns {} photos whose boxes, taken for the turned ones, may be for those as stored": either,
        "boxes of {} photos are turned as EXIF turns the photos": sum(turn > 1 for turn in turns),
        "{} images are entered more than once": len(pictures) - len({one.path for one in pictures}),
        "{} boxes are given more than once": sum(map(_repeated, pictures)),
    }
    notes = tuple(note.format(count) for note, count in counts.items() if count)
    return Annotated(where, classes, ids, tuple(pictures), (*dropped, *lost), notes=notes)


def _repeated(picture: Picture) -> int:
    """How many boxes an image has as often as another of the same class."""
    rows = np.column_stack((picture.given[:, :4], picture.labels))
    return len(rows) - len(np.unique(rows, axis=0))


def _load(path: Path) -> Any:
    try:
        return json.loads(decoded(path.read_bytes()))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path} is not json ({error}); give a file in COCO's format") from None


def _found(
    entry: Mapping[str, Any], locate: Locate, measure: Measure
) -> tuple[Path, tuple[int, int], bool | None] | str:
    """An image's file, its upright size, and whether the json has the stored one; or why it is lost.

    None where the json has no size.
    """
    file = locate(entry)
    size = "there is no such file" if file is None else measure(file)
    if file is None or isinstance(size, str):
        return str(size)
    said = (entry.get("width", size[0]), entry.get("height", size[1]))
    if said == size:
        return file, size, False if "width" in entry and "height" in entry else None
    if said == size[::-1] and orientation(file) in SIDEWAYS:
        return file, size, True
    return f"it is {size[0]}x{size[1]} pixels, the annotations say {said[0]}x{said[1]}"


def _turns(
    found: Sequence[tuple[Path, tuple[int, int], bool | None]],
) -> tuple[list[int], list[bool]]:
    """EXIF's orientation of each photo whose boxes are for the image as it is stored, 1 for the others.

    Sizes tell it of photos that lie on their side. Squares and those upside down are taken alike if all of
    these agree; else it is unclear which image is meant: each such photo is reported, and its boxes stay
    as they are.
    """
    looked = any(stored for *_, stored in found) or any(
        orientation(file) > 1 for file, *_ in found[:: len(found) // LOOKED_AT + 1]
    )
    turns = [orientation(file) if looked or size[0] == size[1] else 1 for file, size, _ in found]
    sides = [
        turn in SIDEWAYS and size[0] != size[1]
        for turn, (_, size, _) in zip(turns, found, strict=True)
    ]
    told = {stored for side, (*_, stored) in zip(sides, found, strict=True) if side} - {None}
    unclear = [
        turn > 1 and len(told) != 1 and (stored is None or not side)
        for turn, side, (*_, stored) in zip(turns, sides, found, strict=True)
    ]
    own = [
        turn if stored or (stored is not None and told == {True}) else 1
        for (*_, stored), turn in zip(found, turns, strict=True)
    ]
    return own, unclear


def _turned(
    entries: Sequence[tuple[int, dict[str, Any], int]], size: tuple[int, int], turn: int
) -> list[tuple[int, dict[str, Any], int]]:
    """Annotations of a stored image as those of the upright one, whose (width, height) is `size`."""
    if turn == 1:
        return list(entries)
    width, height = size[::-1] if turn in SIDEWAYS else size
    turned = []
    for key, entry, label in entries:
        bbox = entry.get("bbox")
        if bbox and not isinstance(clipped(bbox, (width, height)), str):
            x, y, wide, high = bbox
            x = width - x - wide if turn in (2, 3, 7, 8) else x
            y = height - y - high if turn in (3, 4, 6, 7) else y
            bbox = [y, x, high, wide] if turn in SIDEWAYS else [x, y, wide, high]
        turned.append((key, {**entry, "bbox": bbox}, label))
    return turned


def _state(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = path.stat()
        return found.st_size, found.st_mtime_ns
    return None


def _picture(
    image: int, path: Path, size: tuple[int, int],
    entries: Sequence[tuple[int, Mapping[str, Any], int]], dropped: list[Dropped],
) -> Picture:  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for key, entry, label in entries:
        box = clipped(entry.get("bbox"), size)
        if isinstance(box, str):
            dropped.append(Dropped(f"annotation {key} of {path.name}", box))
        else:
            given = (*entry["bbox"], _area(entry))
            rows.append((box, label, bool(entry.get("iscrowd", 0)), key, given))
    boxes, labels, crowd, keys, given = zip(*rows, strict=True) if rows else ((),) * 5
    return Picture(
        id=image, path=path, size=size, boxes=as_boxes(boxes), labels=np.asarray(labels, np.int64),
        crowd=np.asarray(crowd, np.bool_), keys=np.asarray(keys, np.int64),
        given=np.asarray(given, np.float64).reshape(-1, 5),
    )  # fmt: skip


def clipped(bbox: Any, size: tuple[int, int]) -> tuple[float, float, float, float] | str:
    """COCO's [x, y, width, height] in pixels as corners in normalized coordinates, or why it is no box."""
    if not isinstance(bbox, list | tuple) or len(bbox) != 4:
        return f"its bbox is {bbox!r}; it must be [x, y, width, height]"
    if any(isinstance(value, str) or number(value) is None for value in bbox):
        return f"its bbox is {list(bbox)}; it must be four finite numbers"
    x, y, width, height = bbox
    if width <= 0 or height <= 0:
        return f"its bbox {list(bbox)} has no area"
    left, right = (min(max(v / size[0], 0.0), 1.0) for v in (x, x + width))
    top, bottom = (min(max(v / size[1], 0.0), 1.0) for v in (y, y + height))
    # In float32, in which training has them, a sliver may have no area left.
    if np.float32(left) >= np.float32(right) or np.float32(top) >= np.float32(bottom):
        return f"its bbox {list(bbox)} lies outside the image of {size[0]}x{size[1]} pixels"
    return left, top, right, bottom


def _check_form(pictures: Sequence[Picture], where: Path) -> None:
    """Raise DataError for boxes that are all fractions, or corners that reach over the edges as sizes."""
    given = [(picture, row[:4]) for picture in pictures for row in picture.given]
    if not given:
        return
    values = np.array([row for _, row in given])
    sides = np.array([picture.size for picture, _ in given], np.float64)
    if values.max() <= 1 and sides.min() > 8:
        raise DataError(
            f"{where}: all numbers of all boxes are at most 1, as fractions of the image are; COCO's boxes are "
            "[x, y, width, height] in pixels: write them so"
        )
    low, high = values[:, :2], values[:, 2:]
    over = ((low + high) > sides + 2).any(1)
    corners = ((high > low) & (high <= sides + 1) & (low >= -1)).all()
    if corners and over.sum() >= 3 and over.mean() > 0.1:
        raise DataError(
            f"{where}: {over.sum()} of {len(given)} boxes reach over the edges of their images as [x, y, "
            "width, height], and none as [left, top, right, bottom]; write widths and heights, not corners"
        )


def _check_lost(lost: Sequence[Dropped], count: int, path: Path) -> None:
    if count == 0:
        raise DataError(f"{path} names no images; it needs at least one")
    if len(lost) > BAD_SHARE * count:
        named = ", ".join(f"{entry.what} ({entry.reason})" for entry in lost[:3])
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise DataError(
            f"{path} names {len(lost)} of {count} images that cannot be used, more than the allowed "
            f"{BAD_SHARE:.0%}: {named}{more}; add or replace them, or say where images lie with --images"
        )


def ground_truth(annotated: Annotated) -> dict[str, Any]:
    """A split as evaluation takes it: the file's own boxes, without what was left out.

    `area` and `iscrowd` are filled in where the file has none. The file is not read again.
    """
    return {
        "images": [
            {"id": p.id, "file_name": p.path.name, "width": p.size[0], "height": p.size[1]}
            for p in annotated.pictures
        ],
        "annotations": [
            {
                "id": int(key), "image_id": p.id, "category_id": annotated.ids[label - 1],
                "bbox": given[:4].tolist(), "area": float(given[4]), "iscrowd": int(crowd),
            }
            for p in annotated.pictures
            for key, label, given, crowd in zip(p.keys, p.labels, p.given, p.crowd, strict=True)
        ],
        "categories": [
            {"id": key, "name": name}
            for key, name in zip(annotated.ids, annotated.classes, strict=True)
        ],
    }  # fmt: skip


def _area(entry: Mapping[str, Any]) -> float:
    """What decides whether an object is small: its mask's area where the file says it, else its box's."""
    area = number(entry.get("area"))
    return float(entry["bbox"][2] * entry["bbox"][3] if area is None else area)
