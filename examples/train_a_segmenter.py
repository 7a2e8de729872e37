"""Train a segmenter on your masks: LR-ASPP round MobileNetV3-Small.

    python examples/train_a_segmenter.py                            # drawn scenes, half a minute
    python examples/train_a_segmenter.py photos --network v3-small+rf2 --size 360x480 --epochs 50

`photos` holds images and masks (docs/reference/data.md has the layouts) and a classes.txt. Needs
bneck[search].
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import bneck

CLASSES = ("ground", "sky", "sun")
COLOURS = ((90, 120, 60), (120, 170, 230), (250, 220, 90))


def draw_scenes(
    root: Path, counts: tuple[tuple[str, int], ...] = (("train", 32), ("val", 8))
) -> Path:
    """A horizon and a sun on noise, and which pixel is what."""
    rng = np.random.default_rng(0)
    for split, count in counts:
        images, masks = root / "images" / split, root / "masks" / split
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for number in range(count):
            mask = Image.new("L", (96, 64), 0)
            draw = ImageDraw.Draw(mask)
            horizon = int(rng.integers(24, 44))
            draw.rectangle((0, 0, 95, horizon), fill=1)
            left, top = int(rng.integers(4, 70)), int(rng.integers(2, 10))
            draw.ellipse((left, top, left + 18, top + 18), fill=2)
            pixels = np.array(COLOURS, np.int16)[np.array(mask)]
            noisy = np.clip(pixels + rng.integers(-40, 40, pixels.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(images / f"{number:03d}.png")
            mask.save(masks / f"{number:03d}.png")
    lines = [f"{name} {r} {g} {b}" for name, (r, g, b) in zip(CLASSES, COLOURS, strict=True)]
    (root / "classes.txt").write_text("\n".join(lines) + "\n")
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", nargs="?", type=Path, help="your folder; default: drawn scenes")
    parser.add_argument("--network", default="v3-small-0.5+rf2")
    parser.add_argument("--size", help="HEIGHTxWIDTH that images are brought to; default their own")
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--out", type=Path, default=Path("runs/segmenter"))
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        images = options.images or draw_scenes(Path(scratch) / "drawn")
        size = tuple(int(side) for side in options.size.split("x")) if options.size else None
        run = bneck.train(
            options.network,
            images,
            task="segment",
            size=size,
            epochs=options.epochs,
            out=options.out,
        )
        for score in run["scores"].values():
            print(f"mIOU {score['score']:.1%} on {score['split']}, {score['images']} images")
            for name, iou in score["iou"].items():
                print(f"  {name:10}{'-' if iou is None else f'{iou:.1%}'}")

        picture = next(iter(sorted((images / "images").rglob("*.png"))), None)
        if picture is not None:
            overlay = options.out / "overlay.png"
            bneck.predict(options.out, [picture], out=overlay)
            print(f"{picture.name} with its classes: {overlay}")
    print(f"file to ship: {options.out}/model.onnx")


if __name__ == "__main__":
    main()
