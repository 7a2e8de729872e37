"""What was found in a user's data, as one line, and images that stand in it more than once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from bneck.data.folders import Found
from bneck.data.intake.walk import counted
from bneck.data.sources import Source

CLASSES_SHOWN = 5
MOST_COMPARED = 50_000  # files that are read once more: of a million images, all would be


@dataclass(frozen=True, slots=True)
class Repeated:
    """Images whose files are equal byte by byte.

    `leaked` are images of val that train has too, `torn` names of images that stand in two classes.
    """

    leaked: tuple[str, ...] = ()
    torn: tuple[str, ...] = ()


def repeated(train: Source, val: Source, *, most: int = MOST_COMPARED) -> Repeated | None:
    """Compare the content of all images whose files are as long as another's; None where these are too many."""
    sources = (train, val)
    by_size: dict[int, list[tuple[int, int]]] = {}
    for which, source in enumerate(sources):
        for number in range(len(source.names)):
            by_size.setdefault(_size(source, number), []).append((which, number))
    likely = [place for places in by_size.values() if len(places) > 1 for place in places]

    if len(likely) > most:
        return None

    def content(place: tuple[int, int]) -> bytes | None:
        with suppress(OSError):
            return hashlib.sha256(sources[place[0]].read(place[1])).digest()
        return None

    by_content: dict[bytes, list[tuple[int, int]]] = {}
    with ThreadPoolExecutor() as pool:
        for place, digest in zip(likely, pool.map(content, likely), strict=True):
            if digest is not None:
                by_content.setdefault(digest, []).append(place)
    leaked: list[str] = []
    torn: list[str] = []
    for places in by_content.values():
        if len({which for which, _ in places}) > 1:
            leaked += [val.names[number] for which, number in places if which]
        labels = {int(sources[which].labels[number]) for which, number in places}
        if len(labels) > 1:
            torn.append(sources[places[0][0]].names[places[0][1]])
    return Repeated(tuple(leaked), tuple(torn))


def sentence(
    classes: Sequence[str],
    splits: Mapping[str, int],
    found: Found,
    repeats: Repeated | None,
    held_back: int = 0,
) -> str:
    """What was found, as in "2 classes (cup, pen); 144 train, 16 val (given)".

    `repeats` are None where they were not looked for.
    """
    return "; ".join(_parts(classes, splits, found, repeats, held_back))


def _parts(
    classes: Sequence[str],
    splits: Mapping[str, int],
    found: Found,
    repeats: Repeated | None,
    held_back: int,
) -> Iterator[str]:
    more = f" and {len(classes) - CLASSES_SHOWN} more" if len(classes) > CLASSES_SHOWN else ""
    counts = [
        f"{count} {name}{f' ({found.val})' * (name == 'val')}" for name, count in splits.items()
    ]
    if held_back:
        counts.append(f"{held_back} test (left alone)")
    noun = "1 class" if len(classes) == 1 else f"{len(classes)} classes"
    yield f"{noun} ({', '.join(classes[:CLASSES_SHOWN])}{more})"
    yield ", ".join(counts)
    if found.left:
        yield f"left out: {counted(dict(found.left))}"
    if repeats is None:
        yield "repeated images were not looked for"
        repeats = Repeated()
    if repeats.leaked:
        yield f"{_images(repeats.leaked)} in train and val"
    if repeats.torn:
        yield f"{_images(repeats.torn)} in two classes"
    yield from found.notes


def _images(names: Sequence[str]) -> str:
    return "1 image is" if len(names) == 1 else f"{len(names)} images are"


def _size(source: Source, number: int) -> int:
    """Bytes of an image; -1 where only reading would tell, so that all such are compared."""
    if source.size is None:
        return -1
    with suppress(OSError):
        return source.size(number)
    return -2 - number  # it cannot be read, and equals nothing
