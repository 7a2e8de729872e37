"""VOC's xml files: read wherever they lie, or written as COCO's json files, one per split."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bneck.data.intake.image_files import ImageFiles, image_folders, stem_of
from bneck.data.intake.lists import listed_stem, split_lists
from bneck.data.intake.splits import split_by_folder
from bneck.data.intake.texts import decoded
from bneck.data.intake.walk import DataError, walk
from bneck.records.files import write_json
from bneck.tasks.detect.intake.coco import Annotated, Dropped, clipped
from bneck.tasks.detect.intake.coco_fields import number
from bneck.tasks.detect.intake.marked import Box, Marked, annotated_of, coco_data

SETS = Path("ImageSets", "Main")
LOOKED_AT = 4096  # bytes of an xml file, to tell annotations from others
DEPTH = 3  # folders that are looked into for lists
TRUE = ("1", "true", "yes")
_DECLARED = re.compile(rb"<\?xml[^>]*encoding=[\"']([\w.-]+)[\"'][^>]*\?>")


def has_voc(root: Path) -> bool:
    """Whether there are VOC's xml files below a folder."""
    return any(map(_is_voc, walk(root)))


def read_voc(root: Path) -> dict[str, Annotated]:
    """The annotated images of each split, of "" where nothing tells splits; classes in the order of names.

    Splits are lists in `ImageSets/Main`, or folders above the xml files. An image is found by the xml
    file's own name, else by the name that it holds. Objects marked "difficult" become crowd boxes.

    Raises:
        DataError: no xml files with objects, one that is not VOC xml, a listed one or an image that is missing.
    """
    files = _files(root)
    splits = _splits(root, files)
    parsed = {name: _parse(files[name]) for names in splits.values() for name in names}
    found = _located(root, files, parsed)
    classes = _classes(root, parsed)
    return {
        split: annotated_of(classes, [found[name] for name in names], _place(files))
        for split, names in splits.items()
    }


def convert_voc(root: Path, out: Path) -> tuple[dict[str, Path], tuple[Dropped, ...]]:
    """Write `instances_SPLIT.json` for each split of `read_voc`, one for train where nothing tells splits.

    Corners are taken as they stand, as annotation tools write them. Images that are not there are left
    out with their boxes. Training finds the images if `out` is `root` or a folder in it.

    Returns:
        The files by split; the boxes without an area that were left out, and in one entry how many
        images are not there.

    Raises:
        DataError: as `read_voc`, a split of which no image is there, or a json file that is there already.
    """
    files, dropped = _files(root), list[Dropped]()
    splits: dict[str, list[str]] = {}
    for split, names in _splits(root, files).items():
        splits.setdefault(split or "train", []).extend(names)
    parsed = {name: _parse(files[name]) for names in splits.values() for name in names}
    for name, entry in parsed.items():
        entry["boxes"] = _whole(files[name], entry, dropped)
    found = _located(root, files, parsed)
    splits, lost = _present(root, splits, found)
    classes = _classes(root, parsed)
    written = {split: out / f"instances_{split}.json" for split in splits}
    if there := next((path for path in written.values() if path.exists()), None):
        raise DataError(
            f"{there} is there already and would be written over; name another folder with --out, or move it"
        )
    for split, path in written.items():
        write_json(path, coco_data(classes, [found[name] for name in splits[split]]))
    return written, (*dropped, *lost)


def _files(root: Path) -> dict[str, Path]:
    """The xml files by stem; by path without suffix where a stem occurs twice."""
    paths = sorted(filter(_is_voc, walk(root)))
    if not paths:
        raise DataError(
            f"{root} has no xml files; give the folder that holds Annotations and the images"
        )
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return dict(zip(stems, paths, strict=True))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in paths}


def _is_voc(path: Path) -> bool:
    """Whether a file is xml of annotations, whole or not: other programs leave xml too."""
    if path.suffix.lower() != ".xml":
        return False
    try:
        with path.open("rb") as file:
            start = file.read(LOOKED_AT).replace(b"\0", b"")  # of UTF-16
            return b"<annotation" in start.lower()
    except OSError:
        return True  # reading it says why


def _place(files: Mapping[str, Path]) -> Path:
    return next(iter(files.values())).parent


def _splits(root: Path, files: Mapping[str, Path]) -> dict[str, list[str]]:
    for depth in range(DEPTH):
        for folder in sorted(root.glob("*/" * depth + str(SETS))):
            if lists := split_lists(folder):
                return {split: _listed(folder, lines, files) for split, lines in lists.items()}
    found: dict[str, list[str]] = {}
    for name, path in files.items():
        found.setdefault(split_by_folder(root, path), []).append(name)
    return found


