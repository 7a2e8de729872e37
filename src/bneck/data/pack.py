"""Images decoded once into memory-mapped arrays that all worker processes share.

A pack is a folder: `train.u8` and `val.u8` hold the pixels, `pack.json`, written last, the rest.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bneck.data.depth import FULL, Encoded
from bneck.data.find import of_listing
from bneck.data.folders import DataError, Listing
from bneck.data.images import CENTRAL, Pixels, read_ahead, read_square
from bneck.data.sources import Source, Sources, too_many_bad
from bneck.data.vary import Plan, cropped

FORMAT = 1
INDEX = "pack.json"

Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images (N, 3, side, side) uint8 RGB, labels (N,) int64, N names; see `data.batches.Images`."""

    images: Pixels
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]

    def crops(
        self, indices: npt.NDArray[np.int64], draws: npt.NDArray[np.float32], plan: Plan
    ) -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(self.images[indices]).to(plan.device).float()
        numbers = torch.from_numpy(draws).to(plan.device)
        images = cropped(images, numbers, plan.resolution, plan.augment)
        return images, torch.from_numpy(self.labels[indices]).to(plan.device)

    def centres(
        self, indices: npt.NDArray[np.int64], resolution: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        side = self.images.shape[-1]
        inside = slice((side - resolution) // 2, (side - resolution) // 2 + resolution)
        images = torch.from_numpy(self.images[indices][:, :, inside, inside]).to(device).float()
        return images, torch.from_numpy(self.labels[indices]).to(device)


@dataclass(frozen=True, slots=True)
class Bad:
    """An image that was left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Packed:
    """An opened pack. `side` is the stored images' side in pixels, resolution / 0.875.

    Another process opens `folder` for itself; sent to it, the arrays would be copied.
    """

    folder: Path
    fingerprint: str
    classes: tuple[str, ...]
    resolution: int
    side: int
    train: Split
    val: Split
    bad: tuple[Bad, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One image on its way into a pack: its pixels, or the reason why there are none."""

    path: Path
    name: str
    label: int
    pixels: Pixels | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What is to be packed. A folder whose pack has the same `fingerprint` is left as it is."""

    fingerprint: str
    classes: tuple[str, ...]
    resolution: int
    count: int
    bad_share: float = 0.0


def stored_side(resolution: int) -> int:
    """Side in pixels of the stored images, of which evaluation sees the central `resolution`.

    >>> stored_side(224), stored_side(64)
    (256, 73)
    """
    if not isinstance(resolution, int) or isinstance(resolution, bool) or resolution < 1:
        raise DataError(f"resolution is {resolution!r}; it must be a whole number of at least 1")
    return round(resolution / CENTRAL)


def pack(
    found: Sources | Listing,
    resolution: int,
    folder: Path,
    *,
    bad_share: float = 0.01,
    progress: Progress | None = None,
) -> Packed:
    """Decode a dataset's images into `folder`, or open the pack of them that it already holds.

    Unreadable images are left out and listed in `bad`. `progress` gets (images done, images in
    all). May be killed at any instant and started again.

    Raises:
        DataError: more than `bad_share` of the images are bad, a class or val has no readable
            image, or the folder cannot be written.
    """
    if not 0 <= bad_share <= 1:
        raise DataError(f"bad_share is {bad_share!r}; it must be from 0 to 1")
    sources = of_listing(found) if isinstance(found, Listing) else found
    if not len(sources.train.labels) or not len(sources.val.labels):
        raise DataError("the listing has no images for train or for val; make it with list_images")
    side = stored_side(resolution)
    names = _names(sources)
    head = Head(
        fingerprint=_fingerprint(sources, resolution, names), classes=sources.classes,
        resolution=resolution, count=sum(map(len, names.values())), bad_share=bad_share,
    )  # fmt: skip
    done = itertools.count(1)

    def records(source: Source, names: Sequence[str]) -> Iterator[Record]:
        read = partial(source.pixels, partial(read_square, side=side))
        for number, pixels in enumerate(read_ahead(range(len(names)), read)):
            path, label = Path(source.names[number]), int(source.labels[number])
            yield Record(path, names[number], label, pixels)
            if progress is not None:
                progress(next(done), head.count)

    train, val = records(sources.train, names["train"]), records(sources.val, names["val"])
    return write_pack(folder, head, {"train": train, "val": val})


def open_pack(folder: Path) -> Packed:
    """Open the pack in a folder; pixels stay on disk until they are looked at.

    Raises:
        DataError: the folder holds no pack, or a damaged one.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="ascii"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder} holds no pack; make one with pack(...)") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / INDEX} cannot be read: {error}; pack again") from None
    try:
        return _opened(folder, index)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(f"the pack in {folder} is damaged: {error}; pack again") from None


def decode(path: Encoded, side: int) -> Pixels:
    """The central square of an image file, resized to (3, side, side) uint8 RGB.

    Raises:
        DataError: the file is not a whole image; the reason is named.
    """
    pixels = read_square(path, side)
    if isinstance(pixels, str):
        raise DataError(f"{path!s} cannot be used: {pixels}; replace it by a whole image file")
    return pixels


