"""Which images there are: class folders on disk, and their division into train and val."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import category, normalize

from bneck.data.intake.layout import Layout, find_layout
from bneck.data.intake.splits import split_of
from bneck.data.intake.unsorted import unsorted
from bneck.data.intake.walk import SUFFIXES, DataError, counted, endings, images_below

__all__ = [
    "SUFFIXES", "DataError", "Found", "Item", "Listing", "check_class_names", "class_folders",
    "held_out", "list_images", "look_alike", "split_folder", "split_off",
]  # fmt: skip
Paths = Mapping[str, tuple[Path, ...]]


@dataclass(frozen=True, slots=True)
class Item:
    """One image file and the index of its class."""

    path: Path
    label: int


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to say of a dataset next to its images.

    `val` says where val comes from: "given", or how it was split off. `left` counts pictures that are
    left out, by kind. `notes` are short sentences.
    """

    val: str = "given"
    left: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of a dataset, by class and then by path. Labels are indices into `classes`.

    `test` are the images of a test split next to val, which training leaves alone.
    """

    classes: tuple[str, ...]
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...] = ()
    found: Found = field(default_factory=Found)


def list_images(root: Path, *, val_share: float = 0.2, seed: int = 0) -> Listing:
    """List the class folders that `layout.find_layout` finds.

    Where there is no val folder (nor test with class folders), `val_share` of each class is split off by
    a hash of seed and path: the same on every machine, and an added image moves at most one other.
    Folders inside a class are searched, hidden files are not. Names of classes are in Unicode's composed
    form (NFC), whichever the folders have.

    Raises:
        DataError: the folders do not make a dataset of two or more classes with images in each.
    """
    if not 0 < val_share < 1:
        raise DataError(f"val_share is {val_share!r}; it must be above 0 and below 1")
    layout = find_layout(root)
    place, folders = layout.places["train"], _composed(layout, "train")
    if not folders:
        raise DataError(
            f"{place} has no class folders{unsorted(place, root)}; give the images of each class a folder of "
            f"their own, as {root / 'CLASS'} or {root / 'train' / 'CLASS'}"
        )
    if len(folders) == 1:
        raise DataError(
            f"{place} has one class, {next(iter(folders))!r}{unsorted(place, root)}; at least two are needed"
        )
    check_class_names(folders, place)
    labels = {name: label for label, name in enumerate(folders)}
    notes, left = [*layout.notes, *look_alike(folders)], Counter(layout.left)
    train = {name: _images(folder, left) for name, folder in folders.items()}
    if "val" in layout.splits:
        val, how = _others(layout, "val", labels, left, notes), "given"
    else:
        how, val = f"split off by seed {seed}", {}
        for name, paths in train.items():
            train[name], val[name] = _split(paths, place, val_share, seed)
    test = _test(layout, labels, left, notes)
    return Listing(
        tuple(labels), _items(train, labels), _items(val, labels), _items(test, labels),
        Found(how, dict(left), tuple(notes)),
    )  # fmt: skip


def class_folders(root: Path) -> dict[str, tuple[Path, ...]]:
    """Images to judge by, by class in the order of names: those of val, or all where nothing is divided.

    Raises:
        DataError: no class folders there, or one without images.
    """
    layout = find_layout(root)
    split = "val" if "val" in layout.splits else "train"
    place, folders = layout.places[split], _composed(layout, split)
    if not folders:
        raise DataError(
            f"{place} has no class folders and no labels.csv; give the images of each class a folder "
            f"of their own, as {root / 'CLASS'}"
        )
    check_class_names(folders, place)
    return {name: _images(folder) for name, folder in folders.items()}


def split_folder(root: Path, split: str) -> Path:
    """The folder that holds the class folders of a split; `root` where it is not divided into such folders.

    Raises:
        DataError: no such folder, or it is divided and has no such split.
    """
    if not root.is_dir():
        return root  # what reads it says what is wrong
    layout = find_layout(root)
    if len(layout.splits) == 1:
        return root
    if split == "test" and split_of(layout.places.get("val", root).name) == "test":
        split = "val"  # which test is where there is no other
    if split not in layout.splits and split in ("train", "val", "test"):
        raise DataError(f"there is no split {split!r} of {root}; it has {', '.join(layout.splits)}")
    place = layout.places.get(split, root)
    if split != "val" and list(layout.places.values()).count(place) > 1:
        raise DataError(
            f"{root} has its splits inside the class folders; to score on {split}, give a folder that holds "
            f"{split}/CLASS"
        )
    return place


def held_out(count: int, share: float) -> int:
    """How many of `count` images `share` means: rounded, at least one, never all of them."""
    return max(0, min(max(1, round(count * share)), count - 1))


def split_off(names: Sequence[str], share: float, seed: int) -> list[int]:
    """Positions of the images of one class that are held out: those whose names have the lowest hashes."""

    def rank(position: int) -> bytes:
        # fsencode, because names need not be unicode.
        return hashlib.sha256(os.fsencode(f"{seed}/{names[position]}")).digest()

    return sorted(range(len(names)), key=rank)[: held_out(len(names), share)]


def check_class_names(names: Iterable[str], where: Path | str) -> None:
    """Raise DataError for a name that is not UTF-8 or not one line: lists and files could not hold it."""
    for name in names:
        if len(name.splitlines()) > 1 or any(category(sign) == "Cc" for sign in name):
            raise DataError(
                f"the class {name!r} in {where} has a line break or control character in its name; rename it"
            )
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"the class {name!r} in {where} has a name that is not UTF-8; rename its folder"
            ) from None


def _composed(layout: Layout, split: str) -> dict[str, Path]:
    """Class folders by their names in composed form, in which a name from a Mac equals another's."""
    found: dict[str, Path] = {}
    for name, path in layout.splits[split].items():
        composed = normalize("NFC", name)
        if composed in found:
            raise DataError(
                f"{path.parent} has the class {composed!r} twice, once in composed and once in decomposed "
                "Unicode characters (NFC and NFD, as a Mac writes them); merge the two folders"
            )
        found[composed] = path
    return dict(sorted(found.items()))


