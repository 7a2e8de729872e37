"""The image that an annotation file means, wherever it lies and however its name is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from unicodedata import normalize
from urllib.parse import unquote

from bneck.data.intake.walk import SUFFIXES, images_below

# Where images lie next to their json, or next to the folder that holds it.
IMAGE_FOLDERS = ("", "images", "JPEGImages", "data")


def image_folders(place: Path, split: str = "") -> list[Path]:
    """Where the images of a json file in the folder `place` are looked for first."""
    names = (*IMAGE_FOLDERS, split, f"images/{split}") if split else IMAGE_FOLDERS
    return [start / name for start in (place, place.parent) for name in names]


class ImageFiles:
    """Finds images by names in annotations: as they stand, else by shorter ends of their path, below `root`.

    `left` counts pictures that cannot be taken, by kind, once the folder has been walked.
    """

    def __init__(self, root: Path, folders: Sequence[Path] = ()) -> None:
        self.root, self.folders = root, folders
        self.left: Counter[str] = Counter()
        self._names: dict[str, list[Path]] | None = None
        self._stems: dict[str, list[Path]] = {}
        self._alike: dict[str, list[Path]] = {}

    def named(self, name: str, near: Path | None = None) -> Path | None:
        """The file of a name, which may have back slashes, folders that are not there, or %20 for a blank.

        Where there is none, one that differs in capitals or Unicode form alone, as on a Mac or in Windows.
        """
        for spelled in dict.fromkeys(
            (name, name.replace("\\", "/"), unquote(name.replace("\\", "/")))
        ):
            parts = PurePosixPath(spelled).parts
            for start in range(len(parts)):
                end = Path(*parts[start:])
                for folder in self.folders:
                    if (folder / end).is_file():
                        return folder / end
            if parts and (found := self._nearest(self._index().get(parts[-1], []), near)):
                return found
        last = name.replace("\\", "/").rsplit("/", 1)[-1]
        return self._nearest(self._alike.get(_plain(last), []), near)

    def of_stem(self, stem: str, near: Path) -> Path | None:
        """The image of a stem, whatever its suffix, that lies nearest to its annotation file."""
        self._index()
        return self._nearest(self._stems.get(stem, []), near)

    def all(self) -> list[Path]:
        """All images below the root."""
        return sorted(path for paths in self._index().values() for path in paths)

    def _index(self) -> dict[str, list[Path]]:
        if self._names is None:
            self._names = {}
            for path in images_below(self.root, self.left):
                self._names.setdefault(path.name, []).append(path)
                self._stems.setdefault(path.stem, []).append(path)
                self._alike.setdefault(_plain(path.name), []).append(path)
        return self._names

    def _nearest(self, paths: Sequence[Path], near: Path | None) -> Path | None:
        """Of several the one with most folders in common; None where two have as many."""
        if len(paths) < 2 or near is None:
            return paths[0] if len(paths) == 1 else None
        own = (
            set(near.relative_to(self.root).parts[:-1]) if near.is_relative_to(self.root) else set()
        )
        shared = [len(own & set(path.relative_to(self.root).parts[:-1])) for path in paths]
        best = max(shared)
        return paths[shared.index(best)] if shared.count(best) == 1 else None


def _plain(name: str) -> str:
    return normalize("NFC", name).casefold()


def stem_of(name: str) -> str:
    """A file's name without folders of any system and without an image's suffix."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    stem, suffix = os.path.splitext(last)
    return stem if suffix.lower() in SUFFIXES else last
