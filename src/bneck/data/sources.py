"""Where encoded images come from, whatever holds them: names, labels, and the bytes of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bneck.data.depth import FULL, Encoded, deep
from bneck.data.folders import DataError, Found, Listing, check_class_names, split_off

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """Encoded images: `names` (N), `labels` (N,) and what reads the bytes of one by its number.

    `read` may be called by several threads at once; it raises OSError for an image that is not there.
    """

    names: Sequence[str]
    labels: npt.NDArray[np.int64]
    read: Callable[[int], bytes]
    size: Callable[[int], int] | None = None  # bytes of one image, where that costs no reading
    bits: int = FULL  # see `images.set_bits`

    def part(self, indices: npt.NDArray[np.int64]) -> Source:
        """The images of `indices`, numbered from 0."""
        names = [self.names[i] for i in indices]
        size = self.size
        return Source(
            names, self.labels[indices], lambda number: self.read(int(indices[number])),
            None if size is None else lambda number: size(int(indices[number])), self.bits,
        )  # fmt: skip

    def pixels(self, decode: Callable[[Encoded], T | str], number: int) -> T | str:
        """What `decode` makes of one image, or why there is none; any thread may ask."""
        try:
            data = self.read(number)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError) and error.filename is not None
            return "there is no such file" if missing else error.strerror or str(error)
        return decode(deep(data, self.bits))


@dataclass(frozen=True, slots=True)
class Sources:
    """A dataset of encoded images. `kind` says what holds them, `fingerprint` names its state.

    `listing` has the paths of files in folders. `test` are images that training leaves alone, `found` is what
    else there is to say.
    """

    classes: tuple[str, ...]
    train: Source
    val: Source
    kind: str
    fingerprint: str
    listing: Listing | None = None
    test: Source | None = None
    found: Found = field(default_factory=Found)

    def settled(self) -> Sources:
        """With the bits of deep values decided by the train images, for all splits."""
        from bneck.data.images import set_bits

        bits = set_bits(self.train.read, len(self.train.names))
        if bits == FULL:
            return self
        train, val = (replace(one, bits=bits) for one in (self.train, self.val))
        test = None if self.test is None else replace(self.test, bits=bits)
        note = f"values of more than 8 bits are taken as of {bits} bits"
        found = replace(self.found, notes=(*self.found.notes, note))
        return replace(self, train=train, val=val, test=test, found=found)


def file_source(paths: Sequence[Path], labels: Sequence[int] | None = None) -> Source:
    """Image files, with their labels or all with 0."""
    found = np.zeros(len(paths)) if labels is None else labels
    names = [str(path) for path in paths]
    return Source(
        names, np.array(found, np.int64), partial(_file, paths), lambda i: paths[i].stat().st_size
    )


def divided(
    source: Source, classes: Sequence[str], where: str, *, val_share: float, seed: int
) -> tuple[Source, Source]:
    """(train, val) of images that are not divided, `val_share` of each class by a hash of its name.

    Raises:
        DataError: a class has a single image.
    """
    val = np.zeros(len(source.labels), dtype=bool)
    for label, name in enumerate(classes):
        members = np.flatnonzero(source.labels == label)
        if len(members) == 1:
            raise DataError(
                f"class {name!r} has a single image in {where}; it cannot be split into train and val: "
                "add images of it, or delete it"
            )
        val[members[split_off([source.names[int(i)] for i in members], val_share, seed)]] = True
    return source.part(np.flatnonzero(~val)), source.part(np.flatnonzero(val))


def with_splits(
    classes: tuple[str, ...], splits: Mapping[str, Source], where: str, *, kind: str, fingerprint: str,
    val_share: float, seed: int, left: Mapping[str, int] | None = None, notes: Sequence[str] = (),
) -> Sources:  # fmt: skip
    """A dataset of the images of each split: without val test is val, without both val is split off.

    Raises:
        DataError: no train images, a class that only val has or that has a single image, a label that is none.
    """
    train, val, test = (splits.get(name) for name in ("train", "val", "test"))
    if train is None or not len(train.labels):
        raise DataError(
            f"{where} has {', '.join(splits)} and no images of train; add a train split"
        )
    told, how = list(notes), "given"
    if val is None and test is not None:
        told.append("val is test")
        val, test = test, None
    if val is None or not len(val.labels):
        check_labels(classes, train, None, where)
        train, val = divided(train, classes, where, val_share=val_share, seed=seed)
        how = f"split off by seed {seed}"
    check_labels(classes, train, val, where)
    found = Found(how, dict(left or {}), tuple(told))
    return Sources(classes, train, val, kind, fingerprint, test=test, found=found)


def check_labels(classes: Sequence[str], train: Source, val: Source | None, where: str) -> None:
    """Raise DataError for one class, a name or label that is none, or a class that only val has."""
    if len(classes) < 2:
        only = repr(classes[0]) if classes else "none"
        raise DataError(f"{where} has one class, {only}; at least two are needed")
    for name, source in (("train", train), ("val", val)):
        if source is None or not len(source.labels):
            continue
        odd = np.flatnonzero((source.labels < 0) | (source.labels >= len(classes)))
        if len(odd):
            first = int(odd[0])
            raise DataError(
                f"{source.names[first]} in {name} of {where} has label {source.labels[first]}, and there are "
                f"{len(classes)} classes; labels must be from 0 to {len(classes) - 1}"
            )
    check_class_names(classes, where)
    seen = set(np.unique(train.labels).tolist())
    for label, name in enumerate(classes):
        if label not in seen:
            alone = val is not None and bool((val.labels == label).any())
            what = "is in val but not in train" if alone else "has no training image"
            raise DataError(
                f"class {name!r} of {where} {what}; add training images of it, or take it out"
            )


def state_of(paths: Iterable[Path]) -> str:
    """A fingerprint of files by name, size and time of change."""
    digest = hashlib.sha256()
    for path in paths:
        state = path.stat()
        digest.update(repr((path.name, state.st_size, state.st_mtime_ns)).encode())
    return digest.hexdigest()


def too_many_bad(bad: Sequence[tuple[str, str]], count: int, share: float) -> DataError:
    """The error for more than `share` unreadable images, (name, why) each, of `count`."""
    named = ", ".join(f"{name} ({why})" for name, why in bad[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return DataError(
        f"{len(bad)} of {count} images ({len(bad) / count:.1%}) cannot be read, more than the allowed "
        f"{share:.1%}: {named}{more}; replace or delete them, or raise --bad-share of "
        "bneck train or bneck search"
    )


def _file(paths: Sequence[Path], number: int) -> bytes:
    return paths[number].read_bytes()
