"""What a network of a supernet is evaluated with: statistics of images of every class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from bneck.data.pack import Head, Record, stored_side, write_pack
from bneck.recipes.classify_trainer import ClassifyTrainer
from bneck.recipes.sharing import statistics_batches

SIDE, CLASSES = 4, 12


def flat(seed: int, per_class: int, folder: Path) -> ClassifyTrainer:
    """A trainer whose pack lists class after class; images of class k have the gray 20 k."""
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
    return ClassifyTrainer(pack=folder, classes=CLASSES, heldout_share=0.2, seed=seed)


def labels(batch: torch.Tensor) -> list[int]:
    """The classes of a batch, from its grays."""
    gray = batch[:, 0].mean((1, 2)) * 0.229 + 0.485  # ImageNet's red
    return [round(k) for k in (gray * 255 / 20).tolist()]


def test_statistics_come_from_images_of_every_class(tmp_path: Path) -> None:
    # 1,440 to fit on, 120 per class: the first 1,000 are of nine classes.
    found = [labels(batch) for batch in statistics_batches(flat(0, 150, tmp_path), SIDE)]
    assert [len(batch) for batch in found] == [250] * 4
    for batch in found:
        counts = Counter(batch)
        assert sorted(counts) == list(range(CLASSES))
        assert max(counts.values()) - min(counts.values()) <= 2  # 20 or 21, and one of a cut round


def test_few_images_are_all_used_in_batches_of_one_size(tmp_path: Path) -> None:
    # 264 to fit on: a batch of 250 and one of 14 would count the same in the statistics.
    found = [labels(batch) for batch in statistics_batches(flat(0, 28, tmp_path), SIDE)]
    assert [len(batch) for batch in found] == [132, 132]
    assert Counter(found[0] + found[1]) == dict.fromkeys(range(CLASSES), 22)


def test_images_depend_on_the_seed(tmp_path: Path) -> None:
    one, same, other = (
        [labels(batch) for batch in statistics_batches(flat(seed, 150, tmp_path), SIDE)]
        for seed in (3, 3, 4)
    )
    assert one == same != other
