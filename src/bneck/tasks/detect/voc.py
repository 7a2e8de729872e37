"""VOC's xml files as COCO's json files, one per split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bneck.data.folders import DataError
from bneck.records.files import write_json
from bneck.tasks.detect.coco import Dropped, clipped, image_folders

SPLITS = ("train", "val", "test")
ANNOTATIONS, SETS = "Annotations", "ImageSets/Main"


def convert_voc(root: Path, out: Path) -> tuple[dict[str, Path], tuple[Dropped, ...]]:
    """Write `instances_SPLIT.json` for each of train, val and test that `ImageSets/Main` lists.

    Without such lists all files become one train split. Corners are taken as they stand, as annotation
    tools write them. Objects marked "difficult" become crowd boxes: neither hits nor misses. Images
    that are not there are left out with their boxes. `root` is the folder with `Annotations` (and
    `JPEGImages`); training finds the images if `out` is `root` or a folder in it.

    Returns:
        The files by split; the boxes without an area that were left out, and in one entry how many
        images are not there.

    Raises:
        DataError: no xml files, a listed one that is missing, one that is not VOC xml, or a split of
            which no image is there.
    """
    folder = root / ANNOTATIONS
    files = {path.stem: path for path in sorted(folder.glob("*.xml"))}
    if not files:
        raise DataError(f"{folder} has no xml files; give the folder that holds {ANNOTATIONS}")
    splits = _splits(root, files)
    dropped: list[Dropped] = []
    parsed = {name: _parse(files[name], dropped) for names in splits.values() for name in names}
    splits, lost = _present(splits, parsed, (out, root))
    dropped += lost
    classes = sorted({box["name"] for entry in parsed.values() for box in entry["boxes"]})
    if not classes:
        raise DataError(f"no file in {folder} holds an object; there is nothing to convert")
    written = {split: out / f"instances_{split}.json" for split in splits}
    for split, path in written.items():
        write_json(path, _coco([parsed[name] for name in splits[split]], classes))
    return written, tuple(dropped)


def _splits(root: Path, files: dict[str, Path]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for split in SPLITS:
        listed = root / SETS / f"{split}.txt"
        if not listed.is_file():
            continue
        # Lists of a single class have a second column, which says whether it is there.
        names = [line.split()[0] for line in listed.read_text("utf-8").splitlines() if line.strip()]
        if missing := [name for name in names if name not in files]:
            raise DataError(
                f"{listed} names {len(missing)} files that {root / ANNOTATIONS} lacks, first "
                f"{missing[0]}.xml; add them or take them off the list"
            )
        found[split] = names
    return found or {"train": list(files)}


def _present(
    splits: dict[str, list[str]], parsed: dict[str, Any], places: tuple[Path, Path]
) -> tuple[dict[str, list[str]], list[Dropped]]:
    """The splits without the files whose images lie nowhere that training looks for them."""
    folders = [folder for place in places for folder in image_folders(place)]
    images = {name: entry["image"] for name, entry in parsed.items()}
    lost = [n for n, image in images.items() if not any((f / image).is_file() for f in folders)]
    if not lost:
        return splits, []
    kept = {split: [n for n in names if n not in set(lost)] for split, names in splits.items()}
    for split, names in kept.items():
        if not names:
            raise DataError(
                f"none of the {len(splits[split])} images of {split} is there, the first is "
                f"{images[splits[split][0]]}; put them into {places[1] / 'JPEGImages'}"
            )
    reason = f"there are no such files, the first is {images[lost[0]]}"
    return kept, [Dropped(f"{len(lost)} of {len(parsed)} images", reason)]


def _parse(path: Path, dropped: list[Dropped]) -> dict[str, Any]:
    try:
        tree = ElementTree.parse(path).getroot()
        size = (int(_text(tree, "size/width")), int(_text(tree, "size/height")))
        boxes = []
        for entry in tree.iter("object"):
            left, top, right, bottom = (
                float(_text(entry, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            name, bbox = _text(entry, "name"), [left, top, right - left, bottom - top]
            crowd = int((entry.findtext("difficult") or "0").strip() == "1")
            reason = clipped(bbox, size) if min(size) > 0 else ()
            if isinstance(reason, str):
                dropped.append(Dropped(f"{name} of {path.name}", reason))
            else:
                boxes.append({"name": name, "bbox": bbox, "crowd": crowd})
        image = tree.findtext("filename") or f"{path.stem}.jpg"
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise DataError(f"{path} is not a VOC xml file: {error}; correct or delete it") from None
    return {"image": image.strip(), "size": size, "boxes": boxes}


def _text(tree: ElementTree.Element, name: str) -> str:
    text = (tree.findtext(name) or "").strip()
    if not text:
        raise ValueError(f"it has no {name}")
    return text


def _coco(entries: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    boxes = [(image, box) for image, entry in enumerate(entries, 1) for box in entry["boxes"]]
    return {
        "images": [
            {"id": i, "file_name": e["image"], **_sides(e["size"])}
            for i, e in enumerate(entries, 1)
        ],
        "annotations": [
            {
                "id": key, "image_id": image, "category_id": classes.index(box["name"]) + 1,
                "bbox": box["bbox"], "area": box["bbox"][2] * box["bbox"][3], "iscrowd": box["crowd"],
            }
            for key, (image, box) in enumerate(boxes, 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, 1)],
    }  # fmt: skip


def _sides(size: tuple[int, int]) -> dict[str, int]:
    # Some tools write 0 for what they do not know; the image file will say it.
    return {"width": size[0], "height": size[1]} if min(size) > 0 else {}
