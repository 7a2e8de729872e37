"""Lists of the images of a split, as VOC's ImageSets and CVAT's exports have them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from bneck.data.intake.splits import Split, split_of
from bneck.data.intake.texts import read_text
from bneck.data.intake.walk import SUFFIXES, is_hidden

UNDIVIDED = ""


def split_lists(folder: Path) -> dict[str, list[str]]:
    """The lines of `train.txt`, `val.txt` and such in a folder by split; {} where there are none.

    `trainval.txt` counts only without `train.txt`. A list that names no split (CVAT's default.txt) is
    under `UNDIVIDED`, where there is no other.
    """
    found: dict[str, list[str]] = {}
    files = sorted(p for p in folder.glob("*.txt") if not is_hidden(p.name))
    for file in sorted(
        files, key=lambda path: "val" in path.stem.lower() and "train" in path.stem.lower()
    ):
        split: Split | None = split_of(file.stem)
        # Lists of single classes, as aeroplane_train.txt, say what is on an image, not where it belongs.
        if (split or UNDIVIDED) in found or (split and "_" in file.stem):
            continue
        lines = (line.strip() for line in read_text(file, "the list").splitlines())
        found[split or UNDIVIDED] = [line for line in lines if line]
    if len(found) > 1:
        found.pop(UNDIVIDED, None)
    return found


def listed_stem(line: str, known: Mapping[str, object]) -> str:
    """The stem that a line of a list means: a name with blanks, a suffix, a folder or a flag after it.

    >>> listed_stem("img1.jpg", {"img1": 0}), listed_stem("img 1  -1", {"img 1": 0})
    ('img1', 'img 1')
    """
    for name in (line, line.rsplit(None, 1)[0], line.split(maxsplit=1)[0]):
        path = PurePosixPath(name.replace("\\", "/"))
        for stem in (name, path.name, path.stem if path.suffix.lower() in SUFFIXES else path.name):
            if stem in known:
                return stem
    return line
