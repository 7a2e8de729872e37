"""The module, the images that it learns from, and how it is scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bneck.data.batches import normalise
from bneck.data.images import read_stretched
from bneck.nets.build import WrappedNet
from bneck.nets.ops import Conv2d
from bneck.specs.errors import InputError
from bneck.tasks.data import Answers, Data, Indices, Learning, Opened, Scores
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
class GaugeData(Data):
    """The images of a run. Its fields go into run.json and to worker processes."""

    root: Path
    side: int
    chance = 0.0  # R2 of a network that always outputs the mean

    def read(self) -> Opened:
        train, val = (self._images(split) for split in ("train", "val"))
        return self.split(train, val, np.arange(len(train[1])))

    def _images(self, split: str) -> Batch:
        """Pixels (N, 3, side, side) uint8 and N numbers."""
        pixels, numbers = [], []
        for file, number in read_table(self.root / f"{split}.csv", self.classes[0]):
            found = read_stretched(file, self.side)
            if isinstance(found, str):
                raise InputError(f"{file} cannot be read ({found}); replace it, or delete its line")
            pixels.append(found)
            numbers.append(number)
        return torch.from_numpy(np.stack(pixels)), torch.tensor(numbers)

    def part(self, split: str) -> Batch:
        """The same, opened once; "fit" and "heldout" are parts of train."""
        opened = self.open()
        if split == "val":
            return opened.others
        some = {"fit": opened.fit, "heldout": opened.held}.get(split, opened.usable)
        return opened.train[0][some], opened.train[1][some]

    def learning(self, net: Any, settings: Any, indices: Indices, group: Any) -> Learning:
        pixels, numbers = self.open().train
        wanted = (numbers - net.wrapped.low) / (net.wrapped.high - net.wrapped.low)

        def batches(epoch: int, first: int) -> Iterator[Batch]:
            order = np.random.default_rng((settings.seed, epoch)).permutation(indices)
            for batch in range(first, len(order) // settings.batch):
                some = order[batch * settings.batch :][: settings.batch]
                yield normalise(pixels[some], net.normalisation), wanted[some].to(group.device)

        return Learning(batches, lambda out, batch: F.smooth_l1_loss(out[:, 0], batch[1]))

    def evaluate(
        self, answers: Answers, split: str, progress: Any, *, group: Any = None, out: Any = None
    ) -> Scores:
        """R2, 0 at worst, and the mean error in the unit of the numbers."""
        pixels, numbers = self.part(split)
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
        return {split: len(self.part(split)[1]) for split in ("train", "val")}

    def images(self, net: Any, split: str, count: int) -> Tensor:
        pixels, _ = self.part(split)
        some = np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(int)
        return normalise(pixels[some], net.normalisation)


def prepare(
    dataset: Any, spec: Any, wrapper: Any, options: Any, *, scratch: Path, seed: int,
    heldout: float = 0.0, **unused: Any,
) -> GaugeData:  # fmt: skip
    return GaugeData(
        root=Path(dataset.place), classes=dataset.classes, side=spec.resolution, seed=seed,
        heldout_share=heldout, scratch=scratch,
    )  # fmt: skip


def evaluate(
    answers: Answers, data: str | None, options: Any, *, split: str, record: Any, seed: int,
    progress: Any, out: Path | None = None,
) -> Scores:  # fmt: skip
    root = data or record.get("data", {}).get("path")
    if root is None:
        raise InputError("the images to score on are needed; pass their folder with --data")
    images = GaugeData(
        root=Path(root), classes=answers.labels, side=answers.spec.resolution, heldout_share=0.0,
        seed=seed, scratch=Path(),
    )  # fmt: skip
    return images.evaluate(answers, split, progress)
