"""Finding a dataset's images, whatever holds them: folders, tar shards or tables."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from bneck.data.builtin import fashion_sources
from bneck.data.folders import Item, Listing, list_images
from bneck.data.shards import is_sharded, read_shards
from bneck.data.sources import Source, Sources, file_source
from bneck.data.tables import is_table, read_tables


def find_images(data: str | Path | None, *, val_share: float = 0.2, seed: int = 0) -> Sources:
    """Folders of classes, tar shards, or Hugging Face datasets (parquet, or saved to disk).

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
    return of_listing(list_images(path, val_share=val_share, seed=seed)).settled()


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
