"""The class list of segmentation: found next to the images, read in the forms that tools write."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from bneck.data.intake.splits import split_of
from bneck.data.intake.texts import read_text
from bneck.data.intake.walk import DataError, subfolders
from bneck.specs.errors import few
from bneck.tasks.segment.masks import Colour, Labels, labels, palette

CLASS_LISTS = (
    "classes.txt", "class_dict.csv", "label_colors.txt", "labelmap.txt", "_classes.csv", "classes.csv",
    "class_dict_seg.csv", "codes.txt", "labels.txt",
)  # fmt: skip
_VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_HEADS = (["name", "r", "g", "b"], ["r", "g", "b", "name"])
_CVAT = re.compile(r"(?P<name>[^:]+):(?P<colour>\d+,\d+,\d+):[^:]*:[^:]*")
_ID = re.compile(r"(?P<id>\d+)(?P<sign>\s*[:=,;]\s*|\s+)(?P<name>\S*[^\W\d]\S*.*)")
_ROBOFLOW = re.compile(r"pixel\s*value\s*[,;]\s*class", re.I)


def find_list(root: Path) -> Path | None:
    """The class list in a folder, or in that of train (Roboflow); None for none."""
    inside = [path for name, path in subfolders(root).items() if split_of(name) == "train"]
    files = (place / name for place in (root, *inside) for name in CLASS_LISTS)
    return next((file for file in files if file.is_file()), None)


def voc_labels(ignore: Sequence[int] = ()) -> Labels:
    """VOC's 21 classes in the order of their ids, in the palette's colours."""
    entries = [(name, palette(value)) for value, name in enumerate(_VOC)]
    return labels(entries, ignore=ignore, source="VOC")


def read_labels(path: Path, *, ignore: Sequence[int] = ()) -> Labels:
    """A class list: one class per line, in the order of ids from 0; all have a colour or none has.

    A line is `name`, `name R G B` or `R G B name`, separated by blanks, tabs or commas, or CVAT's
    `name:R,G,B:parts:actions`; a line of column heads (`name,r,g,b`), empty lines and lines after # are
    passed over. Roboflow's list with the head `Pixel Value, Class` has lines `id, name`. Classes called
    void, ignore or unlabelled are ignored, and so are 255 and the ids in `ignore`.

    Raises:
        DataError: no such file, a line that is none of these, one name twice, no class.
    """
    source = f"the class list {path}"
    lines = []
    for number, line in enumerate(read_text(path, "the class list").splitlines(), start=1):
        told = line.partition("#")[0].strip()
        if told and re.split(r"[\s,;]+", told.lower()) not in _HEADS:
            lines.append((number, told))
    if lines and _ROBOFLOW.fullmatch(lines[0][1]):
        return labels(_by_number(path, lines[1:]), ignore=ignore, source=source)
    lines = _ordered(path, lines)
    entries = [_entry(path, number, line) for number, line in lines]
    coloured = [colour for _, colour in entries if colour is not None]
    if coloured and len(coloured) < len(entries):
        raise DataError(f"{source} gives some classes a color; give all one, or none")
    if len(set(coloured)) < len(coloured):
        raise DataError(f"{source} has one color twice; each class needs its own")
    return labels(entries, ignore=ignore, source=source)


def _ordered(path: Path, lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Lines that begin with ids, as `0: road` or `0 road`, without them and in their order.

    Numbers are ids where they are all those from 0 on, or stand before a colon or an equals sign; else they are
    part of the name, as in "1 euro".
    """
    found = [_ID.fullmatch(line) for _, line in lines]
    if not lines or not all(found):
        return lines
    ids = [int(one["id"]) for one in found if one]
    if sorted(ids) != list(range(len(ids))):
        if all(one["sign"].strip() in (":", "=") for one in found if one):
            raise DataError(
                f"the class list {path} has the ids {few([str(value) for value in ids])}; they must be those "
                "from 0 on without gaps: add the missing classes, as void where they mean none"
            )
        return lines
    named = [(number, one["name"]) for (number, _), one in zip(lines, found, strict=True) if one]
    return [line for _, line in sorted(zip(ids, named, strict=True))]


def _by_number(path: Path, lines: Sequence[tuple[int, str]]) -> list[tuple[str, Colour | None]]:
    """Roboflow's lines `id, name`, which must count from 0."""
    found: list[tuple[str, Colour | None]] = []
    for number, line in lines:
        value, _, name = (part.strip() for part in line.partition(","))
        if value != str(len(found)) or not name:
            raise _unclear(path, number, line, f"'{len(found)}, name'")
        found.append((name, None))
    return found


def _entry(path: Path, number: int, line: str) -> tuple[str, Colour | None]:
    if cvat := _CVAT.fullmatch(line):
        line = f"{cvat['name']} {cvat['colour']}"
    if '"' in line:  # a spreadsheet's, whose names may hold commas
        mark = ";" if line.count(";") > line.count(",") else ","
        parts = [part.strip() for part in next(csv.reader([line], delimiter=mark))]
    else:
        parts = [part for part in re.split(r"[\s,;]+", line) if part]
    whole = [part.isdecimal() for part in parts]
    for colour, name in ((parts[-3:], parts[:-3]), (parts[:3], parts[3:])):
        if name and len(colour) == 3 and all(part.isdecimal() for part in colour):
            red, green, blue = (int(part) for part in colour)
            if max(red, green, blue) > 255:
                break
            return " ".join(name), (red, green, blue)
    if all(whole) or (len(parts) > 3 and sum(whole) >= 3) or line.count(":") > 1:
        raise _unclear(path, number, line, "'name' or 'name R G B' with numbers from 0 to 255")
    return " ".join(parts), None


def _unclear(path: Path, number: int, line: str, wanted: str) -> DataError:
    return DataError(f"line {number} of the class list {path} is {line!r}; it must be {wanted}")