def write_pack(folder: Path, head: Head, splits: Mapping[str, Iterable[Record]]) -> Packed:
    """Write the splits "train" and "val" as a pack, unless the folder already holds that pack.

    Raises:
        DataError: as `pack` does; nothing half-written is left behind.
    """
    side = stored_side(head.resolution)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            packed = _held(folder, head.fingerprint)
            if packed is None:
                _write(folder, head, splits, side)
                packed = open_pack(folder)
    except OSError as error:
        needed_mb = head.count * 3 * side * side / 1e6
        raise DataError(
            f"the pack cannot be written into {folder}: {error.strerror or error}; it needs "
            f"{max(1, round(needed_mb))} MB there: make room, or choose another folder"
        ) from None
    _check_bad(packed.bad, head)
    return packed


def _write(folder: Path, head: Head, splits: Mapping[str, Iterable[Record]], side: int) -> None:
    index: dict[str, Any] = {
        "bneck_pack": FORMAT, "fingerprint": head.fingerprint, "classes": head.classes,
        "resolution": head.resolution, "side": side,
    }  # fmt: skip
    bad: list[Bad] = []
    try:
        for split, records in splits.items():
            with (folder / f"{split}.u8.part").open("wb") as file:
                index[split] = _write_split(file, records, bad)
        _check_bad(bad, head)
        _check_classes(head, index)
        index["bad"] = [[str(entry.path), entry.reason] for entry in bad]
        (folder / f"{INDEX}.part").write_text(json.dumps(index), encoding="ascii")
        # Without its index a pack does not count: killed between these lines, it is made again.
        (folder / INDEX).unlink(missing_ok=True)
        for name in (*(f"{split}.u8" for split in splits), INDEX):
            os.replace(folder / f"{name}.part", folder / name)
    finally:
        for part in folder.glob("*.part"):
            part.unlink(missing_ok=True)


def _write_split(file: BinaryIO, records: Iterable[Record], bad: list[Bad]) -> dict[str, Any]:
    names: list[str] = []
    labels: list[int] = []
    for record in records:
        if isinstance(record.pixels, str):
            bad.append(Bad(record.path, record.pixels))
            continue
        _append(file, record.pixels)
        names.append(record.name)
        labels.append(record.label)
    return {"names": names, "labels": labels}


def _append(file: BinaryIO, pixels: Pixels) -> None:
    # Not through a memory map: on a full disk that would end the process by a signal.
    file.write(pixels.tobytes())


def _check_bad(bad: Iterable[Bad], head: Head) -> None:
    named = [(str(entry.path), entry.reason) for entry in bad]
    if len(named) > head.bad_share * head.count:
        raise too_many_bad(named, head.count, head.bad_share)


def _check_classes(head: Head, index: dict[str, Any]) -> None:
    seen = set(index["train"]["labels"])
    for label, name in enumerate(head.classes):
        if label not in seen:
            raise DataError(f"no training image of class {name!r} can be read; replace its images")
    if not index["val"]["labels"]:
        raise DataError("no validation image can be read; replace them, or split val off train")


def _opened(folder: Path, index: Any) -> Packed:
    if not isinstance(index, dict) or index.get("bneck_pack") != FORMAT:
        raise ValueError(f"{INDEX} is of another format")
    return Packed(
        folder=folder, fingerprint=index["fingerprint"], classes=tuple(index["classes"]),
        resolution=index["resolution"], side=index["side"],
        train=_opened_split(folder, index, "train"), val=_opened_split(folder, index, "val"),
        bad=tuple(Bad(Path(path), reason) for path, reason in index["bad"]),
    )  # fmt: skip


def _opened_split(folder: Path, index: dict[str, Any], split: str) -> Split:
    path, side = folder / f"{split}.u8", index["side"]
    names, labels = index[split]["names"], np.array(index[split]["labels"], dtype=np.int64)
    shape = (len(names), 3, side, side)
    if path.stat().st_size != np.prod(shape) or labels.shape != shape[:1]:
        raise ValueError(f"{path.name} is not of the size that {INDEX} says")
    return Split(np.memmap(path, np.uint8, "r", shape=shape), labels, tuple(names))


def _held(folder: Path, fingerprint: str) -> Packed | None:
    try:
        packed = open_pack(folder)
    except DataError:
        return None
    return packed if packed.fingerprint == fingerprint else None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time write into a folder; a killed one lets go by itself."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _names(found: Sources) -> dict[str, Sequence[str]]:
    """The names of the images in a pack: of files those inside the dataset's folder, wherever it is."""
    names = {"train": found.train.names, "val": found.val.names}
    if found.listing is None:
        return names
    paths = {split: [Path(os.path.abspath(name)) for name in names[split]] for split in names}
    root = os.path.commonpath([path.parent for path in (*paths["train"], *paths["val"])])
    return {split: [p.relative_to(root).as_posix() for p in paths[split]] for split in paths}


def _fingerprint(found: Sources, resolution: int, names: Mapping[str, Sequence[str]]) -> str:
    """Names the content of a pack: what goes in, and the state of the files it comes from."""
    what: tuple[Any, ...] = (FORMAT, resolution, found.classes)
    if found.train.bits != FULL:
        what = (*what, found.train.bits)
    if found.listing is None:
        return hashlib.sha256(repr((*what, found.fingerprint)).encode()).hexdigest()
    digest = hashlib.sha256(repr(what).encode())
    for split, items in (("train", found.listing.train), ("val", found.listing.val)):
        for item, name in zip(items, names[split], strict=True):
            try:
                state = item.path.stat()
                size, changed = state.st_size, state.st_mtime_ns
            except OSError:
                size, changed = -1, 0  # decoding will say what is wrong with it
            digest.update(repr((split, name, item.label, size, changed)).encode())
    return digest.hexdigest()
