"""What a network of a supernet is evaluated with: statistics of images of every class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from bneck.data.pack import Head, Record, stored_side, write_pack
from bneck.nas.spaces import space
from bneck.nets.supernet import Supernet
from bneck.runs.search.supernet import statistics_batches
from bneck.tasks.classify.dataset import ImageData

SIDE, CLASSES = 4, 12


def batches(per_class: int, folder: Path) -> list[torch.Tensor]:
    """Of images that are listed class after class; those of class k have the gray 20 k."""
    side = stored_side(SIDE)

    def records(count: int) -> list[Record]:
        return [
            Record(
                path=Path(f"{k}-{n}"),
                name=f"{k}-{n}",
                label=k,
                pixels=np.full((3, side, side), 20 * k, np.uint8),
            )
            for k in range(CLASSES)
            for n in range(count)
        ]

    names = tuple(f"c{k:02d}" for k in range(CLASSES))
    count = CLASSES * (per_class + 1)
    head = Head(fingerprint="flat", classes=names, resolution=SIDE, count=count)
    write_pack(folder, head, {"train": records(per_class), "val": records(1)})
    data = ImageData(
        scratch=folder, streamed=None, fingerprint=None, classes=names, heldout_share=0.2, seed=0,
        bad_share=0.01,
    )  # fmt: skip
    net = Supernet(space("v3-small", resolution=SIDE, classes=CLASSES))
    return [*statistics_batches(net, data)]


def labels(batch: torch.Tensor) -> list[int]:
    """The classes of a batch, from its grays."""
    gray = batch[:, 0].mean((1, 2)) * 0.229 + 0.485  # ImageNet's red
    return [round(k) for k in (gray * 255 / 20).tolist()]


def test_statistics_come_from_images_of_every_class(tmp_path: Path) -> None:
    # 1,440 to fit on, 120 per class: the first 1,000 are of nine classes.
    found = [labels(batch) for batch in batches(150, tmp_path)]
    assert [len(batch) for batch in found] == [250] * 4
    assert all(set(batch) == set(range(CLASSES)) for batch in found)
    counts = Counter(label for batch in found for label in batch)
    assert set(counts.values()) <= {83, 84}


def test_few_images_are_all_used_in_batches_of_one_size(tmp_path: Path) -> None:
    # 264 to fit on: a batch of 250 and one of 14 would count the same in the statistics.
    found = [labels(batch) for batch in batches(28, tmp_path)]
    assert [len(batch) for batch in found] == [132, 132]
    assert Counter(found[0] + found[1]) == dict.fromkeys(range(CLASSES), 22)
