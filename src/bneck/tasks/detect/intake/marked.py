"""Images with boxes as readers of other formats find them, and the COCO form of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bneck.tasks.detect.intake.coco import Annotated, annotated


@dataclass(frozen=True, slots=True)
class Box:
    """A box [x, y, width, height] in pixels of a class; `crowd`: neither trained on nor counted as a miss.

    `polygon`: it is the one around a polygon.
    """

    name: str
    bbox: tuple[float, float, float, float]
    crowd: bool = False
    polygon: bool = False


@dataclass(frozen=True, slots=True)
class Marked:
    """An image and its boxes; `path` is None where the image was not found, `size` where it is not told."""

    name: str
    path: Path | None
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None = None


def coco_data(classes: Sequence[str], marked: Sequence[Marked]) -> dict[str, Any]:
    """What a COCO json of these images holds."""
    numbers = {name: number for number, name in enumerate(classes, 1)}
    boxes = [(image, box) for image, one in enumerate(marked, 1) for box in one.boxes]
    return {
        "images": [
            {"id": i, "file_name": one.name, **(_sides(one.size) if one.size else {})}
            for i, one in enumerate(marked, 1)
        ],
        "annotations": [
            {
                "id": key, "image_id": image, "category_id": numbers[box.name], "bbox": list(box.bbox),
                "area": box.bbox[2] * box.bbox[3], "iscrowd": int(box.crowd),
            }
            for key, (image, box) in enumerate(boxes, 1)
        ],
        "categories": [{"id": i, "name": name} for name, i in numbers.items()],
    }  # fmt: skip


def annotated_of(classes: Sequence[str], marked: Sequence[Marked], where: Path) -> Annotated:
    """Annotated images without a file between; `where` is named in messages.

    Raises:
        DataError: as `coco.annotated`.
    """
    places = {i: one.path for i, one in enumerate(marked, 1)}
    return annotated(coco_data(classes, marked), where, lambda entry: places[entry["id"]])


def _sides(size: tuple[int, int]) -> Mapping[str, int]:
    return {"width": size[0], "height": size[1]}
