"""How a segmenter learns: the protocol of the DeepLab line, which section 6.4 refers to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bneck.data.scenes import Scenes, Size, Vary, crop_batches
from bneck.nets.segmenter import SegmentNet
from bneck.tasks import segment
from bneck.train.checkpoint import Checkpoint
from bneck.train.loop import TrainingError, set_bn_momentum
from bneck.train.optim import WeightAverage, decayed_apart, learning_rate

OnStep = Callable[[int, int, float], None]


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
    *,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
) -> SegmentNet:
    """Train a segmenter in place; what comes back holds the averaged weights, in evaluation mode.

    Args:
        net: what to train.
        scenes: images and masks at the size that is trained at.
        indices: those to train on; the last, incomplete batch of an epoch is dropped.
        settings: how. Everything random follows from `settings.seed`.
        checkpoint: a file to save to after every epoch and to go on from if it is there.
        on_step: called with (steps done, all steps, loss).

    Raises:
        TrainingError: fewer images than one batch, one image a batch for R-ASPP, or a loss that is no
            longer finite.
    """
    settings.check()
    steps_per_epoch = _steps(net, len(indices), settings.batch)
    total = max(1, round(settings.epochs * steps_per_epoch))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.bn_momentum is not None:
        set_bn_momentum(net, settings.bn_momentum)
    optimizer = torch.optim.SGD(
        decayed_apart(net, settings.weight_decay), lr=settings.lr, momentum=settings.momentum
    )
    average = WeightAverage(net, settings.average)
    saved = Checkpoint(checkpoint, net, optimizer, average)
    weights = torch.tensor(settings.weights) if settings.weights else None
    done = saved.restore()
    while done < total:
        epoch = done // steps_per_epoch
        torch.manual_seed(settings.seed * 100_003 + epoch)  # dropout, the same after a resume
        net.train()
        for images, masks in crop_batches(
            scenes, indices, crop=settings.crop, batch=settings.batch, vary=settings.vary,
            seed=settings.seed, epoch=epoch,
        ):  # fmt: skip
            if done == total:
                break
            for group in optimizer.param_groups:
                group["lr"] = _rate(settings, (done + 1) / steps_per_epoch)
            value = _step(net, images, masks, weights, optimizer)
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss became {value} at step {done + 1} with learning rate "
                    f"{_rate(settings, (done + 1) / steps_per_epoch):.3g}; train with a smaller rate"
                )
            if settings.average:
                average.update(net)
            done += 1
            if on_step:
                on_step(done, total, value)
        saved.save(done)
    if settings.average:
        net.load_state_dict(average.state)
    return net.eval()


def _steps(net: SegmentNet, images: int, batch: int) -> int:
    """Steps of an epoch, or TrainingError."""
    if images < batch:
        raise TrainingError(
            f"the batch of {batch} is larger than the {images} training images; choose a smaller batch"
        )
    if net.seg.head == "raspp" and batch < 2:
        raise TrainingError(
            "the batch is 1, and R-ASPP normalises one pooled pixel an image over the batch; choose a "
            "batch of at least 2, or the head lraspp"
        )
    return images // batch


def _rate(settings: SegmentSettings, epoch: float) -> float:
    return learning_rate(
        "poly", settings.lr, epoch=epoch, epochs=settings.epochs, warmup=settings.warmup
    )


def _step(
    net: SegmentNet,
    images: Tensor,
    masks: Tensor,
    weights: Tensor | None,
    optimizer: torch.optim.Optimizer,
) -> float:
    optimizer.zero_grad(set_to_none=True)
    scores = net(images.contiguous(memory_format=torch.channels_last))
    loss = segment.loss(scores, masks, weights=weights)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())
