"""Train a detector on your boxes: SSDLite round MobileNetV3-Small.

    python examples/train_a_detector.py                             # drawn scenes, half a minute
    python examples/train_a_detector.py photos --network v3-small+dagger --resolution 320 --epochs 60

`photos` holds COCO json files for train and val with their images (VOC: bneck convert). Needs
bneck[detect].
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import bneck

NAMES = ("disc", "block")


def draw_scenes(
    root: Path, counts: tuple[tuple[str, int], ...] = (("train", 64), ("val", 12))
) -> Path:
    """Discs and blocks on noise, with their boxes in COCO's format."""
    rng = np.random.default_rng(0)
    for split, count in counts:
        (root / split).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        boxes: list[dict[str, Any]] = []
        for number in range(count):
            ground = rng.integers(140, 220, (96, 96, 3), dtype=np.uint8)
            image = Image.fromarray(ground)
            draw = ImageDraw.Draw(image)
            for kind in rng.integers(0, len(NAMES), int(rng.integers(1, 3))):
                side = int(rng.integers(28, 46))
                left, top = (int(v) for v in rng.integers(0, 96 - side, 2))
                shape = draw.ellipse if kind == 0 else draw.rectangle
                shape(
                    (left, top, left + side, top + side),
                    fill=(200, 40, 30) if kind == 0 else (20, 60, 170),
                )
                boxes.append(
                    {"id": len(boxes) + 1, "image_id": number, "category_id": int(kind) + 1,
                     "bbox": [left, top, side, side], "area": side * side, "iscrowd": 0}
                )  # fmt: skip
            name = f"{number:03d}.png"
            image.save(root / split / name)
            images.append({"id": number, "file_name": name, "width": 96, "height": 96})
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
        text = json.dumps({"images": images, "annotations": boxes, "categories": categories})
        (root / split / "_annotations.coco.json").write_text(text)
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", nargs="?", type=Path, help="your folder; default: drawn scenes")
    parser.add_argument("--network", default="v3-small-0.5+dagger")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.004)
    parser.add_argument("--out", type=Path, default=Path("runs/detector"))
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        images = options.images or draw_scenes(Path(scratch) / "drawn")
        run = bneck.train(
            options.network,
            images,
            task="detect",
            resolution=options.resolution,
            epochs=options.epochs,
            batch=options.batch,
            lr=options.lr,
            out=options.out,
        )
        found = run["scores"]["val"]
        print(f"mAP {found['score']:.1%}, AP50 {found['AP50']:.1%} on {found['images']} images")

        picture = next(iter(sorted((images / "val").rglob("*.png"))), None)
        if picture is not None:
            drawn = options.out / "boxes.png"
            bneck.predict(options.out, [picture], out=drawn)
            print(f"{picture.name} with its boxes: {drawn}")
    print(f"files to ship: {options.out}/model.onnx, {options.out}/model-boxes.onnx")


if __name__ == "__main__":
    main()
