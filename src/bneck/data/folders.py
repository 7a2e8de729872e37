"""Which images there are: class folders on disk, and their division into train and val."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bneck.specs.errors import InputError

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
)  # fmt: skip
VAL_NAMES = ("val", "valid", "validation", "test")


class DataError(InputError):
    """Images, labels or settings that cannot be worked with."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image file and the index of its class."""

    path: Path
    label: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of a dataset, by class and then by path. Labels are indices into `classes`."""

    classes: tuple[str, ...]
    train: tuple[Item, ...]
    val: tuple[Item, ...]


def list_images(root: Path, *, val_share: float = 0.2, seed: int = 0) -> Listing:
    """List `train/CLASS/*` with `val/CLASS/*`, `train/CLASS/*` alone, or `CLASS/*`.

    Where there is no val folder (val, valid, validation, or test with class folders), `val_share`
    of each class is split off by a hash of seed and path: the same on every machine, and an added
    image moves at most one other. Folders inside a class are searched, hidden files are not.

    Raises:
        DataError: the folders do not make a dataset of two or more classes with images in each.
    """
    if not 0 < val_share < 1:
        raise DataError(f"val_share is {val_share!r}; it must be above 0 and below 1")
    train_root, val_root = _layout(root)
    folders = _subfolders(train_root)
    if not folders:
        raise DataError(
            f"{train_root} has no class folders; give the images of each class a folder of their "
            f"own, as {root / 'CLASS'} or {root / 'train' / 'CLASS'}"
        )
    if len(folders) == 1:
        raise DataError(
            f"{train_root} has one class, {next(iter(folders))!r}; at least two are needed"
        )
    check_class_names(folders, train_root)
    labels = {name: label for label, name in enumerate(folders)}
    found = {name: _images(folder) for name, folder in folders.items()}
    if val_root is not None:
        val = _val_images(val_root, train_root, labels)
        return Listing(tuple(labels), _items(found, labels), _items(val, labels))
    train, val = {}, {}
    for name, paths in found.items():
        train[name], val[name] = _split(paths, train_root, val_share, seed)
    return Listing(tuple(labels), _items(train, labels), _items(val, labels))


def class_folders(root: Path) -> dict[str, tuple[Path, ...]]:
    """Images to judge by, by class in the order of names: `CLASS/*`, or `val/CLASS/*` beside train.

    Raises:
        DataError: no class folders there, or one without images.
    """
    train, val = _layout(root)
    place = val or train
    folders = _subfolders(place)
    if not folders:
        raise DataError(
            f"{place} has no class folders and no labels.csv; give the images of each class a folder "
            f"of their own, as {root / 'CLASS'}"
        )
    check_class_names(folders, place)
    return {name: _images(folder) for name, folder in folders.items()}


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
    """Raise DataError for a class whose name is not UTF-8: files for devices could not hold it."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"the class {name!r} in {where} has a name that is not UTF-8; rename its folder"
            ) from None


def _layout(root: Path) -> tuple[Path, Path | None]:
    """The folders that hold the class folders of train and of val; None where val is split off."""
    inside = {name.lower(): path for name, path in _subfolders(root).items()}
    train = inside.get("train")
    others = set(inside) - {"train", *VAL_NAMES}
    # Among pictures of vehicles, "train" is a class: it has siblings, and no folders of its own.
    if train is None or (others and not _subfolders(train)):
        return root, None
    for name in VAL_NAMES:
        # A test folder without classes holds unlabelled images, as in many competitions.
        if name in inside and (name != "test" or _subfolders(inside[name])):
            return train, inside[name]
    return train, None


def _subfolders(folder: Path) -> dict[str, Path]:
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        raise DataError(f"there is no folder {folder}; check the path") from None
    except NotADirectoryError:
        raise DataError(
            f"{folder} is not a folder; give the folder that holds the class folders"
        ) from None
    except OSError as error:
        raise _unreadable(folder, error) from None
    return {path.name: path for path in paths if path.is_dir() and not path.name.startswith(".")}


def _images(folder: Path) -> tuple[Path, ...]:
    """All image files under a class folder, sorted by path."""

    def stop(error: OSError) -> None:
        raise _unreadable(folder, error) from None

    paths: list[Path] = []
    seen: set[str] = set()
    for place, inner, files in os.walk(folder, onerror=stop, followlinks=True):
        real = os.path.realpath(place)
        # A link to a folder above would be walked for ever.
        inner[:] = [] if real in seen else sorted(n for n in inner if not n.startswith("."))
        paths += [Path(place, name) for name in files if real not in seen and _is_image(name)]
        seen.add(real)
    if not paths:
        raise DataError(
            f"class {folder.name!r} has no images in {folder}; add some (their names end in "
            f"{' '.join(SUFFIXES)}) or delete the folder"
        )
    return tuple(sorted(paths))


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _val_images(
    val_root: Path, train_root: Path, labels: dict[str, int]
) -> dict[str, tuple[Path, ...]]:
    folders = _subfolders(val_root)
    if not folders:
        raise DataError(
            f"{val_root} has no class folders; sort its images into folders named as those of "
            f"{train_root}, or delete it to have val split off train"
        )
    for name in folders:
        if name not in labels:
            raise DataError(
                f"class {name!r} is in {val_root} but not in {train_root}; add training images of "
                "it, or rename or delete its folder"
            )
    return {name: _images(folder) for name, folder in folders.items()}


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
    val = tuple(paths[i] for i in sorted(chosen))
    return tuple(path for path in paths if path not in val), val


def _items(found: Mapping[str, tuple[Path, ...]], labels: dict[str, int]) -> tuple[Item, ...]:
    return tuple(Item(path, labels[name]) for name, paths in found.items() for path in paths)


def _unreadable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"{error.filename or folder} cannot be listed: {error.strerror}; make it readable"
    )