def _listed(folder: Path, lines: Sequence[str], files: Mapping[str, Path]) -> list[str]:
    names = [listed_stem(line, files) for line in lines]
    if missing := [name for name in names if name not in files]:
        raise DataError(
            f"a list in {folder} names {len(missing)} files that {_place(files)} lacks, first "
            f"{missing[0]}.xml; add them or take them off the list"
        )
    return names


def _located(
    root: Path, files: Mapping[str, Path], parsed: Mapping[str, dict[str, Any]]
) -> dict[str, Marked]:
    images, usual = ImageFiles(root), image_folders(root)
    found = {}
    for name, entry in parsed.items():
        xml = files[name]
        path = images.of_stem(xml.stem, xml)
        if path is None and entry["image"]:
            path = images.named(entry["image"], xml) or images.of_stem(stem_of(entry["image"]), xml)
        called = entry["image"] or f"{xml.stem}.jpg"
        if path is not None:
            plain = any(folder / path.name == path for folder in usual)
            called = path.name if plain else path.relative_to(root).as_posix()
        found[name] = Marked(called, path, tuple(entry["boxes"]), entry["size"])
    return found


def _classes(root: Path, parsed: Mapping[str, dict[str, Any]]) -> list[str]:
    classes = sorted({box.name for entry in parsed.values() for box in entry["boxes"]})
    if not classes:
        raise DataError(f"no xml file in {root} holds an object; there is nothing to learn from")
    return classes


def _present(
    root: Path, splits: Mapping[str, list[str]], found: Mapping[str, Marked]
) -> tuple[dict[str, list[str]], list[Dropped]]:
    """The splits without the files whose images are not there."""
    lost = [name for name, marked in found.items() if marked.path is None]
    kept = {split: [n for n in names if n not in set(lost)] for split, names in splits.items()}
    for split, names in kept.items():
        if not names:
            raise DataError(
                f"none of the {len(splits[split])} images of {split} is there, the first is "
                f"{found[splits[split][0]].name}; put them into {root / 'JPEGImages'}"
            )
    if not lost:
        return kept, []
    reason = f"there are no such files, the first is {found[lost[0]].name}"
    return kept, [Dropped(f"{len(lost)} of {len(found)} images", reason)]


def _whole(path: Path, entry: Mapping[str, Any], dropped: list[Dropped]) -> list[Box]:
    """The boxes that have an area inside the image, as far as its size is told."""
    kept = []
    for box in entry["boxes"]:
        reason = clipped(box.bbox, entry["size"]) if entry["size"] else ()
        if isinstance(reason, str):
            dropped.append(Dropped(f"{box.name} of {path.name}", reason))
        else:
            kept.append(box)
    return kept


def _parse(path: Path) -> dict[str, Any]:
    try:
        tree = ElementTree.fromstring(_text_of(path))
        for element in tree.iter():
            element.tag = element.tag.rpartition("}")[2].lower()  # without a namespace
        sides = [number(tree.findtext(f"size/{side}", "").strip()) for side in ("width", "height")]
        # Some tools write 0 for what they do not know; the image file will say it.
        size = (int(sides[0]), int(sides[1])) if sides[0] and sides[1] else None
        boxes = []
        for entry in tree.iter("object"):
            left, top, right, bottom = (
                float(_text(entry, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            name, bbox = _text(entry, "name"), (left, top, right - left, bottom - top)
            crowd = (entry.findtext("difficult") or "0").strip().lower() in TRUE
            boxes.append(Box(name, bbox, crowd))
        image = (tree.findtext("filename") or "").strip()
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError(f"{path} is not a VOC xml file: {error}; correct or delete it") from None
    return {"image": image, "size": size, "boxes": boxes}


def _text_of(path: Path) -> bytes | str:
    """What the parser takes: encodings of several bytes, as gbk, are for Python to decode."""
    data = path.read_bytes()
    declared = _DECLARED.match(data)
    if declared is None:
        return decoded(data)
    encoding = declared[1].decode("ascii")
    if encoding.lower() in ("utf-8", "utf8"):
        return data
    return data[declared.end() :].decode(encoding)


def _text(tree: ElementTree.Element, name: str) -> str:
    text = (tree.findtext(name) or "").strip()
    if not text:
        raise ValueError(f"it has no {name}")
    return text
