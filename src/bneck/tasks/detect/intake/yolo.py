"""YOLO's txt files with data.yaml, or without: one file per image, a line per box in fractions of the image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bneck.data.images import image_size
from bneck.data.intake.image_files import ImageFiles
from bneck.data.intake.splits import split_by_folder
from bneck.data.intake.texts import read_text
from bneck.data.intake.walk import DataError, is_image, walk
from bneck.specs.errors import few
from bneck.tasks.detect.intake.coco import Annotated, Picture
from bneck.tasks.detect.intake.marked import Box, Marked, annotated_of

NAME_LISTS = ("classes.txt", "obj.names", "names.txt")
SLACK = 0.02  # of a side that boxes may reach over the edges
_LINE = re.compile(r"\d+(\s+[-+\d.eE]+){4,}")


def find_yaml(root: Path) -> Path | None:
    """The yaml file of a folder that names classes, None for none."""
    files = sorted([*root.glob("*.yaml"), *root.glob("*.yml"), *root.glob("*/data.yaml")])
    return next((file for file in files if _settings(file).get("names")), None)


def has_yolo(root: Path) -> bool:
    """Whether a folder has a data.yaml, or label files."""
    return find_yaml(root) is not None or has_labels(root)


def has_labels(root: Path) -> bool:
    """Whether there are txt files with boxes named after images below a folder."""
    stems, texts = set(), []
    for path in walk(root):
        if is_image(path.name):
            stems.add(path.stem)
        elif path.suffix.lower() == ".txt":
            texts.append(path)
    return any(path.stem in stems and _has_boxes(path) for path in texts)


def read_yolo(root: Path, listed: Path | None = None) -> dict[str, Annotated]:
    """The annotated images of each split, of "" where nothing tells splits.

    Splits are what the yaml file names (folders, or lists of images), else folders above the images. The label
    file of an image has its name and lies next to it or in a folder alike; an image without one has no boxes.
    Polygons become the boxes round them. `listed` is the yaml file, looked for where it is None.

    Raises:
        DataError: a line that is no box, a class without a name, no label files.
    """
    listed = listed or find_yaml(root)
    settings = {} if listed is None else _settings(listed)
    images = ImageFiles(root, (root,))
    splits = _named_splits(root, listed, settings, images) or _by_folder(root, images.all())
    texts = _label_files(root, [path.stem for paths in splits.values() for path in paths])
    names = _names(root, settings)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"the classes of {root} have the name {twice!r} twice; rename one")
    found = {
        split: [
            _marked(path, _label_of(root, path, texts), names, pose="kpt_shape" in settings)
            for path in paths
        ]
        for split, paths in splits.items()
    }
    boxes = [box for marked in found.values() for one in marked for box in one.boxes]
    if not texts or not boxes:
        raise DataError(
            f"{root} has no label files with boxes; each image needs a txt file of its name, next to it or in "
            "a folder labels next to images"
        )
    if not names:
        names = [str(number) for number in range(1 + max(int(box.name) for box in boxes))]
    read = {}
    used = _real([path for paths in splits.values() for path in paths])
    spare = len(_real(images.all()) - used)
    for split, marked in found.items():
        one = annotated_of(names, marked, listed or root)
        bare = sum(_label_of(root, path, texts) is None for path in splits[split])
        notes = [f"{bare} images have no label file"] if bare else []
        if polygons := sum(box.polygon for image in marked for box in image.boxes):
            notes.append(f"{polygons} polygons are taken as the boxes around them")
        if spare and split == "train":
            notes.append(
                f"not used: {spare} images that {listed.name if listed else root} does not name"
            )
        read[split] = replace(one, notes=(*one.notes, *notes))
    _check_centres([picture for one in read.values() for picture in one.pictures], root)
    return read


def _check_centres(pictures: Sequence[Picture], where: Path) -> None:
    """Raise DataError for boxes that reach over the edges as centres and sizes, and none does as corners."""
    rows = [
        row[:4] / np.tile(picture.size, 2)
        for picture in pictures
        for row in picture.given[~picture.crowd]
    ]
    low, size = np.split(np.array(rows).reshape(-1, 4), 2, axis=1)
    over = ((low < -SLACK) | (low + size > 1 + SLACK)).any(1)
    first = low + size / 2  # as the file has them: centres, or corners with those of `size`
    corners = ((size > first) & (size <= 1 + SLACK)).all()
    if corners and over.sum() >= 3 and over.mean() > 0.1:
        raise DataError(
            f"{where}: {over.sum()} of {len(rows)} boxes reach over the edges of their images as 'cx cy width "
            "height', and none as 'left top right bottom'; write centers and sizes, not corners"
        )


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        # Scalars stay text: as yaml has them, names such as no, on and 1.10 would become others.
        found = yaml.load(read_text(path, "the list"), Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not yaml: {reason}; correct it, or move it elsewhere") from None
    return found if isinstance(found, dict) else {}


def _names(root: Path, settings: Mapping[str, Any]) -> list[str]:
    """Class names by number; [] where nothing names them."""
    names = settings.get("names")
    told = str(settings.get("nc", ""))
    if isinstance(names, dict | list) and told.isdecimal() and int(told) != len(names):
        raise DataError(
            f"the yaml file of {root} has nc: {told} and {len(names)} names; correct one of them"
        )
    if isinstance(names, dict):
        by_number = {str(number): str(name) for number, name in names.items()}
        wanted = [str(number) for number in range(len(by_number))]
        if set(by_number) != set(wanted):
            raise DataError(
                f"the names in the yaml file of {root} are numbered {few(list(by_number))}; number them from 0"
            )
        return [by_number[number] for number in wanted]
    if isinstance(names, list):
        return [str(name) for name in names]
    if names:
        raise DataError(
            f"names in the yaml file of {root} is {names!r}; it must be a list of names"
        )
    files = (place / name for place in (root, root / "labels") for name in NAME_LISTS)
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return []
    return [line.strip() for line in read_text(file, "the class list").splitlines() if line.strip()]


def _named_splits(
    root: Path, listed: Path | None, settings: Mapping[str, Any], images: ImageFiles
) -> dict[str, list[Path]]:
    """The images of each split as the yaml file has them; {} where its folders are not there."""
    found: dict[str, list[Path]] = {}
    if listed is None:
        return found
    base = listed.parent / str(settings.get("path") or "")
    for split, key in (("train", "train"), ("val", "val"), ("val", "valid"), ("test", "test")):
        entries = settings.get(key)
        for entry in entries if isinstance(entries, list) else [entries] if entries else []:
            plain = str(entry).removeprefix("../").removeprefix("./")
            places = (base / str(entry), base / plain, listed.parent / plain, root / plain)
            place = next(
                (p for p in places if p.exists() and p.resolve().is_relative_to(root.resolve())),
                None,
            )
            if place is None:
                continue
            if place.is_dir():
                found.setdefault(split, []).extend(ImageFiles(place).all())
            else:
                found.setdefault(split, []).extend(_of_list(place, images))
    return found if found.get("train") else {}


def _real(paths: Sequence[Path]) -> set[Path]:
    """Files by the real paths of their folders."""
    places = {place: place.resolve() for place in {path.parent for path in paths}}
    return {places[path.parent] / path.name for path in paths}


def _of_list(listed: Path, images: ImageFiles) -> list[Path]:
    """The images of a list, which has a path per line."""
    lines = [line.strip() for line in read_text(listed, "the list").splitlines() if line.strip()]
    found = {line: images.named(line) for line in lines}
    if lost := [line for line, path in found.items() if path is None]:
        raise DataError(
            f"{listed} names {len(lost)} images that are not there or not one file alone, first {lost[0]}; add "
            "them, or take them off the list"
        )
    return [path for path in found.values() if path is not None]


def _by_folder(root: Path, images: Sequence[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in images:
        found.setdefault(split_by_folder(root, path), []).append(path)
    return found


def _label_files(root: Path, stems: Sequence[str]) -> dict[str, list[Path]]:
    wanted, found = set(stems), dict[str, list[Path]]()
    for path in sorted(walk(root)):
        if path.suffix.lower() == ".txt" and path.stem in wanted:
            found.setdefault(path.stem, []).append(path)
    return found


def _label_of(root: Path, image: Path, texts: Mapping[str, list[Path]]) -> Path | None:
    """The label file of an image: of several of its name the one whose folders are most alike."""
    found = texts.get(image.stem, [])
    own = set(image.parent.parts)
    split = split_by_folder(root, image)
    alike = [path for path in found if split_by_folder(root, path) in (split, "")]
    shared = [len(own & set(path.parent.parts)) for path in alike]
    if shared and shared.count(max(shared)) > 1:
        twins = [path for path, count in zip(alike, shared, strict=True) if count == max(shared)]
        raise DataError(
            f"{image} has several label files: {twins[0]}, {twins[1]}; leave one of them"
        )
    return alike[shared.index(max(shared))] if shared else None


def _has_boxes(path: Path) -> bool:
    with suppress(DataError):
        lines = [line for line in read_text(path, "").splitlines() if line.strip()]
        return bool(lines) and _LINE.fullmatch(lines[0].strip()) is not None
    return False


def _marked(image: Path, label: Path | None, names: Sequence[str], *, pose: bool) -> Marked:
    """An image with its boxes; `pose`: key points follow each box."""
    size = image_size(image)
    if label is None or isinstance(
        size, str
    ):  # an image that cannot be read is reported with the others
        return Marked(str(image), image, ())
    lines = enumerate(read_text(label, "the label file").splitlines(), 1)
    boxes = tuple(
        _box(label, number, " ".join(line.split()[:5]) if pose else line, size, names)
        for number, line in lines
        if line.strip()
    )
    return Marked(str(image), image, boxes)


def _box(label: Path, number: int, line: str, size: tuple[int, int], names: Sequence[str]) -> Box:
    """A line `class cx cy width height`, or `class x y x y x y ...`, all but the class in fractions."""
    try:
        given, *values = (float(part) for part in line.split())
    except ValueError:
        given, values = -1.0, []
    kind = int(given)
    polygon = len(values) >= 6 and len(values) % 2 == 0
    if kind != given or kind < 0 or not (len(values) == 4 or polygon):
        raise DataError(
            f"line {number} of {label} is {line.strip()[:60]!r}; it must be 'class cx cy width height' in "
            "fractions of the image, or 'class x y x y ...'"
        )
    if max(values) > 2:
        raise DataError(
            f"line {number} of {label} has the number {max(values):g}, as if in pixels; YOLO's boxes are in "
            "fractions of the image from 0 to 1"
        )
    if names and kind >= len(names):
        raise DataError(
            f"line {number} of {label} has the class {kind}, and there are {len(names)} names; add it to the "
            "yaml file's names"
        )
    if polygon and not -SLACK <= min(values) <= max(values) <= 1 + SLACK:
        raise DataError(
            f"line {number} of {label} has {len(values)} numbers, and as a polygon it would reach beyond the "
            "image; if key points follow a box, write kpt_shape into the yaml file"
        )
    if polygon:
        across, down = values[::2], values[1::2]
        low, high = (min(across), min(down)), (max(across), max(down))
    else:
        low = (values[0] - values[2] / 2, values[1] - values[3] / 2)
        high = (values[0] + values[2] / 2, values[1] + values[3] / 2)
    return Box(
        names[kind] if names else str(kind),
        (low[0] * size[0], low[1] * size[1], (high[0] - low[0]) * size[0], (high[1] - low[1]) * size[1]),
        polygon=polygon,
    )  # fmt: skip
