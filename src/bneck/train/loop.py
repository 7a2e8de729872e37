"""The training loop: epochs of batches, a weight average, and a checkpoint after every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import nn

from bneck.data.batches import Augment, train_batches
from bneck.data.pack import Split
from bneck.nets.build import Net
from bneck.nets.quantize import QuantizedNet
from bneck.specs.errors import InputError
from bneck.tasks import classify
from bneck.train.checkpoint import Checkpoint
from bneck.train.optim import RmsPropTF, Schedule, WeightAverage, decayed_apart, learning_rate


class TrainingError(InputError):
    """Training that cannot go on; the message gives the step, the rate and what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train. `lr` is the peak for this batch size; epochs may be fractional.

    `frozen` trains the convs behind the pool and the classifier only; the rows before keep weights
    and statistics. `sgd_momentum` trains by SGD with that momentum in place of RMSProp.
    """

    epochs: float
    batch: int
    lr: float
    schedule: Schedule = "cosine"
    warmup: float = 1.0
    weight_decay: float = 1e-5
    smoothing: float = 0.1
    average: float = 0.9999
    bn_momentum: float | None = None
    augment: Augment = field(default_factory=Augment)
    seed: int = 0
    frozen: bool = False
    sgd_momentum: float | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """Training images: a packed split, which of its images to use, and the input side in pixels."""

    split: Split
    indices: np.ndarray
    resolution: int


OnStep = Callable[[int, int, float], None]
B = TypeVar("B")  # a batch
N = TypeVar("N", bound=nn.Module)
AnyNet = TypeVar("AnyNet", Net, QuantizedNet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons(Generic[B]):
    """What a net learns from, whatever its task.

    `images` is how many there are, `batches` gives those of an epoch by its number, without an
    incomplete last one, and `loss` is that of a net on one batch. `frozen` is the part of the net
    that keeps its weights and statistics, if any.
    """

    images: int
    batches: Callable[[int], Iterable[B]]
    loss: Callable[[nn.Module, B], torch.Tensor]
    frozen: nn.Module | None = None


def train(
    net: AnyNet,
    data: Data,
    settings: Settings,
    *,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
    until: int | None = None,
) -> AnyNet:
    """Train a net to classify; see `fit`. The last, incomplete batch of an epoch is dropped."""

    def batches(epoch: int) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        return train_batches(
            data.split,
            data.indices,
            resolution=data.resolution,
            batch=settings.batch,
            augment=settings.augment,
            seed=settings.seed,
            epoch=epoch,
            normalisation=net.normalisation,
        )

    def loss(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        images, labels = batch
        scores = net(images.contiguous(memory_format=torch.channels_last))
        return classify.loss(scores, labels, smoothing=settings.smoothing)

    frozen = features(net) if settings.frozen else None
    lessons = Lessons(images=len(data.indices), batches=batches, loss=loss, frozen=frozen)
    return fit(net, lessons, settings, checkpoint=checkpoint, on_step=on_step, until=until)


def fit(
    net: N,
    lessons: Lessons[B],
    settings: Settings,
    *,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
    until: int | None = None,
) -> N:
    """Train a net in place; what comes back holds the averaged weights, in evaluation mode.

    Args:
        net: what to train.
        lessons: images and loss.
        settings: how. Everything random follows from `settings.seed`.
        checkpoint: a file to save to after every epoch and to go on from if it is there.
        on_step: called with (steps done, all steps, loss).
        until: stop after so many epochs of the schedule, to go on from the checkpoint later; None
            trains to the end.

    Raises:
        TrainingError: fewer images than one batch, or a loss that is no longer finite.
    """
    steps_per_epoch = lessons.images // settings.batch
    if steps_per_epoch == 0:
        raise TrainingError(
            f"the batch of {settings.batch} is larger than the {lessons.images} training images; "
            "choose a smaller batch"
        )
    total = max(1, round(settings.epochs * steps_per_epoch))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.bn_momentum is not None:
        set_bn_momentum(net, settings.bn_momentum)
    if lessons.frozen is not None:
        lessons.frozen.requires_grad_(False)
    optimizer = _optimizer(net, settings)
    average = WeightAverage(net, settings.average)
    saved = Checkpoint(checkpoint, net, optimizer, average)
    done = saved.restore()
    end = total if until is None else min(total, until * steps_per_epoch)
    while done < end:
        epoch = done // steps_per_epoch
        torch.manual_seed(settings.seed * 100_003 + epoch)  # dropout, the same after a resume
        stop = min(end, (epoch + 1) * steps_per_epoch)
        done = _epoch(net, lessons, settings, optimizer, average, done, stop, total, on_step)
        saved.save(done)
    net.load_state_dict(average.state)
    return net.requires_grad_(True).eval()


def _optimizer(net: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    groups = decayed_apart(net, settings.weight_decay)
    if settings.sgd_momentum is None:
        return RmsPropTF(groups, lr=settings.lr)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.sgd_momentum)


def features(net: Net | QuantizedNet) -> nn.Module:
    """The rows before the pool, which `Settings.frozen` leaves alone; 8-bit fine-tuning has no such."""
    assert isinstance(net, Net)
    return nn.ModuleList(list(net.rows)[: net.spec.pool_at])


def _epoch(
    net: nn.Module,
    lessons: Lessons[B],
    settings: Settings,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    done: int,
    stop: int,
    total: int,
    on_step: OnStep | None,
) -> int:
    net.train()
    if lessons.frozen is not None:
        lessons.frozen.eval()
    steps_per_epoch = lessons.images // settings.batch
    for batch in lessons.batches(done // steps_per_epoch):
        if done == stop:
            break
        lr = learning_rate(
            settings.schedule,
            settings.lr,
            epoch=(done + 1) / steps_per_epoch,
            epochs=settings.epochs,
            warmup=settings.warmup,
        )
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        loss = lessons.loss(net, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} at step {done + 1} with learning rate {lr:.3g}; "
                "train with a smaller learning rate"
            )
        optimizer.step()
        average.update(net)
        done += 1
        if on_step:
            on_step(done, total, value)
    return done


def set_bn_momentum(net: nn.Module, momentum: float) -> None:
    """Let batch norm's statistics follow faster or slower than the spec says."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
