"""Masks: which class a stored value means, and one mask file as an array of class numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bneck.data.deep_pixels import is_deep
from bneck.data.folders import DataError
from bneck.data.images import DECODERS, SIDEWAYS, Pixels

IGNORED = 255  # in arrays: a pixel that neither loss nor metric looks at
MOST_CLASSES = 255
PLAIN = (
    "1",
    "L",
    "LA",
    "P",
    "I",
    "I;16",
    "I;16B",
    "I;16L",
)  # Pillow's modes of files that may hold ids
VOID = ("void", "ignore", "ignored", "unlabelled", "unlabeled")

Colour = tuple[int, int, int]

# The 19 classes that Cityscapes evaluates, in the order of their train ids: label id, name, colour.
CITYSCAPES = (
    (7, "road", (128, 64, 128)), (8, "sidewalk", (244, 35, 232)), (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)), (13, "fence", (190, 153, 153)), (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)), (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)), (22, "terrain", (152, 251, 152)), (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)), (25, "rider", (255, 0, 0)), (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)), (28, "bus", (0, 60, 100)), (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)), (33, "bicycle", (119, 11, 32)),
)  # fmt: skip
CITYSCAPES_IDS = 34  # label ids go from 0 to 33


@dataclass(frozen=True, slots=True)
class Labels:
    """The classes of a dataset and what the values in its masks mean.

    `names` are the classes, in the order of their numbers. `stored` gives every id that a mask may
    hold its class number, or `IGNORED`. `colours` are for pictures and for colour masks; `painted`
    are further colours of what is ignored. `known` is whether the colours came with the data. `coloured` is
    whether colours decide in every mask, palette and grey ones too, see `encoding.settled`.
    """

    names: tuple[str, ...]
    stored: dict[int, int]
    colours: tuple[Colour, ...]
    painted: tuple[Colour, ...] = ()
    known: bool = False
    coloured: bool = False

    def ids(self) -> Pixels:
        """Class number -> stored id, for files to be handed in; 256 values, 0 for no class."""
        back = np.zeros(256, np.uint8)
        for value, number in self.stored.items():
            if number != IGNORED:
                back[number] = value
        return back


def cityscapes_labels(*, train_ids: bool = False) -> Labels:
    """The 19 classes; masks hold label ids, or train ids. Of label ids all others are ignored."""
    ids, names, colours = zip(*CITYSCAPES, strict=True)
    if train_ids:
        stored = {number: number for number in range(len(ids))}
    else:
        numbers = {label: number for number, label in enumerate(ids)}
        stored = {label: numbers.get(label, IGNORED) for label in range(CITYSCAPES_IDS)}
    # Of the pixels that are ignored, the licence plate's -1 is 255 in a file of 8 bits.
    return Labels(names, stored | {IGNORED: IGNORED}, colours, ((0, 0, 0),), known=True)


def labels(
    entries: Sequence[tuple[str, Colour | None]], *, ignore: Sequence[int] = (), source: str
) -> Labels:
    """Labels of (name, colour) by id; `source` is what a refusal calls them."""
    names: list[str] = []
    colours: list[Colour] = []
    painted: list[Colour] = []
    stored: dict[int, int] = {}
    for value, (name, colour) in enumerate(entries):
        if name.lower() in VOID or value in ignore:
            stored[value] = IGNORED
            painted += [colour] if colour else []
            continue
        if name in names:
            raise DataError(f"{source} has {name!r} twice; each class needs a name of its own")
        stored[value] = len(names)
        names.append(name)
        colours.append(colour or palette(len(colours) + 1))
    stored |= dict.fromkeys((*ignore, IGNORED), IGNORED)
    if not names or len(entries) > MOST_CLASSES:
        raise DataError(f"{source} has {len(names)} classes; from 1 to {MOST_CLASSES} are possible")
    known = any(colour is not None for _, colour in entries)
    return Labels(tuple(names), stored, tuple(colours), tuple(painted), known)


def read_mask(
    path: Path, known: Labels, *, size: tuple[int, int] | None = None, turn: int = 1
) -> Pixels:
    """The class numbers (H, W) of a mask file, uint8; `IGNORED` where nothing is to be learned.

    Where colours decide (`Labels.coloured`), every file is converted by them; 255 of a grey file or of a
    palette is ignored where its colour is no class. Else files of 8 or 16 bits hold ids, files with a
    palette too: its indices; colour files are converted by the class list's colours, or taken as ids where
    every pixel is grey. Where `size`, the (height, width) of the image, is given, the mask must have it.
    `turn` is EXIF's orientation of an image whose mask is for it as it is stored: the mask is turned alike.

    Raises:
        DataError: it cannot be read, has another size, or holds what the labels do not know.
    """
    try:
        with Image.open(path, formats=DECODERS) as image:
            if image.format == "JPEG":
                raise DataError(
                    f"mask {path} is a JPEG file, whose compression invents ids; store masks as PNG"
                )
            if size is not None and turn in SIDEWAYS:
                size = size[::-1]  # as it is stored
            if size is not None and size != (image.height, image.width):
                raise DataError(
                    f"mask {path} has {image.width} x {image.height} pixels and its image {size[1]} x "
                    f"{size[0]}; they must be equal: give each image the mask that was drawn on it"
                )
            if is_deep(image) and image.mode not in PLAIN:
                raise DataError(
                    f"mask {path} has colors of 16 bits a value, of which the lower 8 would be lost; store its "
                    "class ids, or colors of 8 bits"
                )
            image.load()
            plain = image.mode in PLAIN
            ids = image.getchannel(0) if image.mode == "LA" else image
            void = np.asarray(ids) == IGNORED if plain and known.coloured else None
            values = np.asarray(image.convert("RGB") if known.coloured or not plain else ids)
    except DataError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"mask {path} cannot be read: {reason}") from None
    if values.ndim == 2:
        return _turned(_by_id(path, values.astype(np.int32), known), turn)
    return _turned(_by_colour(path, values, known, void), turn)


def _turned(mask: Pixels, turn: int) -> Pixels:
    """A stored mask the right way up, as EXIF's orientation says."""
    if turn in (2, 3, 7, 8):
        mask = mask[:, ::-1]
    if turn in (3, 4, 6, 7):
        mask = mask[::-1]
    return np.ascontiguousarray(mask.T if turn in SIDEWAYS else mask)


