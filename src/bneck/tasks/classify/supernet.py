"""Training of a supernet: every step some of its networks, drawn at random."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bneck.data.batches import train_batches
from bneck.nas.space import Tokens
from bneck.nets.supernet import Supernet, largest, smallest
from bneck.specs.errors import InputError
from bneck.tasks.classify.dataset import ImageData
from bneck.tasks.classify.scoring import loss
from bneck.training.loop import TrainingProblem
from bneck.training.processes import ALONE, ProcessGroup
from bneck.training.settings import Settings

Sampling = Literal["uniform", "sandwich"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)
BETWEEN = 2  # random networks of a sandwich's step

Batch = tuple[int, Tensor, Tensor]  # the step's number, images, labels


def supernet_problem(
    net: Supernet,
    data: ImageData,
    settings: Settings,
    group: ProcessGroup = ALONE,
    *,
    sampling: Sampling = "uniform",
) -> TrainingProblem[Batch]:
    """What a supernet learns from: the images of a search that are not held out.

    Args:
        net: the supernet.
        data: images.
        settings: as for one network; an epoch has as many steps. Shared weights do not decay.
        group: where it trains.
        sampling: "uniform" trains one random network per step; "sandwich" the largest, the smallest
            and two random ones, four times the work.

    Raises:
        InputError: no such sampling.
    """
    if sampling not in SAMPLINGS:
        raise InputError(f"there is no sampling {sampling!r}; known are {', '.join(SAMPLINGS)}")
    opened = data.open()
    steps = len(opened.fit) // settings.batch

    def batches(epoch: int, first: int) -> Iterable[Batch]:
        found = train_batches(
            opened.train, opened.fit, resolution=net.space.resolution, batch=settings.batch,
            augment=settings.augment, seed=settings.seed, epoch=epoch, first=first,
            device=group.device, normalisation=net.normalisation,
        )  # fmt: skip
        return ((epoch * steps + n, *batch) for n, batch in enumerate(found, first))

    def step_loss(module: nn.Module, batch: Batch) -> Tensor:
        step, images, labels = batch
        images = images.contiguous(memory_format=torch.channels_last)
        drawn = _drawn(net, sampling, settings.seed, step)
        losses = [
            loss(module(images, tokens), labels, smoothing=settings.smoothing) for tokens in drawn
        ]
        return torch.stack(losses).mean()

    return TrainingProblem(images=len(opened.fit), batches=batches, loss=step_loss)


def _drawn(net: Supernet, sampling: Sampling, seed: int, step: int) -> list[Tokens]:
    """The networks of a step: they depend on the seed and the step's number alone."""
    rng = random.Random(f"{seed} {step}")
    if sampling == "uniform":
        return [net.space.sample(rng)]
    between = [net.space.sample(rng) for _ in range(BETWEEN)]
    return [largest(net.space), smallest(net.space), *between]
