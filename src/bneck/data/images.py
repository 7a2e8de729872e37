"""Image files into arrays, whatever odd but whole images they are."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from bneck.data.deep_pixels import deep_values, is_deep
from bneck.data.depth import FULL, Deep, Encoded
from bneck.data.intake.walk import HEIF_READ

Pixels: TypeAlias = npt.NDArray[np.uint8]
Crop: TypeAlias = Literal["central", "resize", "published"]
T = TypeVar("T")
CROPS: tuple[str, ...] = get_args(Crop)
CENTRAL = 0.875  # share of each side that the authors' evaluation looks at
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# Named, because Pillow would start Ghostscript for a PostScript file that is called .jpg.
DECODERS = (
    "JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "AVIF", *(("HEIF",) if HEIF_READ else ()),
)  # fmt: skip
if HEIF_READ:
    import pillow_heif

    pillow_heif.register_heif_opener()
# Scans and satellites have more pixels than Pillow suspects of an attack; so many decode to 1.6 GB.
Image.MAX_IMAGE_PIXELS = 1 << 29
LOOKED_AT = 64  # images, spread evenly, that decide on the bits of a dataset
_ORIENTATION = 0x0112  # the EXIF tag
_RAW_EXIF = b"Raw profile type exif"
SIDEWAYS = (5, 6, 7, 8)  # its values that exchange width and height
_COLORS = {1: 1, 2: 1, 3: 3, 4: 3}  # channels without alpha


def read_square(path: Encoded, side: int) -> Pixels | str:
    """The central square of an image file, resized to (3, side, side) RGB, or why there is none.

    EXIF orientation is applied, transparency is laid on white, of 16 bits a value (or as many as `Deep`
    says) the upper 8 are taken, and of several frames the first. Resizing is bilinear and antialiased.
    """
    upright = _upright(path, side)
    if isinstance(upright, str):
        return upright
    short = min(upright.size)
    left, top = (upright.width - short) // 2, (upright.height - short) // 2
    square = upright.resize(
        (side, side),
        Image.Resampling.BILINEAR,
        box=(left, top, left + short, top + short),
        reducing_gap=2.0,
    )
    return _channels_first(square)


def read_crop(
    path: Encoded, side: int, crop: Crop, *, share: float = CENTRAL, filter: str = "bilinear"
) -> Pixels | str:
    """What a standard evaluation sees of an image file, (3, side, side) RGB, or why nothing.

    "central": the middle 87.5 % of width and of height, resized to a square, bilinear between the
    four nearest pixels (not antialiased), as the authors and TensorFlow do. "resize": the shorter
    side resized to 256 / 224 of `side`, bilinear and antialiased, then the middle square, as torch's
    recipes do. "published": as "resize", with the shorter side `side / share` and one of
    `FILTERS`. Odd files are read as by `read_square`.
    """
    upright = _upright(path, side)
    if isinstance(upright, str):
        return upright
    width, height = upright.size
    if crop == "central":
        left, top = int(width * (1 - CENTRAL) / 2), int(height * (1 - CENTRAL) / 2)
        middle = upright.crop((left, top, width - left, height - top))
        resized = middle.transform(
            (side, side),
            Image.Transform.EXTENT,
            (0, 0, *middle.size),
            Image.Resampling.BILINEAR,
        )
        return _channels_first(resized)
    if crop == "resize":
        share, filter = 224 / 256, "bilinear"
    short = int(side / share) if crop == "published" else round(side / share)  # as timm rounds
    scale = short / min(width, height)
    size = (max(short, int(width * scale)), max(short, int(height * scale)))
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    resized = upright.resize(size, FILTERS[filter])
    return _channels_first(resized.crop((left, top, left + side, top + side)))


def read_stretched(path: Encoded, side: int) -> Pixels | str:
    """The whole of an image file, stretched to (3, side, side) RGB, or why there is none.

    As `read_square` else; what a detector looks at.
    """
    upright = _upright(path, side)
    if isinstance(upright, str):
        return upright
    return _channels_first(
        upright.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    )


def image_size(path: Path) -> tuple[int, int] | str:
    """(width, height) of an image file the right way up, without decoding it; or why there is none."""
    try:
        with Image.open(path, formats=DECODERS) as image:
            width, height = image.size
            return (height, width) if _turn(path, image) in SIDEWAYS else (width, height)
    except Exception as error:
        return _reason(path, error)


def orientation(path: Path) -> int:
    """How an image file's EXIF block turns it, from 1 (not at all) to 8."""
    with suppress(Exception), Image.open(path, formats=DECODERS) as image:
        return _turn(path, image)
    return 1


