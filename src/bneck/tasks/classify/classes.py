"""Which of a network's classes a folder of images is: by name, never by position."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from bneck.specs.errors import InputError, few

IMAGENET = 1000  # classes; some networks have a background class before them
_WNID = re.compile(r"n\d{8}")


def by_name(
    folders: Sequence[str], known: Mapping[str, int] | None, classes: int, where: str
) -> dict[str, int]:
    """Index of each class folder that the network knows; the others are missing.

    Names are compared as they are, then without regard to case and Unicode's form. A network without
    names knows its classes by number. ImageNet's thousand WNIDs are numbered as it numbers them.

    Args:
        folders: names of class folders, in order.
        known: the network's index by name, None where nobody named its classes.
        classes: how many the network has.
        where: what a refusal calls the images.

    Raises:
        InputError: the network knows none of them.
    """
    thousand = len(folders) in (IMAGENET, IMAGENET + 1) and classes >= IMAGENET
    if known is not None:
        places = _known(folders, known)
    elif thousand and all(_WNID.fullmatch(name) for name in folders):
        return {name: index for index, name in enumerate(folders)}
    else:
        numbers = {str(index): index for index in range(classes)}
        # Other numbers than its own may count from 1, or mean something else altogether.
        places = {name: numbers[name] for name in folders} if numbers.keys() >= set(folders) else {}
    if places:
        return places
    held = f"{classes} classes without names" if known is None else few(list(known))
    raise InputError(
        f"{where} has {len(folders)} classes ({few(folders)}), and the network knows none of them "
        f"({held}); say which is which with --labels (a list of the network's classes by index), or pass "
        "images of its classes"
    )


def _known(folders: Sequence[str], names: Mapping[str, int]) -> dict[str, int]:
    places = {name: names[name] for name in folders if name in names}
    loose: dict[str, set[int]] = {}
    for name, index in names.items():
        loose.setdefault(_plain(name), set()).add(index)
    plain = [_plain(name) for name in folders]
    for name in folders:
        fitting = loose.get(_plain(name), set())
        # Where two classes or two folders differ in case alone, nothing is guessed.
        if name not in places and len(fitting) == 1 and plain.count(_plain(name)) == 1:
            places |= dict.fromkeys([name], *fitting)
    return places


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
