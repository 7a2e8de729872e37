"""Which index a class has: lists of class names as people keep them, and labelled images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bneck.data.folders import DataError, Item, class_folders
from bneck.data.intake.csv_rows import csv_rows
from bneck.data.intake.image_files import ImageFiles
from bneck.data.intake.image_table import PATH_COLUMNS, listed_file, naming_faults, whole
from bneck.data.intake.named import Named, find_named
from bneck.data.intake.texts import read_text

INDEX_COLUMNS = ("imagenet_index", "index", "label")  # the first that a csv has
NAME_COLUMNS = ("wnid", "name", "class")
LABELS_CSV = "labels.csv"

Places = Callable[[Sequence[str]], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class ClassList:
    """Class names by index; `places` also has other names of a class, as its WNID.

    `names` is empty where a list has gaps, as one of ten classes of ImageNet's thousand has.
    """

    names: tuple[str, ...]
    places: Mapping[str, int]


def read_classes(path: Path) -> ClassList:
    """Read a list of classes.

    A text file with one name a line, a json list of names, a json map from index to name or
    [WNID, name], or a csv with a column index (or imagenet_index, label) and wnid, name or class.

    Raises:
        DataError: the file cannot be read as one of them.
    """
    try:
        if path.suffix.lower() == ".csv":
            rows = _csv_rows(path)
        elif path.suffix.lower() == ".json":
            rows = _json_rows(json.loads(read_text(path, "the class list")))
        else:
            lines = [line.strip() for line in read_text(path, "the class list").splitlines()]
            rows = [(index, (name,)) for index, name in enumerate(filter(None, lines))]
    except DataError:
        raise
    except (ValueError, TypeError, AttributeError):
        rows = []
    if not rows:
        raise DataError(
            f"{path} is no list of classes; known are a text file with one name a line, a json list or map "
            "by index, and a csv with the columns index and wnid or name"
        )
    places: dict[str, int] = {}
    twice: set[str] = set()  # as "crane", bird and machine: no name to find a class by
    for index, names in rows:
        for name in names:
            if places.setdefault(name, index) != index:
                twice.add(name)
    places = {name: index for name, index in places.items() if name not in twice}
    by_index = {index: names[-1] for index, names in rows}
    whole = set(by_index) == set(range(len(by_index)))
    return ClassList(tuple(by_index[i] for i in range(len(by_index))) if whole else (), places)


def _csv_rows(path: Path) -> list[tuple[int, tuple[str, ...]]]:
    table = csv_rows(path)
    index = _column(table, INDEX_COLUMNS)
    names = [column for column in NAME_COLUMNS if table and column in table[0]]
    if index is None or not names:
        return []
    found = {(int(row[index]), tuple(row[name] for name in names if row[name])) for row in table}
    return sorted(found)


def _json_rows(value: Any) -> list[tuple[int, tuple[str, ...]]]:
    pairs = enumerate(value) if isinstance(value, list) else value.items()
    return sorted(
        (int(index), (names,) if isinstance(names, str) else tuple(map(str, names)))
        for index, names in pairs
    )


def _column(table: list[dict[str, str]], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if table and name in table[0]), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Images with the index of their class.

    `folders` has the class folders that they were found in, () for a labels.csv. `unknown` counts the
    images of folders that are no class, which are left out.
    """

    items: tuple[Item, ...]
    folders: tuple[str, ...] = ()
    unknown: Mapping[str, int] = field(default_factory=dict)


def labelled_images(
    root: Path,
    *,
    places: Places,
    listed: Path | None = None,
    known: Mapping[str, int] | None = None,
    split: str = "val",
) -> Labelled:
    """Images and labels of `root`: a labels.csv with path and index, class folders, or `named.find_named`.

    Args:
        root: a folder with `CLASS/*` (or val/CLASS/* beside train), or with images and a table of classes.
        places: the index of each class folder by its name; folders that it leaves out are no class.
        listed: a labels.csv that lies elsewhere; its paths are below `root`.
        known: index of classes by name, which a labels.csv with names must not contradict.
        split: of images that a table or their names sort and divide, the part that is meant.

    Raises:
        DataError: no such folder, no images, no such split, or a table that cannot be read.
    """
    table = listed or root / LABELS_CSV
    named = None if listed is not None else find_named(root)
    if listed is not None or (table.is_file() and not _own_names(named, table)):
        return Labelled(items=_listed(root, table, known or {}))
    with naming_faults(root):
        folders = class_folders(root) if named is None else named.split(split, root)
    index = places(tuple(folders))
    return Labelled(
        items=tuple(
            Item(path, index[name])
            for name, paths in folders.items()
            if name in index
            for path in paths
        ),
        folders=tuple(folders),
        unknown={name: len(paths) for name, paths in folders.items() if name not in index},
    )


def _own_names(named: Named | None, table: Path) -> bool:
    """Whether the images of a labels.csv are divided, or their classes stand in a column of another name."""
    if named is None:
        return False
    return len(named.splits) > 1 or _column(csv_rows(table), INDEX_COLUMNS) is None


def is_image_list(path: Path) -> bool:
    """Whether a csv lists images, not classes: it has a column of paths."""
    try:
        paths = tuple(
            name for name in PATH_COLUMNS if name != "id"
        )  # which lists of classes have too
        return path.suffix.lower() == ".csv" and _column(csv_rows(path), paths) is not None
    except DataError:
        return False


def _listed(root: Path, table: Path, known: Mapping[str, int]) -> tuple[Item, ...]:
    rows = csv_rows(table)
    index, path = _column(rows, INDEX_COLUMNS), _column(rows, PATH_COLUMNS)
    if index is None or path is None:
        raise DataError(
            f"{table} lists no images; it needs the columns path and index (or label), and a row an image"
        )
    items, images = [], ImageFiles(root, (root,))
    own = index == "label" and all(row.get(index) in known for row in rows)  # also names as "7"
    for number, row in enumerate(rows, 2):
        value = row.get(index, "")
        position = None if own else whole(value)
        label = known.get(value, -1) if position is None else position
        if label < 0 or not row.get(path):
            raise DataError(
                f"{table} has no index in line {number}: {value!r}; it must be a whole number from 0, or the "
                "name of a class that the network knows"
            )
        for name in filter(None, (row.get(column) for column in NAME_COLUMNS)):
            if known.get(name, label) != label:
                raise DataError(
                    f"{table} gives {name} the index {label} in line {number}, and the network has it as "
                    f"{known[name]}; correct the column {index}, or remove it to go by folders"
                )
        file = listed_file(images, row[path], table.parent)
        items.append(Item(file or root / row[path].replace("\\", "/"), label))
    return tuple(items)