def look_alike(names: Iterable[str]) -> list[str]:
    """Notes on classes whose names differ in capitals or blanks alone."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_plain(name), []).append(name)
    return [
        f"classes that differ in capitals or blanks alone: {', '.join(map(repr, found))}"
        for found in alike.values()
        if len(found) > 1
    ]


def _plain(name: str) -> str:
    return "".join(name.casefold().split())


def _images(folder: Path, left: Counter[str] | None = None) -> tuple[Path, ...]:
    """All image files under a class folder, sorted by path."""
    own: Counter[str] = Counter()
    paths = images_below(folder, own)
    if not paths:
        other = f" but {counted(own)}" if own else ""
        raise DataError(
            f"class {folder.name!r} has no images in {folder}{other}; add some (their names end in "
            f"{endings()}) or delete the folder"
        )
    if left is not None:
        left += own
    return tuple(paths)


def _others(
    layout: Layout, split: str, labels: dict[str, int], left: Counter[str], notes: list[str]
) -> dict[str, tuple[Path, ...]]:
    """The images of a split next to train, by class."""
    place, train = layout.places[split], layout.places["train"]
    folders = _composed(layout, split)
    if not folders:
        raise DataError(
            f"{place} has no class folders; sort its images into folders named as those of "
            f"{train}, or delete it to have val split off train"
        )
    for name in folders:
        if name not in labels:
            raise DataError(_unknown(name, place, train, labels))
        if folders[name].name not in layout.splits["train"]:
            notes.append(
                f"{name!r} is written in two Unicode forms (NFC and NFD), taken as one class"
            )
    return {name: _images(folder, left) for name, folder in folders.items()}


def _unknown(name: str, place: Path, train: Path, labels: Iterable[str]) -> str:
    near = next((other for other in labels if _plain(other) == _plain(name)), None)
    if near is not None:
        return (
            f"class {name!r} is in {place} and {near!r} in {train}: they differ in capitals or blanks alone; "
            "rename one of the folders"
        )
    return (
        f"class {name!r} is in {place} but not in {train}; add training images of "
        "it, or rename or delete its folder"
    )


def _test(
    layout: Layout, labels: dict[str, int], left: Counter[str], notes: list[str]
) -> dict[str, tuple[Path, ...]]:
    """The images of a test split; none where its folders are not those of train, as it is not used."""
    if "test" not in layout.splits:
        return {}
    try:
        return _others(layout, "test", labels, left, notes)
    except DataError as error:
        notes.append(f"test cannot be used: {str(error).split(';')[0]}")
        return {}


def _split(
    paths: tuple[Path, ...], root: Path, share: float, seed: int
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """(train, val) of one class; chosen by hash, so that the order of `paths` does not matter."""
    if len(paths) < 2:
        raise DataError(
            f"class {paths[0].relative_to(root).parts[0]!r} has a single image, {paths[0]}; it "
            "cannot be split into train and val: add images of it, or delete its folder"
        )
    chosen = split_off([path.relative_to(root).as_posix() for path in paths], share, seed)
    val = {paths[i] for i in chosen}
    return tuple(path for path in paths if path not in val), tuple(p for p in paths if p in val)


def _items(found: Paths, labels: dict[str, int]) -> tuple[Item, ...]:
    return tuple(Item(path, labels[name]) for name, paths in found.items() for path in paths)
