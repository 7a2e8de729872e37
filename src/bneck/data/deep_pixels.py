"""Pixels of more than 8 bits a value: Pillow reads those of gray files whole and cuts those of colors."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

# What Pillow takes the upper bytes by, and what it takes the lower ones by.
_LOWER = {
    "RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGB;16N": "RGB;16B",
    "RGBA;16B": "RGBA;16L", "RGBA;16L": "RGBA;16B", "RGBA;16N": "RGBA;16B",
}  # fmt: skip
_GRAY_AND_ALPHA = "LA;16B"


def is_deep(image: Image.Image) -> bool:
    """Whether the values of an opened image that is not loaded yet have more than 8 bits."""
    return _whole(image) or _form(image) in (*_LOWER, _GRAY_AND_ALPHA)


def deep_values(image: Image.Image, file: Path | IO[bytes]) -> npt.NDArray[np.uint16]:
    """The values (H, W, C) of an image for which `is_deep` holds; C is 1 (gray), 2 (with alpha), 3 or 4.

    `file` is what it was opened from, and is read again where Pillow gives one half of each value at a time.
    """
    if _whole(image):
        return np.asarray(image).clip(0, 65535).astype(np.uint16)[:, :, None]
    form = _form(image)
    if form == _GRAY_AND_ALPHA:
        _read_as(image, "RGBA")  # its four bytes: upper and lower of gray, and of alpha
        halves = np.asarray(image).astype(np.uint16)
        upper, lower = halves[:, :, ::2], halves[:, :, 1::2]
        return _joined(upper, lower)
    upper = np.asarray(image).astype(np.uint16)
    with Image.open(file, formats=[str(image.format)]) as again:
        _read_as(again, _LOWER[form])
        lower = np.asarray(again).astype(np.uint16)
    return _joined(upper, lower)


def _joined(upper: npt.NDArray[np.uint16], lower: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    return np.left_shift(upper, 8, dtype=np.uint16) | lower


def _whole(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _form(image: Any) -> str:
    """How the file's values lie, in Pillow's words."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else None
    return str(args[0] if isinstance(args, tuple) else args)


def _read_as(image: Any, form: str) -> None:
    image.tile = [
        tile._replace(args=(form, *tile.args[1:]) if isinstance(tile.args, tuple) else form)
        for tile in image.tile
    ]
