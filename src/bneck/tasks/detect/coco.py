"""Annotated images in COCO's json format: found, read, checked, and what is wrong reported."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bneck.data.folders import VAL_NAMES, DataError
from bneck.data.images import image_size

Boxes: TypeAlias = npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[np.int64]
Measure: TypeAlias = Callable[[Path], tuple[int, int] | str]

BAD_SHARE = 0.01  # of the images may be missing or unreadable
CACHED = 4  # splits that a process keeps: train, val and test of a dataset, and one more
# Where images lie beside their json, or beside the folder that holds it.
IMAGE_FOLDERS = ("", "images", "JPEGImages", "data")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Picture:
    """An image and what is on it.

    `boxes` are corners (left, top, right, bottom) as shares of the image's sides, `labels` count
    classes from 1. `crowd` marks boxes round several objects, which are neither trained on nor
    counted as misses. `size` is (width, height) in pixels. `keys` (N,) are the annotations' ids, and
    `given` (N, 5) is what the file says of each: x, y, width, height and area in pixels.
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

    def without(self, bad: Mapping[int, str]) -> Annotated:
        """Without the pictures whose ids are given with a reason.

        Raises:
            DataError: more than one in a hundred, or all.
        """
        if not bad:
            return self
        lost = [Dropped(str(p.path), bad[p.id]) for p in self.pictures if p.id in bad]
        _check_lost(lost, len(self.pictures), self.file)
        kept = tuple(p for p in self.pictures if p.id not in bad)
        return replace(self, pictures=kept, dropped=(*self.dropped, *lost))


