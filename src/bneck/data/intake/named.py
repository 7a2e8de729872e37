"""Images whose classes a table or their own names tell, not folders: `train.csv`, or `cat.0.jpg`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

from bneck.data.intake.image_files import ImageFiles
from bneck.data.intake.image_table import Entry, NoClasses, Table, find_tables
from bneck.data.intake.layout import find_layout, single
from bneck.data.intake.splits import only_a_split, split_by_folder, split_of
from bneck.data.intake.walk import DataError, has_images, images_below, is_image, subfolders
from bneck.specs.errors import few

BAD_SHARE = 0.01  # of the rows may contradict others
_DOTTED = re.compile(r"(?P<name>[^.]*[^\W\d_][^.]*)\.\d+\.[^.]+")
Classes = Mapping[str, tuple[Path, ...]]
Found = tuple[Table, Sequence[Entry]]


@dataclass(frozen=True, slots=True)
class Named:
    """Images by split and class; the only split is "" where nothing divides them.

    `left` counts what is left out, by kind; `notes` are short sentences.
    """

    splits: Mapping[str, Classes]
    left: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()

    def split(self, name: str, where: Path) -> Classes:
        """The images to score: those of a split, or all where nothing is divided; without val, test is val.

        Raises:
            DataError: there is no such split.
        """
        if len(self.splits) == 1:
            return next(iter(self.splits.values()))
        if name == "val" and name not in self.splits:
            name = "test"
        if name not in self.splits:
            raise DataError(
                f"there is no split {name!r} of {where}; it has {', '.join(self.splits)}"
            )
        return self.splits[name]


def find_named(root: Path) -> Named | None:
    """The images of a folder by a table or by their names; None where class folders tell the classes.

    A table is a csv file in the folder, or in one of a split, with a column of images and one of classes. Where
    images lie in class folders too, these count if they say the same, else the table does if none of its
    classes is the folder of its image. Splits are a column, tables of their own, or folders of the images.

    Raises:
        DataError: a table that is ambiguous, names no image, contradicts itself or the folders.
    """
    if not root.is_dir():
        return None
    place = single(root)
    tables = find_tables(root) or (find_tables(place) if place != root else [])
    folders = _has_classes(root)
    dotted = None if folders else _dotted(root)
    if not tables or dotted is not None:
        return dotted
    try:
        return _of_tables(root, tables)
    except NoClasses:
        if folders:
            return None
        raise


def class_order(names: Sequence[str]) -> list[str]:
    """Names of classes in their order; numbers by their values.

    >>> class_order(["10", "9"]), class_order(["b", "a"])
    (['9', '10'], ['a', 'b'])
    """
    number = all(name.isdecimal() for name in names)
    return sorted(
        names, key=(lambda name: (int(name), name)) if number else (lambda name: (0, name))
    )


def _has_classes(root: Path) -> bool:
    with suppress(DataError):
        return len(find_layout(root).splits["train"]) > 1
    return False


def _of_tables(root: Path, tables: Sequence[Table]) -> Named | None:
    images = ImageFiles(root, (root,))
    found: list[Found] = []
    unclear: NoClasses | None = None
    for table in tables:
        try:
            found += [(table, entries)] if (entries := table.entries(root, images)) else []
        except NoClasses as error:  # as test.csv, which has images alone
            unclear = error
    if not found:
        first = tables[0]
        raise unclear or NoClasses(
            f"none of the {len(first.rows)} images that {first.path} names is in {root}; give the folder that "
            "holds the table and the images"
        )
    chosen, notes = _chosen(root, found)
    splits = _by_split(root, [entry for _, entries in chosen for entry in entries])
    what = " and ".join(table.path.name for table, _ in chosen)
    if _folders_say_it(root, splits, what):
        return None
    return _sorted(root, splits, images, what, notes)


def _chosen(root: Path, found: Sequence[Found]) -> tuple[list[Found], list[str]]:
    """One table a split, and what is said of the others: a table of no split counts where none is of train."""
    by_split: dict[str, list[Found]] = {}
    for one in found:
        by_split.setdefault(one[0].split, []).append(one)
    notes = []
    if "train" in by_split and "" in by_split:
        notes = [f"not used: {table.path.name}" for table, _ in by_split.pop("")]
    for split, several in by_split.items():
        if len(several) > 1:
            names = ", ".join(str(table.path.relative_to(root)) for table, _ in several)
            raise DataError(
                f"{root} has {len(several)} tables of {split or 'all'} images: {names}; leave one of them"
            )
    return [several[0] for several in by_split.values()], notes


def _by_split(root: Path, entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The rows of each split: as they say, else by the folders of the images."""
    splits: dict[str, list[Entry]] = {}
    for entry in entries:
        split = entry.split or (split_by_folder(root, entry.path) if entry.path else "")
        splits.setdefault(split, []).append(entry)
    if len(splits) > 1 and "" in splits:
        splits["train"] = [*splits.get("train", []), *splits.pop("")]
    return splits


