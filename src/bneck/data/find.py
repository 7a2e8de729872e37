"""Finding a dataset's images, whatever holds them: folders, tar shards or tables."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bneck.data.builtin import fashion_sources
from bneck.data.folders import Item, Listing, list_images, look_alike
from bneck.data.intake.image_table import find_tables, naming_faults
from bneck.data.intake.named import Classes, Named, class_order, find_named
from bneck.data.shards import is_sharded, read_shards
from bneck.data.sources import Source, Sources, file_source, with_splits
from bneck.data.tables import is_table, read_tables
from bneck.specs.errors import few


def find_images(data: str | Path | None, *, val_share: float = 0.2, seed: int = 0) -> Sources:
    """Folders of classes, images with a table of classes, tar shards, or Hugging Face datasets.

    Args:
        data: a folder, a tar or parquet file, or a URL that fsspec opens, of a folder of tar shards;
            None takes the built-in images.
        val_share: of each class is split off by a hash where there are no images for validation.
        seed: of that hash.

    Raises:
        DataError: it is none of these, or its labels do not make a dataset; see the readers.
    """
    if data is None:
        return fashion_sources()
    text = str(data)
    if is_sharded(text):
        return read_shards(text, val_share=val_share, seed=seed).settled()
    path = Path(data)
    if is_table(path):
        return read_tables(path, val_share=val_share, seed=seed).settled()
    if (named := find_named(path)) is not None:
        return of_named(named, path, val_share=val_share, seed=seed).settled()
    with naming_faults(path):
        found = of_listing(list_images(path, val_share=val_share, seed=seed)).settled()
    if tables := [table.path.name for table in find_tables(path)]:
        note = f"not used: {few(tables)}, as the folders tell the classes"
        found = replace(found, found=replace(found.found, notes=(*found.found.notes, note)))
    return found


def of_listing(listing: Listing) -> Sources:
    """Image files in folders."""
    digest = hashlib.sha256(repr(listing.classes).encode())

    def source(items: Sequence[Item]) -> Source:
        found = file_source([item.path for item in items], [item.label for item in items])
        digest.update(os.fsencode("\n".join(found.names)))
        return found

    train, val = source(listing.train), source(listing.val)
    fingerprint = digest.hexdigest()  # a test split is not part of a training
    return Sources(
        listing.classes, train, val, "folders", fingerprint, listing,
        source(listing.test) if listing.test else None, listing.found,
    )  # fmt: skip


def of_named(named: Named, root: Path, *, val_share: float, seed: int) -> Sources:
    """Image files whose classes a table or their names tell; they are called by their path in `root`.

    Raises:
        DataError: the classes do not make a dataset; see `sources.with_splits`.
    """
    splits = {split or "train": by_class for split, by_class in named.splits.items()}
    train = splits.get("train", {})
    notes = list(named.notes)
    if "val" in splits and (odd := next((n for n in splits.get("test", {}) if n not in train), "")):
        del splits["test"]
        notes.append(f"test cannot be used: class {odd!r} is in test but not in train")
    classes = tuple(class_order([*{name for by_class in splits.values() for name in by_class}]))
    digest = hashlib.sha256(repr(classes).encode())

    def source(by_class: Classes) -> Source:
        pairs = [(path, classes.index(name)) for name in by_class for path in by_class[name]]
        found = file_source([path for path, _ in pairs], [label for _, label in pairs])
        names = [Path(os.path.relpath(name, root)).as_posix() for name in found.names]
        for name, (path, label) in zip(names, pairs, strict=True):
            digest.update(os.fsencode(f"{name} {label} {_state(path)}\n"))
        return replace(found, names=names)

    found: dict[str, Source] = {
        split: source(splits[split]) for split in ("train", "val") if split in splits
    }
    fingerprint = digest.hexdigest()  # a test split is not part of a training where there is a val
    if "test" in splits:
        found["test"] = source(splits["test"])
    return with_splits(
        classes, found, str(root), kind="named files",
        fingerprint=fingerprint if "val" in found else digest.hexdigest(), val_share=val_share, seed=seed,
        left=named.left, notes=[*notes, *look_alike(classes)],
    )  # fmt: skip


def _state(path: Path) -> tuple[int, int]:
    with suppress(OSError):
        state = path.stat()
        return state.st_size, state.st_mtime_ns
    return -1, 0  # decoding will say what is wrong with it
