"""How a segmenter learns: the protocol of the DeepLab line, which section 6.4 refers to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bneck.data.scenes import Scenes, Size, Vary, crop_batches
from bneck.tasks.segment import score
from bneck.tasks.segment.module import SegmentNet
from bneck.train.loop import Lessons, Settings, TrainingError, fit

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSettings:
    """How to train. `lr` is the first rate, which falls by the poly schedule; epochs may be fractional.

    SGD with momentum, L2 on full convolutions. `crop` is (height, width) in pixels. `weights` are
    factors of the classes in the loss, () for none. `average` is the decay of the weight average,
    0 for none. `bn_momentum` replaces the spec's, which suits trainings of a hundred thousand steps.
    """

    epochs: float
    batch: int
    lr: float
    crop: Size
    vary: Vary = field(default_factory=Vary)
    warmup: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 4e-5
    average: float = 0.0
    bn_momentum: float | None = None
    weights: tuple[float, ...] = ()
    seed: int = 0

    def loop(self) -> Settings:
        """The same for `train.loop`."""
        return Settings(
            epochs=self.epochs, batch=self.batch, lr=self.lr, schedule="poly", warmup=self.warmup,
            weight_decay=self.weight_decay, average=self.average, bn_momentum=self.bn_momentum,
            sgd_momentum=self.momentum, seed=self.seed,
        )  # fmt: skip

    def check(self) -> None:
        """Raise TrainingError for a value that cannot be."""
        for name, value in (("epochs", self.epochs), ("lr", self.lr)):
            if not 0 < value < math.inf:
                raise TrainingError(f"{name} is {value}; it must be a number above 0")
        for name, value in (
            ("batch", self.batch),
            ("crop", min(self.crop)),
            ("seed", self.seed + 1),
        ):
            if value < 1:
                least = 0 if name == "seed" else 1
                raise TrainingError(
                    f"{name} is {value - (name == 'seed')}; it must be at least {least}"
                )


def train_segmenter(
    net: SegmentNet,
    scenes: Scenes,
    indices: np.ndarray,
    settings: SegmentSettings,
    **watching: Any,
) -> SegmentNet:
    """Train a segmenter in place; what comes back holds the averaged weights, in evaluation mode.

    Args:
        net: what to train.
        scenes: images and masks at the size that is trained at.
        indices: those to train on; the last, incomplete batch of an epoch is dropped.
        settings: how. Everything random follows from `settings.seed`.
        watching: `checkpoint`, `on_step`, `journal` and others of `train.loop.fit`.

    Raises:
        TrainingError: fewer images than one batch, one image a batch for R-ASPP, or a loss that is no
            longer finite.
    """
    settings.check()
    lessons = segment_lessons(
        net, scenes, indices, settings.loop(),
        crop=settings.crop, vary=settings.vary, weights=settings.weights,
    )  # fmt: skip
    return fit(net, lessons, settings.loop(), **watching)


def segment_lessons(
    net: SegmentNet,
    scenes: Scenes,
    indices: np.ndarray,
    settings: Settings,
    *,
    crop: Size,
    vary: Vary,
    weights: tuple[float, ...] = (),
) -> Lessons[Batch]:
    """What a segmenter learns from: crops of the scenes of `indices`, and its loss.

    Raises:
        TrainingError: one image a batch for R-ASPP.
    """
    if net.seg.head == "raspp" and settings.batch < 2:
        raise TrainingError(
            "the batch is 1, and R-ASPP normalises one pooled pixel an image over the batch; choose a "
            "batch of at least 2, or the head lraspp"
        )
    by_class = torch.tensor(weights) if weights else None

    def batches(epoch: int, first: int) -> Iterable[Batch]:
        return crop_batches(
            scenes, indices, crop=crop, batch=settings.batch, vary=vary,
            seed=settings.seed, epoch=epoch, first=first,
        )  # fmt: skip

    def loss(net: nn.Module, batch: Batch) -> Tensor:
        images, masks = batch
        found = net(images.contiguous(memory_format=torch.channels_last))
        return score.loss(found, masks, weights=by_class)

    return Lessons(images=len(indices), batches=batches, loss=loss)