def _by_id(path: Path, values: npt.NDArray[np.int32], known: Labels) -> Pixels:
    table = np.full(max(int(values.max(initial=0)), *known.stored) + 1, -1, np.int16)
    for value, number in known.stored.items():
        table[value] = number
    odd = int(values.min(initial=0))
    if odd >= 0:
        numbers = table[values]
        if not (numbers < 0).any():
            return numbers.astype(np.uint8)
        odd = int(values[numbers < 0].flat[0])
    learned = [v for v in known.stored if v != IGNORED]
    raise DataError(
        f"mask {path} holds id {odd}, and the class list has ids {min(learned)} to {max(learned)}; add "
        f"the missing classes to the list, or --ignore {odd} if it means none"
    )


def _by_colour(
    path: Path, values: Pixels, known: Labels, void: npt.NDArray[np.bool_] | None
) -> Pixels:
    if not known.known and not known.coloured:
        if (values == values[:, :, :1]).all():
            return _by_id(path, values[:, :, 0].astype(np.int32), known)
        raise DataError(
            f"mask {path} holds colors, and no palette is known; store class ids, or give a class list "
            "with lines 'name R G B'"
        )
    palette = np.array([*known.colours, *known.painted], np.int32)
    numbers = [*range(len(known.colours)), *[IGNORED] * len(known.painted)]
    # Each colour as one number, so that it can be looked up.
    codes, pixels = (
        (part[..., 0] << 16) | (part[..., 1] << 8) | part[..., 2]
        for part in (palette, values.astype(np.int32))
    )
    order = np.argsort(codes)
    at = order[np.searchsorted(codes, pixels, sorter=order).clip(max=len(codes) - 1)]
    missing = codes[at] != pixels
    if void is not None:
        at, missing = np.where(missing & void, len(codes), at), missing & ~void
    if missing.any():
        red, green, blue = (int(v) for v in values[missing][0])
        raise DataError(
            f"mask {path} has the color {red} {green} {blue}, which no class of the list has; add it "
            "to the list, as a line 'void R G B' if it means none"
        )
    found: Pixels = np.array([*numbers, IGNORED], np.uint8)[at]
    return found


def palette(value: int) -> Colour:
    """VOC's colour of an id, far from those of lower ids: its lowest bits are the highest of R, G, B."""
    bits = f"{value:024b}"[::-1]
    red, green, blue = (int(bits[channel::3], 2) for channel in range(3))
    return red, green, blue
