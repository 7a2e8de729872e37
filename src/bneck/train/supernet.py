"""Training of a supernet: every step some of its networks, drawn at random."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bneck.data.batches import train_batches
from bneck.nets.supernet import Supernet, largest, smallest
from bneck.search.space import Tokens
from bneck.specs.errors import InputError
from bneck.train.loop import Data, Lessons, OnStep, Settings, fit
from bneck.train.taught import label_loss

Sampling = Literal["uniform", "sandwich"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)
BETWEEN = 2  # random networks of a sandwich's step

Batch = tuple[int, Tensor, Tensor]  # the step's number, images, labels


def train_supernet(
    net: Supernet,
    data: Data,
    settings: Settings,
    *,
    sampling: Sampling = "uniform",
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
) -> Supernet:
    """Train a supernet in place; what comes back holds the averaged weights, in evaluation mode.

    Args:
        net: the supernet.
        data: images.
        settings: as for one network; an epoch has as many steps. Shared weights do not decay.
        sampling: "uniform" trains one random network a step; "sandwich" the largest, the smallest
            and two random ones, four times the work.
        checkpoint: a file to save to after every epoch and to go on from if it is there.
        on_step: called with (steps done, all steps, loss).

    Raises:
        InputError: no such sampling.
        TrainingError: see `train.loop.fit`.
    """
    if sampling not in SAMPLINGS:
        raise InputError(f"there is no sampling {sampling!r}; known are {', '.join(SAMPLINGS)}")
    steps = len(data.indices) // settings.batch

    def batches(epoch: int, first: int) -> Iterable[Batch]:
        found = train_batches(
            data.split,
            data.indices,
            resolution=data.resolution,
            batch=settings.batch,
            augment=settings.augment,
            seed=settings.seed,
            epoch=epoch,
            first=first,
            normalisation=net.normalisation,
        )
        return ((epoch * steps + n, *batch) for n, batch in enumerate(found, first))

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        step, images, labels = batch
        images = images.contiguous(memory_format=torch.channels_last)
        drawn = _drawn(net, sampling, settings.seed, step)
        losses = [
            label_loss(module(images, tokens), labels, smoothing=settings.smoothing)
            for tokens in drawn
        ]
        return torch.stack(losses).mean()

    lessons = Lessons(images=len(data.indices), batches=batches, loss=loss)
    return fit(net, lessons, settings, checkpoint=checkpoint, on_step=on_step)


def _drawn(net: Supernet, sampling: Sampling, seed: int, step: int) -> list[Tokens]:
    """The networks of a step: they depend on the seed and the step's number alone."""
    rng = random.Random(f"{seed} {step}")
    if sampling == "uniform":
        return [net.space.sample(rng)]
    between = [net.space.sample(rng) for _ in range(BETWEEN)]
    return [largest(net.space), smallest(net.space), *between]
