"""The module, the images that it learns from, and how it is scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bneck.data.batches import normalise
from bneck.data.held_out import held_out
from bneck.data.images import read_stretched
from bneck.nets.build import WrappedNet
from bneck.nets.ops import Conv2d
from bneck.specs.errors import InputError
from bneck.tasks.contract import Answers, Left, Scores
from bneck.training.loop import TrainingProblem, backbone
from bneck.training.processes import ALONE
from gauge.head import Gauge
from gauge.tables import read_table

Batch = tuple[Tensor, Tensor]


class GaugeNet(WrappedNet):
    """The rows of the backbone, and the layer of the head under its name in `Gauge.layers`."""

    def __init__(self, wrapped: Gauge) -> None:
        super().__init__(wrapped)
        self.head = Conv2d(self.spec.width_into(self.spec.pool_at), 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, channels, H, W) -> outputs (N, 1), 0 at `low` and 1 at `high`."""
        for row in self.rows:
            x = row(x)
        return self.head(x).flatten(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeData:
    """The images of a run. Its fields go into run.json and to worker processes."""

    root: Path
    classes: tuple[str, ...]
    side: int
    heldout_share: float
    seed: int
    scratch: Path
    chance = 0.0  # R2 of a network that always outputs the mean

    @property
    def held_out(self) -> int:
        return len(self.read("heldout")[1])

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        """Pixels (N, 3, side, side) uint8 and N numbers; "fit" and "heldout" are parts of train."""
        table = self.root / f"{'train' if split in ('fit', 'heldout') else split}.csv"
        pixels, numbers = read_images(table, self.classes[0], self.side)
        there = np.arange(len(numbers))
        fit, held = there, there[:0]
        if self.heldout_share:
            fit, held = held_out(there, self.heldout_share, self.seed)
        some = {"fit": fit, "heldout": held}.get(split, there)
        return pixels[some], numbers[some]

    def fitted(self, *, heldout: bool) -> int:
        return len(self.read("fit" if heldout else "train")[1])

    def problem(
        self, net: Any, settings: Any, *, heldout: bool = False, group: Any = None, teacher: Any = None
    ) -> TrainingProblem[Batch]:  # fmt: skip
        pixels, numbers = self.read("fit" if heldout else "train")
        wanted = (numbers - net.wrapped.low) / (net.wrapped.high - net.wrapped.low)
        device = (group or ALONE).device

        def batches(epoch: int, first: int) -> Iterator[Batch]:
            order = np.random.default_rng((settings.seed, epoch)).permutation(len(numbers))
            for batch in range(first, len(order) // settings.batch):
                some = order[batch * settings.batch :][: settings.batch]
                yield normalise(pixels[some], net.normalisation).to(device), wanted[some].to(device)

        return TrainingProblem(
            images=len(numbers),
            batches=batches,
            loss=lambda net, batch: F.smooth_l1_loss(net(batch[0]).float()[:, 0], batch[1]),
            frozen=backbone(net) if settings.frozen else None,
        )

    def evaluate(
        self, answers: Answers, split: str, progress: Any, *, group: Any = None, out: Any = None
    ) -> Scores:
        """R2, 0 at worst, and the mean error in the unit of the numbers."""
        pixels, numbers = self.read(split)
        progress.stage(f"scoring {split}", len(numbers))
        batches = normalise(pixels, answers.normalisation).split(64)
        outputs = np.concatenate([answers(batch)[0][:, 0] for batch in batches])
        low, high = answers.wrapped.low, answers.wrapped.high
        wanted = numbers.numpy()
        errors = low + outputs * (high - low) - wanted
        spread = max(np.square(wanted - wanted.mean()).sum(), 1e-9)
        r2 = max(0.0, 1 - float(np.square(errors).sum() / spread))
        error = {"mean_error": float(np.abs(errors).mean())}
        return Scores(split=split, images=len(wanted), score=r2, expected=r2, details=error)

    def counts(self) -> dict[str, int]:
        return {split: len(self.read(split)[1]) for split in ("train", "val")}

    def left_out(self) -> tuple[Left, ...]:
        return ()

    def images(self, net: Any, split: str, count: int) -> Tensor:
        pixels, _ = self.read(split)
        some = np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(int)
        return normalise(pixels[some], net.normalisation)


@lru_cache(maxsize=4)
def read_images(table: Path, column: str, side: int) -> tuple[Tensor, Tensor]:
    """All images of a table and their numbers, read once per process."""
    pixels, numbers = [], []
    for file, number in read_table(table, column):
        found = read_stretched(file, side)
        if isinstance(found, str):
            raise InputError(f"{file} cannot be read ({found}); replace it, or delete its line")
        pixels.append(found)
        numbers.append(number)
    return torch.from_numpy(np.stack(pixels)), torch.tensor(numbers)
