"""A small real dataset that comes with the package: 6,000 pictures of Fashion-MNIST."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import numpy as np

from bneck.data.images import Pixels
from bneck.data.sources import Source, Sources

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_FILE = files("bneck.data") / "fashion.npz"
# Pixels, black as the background; 28 + 2 + 2 is 28 / 0.875: evaluation sees the original.
_MARGIN = 2


def fashion() -> dict[str, Pixels]:
    """The pictures as they are shipped: for "train" and "test" `*_images` (N, 28, 28) grey and
    `*_labels` (N,), 500 and 100 a class, the first of each class in the order of the original.
    """
    with _FILE.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def fashion_sources() -> Sources:
    """The pictures as files of 32 x 32 pixels, framed in black; test is val."""
    arrays = fashion()
    content = hashlib.sha256()
    for array in arrays.values():
        content.update(array.tobytes())
    train, val = (_source(arrays, split) for split in ("train", "test"))
    return Sources(FASHION, train, val, "built in", content.hexdigest())


def _source(arrays: dict[str, Pixels], split: str) -> Source:
    framed = np.pad(arrays[f"{split}_images"], ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)))
    head = b"P5 %d %d 255\n" % framed.shape[:0:-1]  # of a PGM file: width, height, whitest
    labels = arrays[f"{split}_labels"].astype(np.int64)
    names = [f"{split}/{i:04d}" for i in range(len(labels))]
    return Source(names, labels, lambda number: head + framed[number].tobytes())
