"""Cut the package's small Fashion-MNIST from Debian's `dataset-fashion-mnist`.

    apt-get install dataset-fashion-mnist && python scripts/cut_fashion_mnist.py

Keeps the first 500 training and 100 test images of each class, in the order of the original.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

SOURCE = Path("/usr/share/datasets/fashion-mnist")
TARGET = Path(__file__).parents[1] / "src/bneck/data/fashion.npz"
PER_CLASS = {"train": ("train", 500), "test": ("t10k", 100)}


def read_idx(path: Path, rank: int) -> npt.NDArray[np.uint8]:
    """The uint8 array of `rank` dimensions in a gzipped idx file."""
    content = gzip.decompress(path.read_bytes())
    if content[:4] != bytes((0, 0, 8, rank)):
        raise SystemExit(f"{path} is not an idx file of {rank}-dimensional bytes")
    shape = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(tuple(map(int, shape)))


def first_of_each(labels: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int64]:
    """Indices, ascending, of the first `count` images of each class."""
    return np.sort(np.concatenate([np.flatnonzero(labels == k)[:count] for k in np.unique(labels)]))


def cut(source: Path, target: Path, per_class: dict[str, tuple[str, int]] = PER_CLASS) -> None:
    """Write `target`, an npz of train_images, train_labels, test_images and test_labels."""
    arrays: dict[str, npt.NDArray[np.uint8]] = {}
    for split, (prefix, count) in per_class.items():
        labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz", 1)
        kept = first_of_each(labels, count)
        arrays[f"{split}_labels"] = labels[kept]
        arrays[f"{split}_images"] = read_idx(source / f"{prefix}-images-idx3-ubyte.gz", 3)[kept]
    np.savez_compressed(target, allow_pickle=False, **arrays)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder of the idx.gz files")
    parser.add_argument("--target", type=Path, default=TARGET, help="npz file to write")
    options = parser.parse_args()
    cut(options.source, options.target)
