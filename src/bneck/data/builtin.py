"""A small real dataset that comes with the package: 6,000 pictures of Fashion-MNIST."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from bneck.data.images import Pixels
from bneck.data.pack import FORMAT, Head, Packed, Record, stored_side, write_pack

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_FILE = files("bneck.data") / "fashion.npz"
_MARGIN = 2  # pixels; 28 + 2 + 2 is 28 / 0.875, so evaluation sees exactly the original picture


def fashion() -> dict[str, Pixels]:
    """The pictures as they are shipped: for "train" and "test" `*_images` (N, 28, 28) grey and
    `*_labels` (N,), 500 and 100 a class, the first of each class in the order of the original.
    """
    with _FILE.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def fashion_counts() -> dict[str, int]:
    """How many pictures each split has."""
    arrays = fashion()
    return {"train": len(arrays["train_labels"]), "val": len(arrays["test_labels"])}


def fashion_pack(folder: Path, resolution: int) -> Packed:
    """Write the pictures as a pack at `resolution`, or open the one that the folder holds.

    Raises:
        DataError: the resolution is no size, or the folder cannot be written.
    """
    side = stored_side(resolution)
    arrays = fashion()
    content = hashlib.sha256(repr((FORMAT, resolution, _MARGIN)).encode())
    for array in arrays.values():
        content.update(array.tobytes())
    head = Head(
        fingerprint=content.hexdigest(),
        classes=FASHION,
        resolution=resolution,
        count=len(arrays["train_labels"]) + len(arrays["test_labels"]),
    )
    records = partial(_records, arrays, side)
    return write_pack(folder, head, {"train": records("train"), "val": records("test")})


def _records(arrays: dict[str, Pixels], side: int, split: str) -> Iterator[Record]:
    labels = arrays[f"{split}_labels"]
    for i, (image, label) in enumerate(zip(arrays[f"{split}_images"], labels, strict=True)):
        name = f"{split}/{i:04d}"
        framed = Image.fromarray(np.pad(image, _MARGIN))  # black, as the background is
        grey = np.asarray(framed.resize((side, side), Image.Resampling.BILINEAR))
        yield Record(Path(name), name, int(label), np.repeat(grey[None], 3, axis=0))