def _folders_say_it(root: Path, splits: Mapping[str, Sequence[Entry]], what: str) -> bool:
    """Whether the images lie in class folders that divide them as the table does, and into the same splits.

    Raises:
        DataError: the folders of some images are their classes, those of others are not.
    """
    rows = [
        (entry.label, [part for part in parts[:-1] if not only_a_split(part)], split)
        for split, entries in splits.items()
        for entry in entries
        if entry.path is not None
        and entry.label
        and (parts := entry.path.relative_to(root).parts if entry.path.is_relative_to(root) else ())
    ]
    if not rows:
        return False
    equal = sum(label in (normalize("NFC", part) for part in parts) for label, parts, _ in rows)
    pairs = {(label, parts[-1] if parts else "") for label, parts, _ in rows}
    alike = 1 < len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    divided = any(
        entry.path and split and split_by_folder(root, entry.path) != split
        for split, entries in splits.items()
        for entry in entries
    )
    if alike or equal >= (1 - BAD_SHARE) * len(rows):
        return not (divided and len(splits) > 1)
    if equal > len(rows) / 2:
        raise DataError(
            f"{what} gives {len(rows) - equal} of {len(rows)} images another class than the folders that they "
            f"lie in; correct one of them, or move the table out of {root}"
        )
    return False


def _sorted(
    root: Path, splits: Mapping[str, Sequence[Entry]], images: ImageFiles, what: str, notes: list[str]
) -> Named:  # fmt: skip
    """The images of the rows by split and class, and a count of all that is not usual."""
    left: Counter[str] = Counter()
    found: dict[str, dict[str, list[Path]]] = {}
    missing = again = torn = 0
    for split, entries in splits.items():
        labels: dict[Path, set[str]] = {}
        for entry in entries:
            path = entry.path or root / entry.name.replace("\\", "/")
            if not entry.label or not entry.name:
                left[f"rows of {what} without a class or an image"] += 1
                continue
            again += path in labels and entry.label in labels[path]
            labels.setdefault(path, set()).add(entry.label)
            missing += entry.path is None
        torn += sum(len(own) > 1 for own in labels.values())
        for path, own in labels.items():
            if len(own) == 1:
                found.setdefault(split, {}).setdefault(min(own), []).append(path)
    total = torn + sum(len(paths) for by in found.values() for paths in by.values())
    if torn > BAD_SHARE * total:
        raise DataError(
            f"{what} gives {torn} of {total} images more than one class; bneck learns one class per image, so "
            "leave one row for each image"
        )
    left += Counter({f"with two classes in {what}": torn})
    counts = {
        "{} rows of {} name an image that is not there, or not one file alone": missing,
        "{} rows of {} stand in it twice": again,
    }
    notes += [note.format(count, what) for note, count in counts.items() if count]
    listed = {entry.path for entries in splits.values() for entry in entries if entry.path}
    folders = {path.parent for path in listed}
    spare = [path for path in images.all() if path not in listed]
    left += images.left
    left[f"without a row in {what}"] += sum(path.parent in folders for path in spare)
    others = Counter(
        path.parent.relative_to(root).as_posix() for path in spare if path.parent not in folders
    )
    if others:
        named = few([f"{name} ({count} images)" for name, count in others.items()])
        notes.append(f"not used: {named}")
    return Named(_settled(found), +left, (f"classes by {what}", *notes))


def _dotted(root: Path) -> Named | None:
    """Images called `cat.0.jpg`, as Kaggle's cats and dogs: class, number, suffix, with dots between."""
    left: Counter[str] = Counter()
    places = _loose(root, left) or _in_folders(root, left)
    found: dict[str, dict[str, list[Path]]] = {}
    notes = []
    for split, (place, paths) in places.items():
        told = [(match, path) for path in paths if (match := _DOTTED.fullmatch(path.name))]
        if split != "train" and not told:
            notes.append(f"not used: {len(paths)} images in {place.name} without classes")
            continue
        if len(told) < len(paths):
            return None
        for match, path in told:
            name = normalize("NFC", match["name"])
            found.setdefault(split, {}).setdefault(name, []).append(path)
    if len(found.get("train", {})) < 2:
        return None
    return Named(_settled(found), left, ("classes by the names of the files", *notes))


def _loose(root: Path, left: Counter[str]) -> dict[str, tuple[Path, list[Path]]]:
    """The images in `root` itself as train, next to folders of other splits alone; {} if it is otherwise."""
    images = sorted(path for path in root.iterdir() if is_image(path.name))
    inside = {name: path for name, path in subfolders(root).items() if has_images(path)}
    if not images or not inside or not all(only_a_split(name) for name in inside):
        return {}
    found = {"train": (root, images)}
    for name, path in inside.items():
        found.setdefault(str(split_of(name)), (path, images_below(path, left)))
    return found if len(found) == 1 + len(inside) else {}


def _in_folders(root: Path, left: Counter[str]) -> dict[str, tuple[Path, list[Path]]]:
    """The images of the folders of splits, or of the one folder that there is."""
    try:
        train = find_layout(root).places["train"]
    except DataError:
        return {}
    places = {"train": train}
    if only_a_split(train.name):
        for name, path in subfolders(train.parent).items():
            if only_a_split(name):
                places.setdefault(str(split_of(name)), path)
    return {split: (place, images_below(place, left)) for split, place in places.items()}


def _settled(found: Mapping[str, Mapping[str, list[Path]]]) -> dict[str, Classes]:
    return {
        split: {name: tuple(sorted(by[name])) for name in class_order(list(by))}
        for split, by in found.items()
    }
