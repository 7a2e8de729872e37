"""Annotated images of a dataset by split, in whichever format they are: COCO json, VOC xml, YOLO txt."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bneck.data.folders import held_out
from bneck.data.intake.layout import single
from bneck.data.intake.splits import Split, preferred, split_of, words
from bneck.data.intake.walk import DataError, is_hidden, walk
from bneck.tasks.detect.intake.coco import BAD_SHARE, Annotated, read_coco
from bneck.tasks.detect.intake.voc import has_voc, read_voc
from bneck.tasks.detect.intake.yolo import has_labels, has_yolo, read_yolo

VAL_SHARE = 0.2  # where there is no val split
LOOKED_AT = 1 << 16  # bytes of a json without a split's name, to tell COCO's from others
YAML = (".yaml", ".yml")
OTHERS = (".json", ".csv", ".xml", ".txt", ".tfrecord", ".record")  # annotations in other formats
TEST_IS_VAL = "val is test"
Reader = Callable[[], Annotated]


@dataclass(frozen=True, slots=True)
class Splits:
    """What reads each split, where val comes from, and notes.

    `whole` reads images that are to be scored alone and of no split, whatever split is asked for.
    """

    readers: Mapping[str, Reader]
    val: str = "given"
    notes: tuple[str, ...] = ()
    whole: Reader | None = None

    def read(self, split: str, where: Path) -> Annotated:
        """The annotated images of a split; DataError where there is none."""
        if self.whole is not None:
            return self.whole()
        if split == "test" and TEST_IS_VAL in self.notes:
            split = "val"
        if split not in self.readers:
            raise DataError(
                f"there is no split {split!r} of {where}; it has {', '.join(self.readers)}"
            )
        return self.readers[split]()


def find_splits(
    root: Path, *, images: Path | None = None, seed: int = 0, divide: bool = True
) -> Splits:
    """The splits of a folder, a COCO json or a data.yaml.

    COCO's json files go first, then VOC's xml and YOLO's txt wherever they lie below the folder. Where there is
    no val, test is val; where there is neither, a fifth of train is split off by a hash of seed and name, the
    same on every machine. `divide` False is for images to score alone: those of a single split, or of none, are
    val as they are.

    Raises:
        DataError: no such folder, no annotations, or several json files for a split.
    """
    found, notes = _found(root, images)
    if not divide and len(found) == 1:
        ((name, only),) = found.items()
        undivided = name in ("", "train")
        return Splits({name: only, "val": only}, notes=notes, whole=only if undivided else None)
    return _completed(found, seed, notes)


def _found(root: Path, images: Path | None) -> tuple[dict[str, Reader], tuple[str, ...]]:
    """What reads each split that there is, and under "" images that are of none; and what is left alone."""
    if not root.exists():
        raise DataError(f"there is no folder {root}; check the path")
    if root.is_file() and root.suffix.lower() not in YAML:
        return {"": partial(read_coco, root, images=images)}, ()
    if not root.is_file() and (jsons := find_annotations(root) or find_annotations(single(root))):
        readers: dict[str, Reader] = {
            s: partial(read_coco, p, images=images) for s, p in jsons.items()
        }
        others = {"VOC's xml": has_voc(root), "YOLO's txt": has_labels(root)}
        spare = " and ".join(name for name, there in others.items() if there)
        return readers, (f"boxes of COCO's json; {spare} files are left alone",) if spare else ()
    if images is not None:
        raise DataError(
            f"--images is for COCO json files, and {root} has none; leave it out, images are found by name"
        )
    if root.is_file():
        return _readers(read_yolo(root.parent, root)), ()
    if has_voc(root):
        voc = read_voc(root)
        return _readers(voc), _next_to(root, voc) if has_labels(root) else ()
    if has_yolo(root):
        return _readers(read_yolo(root)), ()
    other = next((path for path in walk(root) if path.suffix.lower() in OTHERS), None)
    there = "" if other is None else f" that can be read ({other.name} is in another format)"
    raise DataError(
        f"{root} has no annotations{there}: no json file in COCO's format, as "
        "annotations/instances_train.json, no VOC xml, no YOLO txt; name the folder that holds them, or export "
        "them in one of these formats"
    )


def _next_to(root: Path, voc: Mapping[str, Annotated]) -> tuple[str, ...]:
    """A note on YOLO's files next to VOC's; DataError where they hold other numbers of boxes."""
    try:
        yolo = _counts(read_yolo(root))
    except DataError as error:
        return (f"boxes of VOC's xml; YOLO's txt files cannot be read: {str(error).split(';')[0]}",)
    own = _counts(voc)
    odd = [path for path, count in own.items() if yolo.get(path, 0) != count]
    if len(odd) > BAD_SHARE * len(own):
        first = odd[0]
        raise DataError(
            f"{root} has VOC xml next to YOLO txt, with other boxes on {len(odd)} of {len(own)} images ("
            f"{first.name}: {own[first]} and {yolo.get(first, 0)}); move those that are not meant out of the "
            "folder, or give YOLO's data.yaml itself"
        )
    alone = sum(count > 0 for path, count in yolo.items() if path not in own)
    more = f", also of {alone} images that it does not list" if alone else ""
    return (f"boxes of VOC's xml; YOLO's txt files are left alone{more}",)


def _counts(found: Mapping[str, Annotated]) -> dict[Path, int]:
    """How many boxes each image has."""
    return {p.path: len(p.keys) for part in found.values() for p in part.pictures}


def find_annotations(root: Path) -> dict[str, Path]:
    """The json files of a dataset's splits, of "" where a single one is of no split; {} where there are none.

    A file belongs to a split if a word of its name, or of its folder's, is the split's
    (`splits.split_of`): `annotations/instances_train2017.json`, `train/_annotations.coco.json`,
    `coco_val.json`. Of several files for a split those of the usual word count (val before dev), then COCO's
    `instances_*`.

    Raises:
        DataError: several files for a split.
    """
    files = [
        p for p in sorted([*root.glob("*.json"), *root.glob("*/*.json")]) if not is_hidden(p.name)
    ]
    unnamed = [
        path for path in files if split_of(path.stem) is None and "test" not in words(path.stem)
    ]
    # The dataset's own folder may be called anything.
    folders = {path: "" if path.parent == root else path.parent.name for path in files}
    told = {path: folders[path] if path in unnamed else path.stem for path in files}
    by_split: dict[Split, list[Path]] = {}
    for path, name in told.items():
        if split := split_of(name):
            by_split.setdefault(split, []).append(path)
    found: dict[str, Path] = {
        split: _only(root, paths, split, told) for split, paths in by_split.items()
    }
    loose = [path for path in unnamed if split_of(folders[path]) is None and _is_coco(path)]
    if "train" not in found and loose:
        found[""] = _only(root, loose, "train", told)
    return found


def _only(root: Path, paths: Sequence[Path], split: Split, told: Mapping[Path, str]) -> Path:
    names = preferred({told[path] for path in paths}, split)
    found = [path for path in paths if told[path] in names]
    if len(found) > 1:
        found = [path for path in found if path.stem.startswith("instances")] or found
    if len(found) > 1:
        raise DataError(
            f"{root} has {len(found)} json files for {split}: "
            f"{', '.join(str(p.relative_to(root)) for p in found)}; leave one of them"
        )
    return found[0]


def _is_coco(path: Path) -> bool:
    """Whether a json file has COCO's lists, by its first bytes."""
    with suppress(OSError), path.open("rb") as file:
        start = file.read(LOOKED_AT).replace(b"\0", b"")
        return b'"images"' in start or b'"annotations"' in start
    return False


