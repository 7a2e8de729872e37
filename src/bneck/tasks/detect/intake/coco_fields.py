"""COCO's json as tools write it, brought to COCO's own form: ids, numbers, flags, missing boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bneck.data.intake.walk import DataError

LISTS = ("images", "annotations", "categories")
BACKGROUND = ("__background__", "_background_", "background")
MOST_ID = 1 << 62  # beyond which ids, as of hashes, get new numbers, which 64 bits hold
Entry = dict[str, Any]


def cleaned(data: Any, path: Path) -> dict[str, list[Entry]]:
    """The lists of a COCO json with whole ids, numbers as numbers, boxes where there are only polygons.

    Ids may be text; annotations may have none. Categories without boxes that only group others are left out.

    Raises:
        DataError: a list is missing, an id occurs twice or is unknown, two categories have one name.
    """
    parts = data if isinstance(data, dict) else {}
    for name in LISTS:
        if not isinstance(parts.get(name), list):
            what = f"it has no list of {name}" if name not in parts else f"{name} is not a list"
            raise DataError(f"{path} is not in COCO's format: {what}; it needs {', '.join(LISTS)}")
    images = _numbered(parts["images"], "images", path)
    categories = _numbered(parts["categories"], "categories", path)
    annotations = parts["annotations"]
    if all(isinstance(one, dict) and one.get("id") is None for one in annotations):
        annotations = [{**one, "id": number} for number, one in enumerate(annotations, 1)]
    entries = _numbered(annotations, "annotations", path)
    for given, entry in entries.items():
        for name, known in (("image", images), ("category", categories)):
            value = entry.get(f"{name}_id")
            key = _key(value)
            if key not in known:
                raise DataError(
                    f"{path}: annotation {given} is of {name} {value!r}, which the file does not have; "
                    "correct or delete it"
                )
            entry[f"{name}_id"] = known[key]["id"]
        entry["bbox"] = _box(entry)
        entry["iscrowd"] = _flag(entry.get("iscrowd"))
    for entry in images.values():
        for name in ("width", "height"):
            side = number(entry.pop(name, None))
            if side:  # 0 and null are what some tools write for what they do not know
                entry[name] = int(side) if side == int(side) else side
    return {
        "images": list(images.values()), "annotations": list(entries.values()),
        "categories": _classes(list(categories.values()), list(entries.values()), path),
    }  # fmt: skip


def number(value: Any) -> float | None:
    """A finite number, also where it is written as text; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond all floats
        return None


def _key(value: Any) -> int | str | None:
    """An id as it is compared: 7, 7.0 and "7" are one. What is no 64-bit number is taken as text."""
    if isinstance(value, str) and not value.strip().isdecimal():
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str):
        found = int(value)
    elif (told := number(value)) is None or told != int(told):
        return None
    else:
        found = int(told)
    return found if abs(found) < MOST_ID else str(found)


def _numbered(entries: Sequence[Any], part: str, path: Path) -> dict[int | str, Entry]:
    """Copies of entries by id, with whole numbers as ids."""
    found: dict[int | str, Entry] = {}
    for entry in entries:
        given = entry.get("id") if isinstance(entry, dict) else None
        key = _key(given)
        if key is None:
            raise DataError(
                f"{path}: one of the {part} has the id {given!r}; ids are whole numbers or text"
            )
        if key in found:
            raise DataError(
                f"{path}: the id {key} occurs twice among the {part}; give each its own"
            )
        found[key] = dict(entry)
    free = 1 + max((key for key in found if isinstance(key, int)), default=0)
    for key, entry in found.items():
        entry["id"] = key if isinstance(key, int) else free
        free += isinstance(key, str)
    return found


def _box(entry: Mapping[str, Any]) -> Any:
    """[x, y, width, height]: as given, with text as numbers, or round its polygons."""
    given = entry.get("bbox")
    if isinstance(given, list | tuple) and given:
        numbers = [number(value) for value in given]
        return list(given) if None in numbers else numbers
    points = list(_points(entry.get("segmentation")))
    if not points:
        return given
    across, down = zip(*points, strict=True)
    return [min(across), min(down), max(across) - min(across), max(down) - min(down)]


def _points(polygons: Any) -> Iterator[tuple[float, float]]:
    for polygon in polygons if isinstance(polygons, list) else ():
        values = [number(v) for v in polygon] if isinstance(polygon, list) else []
        plain = [value for value in values if value is not None]
        if len(plain) == len(values):
            yield from zip(plain[::2], plain[1::2], strict=False)


def _text(name: Any) -> str:
    return "" if name is None else str(name).strip()


def _flag(value: Any) -> int:
    return (
        int(value.strip().lower() in ("1", "true", "yes"))
        if isinstance(value, str)
        else int(bool(value))
    )


def _classes(categories: list[Entry], entries: Sequence[Entry], path: Path) -> list[Entry]:
    """Without those that have no boxes and are the group of others, or the background."""
    if not categories:
        raise DataError(f"{path} has no categories; name at least one")
    used = {entry["category_id"] for entry in entries}
    groups = {
        one.get("supercategory")
        for one in categories
        if one.get("supercategory") != one.get("name")
    }
    kept = [
        one for one in categories
        if one["id"] in used
        or not (one.get("name") in groups or (one["id"] == 0 and one.get("name") in BACKGROUND))
    ]  # fmt: skip
    names = [_text(one.get("name")) or str(one["id"]) for one in kept]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{path}: two categories are called {twice!r}; rename one")
    return [{**one, "name": name} for one, name in zip(kept, names, strict=True)]