def _turn(path: Path, image: Image.Image) -> int:
    # Of a PNG file Pillow decodes all pixels to find out.
    if image.format == "PNG" and not _png_has_exif(path):
        return 1
    with suppress(Exception):
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _png_has_exif(path: Path) -> bool:
    """Whether a PNG file has a chunk of EXIF, or a text in which older programs keep it."""
    with path.open("rb") as file:
        start = 8  # after the signature
        while True:
            file.seek(start)
            length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            text = kind in (b"tEXt", b"zTXt", b"iTXt")
            if kind == b"eXIf" or (text and file.read(len(_RAW_EXIF)) == _RAW_EXIF):
                return True
            if len(kind) < 4 or kind == b"IEND":
                return False
            start += 12 + length


def read_ahead(paths: Sequence[T], read: Callable[[T], Pixels | str]) -> Iterator[Pixels | str]:
    """Read images in order, a few ahead. Threads do: Pillow decodes outside Python's lock."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead = deque(pool.submit(read, path) for path in paths[: 4 * workers])
        for position in range(len(paths)):
            yield ahead.popleft().result()
            if position + 4 * workers < len(paths):
                ahead.append(pool.submit(read, paths[position + 4 * workers]))


def _upright(path: Encoded, side: int | None) -> Image.Image | str:
    """An image file as 8-bit RGB the right way up, or why not.

    It may be made smaller, but not below twice `side`.
    """
    whole, bits = (path.file, path.bits) if isinstance(path, Deep) else (path, FULL)
    try:
        file = BytesIO(whole) if isinstance(whole, bytes) else whole
        with Image.open(file, formats=DECODERS) as image:
            if side is not None:
                image.draft(None, (2 * side, 2 * side))  # a JPEG is decoded at 1/2, 1/4 or 1/8
            whole_image = _shallow(image, file, bits) if is_deep(image) else image
            whole_image.load()
            with suppress(Exception):  # an image whose EXIF block is damaged is taken as upright
                ImageOps.exif_transpose(whole_image, in_place=True)
            return _rgb(whole_image)
    except Exception as error:
        return _reason(whole, error)


def _channels_first(image: Image.Image) -> Pixels:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def read_whole(path: Encoded) -> Pixels | str:
    """The whole of an image file as (H, W, 3) RGB, or why there is none; see `read_square`."""
    upright = _upright(path, None)
    return upright if isinstance(upright, str) else np.array(upright)


def set_bits(read: Callable[[int], Path | bytes], count: int) -> int:
    """How many bits the values of a dataset's images of more than 8 bits have: 10, 12, 14 or 16.

    Cameras and scanners store 10 or 12 bits in files of 16, whose upper bits are dark. The largest value of
    some images decides for all, so that equal values stay equal. `FULL` where images have 8 bits a value.
    """
    largest = 0
    for number in np.unique(np.linspace(0, count - 1, min(LOOKED_AT, count)).astype(int)):
        with suppress(Exception):
            data = read(int(number))
            file = BytesIO(data) if isinstance(data, bytes) else data
            with Image.open(file, formats=DECODERS) as image:
                if is_deep(image):
                    values = deep_values(image, file)
                    largest = max(largest, int(values[:, :, : _COLORS[values.shape[2]]].max()))
    return next((bits for bits in (10, 12, 14) if 0 < largest < 1 << bits), FULL)


def _shallow(image: Image.Image, file: Path | IO[bytes], bits: int) -> Image.Image:
    """The upper 8 of so many bits a value, with the orientation of the file."""
    values = (deep_values(image, file) >> (bits - 8)).clip(0, 255).astype(np.uint8)
    mode = ("L", "LA", "RGB", "RGBA")[values.shape[2] - 1]
    found = Image.frombytes(mode, (values.shape[1], values.shape[0]), values.tobytes())
    with suppress(Exception):
        found.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    return found


def _rgb(image: Image.Image) -> Image.Image:
    """Any readable image as 8-bit RGB; what shows through it is white."""
    if image.mode in ("I", "F"):
        raise ValueError("it has 32 bits a pixel without a known range; 8 and 16 are read")
    if not image.has_transparency_data:
        return image.convert("RGB")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image.convert("RGBA"))
    return page.convert("RGB")


def _reason(path: Path | bytes, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder, not one of the images in it"
    with suppress(OSError):
        if (len(path) if isinstance(path, bytes) else path.stat().st_size) == 0:
            return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return f"it is not an image of a known format ({', '.join(DECODERS)})"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