def find_annotations(root: Path, splits: Sequence[str] = ("train", "val")) -> dict[str, Path]:
    """The json files of a dataset's splits.

    A file belongs to a split if a word of its name, or of its folder's, is the split's, digits aside:
    `annotations/instances_train2017.json`, `train/_annotations.coco.json`, `coco_val.json`. For "val" the
    words valid, validation and test do too, in this order. Of several files for a split, COCO's
    `instances_*` counts.

    Raises:
        DataError: no such folder, no file for a split, or several.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; check the path")
    files = sorted([*root.glob("*.json"), *root.glob("*/*.json")])
    found = {}
    for split in splits:
        words = VAL_NAMES if split == "val" else (split,)
        there = [word for word in words if _candidates(files, word)]
        found[split] = _pick(root, files, there[0] if there else split)
    return found


def _pick(root: Path, files: Sequence[Path], name: str) -> Path:
    found = _candidates(files, name)
    if len(found) > 1:
        found = [path for path in found if path.stem.startswith("instances")] or found
    if not found:
        raise DataError(
            f"{root} has no json file for {name}; name one as in annotations/instances_{name}.json, or "
            "convert VOC xml with: bneck convert"
        )
    if len(found) > 1:
        raise DataError(
            f"{root} has {len(found)} json files for {name}: "
            f"{', '.join(str(p.relative_to(root)) for p in found)}; leave one of them"
        )
    return found[0]


def _candidates(files: Sequence[Path], name: str) -> list[Path]:
    def words(text: str) -> set[str]:
        return set(re.findall(r"[a-z]+", text.lower()))

    named = [path for path in files if name in words(path.stem)]
    every = {"train", "trainval", *VAL_NAMES}
    in_folder = [
        path for path in files if not words(path.stem) & every and name in words(path.parent.name)
    ]
    return named or in_folder


def read_coco(
    path: Path, *, images: Path | None = None, measure: Measure = image_size
) -> Annotated:
    """Read a COCO json file and check it against the images, once for all who ask in a process.

    It is read again when the file has changed, or when files came into or left an image folder.

    Boxes without an area, or outside their image, are left out and listed in `dropped`; those that
    reach over an edge are cut there. Category ids may have gaps. Images without boxes stay.

    Args:
        path: the json file.
        images: the folder that file names are relative to; None looks beside the json (see
            `IMAGE_FOLDERS`, and a folder of the split's name).
        measure: gives an image file's (width, height), or why it cannot be read.

    Raises:
        DataError: no such file, no COCO json, an id that occurs twice or is unknown, or more than
            one image in a hundred missing.
    """
    folders = tuple(_image_folders(path, images))
    states = tuple(_state(place) for place in (path, *folders))
    return _read(path, folders, measure, states)


@lru_cache(maxsize=CACHED)
def _read(
    path: Path, folders: tuple[Path, ...], measure: Measure, states: tuple[object, ...]
) -> Annotated:
    """`states` are those of the file and of the folders, so that what has changed is read again."""
    data = _load(path)
    ids, classes = _categories(data, path)
    entries = _by_id(data, "images", path)
    boxes: dict[int, list[tuple[int, dict[str, Any], int]]] = {image: [] for image in entries}
    for key, entry in _by_id(data, "annotations", path).items():
        image, category = entry.get("image_id"), entry.get("category_id")
        for value, known, what in ((image, boxes, "image"), (category, ids, "category")):
            if not isinstance(value, int) or value not in known:
                raise DataError(
                    f"{path}: annotation {key} is of {what} {value!r}, which the file does not have; "
                    "correct or delete it"
                )
        label = ids.index(category) + 1
        boxes[image].append((key, entry, label))  # type: ignore[index]
    pictures: list[Picture] = []
    dropped: list[Dropped] = []
    lost: list[Dropped] = []
    for image, entry in entries.items():
        found = _locate(entry, folders, path)
        size = found if isinstance(found, str) else _size(entry, found, measure)
        if isinstance(size, str):
            lost.append(Dropped(str(entry.get("file_name")), size))
            continue
        assert isinstance(found, Path)
        pictures.append(_picture(image, found, size, boxes[image], dropped))
    _check_lost(lost, len(entries), path)
    return Annotated(path, classes, ids, tuple(pictures), (*dropped, *lost))


def _load(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise DataError(f"{path} is not json; give a file in COCO's format") from None
    lists = ("images", "annotations", "categories")
    missing = [k for k in lists if not isinstance(data, dict) or not isinstance(data.get(k), list)]
    if missing:
        raise DataError(
            f"{path} is not in COCO's format: it has no list of {', '.join(missing)}; it needs "
            f"{', '.join(lists)}"
        )
    assert isinstance(data, dict)
    return data


def _by_id(data: Mapping[str, Any], part: str, path: Path) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for entry in data[part]:
        key = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(key, int) or isinstance(key, bool):
            raise DataError(f"{path}: one of the {part} has the id {key!r}; ids are whole numbers")
        if key in found:
            raise DataError(
                f"{path}: the id {key} occurs twice among the {part}; give each its own"
            )
        found[key] = entry
    return found


def _categories(data: Mapping[str, Any], path: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    entries = sorted(_by_id(data, "categories", path).items())
    names = tuple(str(entry.get("name", key)) for key, entry in entries)
    if not entries:
        raise DataError(f"{path} has no categories; name at least one")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two categories are called {twice!r}; rename one")
    return tuple(key for key, _ in entries), names


def _image_folders(path: Path, images: Path | None) -> list[Path]:
    if images is not None:
        if not images.is_dir():
            raise DataError(f"there is no folder of images {images}; check the path")
        return [images]
    return image_folders(path.parent, re.sub(r"^(instances|coco)_", "", path.stem))


def image_folders(place: Path, split: str = "") -> list[Path]:
    """Where the images of a json file in the folder `place` are looked for."""
    split_folders = (split, f"images/{split}") if split else ()
    return [
        beside / folder
        for beside in (place, place.parent)
        for folder in (*IMAGE_FOLDERS, *split_folders)
    ]


def _locate(entry: Mapping[str, Any], folders: Iterable[Path], path: Path) -> Path | str:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: image {entry.get('id')} has no file_name; add it")
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    return found or "there is no such file"


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _size(entry: Mapping[str, Any], path: Path, measure: Measure) -> tuple[int, int] | str:
    """(width, height) of the file, which the json must not contradict."""
    size = measure(path)
    if isinstance(size, str):
        return size
    said = (entry.get("width", size[0]), entry.get("height", size[1]))
    if said != size:
        return f"it is {size[0]}x{size[1]} pixels, the json says {said[0]}x{said[1]}"
    return size


def _picture(
    image: int,
    path: Path,
    size: tuple[int, int],
    entries: Sequence[tuple[int, Mapping[str, Any], int]],
    dropped: list[Dropped],
) -> Picture:
    boxes, labels, crowds, keys, given = [], [], [], [], []
    for key, entry, label in entries:
        box = clipped(entry.get("bbox"), size)
        if isinstance(box, str):
            dropped.append(Dropped(f"annotation {key} of {path.name}", box))
            continue
        boxes.append(box)
        labels.append(label)
        crowds.append(bool(entry.get("iscrowd", 0)))
        keys.append(key)
        given.append((*entry["bbox"], _area(entry)))
    return Picture(
        id=image,
        path=path,
        size=size,
        boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
        labels=np.asarray(labels, np.int64),
        crowd=np.asarray(crowds, np.bool_),
        keys=np.asarray(keys, np.int64),
        given=np.asarray(given, np.float64).reshape(-1, 5),
    )


def clipped(bbox: Any, size: tuple[int, int]) -> tuple[float, float, float, float] | str:
    """COCO's [x, y, width, height] in pixels as corners in shares of the image, or why it is no box."""
    if not isinstance(bbox, list | tuple) or len(bbox) != 4:
        return f"its bbox is {bbox!r}; it must be [x, y, width, height]"
    if not all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in bbox
    ):
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
                "id": int(key),
                "image_id": picture.id,
                "category_id": annotated.ids[label - 1],
                "bbox": given[:4].tolist(),
                "area": float(given[4]),
                "iscrowd": int(crowd),
            }
            for picture in annotated.pictures
            for key, label, given, crowd in zip(
                picture.keys, picture.labels, picture.given, picture.crowd, strict=True
            )
        ],
        "categories": [
            {"id": key, "name": name}
            for key, name in zip(annotated.ids, annotated.classes, strict=True)
        ],
    }


def _area(entry: Mapping[str, Any]) -> float:
    """What decides whether an object is small: its mask's area where the file says it, else its box's."""
    area = entry.get("area")
    known = isinstance(area, int | float) and not isinstance(area, bool) and math.isfinite(area)
    return float(area) if known else float(entry["bbox"][2] * entry["bbox"][3])  # type: ignore[arg-type]
