"""Masks of photos that an EXIF block turns: drawn on the photo as it is shown, or as it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from PIL import Image

from bneck.data.images import DECODERS, SIDEWAYS, orientation
from bneck.tasks.segment.intake.matching import Pair


def with_turns(
    splits: Mapping[str, Sequence[Pair]],
) -> tuple[dict[str, tuple[Pair, ...]], tuple[str, ...]]:
    """The pairs with the turn of masks that are for the stored photos, and notes.

    Sizes tell it of photos that lie on their side. Squares and photos upside down are taken alike if all of
    these agree; else their masks stay as they are, and are counted in a note.
    """
    pairs = {pair for own in splits.values() for pair in own}
    turns = {pair: turn for pair in pairs if (turn := orientation(pair.image)) > 1}
    stored = {pair: _is_stored(pair) for pair, turn in turns.items() if turn in SIDEWAYS}
    told = set(stored.values()) - {None}
    turned = {
        pair: replace(pair, turn=turn)
        for pair, turn in turns.items()
        if stored.get(pair) or (stored.get(pair) is None and told == {True})
    }
    unclear = sum(stored.get(pair) is None for pair in turns) if len(told) != 1 else 0
    counts = {
        "masks of {} photos are turned as EXIF turns the photos": len(turned),
        "EXIF turns {} photos whose masks, taken for the turned ones, may be for those as stored": unclear,
    }
    notes = tuple(note.format(count) for note, count in counts.items() if count)
    found = {split: tuple(turned.get(pair, pair) for pair in own) for split, own in splits.items()}
    return found, notes


def _is_stored(pair: Pair) -> bool | None:
    """Whether a mask has the size of the photo as it is stored; None for a square, or another size."""
    sizes = [_size(path) for path in (pair.image, pair.mask)]
    width, height = sizes[0]
    return (
        {(width, height): True, (height, width): False}.get(sizes[1]) if width != height else None
    )


def _size(path: Path) -> tuple[int, int]:
    """(width, height) as stored; (0, 0) of a file that cannot be read, which is said where it is read."""
    with suppress(Exception), Image.open(path, formats=DECODERS) as image:
        return image.size
    return 0, 0
