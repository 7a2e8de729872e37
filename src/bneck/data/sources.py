"""Where encoded images come from, whatever holds them: names, labels, and the bytes of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bneck.data.folders import DataError, Item, Listing, held_out, list_images
from bneck.data.images import Pixels, read_ahead, read_square
from bneck.data.pack import FORMAT, Head, Packed, Progress, Record, stored_side, write_pack


@dataclass(frozen=True, slots=True)
class Source:
    """Encoded images: `names` (N), `labels` (N,) and what reads the bytes of one by its number.

    `read` may be called by several threads at once; it raises OSError for an image that is not there.
    """

    names: Sequence[str]
    labels: npt.NDArray[np.int64]
    read: Callable[[int], bytes]

    def part(self, indices: npt.NDArray[np.int64]) -> Source:
        """The images of `indices`, numbered anew."""
        return Source(
            [self.names[i] for i in indices],
            self.labels[indices],
            lambda number: self.read(int(indices[number])),
        )


@dataclass(frozen=True, slots=True)
class Sources:
    """A dataset of encoded images. `kind` says what holds them, `fingerprint` names its state.

    Of files in folders `listing` has the paths.
    """

    classes: tuple[str, ...]
    train: Source
    val: Source
    kind: str
    fingerprint: str
    listing: Listing | None = None


def find_images(data: str | Path, *, val_share: float = 0.2, seed: int = 0) -> Sources:
    """Folders of classes, tar shards, or Hugging Face datasets (parquet, or saved to disk).

    Args:
        data: a folder, a tar or parquet file, or a URL that fsspec opens, of a folder of tar shards.
        val_share: of each class is split off by a hash where there are no images for validation.
        seed: of that hash.

    Raises:
        DataError: it is none of these, or its labels do not make a dataset; see the readers.
    """
    from bneck.data.shards import is_sharded, read_shards
    from bneck.data.tables import is_table, read_tables

    text = str(data)
    if is_sharded(text):
        return read_shards(text, val_share=val_share, seed=seed)
    path = Path(data)
    if is_table(path):
        return read_tables(path, val_share=val_share, seed=seed)
    return of_listing(list_images(path, val_share=val_share, seed=seed))


def of_listing(listing: Listing) -> Sources:
    """Image files in folders."""
    digest = hashlib.sha256(repr(listing.classes).encode())

    def source(items: Sequence[Item]) -> Source:
        paths = [item.path for item in items]
        digest.update("\n".join(map(str, paths)).encode())
        labels = np.array([item.label for item in items], dtype=np.int64)
        return Source([str(path) for path in paths], labels, partial(_file, paths))

    train, val = source(listing.train), source(listing.val)
    return Sources(listing.classes, train, val, "folders", digest.hexdigest(), listing)


def pack_sources(
    found: Sources,
    resolution: int,
    folder: Path,
    *,
    bad_share: float = 0.01,
    progress: Progress | None = None,
) -> Packed:
    """Decode a dataset's images into `folder`, or open the pack of them; see `data.pack.pack`."""
    side = stored_side(resolution)
    head = Head(
        fingerprint=hashlib.sha256(
            repr((FORMAT, resolution, found.classes, found.fingerprint)).encode()
        ).hexdigest(),
        classes=found.classes,
        resolution=resolution,
        count=len(found.train.labels) + len(found.val.labels),
        bad_share=bad_share,
    )

    def records(source: Source, before: int) -> Iterator[Record]:
        def read(index: int) -> Pixels | str:
            try:
                return read_square(source.read(index), side)
            except OSError as error:
                return error.strerror or str(error)

        squares = read_ahead(range(len(source.labels)), read)
        for number, pixels in enumerate(squares):
            name = source.names[number]
            yield Record(Path(name), name, int(source.labels[number]), pixels)
            if progress is not None:
                progress(before + number + 1, head.count)

    train, val = records(found.train, 0), records(found.val, len(found.train.labels))
    return write_pack(folder, head, {"train": train, "val": val})


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
        ranked = sorted(members, key=lambda i: _rank(source.names[int(i)], seed))
        val[ranked[: held_out(len(members), val_share)]] = True
    return source.part(np.flatnonzero(~val)), source.part(np.flatnonzero(val))


def check_labels(classes: Sequence[str], train: Source, val: Source | None, where: str) -> None:
    """Raise DataError for one class, a label without a class, or one that only val has."""
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


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _file(paths: Sequence[Path], number: int) -> bytes:
    return paths[number].read_bytes()
