"""A region of an encoded image as training sees it: JPEG decoded no larger than it needs to be."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from bneck.data.depth import Deep, Encoded
from bneck.data.images import read_whole

try:
    import simplejpeg
except ImportError:  # an extra; Pillow decodes everything, in more time
    simplejpeg = None

Size = tuple[int, int]
Region = tuple[int, int, int, int]

# A JPEG is decoded at 1/2, 1/4 or 1/8 where the region keeps so many times the wanted side.
ENOUGH = 1.5
_PLAIN = ("YCbCr", "RGB", "Gray")  # what decodes to RGB as it is
_ORIENTATION = 0x0112


def read_region(data: Encoded, choose: Callable[[Size], Region], resolution: int) -> Tensor | str:
    """A region of an image file's content, resized to (3, resolution, resolution) uint8 RGB.

    `choose` is asked for (left, top, width, height) once the size (width, height) is known. Resizing is
    bilinear and antialiased, odd files are read as by `data.images.read_square`. Returns why there is
    no image where there is none.
    """
    raw = data.file if isinstance(data, Deep) else data
    if (
        simplejpeg is not None
        and isinstance(raw, bytes)
        and raw[:2] == b"\xff\xd8"
        and not _turned(raw)
    ):
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(raw)
            if colours in _PLAIN:
                return _jpeg(raw, (width, height), choose((width, height)), resolution)
        except ValueError as error:
            return str(error) or "it is damaged"
    pixels = read_whole(data)
    if isinstance(pixels, str):
        return pixels
    height, width = pixels.shape[:2]
    return _resized(pixels, choose((width, height)), resolution)


def _jpeg(data: bytes, size: Size, region: Region, resolution: int) -> Tensor:
    shrink = 1
    while shrink < 8 and min(region[2:]) / (2 * shrink) >= ENOUGH * resolution:
        shrink *= 2
    least = {} if shrink == 1 else {"min_width": size[0] // shrink, "min_height": size[1] // shrink}
    # Both are differences of a level or two, on some pixels; docs/lab-log.md has them.
    pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True, **least)
    if shrink == 1:
        return _resized(pixels, region, resolution)
    across, down = pixels.shape[1] / size[0], pixels.shape[0] / size[1]
    left, top, width, height = region
    box = (left * across, top * down, (left + width) * across, (top + height) * down)
    # Pillow takes fractions of a pixel, which a whole one at 1/8 would miss by up to four.
    whole = Image.fromarray(pixels).resize(
        (resolution, resolution), Image.Resampling.BILINEAR, box=box
    )
    return torch.from_numpy(np.array(whole)).permute(2, 0, 1)


def _resized(pixels: np.ndarray, region: Region, resolution: int) -> Tensor:
    left, top, width, height = region
    inside = torch.from_numpy(pixels)[top : top + height, left : left + width]
    wanted = (resolution, resolution)
    if (height, width) == wanted:
        return inside.permute(2, 0, 1)
    whole = interpolate(
        inside.permute(2, 0, 1)[None], wanted, mode="bilinear", antialias=True, align_corners=False
    )
    return whole[0]


def _turned(data: bytes) -> bool:
    """Whether an EXIF block says that the image must be turned to stand upright."""
    if data.find(b"Exif\0\0", 0, 4096) < 0:
        return False
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as image:
            return bool(image.getexif().get(_ORIENTATION, 1) != 1)
    except Exception:  # damaged: Pillow's reading says what is wrong
        return True
