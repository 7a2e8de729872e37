"""From a folder of your own images to an 8-bit file for a phone.

    python examples/own_images_to_phone_model.py                    # pictures drawn here, half a minute
    python examples/own_images_to_phone_model.py photos --epochs 30 --network v3-small

`photos` holds train/CLASS/* and val/CLASS/*, or just CLASS/*, which is split. Needs bneck[search,litert].
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import bneck

SHAPES = ("circle", "square", "stripes")


def draw_pictures(root: Path, count: int = 60) -> Path:
    """Circles, squares and stripes, `count` of each, on noisy grounds."""
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        (root / shape).mkdir(parents=True)
        for number in range(count):
            ground = rng.integers(120, 200, (72, 72, 3), dtype=np.uint8)
            image = Image.fromarray(ground)
            draw = ImageDraw.Draw(image)
            colour = tuple(int(c) for c in rng.integers(0, 110, 3))
            left, top = (int(v) for v in rng.integers(4, 26, 2))
            box = (left, top, left + 38, top + 38)
            if shape == "circle":
                draw.ellipse(box, fill=colour)
            elif shape == "square":
                draw.rectangle(box, fill=colour)
            else:
                for y in range(top, top + 38, 10):
                    draw.rectangle((left, y, left + 38, y + 4), fill=colour)
            image.save(root / shape / f"{number:03d}.png")
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", nargs="?", type=Path, help="your folder; default: drawn pictures")
    parser.add_argument("--network", default="v3-small-0.5@64")
    parser.add_argument("--epochs", type=float, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/phone"))
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        images = options.images or draw_pictures(Path(scratch) / "drawn")

        run = bneck.train(options.network, images, epochs=options.epochs, out=options.out)
        val = run["scores"]["val"]
        print(f"float: top-1 {val['score']:.1%} on {val['images']} images it was not trained on")

        # Eight bits in the form that the phone's fast kernels take; the images calibrate it.
        file = bneck.export(run["run"], "tflite", precision="int8", data=images, pixels=True)
        print(f"{file['file']}: {file['size_mb']:.2f} MB, takes uint8 RGB pixels")

        judged = bneck.evaluate(file["file"], images, crop="resize")  # as training judges
        print(
            f"8-bit file in {file['runtime']}: top-1 {judged['score']:.1%} on {judged['images']} images"
        )

        picture = next(iter(sorted(images.rglob("*.png")) or sorted(images.rglob("*.jpg"))))
        (found,) = bneck.predict(file["file"], [picture], top=1)
        print(f"{picture.parent.name}/{picture.name}: {found['line']}")


if __name__ == "__main__":
    main()
