"""Tables of images with a class each, as `train.csv` next to a folder of images: their columns and rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from bneck.data.intake.csv_rows import csv_rows
from bneck.data.intake.image_files import ImageFiles, stem_of
from bneck.data.intake.splits import only_a_split, split_of, words
from bneck.data.intake.walk import DataError, is_hidden, subfolders
from bneck.specs.errors import few

# The first in which images are found.
PATH_COLUMNS = (
    "path", "filename", "file_name", "file", "filepath", "filepaths", "file_path", "fname", "image",
    "image_path", "image_file", "image_name", "image_id", "img", "img_path", "img_name", "imagename", "id",
)  # fmt: skip
_LABELS = (
    "label", "labels", "class", "classes", "class_name", "classname", "label_name", "category",
    "category_name", "target", "breed", "species", "diagnosis", "dx", "tag", "wnid",
)  # fmt: skip
_NUMBERS = ("index", "imagenet_index", "class_id", "class id", "label_id", "category_id")
_SPLITS = (
    "split",
    "set",
    "subset",
    "data set",
    "data_set",
    "dataset",
    "partition",
    "usage",
    "is_valid",
)
_SPLIT_ALONE = ("split", "subset", "partition", "is_valid")  # which mean nothing else
_BOXES = {"xmin", "ymin", "xmax", "ymax"}  # a table of objects, of which an image has several
_VALID = {"true": "val", "1": "val", "false": "train", "0": "train"}  # of is_valid
_WHOLE = re.compile(r"(\d+)(\.0*)?")  # a spreadsheet may write 1.0
LOOKED_AT = 50  # rows that tell in which column the images are

Row = Mapping[str, str]


class NoClasses(DataError):
    """A table of something else: none of its images is there, or no column is known to be that of classes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a table: a name of an image, the file where there is one, its class and its split ("": none)."""

    name: str
    path: Path | None
    label: str
    split: str


@dataclass(frozen=True, slots=True)
class Table:
    """A csv file with a column of images. `split` is what its name or its folder says, "" for none."""

    path: Path
    split: str
    rows: Sequence[Row]

    def entries(self, root: Path, images: ImageFiles) -> list[Entry]:
        """The rows with their images, looked for below `root`; [] where none of the images is there.

        Raises:
            DataError: no column of classes, several that may be it, or splits that are none.
        """
        near = self._near(root)
        looked = self.rows[:: max(1, len(self.rows) // LOOKED_AT)]
        counts = {
            column: sum(
                listed_file(images, row.get(column, ""), near) is not None for row in looked
            )
            for column in PATH_COLUMNS
            if column in self.rows[0]
        }
        column = max(counts, key=lambda name: counts[name])
        if not counts[column]:
            return []
        splits = self._splits()
        labels = self._labels(column)
        return [
            Entry(row.get(column, ""), listed_file(images, row.get(column, ""), near), label, split)
            for row, label, split in zip(self.rows, labels, splits, strict=True)
        ]

    def _near(self, root: Path) -> Path:
        """The folder whose images are meant where several have a name."""
        inside = {name: path for name, path in subfolders(root).items() if only_a_split(name)}
        own = (path for name, path in inside.items() if split_of(name) == self.split)
        return next(own, self.path.parent) if self.path.parent == root else self.path.parent

    def _splits(self) -> list[str]:
        """The split of each row by a column of splits, else the table's."""
        for column in _SPLITS:
            values = [row.get(column, "") for row in self.rows]
            if column == "is_valid" and column in self.rows[0]:
                found = [_VALID.get(value.lower(), "") for value in values]
            else:
                found = [split_of(value) or "" for value in values]
            if all(found):
                return found
            if any(found):
                odd = next(value for value, split in zip(values, found, strict=True) if not split)
                raise DataError(
                    f"{self.path} has {odd!r} in the column {column!r}, next to train, val or test; write one "
                    "of these in each row"
                )
            if column in _SPLIT_ALONE and len(several := sorted(set(values))) > 1:
                raise DataError(
                    f"{self.path} has the values {few(several)} in the column {column!r}; write train, val or "
                    "test in each row, or delete the column"
                )
        return [self.split] * len(self.rows)

    def _labels(self, images: str) -> list[str]:
        """The class of each row, "" for none."""
        heads = [head for head in self.rows[0] if head and not head.startswith("unnamed")]
        others = [head for head in heads if head not in (images, *_SPLITS)]
        plain = [head for head in others if head not in PATH_COLUMNS]
        told = [head for head in plain if head in (*_LABELS, *_NUMBERS)] or plain
        values = {head: [row.get(head, "") for row in self.rows] for head in told}
        if not told:
            raise NoClasses(
                f"{self.path} has the columns {', '.join(heads)} and none of classes; add a column 'label'"
            )
        if len(told) > 1 and (marked := _one_hot(values)):
            return marked
        first = values[told[0]]
        if odd := [head for head in told[1:] if not _alike(first, values[head])]:
            raise (DataError if told[0] in (*_LABELS, *_NUMBERS) else NoClasses)(
                f"{self.path} has {1 + len(odd)} columns that may be the classes, {few([told[0], *odd])}, and "
                "they divide the images otherwise; leave the one that is meant, or call it 'label' and the "
                "others otherwise"
            )
        named = [column for column in values.values() if not all(map(_WHOLE.fullmatch, column))]
        return _plain(named[0] if named else first)


