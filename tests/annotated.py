"""Drawn pictures with boxes, and drawn scenes with masks, to detect and to segment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE = (48, 64)  # of a scene, (height, width)
IDS = {2: "light", 9: "dark"}  # category ids with gaps


def draw_boxes(root: Path, split: str, count: int, seed: int) -> None:
    """Grey pictures 48 x 36 with one or two squares, white or black, and some without any."""
    rng, images, boxes = np.random.default_rng(seed), [], []
    (root / "images").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = rng.integers(110, 140, (36, 48, 3), dtype=np.uint8)
        for number in range(i % 3):
            side, x = int(rng.integers(14, 18)), int(rng.integers(1, 8)) + 24 * number
            y, category = int(rng.integers(1, 18)), int(rng.choice(list(IDS)))
            pixels[y : y + side, x : x + side] = 250 if category == 2 else 5
            boxes.append(
                {
                    "id": len(boxes) + 1, "image_id": 10 * i, "category_id": category,
                    "bbox": [x, y, side, side],
                }
            )  # fmt: skip
        name = f"{split}-{i}.png"
        Image.fromarray(pixels).save(root / "images" / name)
        images.append({"id": 10 * i, "file_name": name, "width": 48, "height": 36})
    categories = [{"id": key, "name": name} for key, name in IDS.items()]
    data = {"images": images, "annotations": boxes, "categories": categories}
    (root / f"instances_{split}.json").write_text(json.dumps(data))


def draw_scenes(root: Path) -> None:
    """Sky, a road from a horizon down, a ball; id 3 is a frame that is ignored."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 6), ("test", 4)):
        for what in (split, f"{split}annot"):
            (root / what).mkdir()
        for i in range(count):
            image, mask = _scene(rng)
            image.save(root / split / f"{i:02d}.png")
            mask.save(root / f"{split}annot" / f"{i:02d}.png")
    (root / "classes.txt").write_text("sky\nroad\nball\nvoid\n", encoding="utf-8")


def _scene(rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    height, width = SIZE
    numbers = np.zeros(SIZE, np.uint8)
    numbers[rng.integers(16, 32) :] = 1
    mask = Image.fromarray(numbers)
    x, y, r = rng.integers(14, width - 14), rng.integers(14, height - 14), rng.integers(7, 12)
    ImageDraw.Draw(mask).ellipse((x - r, y - r, x + r, y + r), fill=2)
    ImageDraw.Draw(mask).rectangle((0, 0, width - 1, height - 1), outline=3)
    colours = np.array([[120, 170, 230], [90, 90, 90], [210, 60, 50], [0, 0, 0]])
    pixels = colours[np.asarray(mask)] + rng.integers(-30, 31, (*SIZE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), mask
