"""The training loop: epochs of batches, a weight average, and a checkpoint after every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bneck.data.batches import Augment, train_batches
from bneck.data.pack import Split
from bneck.nets.build import Net
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
    and statistics.
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


@dataclass(frozen=True, slots=True)
class Data:
    """Training images: a packed split, which of its images to use, and the input side in pixels."""

    split: Split
    indices: np.ndarray
    resolution: int


OnStep = Callable[[int, int, float], None]


def train(
    net: Net,
    data: Data,
    settings: Settings,
    *,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
    until: int | None = None,
) -> Net:
    """Train a net in place; what comes back holds the averaged weights, in evaluation mode.

    Args:
        net: what to train.
        data: images; the last, incomplete batch of an epoch is dropped.
        settings: how. Everything random follows from `settings.seed`.
        checkpoint: a file to save to after every epoch and to go on from if it is there.
        on_step: called with (steps done, all steps, loss).
        until: stop after so many epochs of the schedule, to go on from the checkpoint later; None
            trains to the end.

    Raises:
        TrainingError: fewer images than one batch, or a loss that is no longer finite.
    """
    steps_per_epoch = len(data.indices) // settings.batch
    if steps_per_epoch == 0:
        raise TrainingError(
            f"the batch of {settings.batch} is larger than the {len(data.indices)} training images; "
            "choose a smaller batch"
        )
    total = max(1, round(settings.epochs * steps_per_epoch))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.bn_momentum is not None:
        set_bn_momentum(net, settings.bn_momentum)
    if settings.frozen:
        features(net).requires_grad_(False)
    optimizer = RmsPropTF(decayed_apart(net, settings.weight_decay), lr=settings.lr)
    average = WeightAverage(net, settings.average)
    saved = Checkpoint(checkpoint, net, optimizer, average)
    done = saved.restore()
    end = total if until is None else min(total, until * steps_per_epoch)
    while done < end:
        epoch = done // steps_per_epoch
        torch.manual_seed(settings.seed * 100_003 + epoch)  # dropout, the same after a resume
        stop = min(end, (epoch + 1) * steps_per_epoch)
        done = _epoch(net, data, settings, optimizer, average, done, stop, total, on_step)
        saved.save(done)
    net.load_state_dict(average.state)
    return net.requires_grad_(True).eval()


def features(net: Net) -> nn.Module:
    """The rows before the pool, which `Settings.frozen` leaves alone."""
    return nn.ModuleList(list(net.rows)[: net.spec.pool_at])


def _epoch(
    net: Net,
    data: Data,
    settings: Settings,
    optimizer: RmsPropTF,
    average: WeightAverage,
    done: int,
    stop: int,
    total: int,
    on_step: OnStep | None,
) -> int:
    net.train()
    if settings.frozen:
        features(net).eval()
    steps_per_epoch = len(data.indices) // settings.batch
    batches = train_batches(
        data.split,
        data.indices,
        resolution=data.resolution,
        batch=settings.batch,
        augment=settings.augment,
        seed=settings.seed,
        epoch=done // steps_per_epoch,
        normalisation=net.normalisation,
    )
    for images, labels in batches:
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
        value = _step(net, images, labels, settings.smoothing, optimizer)
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} at step {done + 1} with learning rate {lr:.3g}; "
                "train with a smaller learning rate"
            )
        average.update(net)
        done += 1
        if on_step:
            on_step(done, total, value)
    return done


def _step(
    net: Net, images: torch.Tensor, labels: torch.Tensor, smoothing: float, optimizer: RmsPropTF
) -> float:
    optimizer.zero_grad(set_to_none=True)
    scores = net(images.contiguous(memory_format=torch.channels_last))
    loss = classify.loss(scores, labels, smoothing=smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def set_bn_momentum(net: nn.Module, momentum: float) -> None:
    """Let batch norm's statistics follow faster or slower than the spec says."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
