"""A picture with its classes painted over it, and the legend below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

LINE, SWATCH, MARGIN = 18, 12, 6  # pixels
SHARE = 0.55  # of the class's colour in a pixel

Array = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]


def overlay(
    image: Array, classes: Array, names: Sequence[str], colours: Sequence[Colour]
) -> Image.Image:
    """Paint every pixel's class over an image; below it the classes that occur, the largest first.

    `image` is (H, W, 3) RGB, `classes` (H, W) class numbers; numbers beyond `names` are left unpainted.
    """
    palette, share = np.zeros((256, 3), np.float32), np.zeros(256, np.float32)
    palette[: len(names)] = colours
    share[: len(names)] = SHARE
    part = share[classes][:, :, None]
    painted = image * (1 - part) + palette[classes] * part
    shares = class_shares(classes, len(names))
    shown = sorted((i for i in range(len(names)) if shares[i] > 0), key=lambda i: -shares[i])
    legend = _legend([(f"{names[i]} {shares[i]:.1%}", colours[i]) for i in shown], image.shape[1])
    height, width = image.shape[:2]
    page = Image.new("RGB", (max(width, legend.width), height + legend.height), "white")
    page.paste(Image.fromarray(painted.round().astype(np.uint8)), (0, 0))
    page.paste(legend, (0, height))
    return page


def class_shares(classes: Array, count: int) -> list[float]:
    """Fraction of the pixels that each of `count` classes has."""
    pixels = np.bincount(classes.ravel(), minlength=256)[:count]
    return [float(share) for share in pixels / classes.size]


def _legend(entries: Sequence[tuple[str, Colour]], width: int) -> Image.Image:
    """Swatches with names, in as many columns as fit under a picture of `width` pixels."""
    font: Any = ImageFont.load_default()
    widest = max((font.getlength(text) for text, _ in entries), default=0)
    column = int(widest) + SWATCH + 3 * MARGIN
    columns = max(1, width // column)
    rows = -(-len(entries) // columns)
    page = Image.new("RGB", (max(width, column), rows * LINE + MARGIN), "white")
    draw = ImageDraw.Draw(page)
    for i, (text, colour) in enumerate(entries):
        x, y = MARGIN + i % columns * column, MARGIN + i // columns * LINE
        draw.rectangle((x, y, x + SWATCH, y + SWATCH), fill=tuple(colour), outline="black")
        draw.text((x + SWATCH + MARGIN, y), text, fill="black", font=font)
    return page
