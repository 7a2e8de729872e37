"""Small sets of boxes as people's tools write them, for tests of what is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from bneck.tasks.detect.intake.coco import Annotated

SIZE = (40, 20)
BOX = [0.25, 0.25, 0.75, 0.75]  # [10, 5, 20, 10] of an image of that size
Edit = Callable[[dict[str, Any]], Any]


def picture(path: Path, size: tuple[int, int] = SIZE, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "grey").save(path, **how)


def coco(
    root: Path, *edits: Edit, file: str = "train/_annotations.coco.json", count: int = 4
) -> Path:
    """Images with a cup each, and a pen on the first."""
    path = root / file
    names = [f"train{i}.png" for i in range(count)]
    data: dict[str, Any] = {
        "images": [{"id": i, "file_name": n, "width": 40, "height": 20} for i, n in enumerate(names)],
        "annotations": [
            {"id": i + 1, "image_id": i % count, "category_id": 1 + i // count, "bbox": [10, 5, 20, 10]}
            for i in range(count + 1)
        ],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "pen"}],
    }  # fmt: skip
    for name in names:
        picture(path.parent / name)
    for edit in edits:
        edit(data)
    path.write_text(json.dumps(data))
    return path


def each(part: str, **fields: Any) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        for entry in data[part]:
            entry.update({k: v(entry) if callable(v) else v for k, v in fields.items()})

    return edit


def without(part: str, name: str) -> Edit:
    return lambda data: [entry.pop(name) for entry in data[part]]


def seen(found: Annotated) -> list[tuple[str, list[float]]]:
    return [
        (found.classes[label - 1], box)
        for picture in found.pictures
        for label, box in zip(picture.labels, picture.boxes.tolist(), strict=True)
    ]


WHOLE = [("cup", BOX), ("pen", BOX), *[("cup", BOX)] * 3]
POLYGON = [[10, 5, 30, 5, 30, 15, 10, 15]]


XML = """<annotation><filename>{filename}</filename>{size}<object><name>{label}</name>
<difficult>{difficult}</difficult><bndbox><xmin>10</xmin><ymin>5.0</ymin><xmax>30</xmax><ymax>15</ymax></bndbox>
</object></annotation>"""


def voc(
    root: Path, *, count: int = 10, xmls: str = "Annotations", images: str = "JPEGImages",
    stem: str = "im{}", suffix: str = ".png", filename: str = "{}.png",
    size: str = "<size><width>40</width><height>20</height></size>",
    difficult: str = "0", label: str = "cup", head: str = "", encoding: str = "utf-8",
) -> Path:  # fmt: skip
    for i in range(count):
        name = stem.format(i)
        picture(root / images / f"{name}{suffix}")
        text = XML.format(
            filename=filename.format(name), size=size, label=label, difficult=difficult
        )
        (root / xmls).mkdir(parents=True, exist_ok=True)
        (root / xmls / f"{name}.xml").write_bytes((head + text).encode(encoding))
    return root


def lists(root: Path, line: str = "im{}\n", **splits: range) -> Path:
    folder = root / "ImageSets/Main"
    folder.mkdir(parents=True)
    for split, numbers in splits.items():
        (folder / f"{split}.txt").write_bytes(
            "".join(line.format(i) for i in numbers).encode("utf-8-sig")
        )
    return root


def yolo(
    root: Path,
    images: str,
    labels: str,
    *,
    line: str = "1 0.5 0.5 0.5 0.5",
    listed: str | None = None,
) -> Path:
    """6 images of train and 3 of val with a box of class 1 each; the last has none."""
    for split, count in (("train", 6), ("val", 3)):
        for i in range(count):
            picture(root / images.format(split=split) / f"{i}.png")
            text = root / labels.format(split=split) / f"{i}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            if i:
                text.write_text(line + "\n")
    if listed is not None:
        (root / "data.yaml").write_bytes(listed.encode("utf-8-sig"))
    return root


NAMES = "names: ['cup', 'pen']\n"
