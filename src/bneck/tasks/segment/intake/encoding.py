"""Whether masks hold ids or colours, and what 255 means in them: one rule for the whole dataset."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from bneck.data.images import DECODERS
from bneck.data.intake.walk import DataError
from bneck.tasks.segment.masks import IGNORED, PLAIN, Colour, Labels, labels, read_mask

LOOKED_AT = 64  # masks, spread evenly over those of train
MOST_VALUES = 300  # that are kept: more are no classes
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@dataclass(slots=True)
class Values:
    """What masks hold: ids of grey and palette files, colours of all, and the palettes' colours by index."""

    ids: set[int] = field(default_factory=set)
    colours: set[Colour] = field(default_factory=set)
    voids: set[Colour] = field(default_factory=set)  # what 255 of grey and palette files looks like
    palette: dict[int, Colour] = field(default_factory=dict)
    unlike: Path | None = None  # the first mask whose palette is not that of those before it
    only_plain: bool = True


def settled(
    known: Labels | None, masks: Sequence[Path], *, ignore: Sequence[int], missing: str
) -> tuple[Labels, tuple[str, ...]]:
    """The labels with what the masks hold decided, and notes on it.

    The list's colours decide wherever it has some, unless all masks that are looked at hold ids of the list
    and not its colours. Where there are two classes, and masks hold 0 and 255 or black and white alone, 255 is
    the second class, unless `ignore` has it. Without a list (None) such masks are background and object.

    Raises:
        DataError: no list and no masks of two values (`missing` says what to do), a list of one class for two
            values, palettes that differ while no colours are known.
    """
    seen = look(masks)
    notes: tuple[str, ...] = ()
    two = _two_valued(seen) and IGNORED not in ignore
    if known is None:
        if not two and not (seen.ids == {0, 1} and seen.only_plain):
            raise DataError(missing)
        known = labels([("background", None), ("object", None)], ignore=ignore, source="")
        notes = ("no class list: 0 is background, the other value object",)
    if known.known:
        return replace(known, coloured=_by_colours(seen, known)), notes
    if (two and known.stored.get(1) == IGNORED) or (two and len(known.names) == 1):
        raise DataError(
            f"the masks hold 0 and 255, and the class list has {known.names[0]!r} alone; name both values in "
            "it, as background and object in two lines, or --ignore 255 if it means none"
        )
    if two and len(known.names) == 2:
        if seen.palette:
            colours = dict(zip(known.names, (BLACK, WHITE), strict=True))
            known = replace(known, colours=tuple(colours.values()), coloured=True)
        else:
            known = replace(known, stored=known.stored | {IGNORED: 1})
        return known, notes or (f"255 in the masks is {known.names[1]}",)
    if seen.unlike is not None:
        raise DataError(
            f"mask {seen.unlike} has another palette than the masks before it, so that an index does not mean "
            "one class; give a class list with the colors, in lines 'name R G B'"
        )
    return known, notes


def check_like(known: Labels, train: Sequence[Path], val: Sequence[Path]) -> None:
    """Raise DataError where masks of val hold what those of train and the labels do not mean by it."""
    seen = look(val)
    ignored = not known.coloured and known.stored.get(IGNORED) == IGNORED
    if ignored and _two_valued(seen) and IGNORED not in look(train).ids:
        raise DataError(
            f"the masks of val hold 0 and 255 alone, as {val[0]}, and those of train no 255, so that the "
            "objects of val would be ignored; write them alike"
        )
    for path in _some(val):
        read_mask(path, known)


def _some(masks: Sequence[Path]) -> list[Path]:
    """Those that are looked at."""
    places = np.unique(np.linspace(0, len(masks) - 1, min(LOOKED_AT, len(masks))).astype(int))
    return [masks[i] for i in places]


def look(masks: Sequence[Path]) -> Values:
    """The values of some masks; one that cannot be read is left to the reading."""
    seen = Values()
    for path in _some(masks):
        with suppress(Exception), Image.open(path, formats=DECODERS) as image:
            if image.format != "JPEG":
                _add(seen, path, image)
    return seen


def _add(seen: Values, path: Path, image: Image.Image) -> None:
    plain = image.mode in PLAIN
    seen.only_plain &= plain
    if plain:
        ids = np.asarray(image.getchannel(0) if image.mode == "LA" else image)
        values = [int(value) for value in np.unique(ids)[:MOST_VALUES]]
        seen.ids |= set(values)
        if image.mode == "P":
            shades = image.getpalette("RGB") or []
            entries = dict(enumerate(zip(shades[::3], shades[1::3], shades[2::3], strict=False)))
            own = {value: entries[value] for value in values if value in entries}
            if any(seen.palette.get(value, colour) != colour for value, colour in own.items()):
                seen.unlike = seen.unlike or path
            seen.palette |= own
            seen.colours |= set(own.values())
            seen.voids |= {colour for value, colour in own.items() if value == IGNORED}
        else:
            shade = 255 if image.mode == "1" else 1
            greys = {(v * shade,) * 3 for v in values}
            seen.colours |= {(g[0], g[1], g[2]) for g in greys}
            seen.voids |= {WHITE} & seen.colours
        return
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(np.int32)
    codes = np.unique(pixels @ np.array([1 << 16, 1 << 8, 1]))[:MOST_VALUES]
    found = {(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in codes}
    seen.colours |= found
    if all(red == green == blue for red, green, blue in found):
        seen.ids |= {red for red, _, _ in found}


def _two_valued(seen: Values) -> bool:
    """Whether masks hold 0 and 255 alone, or black and white in whatever order of a palette."""
    if seen.palette:
        return seen.colours == {BLACK, WHITE}
    return seen.ids == {0, IGNORED} and seen.colours <= {BLACK, WHITE}


def _by_colours(seen: Values, known: Labels) -> bool:
    """Whether the list's colours decide: not where masks hold ids of the list and other colours."""
    others = seen.colours - set(known.colours) - set(known.painted)
    if not others - seen.voids:
        return True
    return not (seen.only_plain and seen.ids <= set(known.stored))
