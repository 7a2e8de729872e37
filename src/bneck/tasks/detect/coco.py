"""Annotated images in COCO's json format: found, read, checked, and what is wrong reported."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bneck.data.folders import VAL_NAMES, DataError
from bneck.data.images import image_size
from bneck.tasks.detect.boxes import Boxes, Labels, as_boxes

Measure: TypeAlias = Callable[[Path], tuple[int, int] | str]

BAD_SHARE = 0.01  # of the images may be missing or unreadable
CACHED = 4  # splits that a process keeps: train, val and test of a dataset, and one more
LISTS = ("images", "annotations", "categories")
# Where images lie next to their json, or next to the folder that holds it.
IMAGE_FOLDERS = ("", "images", "JPEGImages", "data")


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

    def without(self, bad: Mapping[int, str]) -> Annotated:
        """Without the pictures whose ids are given with a reason.

        Raises:
            DataError: more than one in a hundred, or all.
        """
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
    return {split: _pick(root, files, split) for split in splits}


def _pick(root: Path, files: Sequence[Path], split: str) -> Path:
    words = VAL_NAMES if split == "val" else (split,)
    named = ((word, found) for word in words if (found := _candidates(files, word)))
    word, found = next(named, (split, []))
    if len(found) > 1:
        found = [path for path in found if path.stem.startswith("instances")] or found
    if not found:
        raise DataError(
            f"{root} has no json file for {word}; name one as in annotations/instances_{word}.json, or "
            "convert VOC xml with: bneck convert"
        )
    if len(found) > 1:
        raise DataError(
            f"{root} has {len(found)} json files for {word}: "
            f"{', '.join(str(p.relative_to(root)) for p in found)}; leave one of them"
        )
    return found[0]


def _candidates(files: Sequence[Path], word: str) -> list[Path]:
    def words(text: str) -> set[str]:
        return set(re.findall(r"[a-z]+", text.lower()))

    unnamed = [p for p in files if not words(p.stem) & {"train", "trainval", *VAL_NAMES}]
    in_folder = [path for path in unnamed if word in words(path.parent.name)]
    return [path for path in files if word in words(path.stem)] or in_folder


def read_coco(
    path: Path, *, images: Path | None = None, measure: Measure = image_size
) -> Annotated:
    """Read a COCO json file and check it against the images, once per process.

    It is read again when the file has changed, or when files came into or left an image folder.

    Boxes without an area, or outside their image, are left out and listed in `dropped`; those that
    reach over an edge are cut there. Category ids may have gaps. Images without boxes stay.

    `images` is the folder that file names are relative to; None looks next to the json (see
    `IMAGE_FOLDERS`, and a folder of the split's name). `measure` gives an image file's (width, height),
    or why it cannot be read.

    Raises:
        DataError: no such file, no COCO json, an id that occurs twice or is unknown, or more than
            one image in a hundred missing.
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
    data = _load(path)
    ids, classes = _categories(data, path)
    entries = _by_id(data, "images", path)
    boxes: dict[Any, list[tuple[int, dict[str, Any], int]]] = {image: [] for image in entries}
    for key, entry in _by_id(data, "annotations", path).items():
        image, category = entry.get("image_id"), entry.get("category_id")
        for value, known, what in ((image, boxes, "image"), (category, ids, "category")):
            if not isinstance(value, int) or value not in known:
                raise DataError(
                    f"{path}: annotation {key} is of {what} {value!r}, which the file does not have; "
                    "correct or delete it"
                )
        boxes[image].append((key, entry, ids.index(category) + 1))
    pictures: list[Picture] = []
    dropped: list[Dropped] = []
    lost: list[Dropped] = []
    for image, entry in entries.items():
        found = _found(entry, folders, path, measure)
        if isinstance(found, str):
            lost.append(Dropped(str(entry.get("file_name")), found))
        else:
            pictures.append(_picture(image, *found, boxes[image], dropped))
    _check_lost(lost, len(entries), path)
    return Annotated(path, classes, ids, tuple(pictures), (*dropped, *lost))


def _load(path: Path) -> Mapping[str, Any]:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise DataError(f"{path} is not json; give a file in COCO's format") from None
    parts = data if isinstance(data, dict) else {}
    missing = [name for name in LISTS if not isinstance(parts.get(name), list)]
    if missing:
        raise DataError(
            f"{path} is not in COCO's format: it has no list of {', '.join(missing)}; it needs "
            f"{', '.join(LISTS)}"
        )
    return parts


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
    names = {key: str(e.get("name", key)) for key, e in _by_id(data, "categories", path).items()}
    if not names:
        raise DataError(f"{path} has no categories; name at least one")
    ids = tuple(sorted(names))
    classes = tuple(names[key] for key in ids)
    if twice := next((name for name in classes if classes.count(name) > 1), None):
        raise DataError(f"{path}: two categories are called {twice!r}; rename one")
    return ids, classes


def image_folders(place: Path, split: str = "") -> list[Path]:
    """Where the images of a json file in the folder `place` are looked for."""
    names = (*IMAGE_FOLDERS, split, f"images/{split}") if split else IMAGE_FOLDERS
    return [start / name for start in (place, place.parent) for name in names]


def _found(
    entry: Mapping[str, Any], folders: Iterable[Path], path: Path, measure: Measure
) -> tuple[Path, tuple[int, int]] | str:
    """An image's file and its size, which the json must not contradict; or why it cannot be used."""
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: image {entry.get('id')} has no file_name; add it")
    file = next((folder / name for folder in folders if (folder / name).is_file()), None)
    size = "there is no such file" if file is None else measure(file)
    if file is None or isinstance(size, str):
        return str(size)
    said = (entry.get("width", size[0]), entry.get("height", size[1]))
    if said != size:
        return f"it is {size[0]}x{size[1]} pixels, the json says {said[0]}x{said[1]}"
    return file, size


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
    if not all(map(_is_finite, bbox)):
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


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
    area: Any = entry.get("area")
    return float(area if _is_finite(area) else entry["bbox"][2] * entry["bbox"][3])