def find_tables(root: Path) -> list[Table]:
    """Tables of images in a folder and in its folders of splits; samples of answers are none."""
    return [table for place, path in _files(root) if (table := _table(root, place, path))]


@contextmanager
def naming_faults(root: Path) -> Iterator[None]:
    """A refusal of the images in a folder says, too, why no table in it tells their classes."""
    try:
        yield
    except DataError as error:
        why = next((fault for _, path in _files(root) if (fault := _fault(path))), "")
        raise (DataError(f"{error}; {why}") if why else error) from None


def whole(value: str) -> int | None:
    """The number from 0 that a cell holds, None for none.

    >>> whole("1.0"), whole("1.5")
    (1, None)
    """
    match = _WHOLE.fullmatch(value)
    return int(match[1]) if match else None


def listed_file(images: ImageFiles, name: str, near: Path) -> Path | None:
    """The image that a cell names, with or without its suffix; of several that in the folder `near`."""
    if not name or name.endswith(("/", "\\")):
        return None
    found = images.named(name, near / "image")
    if found is None:
        last = PurePosixPath(name.replace("\\", "/"))
        place = near.joinpath(*last.parts)
        return images.of_stem(last.name, place) or images.of_stem(stem_of(name), place)
    if not found.is_relative_to(images.root) or ".." in found.parts:  # from / or by way of ../
        inside = found.resolve()
        root = images.root.resolve()
        return images.root / inside.relative_to(root) if inside.is_relative_to(root) else found
    return found


def _files(root: Path) -> Iterator[tuple[Path, Path]]:
    """Files that may be tables of images, each after its folder."""
    if not root.is_dir():
        return
    inside = subfolders(root)
    for place in (root, *(path for name, path in inside.items() if only_a_split(name))):
        for path in sorted(place.iterdir()):
            named = path.suffix.lower() in (".csv", ".tsv") and not is_hidden(path.name)
            if named and "submission" not in words(path.stem):
                yield place, path


def _table(root: Path, place: Path, path: Path) -> Table | None:
    with suppress(DataError):  # another program's, or not text
        rows = csv_rows(path)
        if rows and any(c in rows[0] for c in PATH_COLUMNS) and not _BOXES.issubset(rows[0]):
            folder = place.name if place != root else ""
            return Table(path, split_of(path.stem) or split_of(folder) or "", rows)
    return None


def _fault(path: Path) -> str:
    """Why a csv file is no table of images, "" where it is one or holds nothing."""
    try:
        rows = csv_rows(path)
    except DataError as error:
        return str(error)
    if not rows or any(column in rows[0] for column in PATH_COLUMNS):
        return ""
    heads = few([head for head in rows[0] if head])
    return f"{path.name} has the columns {heads} and none of images: call that column 'path'"


def _one_hot(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """The class of each row where each class has a column of 0 and 1 with one 1 per row, else []."""
    rows = [[whole(value) for value in row] for row in zip(*columns.values(), strict=True)]
    names = list(columns)
    if all(set(row) <= {0, 1} and row.count(1) == 1 for row in rows):
        return [names[row.index(1)] for row in rows]
    return []


def _alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two columns divide the rows alike, as numbers and names of classes do."""
    pairs = set(zip(one, other, strict=True))
    return len(pairs) == len(set(one)) == len(set(other))


def _plain(values: Sequence[str]) -> list[str]:
    """Classes in Unicode's composed form; whole numbers as such."""
    numbers = [whole(value) for value in values]
    if all(number is not None or not value for number, value in zip(numbers, values, strict=True)):
        return ["" if number is None else str(number) for number in numbers]
    return [normalize("NFC", value) for value in values]