def _readers(found: Mapping[str, Annotated]) -> dict[str, Reader]:
    return {split: partial(_given, annotated) for split, annotated in found.items()}


def _given(annotated: Annotated) -> Annotated:
    return annotated


def _completed(found: Mapping[str, Reader], seed: int, told: Sequence[str]) -> Splits:
    """With train and val, whatever is there."""
    readers, notes = dict(found), [*told]
    if "" in readers:
        whole = readers.pop("")
        if "train" in readers:
            notes.append(f"not used: {len(whole().pictures)} images of no split")
        else:
            readers["train"] = whole
    if "train" not in readers:
        raise DataError(
            f"the data has {', '.join(readers)} and no train split to learn from; add it"
        )
    if "val" in readers:
        return Splits(readers, notes=tuple(notes))
    if "test" in readers:
        readers["val"] = readers.pop("test")
        return Splits(readers, notes=(*notes, TEST_IS_VAL))
    train = readers["train"]
    parts = {name: partial(_part, train, name, seed) for name in ("train", "val")}
    return Splits(parts, f"split off by seed {seed}", tuple(notes))


def _part(read: Reader, name: str, seed: int) -> Annotated:
    """The images of train or of val, of images that are of no split."""
    whole = read()
    if len(whole.pictures) < 2:
        raise DataError(
            f"{whole.file} has a single image; it cannot be split into train and val: add images"
        )

    root = os.path.commonpath([picture.path.parent for picture in whole.pictures])

    def rank(position: int) -> bytes:
        name = whole.pictures[position].path.relative_to(root).as_posix()
        return hashlib.sha256(b"%d/%s" % (seed, os.fsencode(name))).digest()

    order = sorted(range(len(whole.pictures)), key=rank)
    val = set(order[: held_out(len(order), VAL_SHARE)])
    kept = tuple(p for i, p in enumerate(whole.pictures) if (i in val) == (name == "val"))
    return replace(whole, pictures=kept, dropped=whole.dropped if name == "train" else ())
