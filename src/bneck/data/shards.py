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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from bneck.data.folders import SUFFIXES, VAL_NAMES, DataError
from bneck.data.sources import Source, Sources, check_labels, divided, state_of

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

    A shard whose name says train or val holds that split; in others the first folder in the tar does,
    if it is called so; else val is split off. The label of `KEY.jpg` is that of `KEY.cls` (a number or
    a name) or `KEY.json` ("label", "cls" or "class"), else the folder that it is in. `classes.txt`
    beside the shards names the classes, one a line.

    Raises:
        DataError: a truncated or compressed shard, an image without a label, a class that only val
            has, a label that is none of the classes.
    """
    store = _Store(data)
    samples = [sample for shard in store.shards() for sample in _listed(store, shard)]
    if not samples:
        raise DataError(f"{data} holds no images (names that end in {' '.join(SUFFIXES)})")
    classes = _classes(store, samples, data)
    numbers = {name: number for number, name in enumerate(classes)}

    def source(split: str) -> Source:
        mine = [sample for sample in samples if sample.split == split]
        labels = [_label(sample, numbers, data) for sample in mine]
        return Source([s.name for s in mine], np.array(labels, np.int64), partial(store.read, mine))

    undivided, train, val = map(source, ("", "train", "val"))
    if not len(train.labels):
        train = undivided
    if not len(val.labels):
        check_labels(classes, train, None, data)
        train, val = divided(train, classes, data, val_share=val_share, seed=seed)
    check_labels(classes, train, val, data)
    return Sources(classes, train, val, "shards", store.fingerprint())


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
                return file.read().decode("utf-8")
        except (OSError, UnicodeDecodeError):
            return None

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


def _listed(store: _Store, shard: str) -> list[Sample]:
    """The images of one shard, with labels from the files next to them."""
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    notes: dict[str, str] = {}
    try:
        with store.open(shard) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if not member.isfile() or PurePosixPath(member.name).name.startswith("."):
                        continue
                    key, kind = _parts(member.name)
                    groups.setdefault(key, {})[kind] = (member.offset_data, member.size)
                    if kind in ("cls", "json"):
                        content = tar.extractfile(member)
                        assert content is not None
                        notes[key] = _note(content.read(), kind, f"{shard}/{member.name}")
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
    samples = []
    for key, files in groups.items():
        image = next((kind for kind in files if f".{kind.rpartition('.')[2]}" in SUFFIXES), None)
        if image is not None:
            label = notes.get(key) or PurePosixPath(key).parent.name
            name = f"{key}.{image}"
            samples.append(Sample(name, label, _split(shard, key), shard, *files[image]))
    return samples


def _parts(name: str) -> tuple[str, str]:
    """("a/b", "seg.png") of "a/b.seg.png": a sample's key and what one of its files is."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, _, kind = file.partition(".")
    return f"{folder}{slash}{stem}", kind.lower()


def _note(data: bytes, kind: str, where: str) -> str:
    try:
        text = data.decode("utf-8").strip()
        if kind == "cls":
            return text
        values = json.loads(text)
        return str(next((values[k] for k in ("label", "cls", "class") if k in values), ""))
    except (ValueError, TypeError):
        raise DataError(f"{where} cannot be read as a label") from None


def _split(shard: str, key: str) -> str:
    # Only a folder above the class's may name a split: there are classes that are called "train".
    above = [name.lower() for name in PurePosixPath(key).parts[:-2]]
    splits = [name for name in above if name in ("train", *VAL_NAMES)]
    for name in (PurePosixPath(shard).stem.lower(), *splits):
        if "train" in name:
            return "train"
        if any(word in name for word in VAL_NAMES):
            return "val"
    return ""


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
