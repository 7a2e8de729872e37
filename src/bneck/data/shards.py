"""Tar shards as WebDataset writes them, local or behind a URL; read at random by their index.

A shard is listed once, and every image is then read at its own place, so the order of a training does
not depend on how images lie in shards.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from bneck.data.intake.splits import only_a_split, split_of
from bneck.data.intake.texts import decoded
from bneck.data.intake.walk import DataError, endings, is_hidden, is_image
from bneck.data.sources import Source, Sources, state_of, with_splits

BLOCK = 512
HANDLES = 256  # shards that stay open; systems allow some thousand files, or only one


@dataclass(frozen=True, slots=True)
class Sample:
    """One image in a shard: its name, its label as written, its place."""

    name: str
    label: str | int
    split: str  # "train", "val" or ""
    shard: str
    offset: int
    size: int


def is_sharded(data: str) -> bool:
    """Whether `data` names a tar file, a folder with some, or a URL."""
    if "://" in data or data.endswith(".tar"):
        return True
    folder = Path(data)
    return folder.is_dir() and any(folder.glob("*.tar"))


def read_shards(data: str, *, val_share: float, seed: int) -> Sources:
    """List the images of a tar file, or of all tar files of a folder or URL.

    A shard whose name has a word for a split (`splits.split_of`) holds that split; in others the folder
    above the class's does, if it is called so; else val is split off. Test is left alone where there is a
    val. The label of `KEY.jpg` is that of `KEY.cls` (a number or a name) or `KEY.json` ("label", "cls" or
    "class"), else the folder that it is in. `classes.txt` next to the shards names the classes, one a line.

    Raises:
        DataError: a truncated or compressed shard, an image without a label, a class that only val
            has, a label that is none of the classes.
    """
    store, left = _Store(data), Counter[str]()
    samples = [sample for shard in store.shards() for sample in _listed(store, shard, left)]
    if not samples:
        raise DataError(f"{data} holds no images (names that end in {endings()})")
    by_split: dict[str, list[Sample]] = {}
    for sample in samples:
        by_split.setdefault(sample.split, []).append(sample)
    unlabelled = len(by_split.get("test", ())) if _nameless(by_split.get("test", ())) else 0
    notes = [f"not used: {unlabelled} images of test without labels"] if unlabelled else []
    if unlabelled:
        del by_split["test"]
    if "train" in by_split and "" in by_split:
        others = sorted({PurePosixPath(sample.shard).name for sample in by_split[""]})
        notes.append(f"not used: {len(by_split.pop(''))} images of no split ({', '.join(others)})")
    elif "" in by_split:
        by_split["train"] = by_split.pop("")
    used = [s for split, found in by_split.items() if split != "test" for s in found]
    classes = _classes(store, used or samples, data)
    numbers = {name: number for number, name in enumerate(classes)}

    def source(found: Sequence[Sample]) -> Source:
        labels = [_label(sample, numbers, data) for sample in found]
        return Source(
            [s.name for s in found], np.array(labels, np.int64), partial(store.read, found),
            lambda number: found[number].size,
        )  # fmt: skip

    splits = {split: source(found) for split, found in by_split.items()}
    return with_splits(
        classes, splits, data, kind="shards", fingerprint=store.fingerprint(), val_share=val_share,
        seed=seed, left=left, notes=notes,
    )  # fmt: skip


class _Store:
    """The tar files of a folder, a single one, or those behind a URL."""

    def __init__(self, data: str) -> None:
        self.data, self.root = data, data
        self.remote: Any = None
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()
        if "://" in data:
            try:
                import fsspec
            except ImportError:
                raise DataError(
                    f"{data} is read with fsspec, which is not installed; run: pip install 'bneck[train]'"
                ) from None
            try:
                self.remote, self.root = fsspec.core.url_to_fs(data)
            except (ImportError, ValueError) as error:
                raise DataError(f"{data} cannot be opened: {error}") from None

    def shards(self) -> list[str]:
        """Their paths, sorted."""
        if self.root.endswith(".tar"):
            return [self.root]
        try:
            if self.remote is not None:
                names = [str(name) for name in self.remote.ls(self.root, detail=False)]
            else:
                names = [str(path) for path in Path(self.root).iterdir()]
        except OSError as error:
            raise DataError(f"{self.data} cannot be listed: {error}") from None
        found = sorted(name for name in names if name.endswith(".tar"))
        if not found:
            raise DataError(f"{self.data} holds no tar files; give a folder of shards")
        return found

    def open(self, path: str) -> IO[bytes]:
        """A file to be read in order."""
        if self.remote is None:
            return Path(path).open("rb")
        file: IO[bytes] = self.remote.open(path, "rb")
        return file

    def text(self, name: str) -> str | None:
        """What a file beside the shards says, if there is one."""
        folder = str(PurePosixPath(self.root).parent) if self.root.endswith(".tar") else self.root
        try:
            with self.open(f"{folder}/{name}") as file:
                return decoded(file.read())
        except OSError:
            return None
        except UnicodeDecodeError:
            raise DataError(f"{folder}/{name} is not UTF-8 text; save it as UTF-8") from None

    def read(self, samples: Sequence[Sample], number: int) -> bytes:
        """The bytes of one image; any thread may ask."""
        sample = samples[number]
        if self.remote is not None:
            end = sample.offset + sample.size
            try:
                data: bytes = self.remote.cat_file(sample.shard, start=sample.offset, end=end)
            except Exception as error:  # every kind of store has errors of its own
                raise OSError(str(error)) from None
            return data
        with self._lock:
            handle = self._open.get(sample.shard)
            if handle is None and len(self._open) < HANDLES:
                handle = self._open[sample.shard] = os.open(sample.shard, os.O_RDONLY)
        if handle is not None:
            return os.pread(handle, sample.size, sample.offset)
        with Path(sample.shard).open("rb") as file:
            file.seek(sample.offset)
            return file.read(sample.size)

    def fingerprint(self) -> str:
        """Names the state of all shards."""
        if self.remote is None:
            return state_of(map(Path, self.shards()))
        states = [(path, self.remote.info(path)) for path in self.shards()]
        digest = hashlib.sha256()
        for path, state in states:
            digest.update(repr((path, state.get("size"), state.get("ETag"))).encode())
        return digest.hexdigest()


def _listed(store: _Store, shard: str, left: Counter[str]) -> list[Sample]:
    """The images of one shard, with labels from the files next to them; `left` counts those left out."""
    images: dict[str, tuple[str, int, int]] = {}  # by whole name: stem, place, size
    notes: dict[str, str] = {}
    try:
        with store.open(shard) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    path = PurePosixPath(member.name.removeprefix("./"))
                    if not member.isfile() or any(map(is_hidden, path.parts)):
                        continue
                    kind, stem = path.suffix.lower(), str(path.with_suffix(""))
                    if is_image(path.name):
                        images[str(path)] = (stem, member.offset_data, member.size)
                    elif kind in (".cls", ".json"):
                        content = tar.extractfile(member)
                        assert content is not None
                        notes[stem] = _note(content.read(), kind, f"{shard}/{member.name}")
                end = tar.offset
            file.seek(end)
            if end + BLOCK > size or file.read(BLOCK).strip(b"\0"):
                raise tarfile.ReadError("it ends before its end mark")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"the shard {shard} is truncated, compressed or no tar file ({error}); write it again, "
            "uncompressed"
        ) from None
    except FileNotFoundError:
        raise DataError(f"there is no file {shard}; check the path") from None
    except OSError as error:
        raise DataError(f"the shard {shard} cannot be read: {error}") from None
    return _samples(shard, images, notes, left)


def _samples(
    shard: str, images: Mapping[str, tuple[str, int, int]], notes: Mapping[str, str],
    left: Counter[str],
) -> list[Sample]:  # fmt: skip
    """One sample for each image; of several of one key, as KEY.jpg and KEY.seg.png, for the first.

    A key ends at the first dot of a file's name, as WebDataset has it, unless that tears images apart that
    have a label each, or a date in their names.
    """
    stems = {stem for stem, _, _ in images.values()}
    taken: dict[str, str] = {}  # key: the image that stands for it
    for name, (stem, _, _) in sorted(
        images.items(), key=lambda entry: entry[1][0] != _key(entry[1][0])
    ):
        key, ending = _key(stem), stem[len(_key(stem)) :]
        shares = stem not in notes and (
            key in notes or (key in stems and ending.replace(".", "").isalpha())
        )
        taken.setdefault(key if shares else stem, name)
    chosen = set(taken.values())
    if len(chosen) < len(images):
        left["further images of a key"] += len(images) - len(chosen)
    return [
        Sample(
            name, notes.get(stem) or notes.get(_key(stem)) or PurePosixPath(stem).parent.name,
            _split(shard, stem), shard, place, size,
        )
        for name, (stem, place, size) in images.items()
        if name in chosen
    ]  # fmt: skip


def _key(stem: str) -> str:
    folder, slash, file = stem.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _note(data: bytes, kind: str, where: str) -> str:
    try:
        text = decoded(data).strip()
        if kind == ".cls":
            return text
        values = json.loads(text)
        return str(next((values[k] for k in ("label", "cls", "class") if k in values), ""))
    except (ValueError, TypeError):
        raise DataError(f"{where} cannot be read as a label") from None


def _split(shard: str, key: str) -> str:
    # Only a folder above the class's may name a split: there are classes that are called "train".
    above = [name for name in PurePosixPath(key).parts[:-2] if only_a_split(name)]
    for name in (PurePosixPath(shard).stem, *above):
        if split := split_of(name):
            return split
    return ""


def _nameless(samples: Sequence[Sample]) -> bool:
    return any(sample.label == "" for sample in samples)


def _classes(store: _Store, samples: Sequence[Sample], where: str) -> tuple[str, ...]:
    listed = store.text("classes.txt")
    if listed is not None:
        names = [line.strip() for line in listed.splitlines() if line.strip()]
        if len(set(names)) != len(names):
            raise DataError(f"classes.txt of {where} names a class twice")
        return tuple(names)
    written = {str(sample.label) for sample in samples}
    if "" in written:
        nameless = next(sample for sample in samples if sample.label == "")
        raise DataError(
            f"{nameless.name} in {nameless.shard} has no label; put a .cls or .json file next to it, or "
            "it into a folder of its class"
        )
    if all(label.lstrip("-").isdigit() for label in written):
        most = max(int(label) for label in written)
        return tuple(str(number) for number in range(most + 1))
    return tuple(sorted(written))


def _label(sample: Sample, numbers: dict[str, int], where: str) -> int:
    text = str(sample.label)
    if text in numbers:
        return numbers[text]
    if text.lstrip("-").isdigit():
        return int(text)  # out of range: check_labels says so
    raise DataError(
        f"{sample.name} in {sample.shard} has label {text!r}, which is none of the {len(numbers)} classes "
        f"of {where}"
    )
