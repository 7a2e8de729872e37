"""Distillation: learning a teacher's outputs (Hinton et al. 2015), whatever the task, and its maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bneck.nets.build import WrappedNet
from bneck.nets.ops import GlobalPool
from bneck.nets.shrink import Kept
from bneck.specs.normalisation import Normalisation
from bneck.training.processes import ProcessGroup
from bneck.training.settings import Settings

FEATURES = 3.0  # weight of the distance of maps; docs/lab-log.md has others


class FeatureDistance:
    """How far what a narrowed network's rows give is from the same channels of its teacher.

    The mean over rows of the squared difference, as a share of the variance of the teacher's channels
    (Romero et al. 2015, without their regressors: the channels are the teacher's own). Both networks must
    have been called with the same images since; `kept` are the channels, of a network as wide as the teacher.
    """

    def __init__(self, net: WrappedNet, teacher: WrappedNet, kept: Kept) -> None:
        self.kept = kept
        self.mine: dict[int, Tensor] = {}
        self.its: dict[int, Tensor] = {}
        for index, row in enumerate(net.rows):
            if not isinstance(row, GlobalPool):
                row.register_forward_hook(self._noting(self.mine, index))
                wide = teacher.rows[kept.rows[index]]
                wide.register_forward_hook(self._noting(self.its, index))

    @staticmethod
    def _noting(maps: dict[int, Tensor], index: int) -> Callable[[Any, Any, Tensor], None]:
        def note(_: Any, __: Any, made: Tensor) -> None:
            maps[index] = made

        return note

    def __call__(self) -> Tensor:
        """Of the last call of both."""
        total = torch.zeros(())
        for index, mine in self.mine.items():
            its = self.its[index][:, self.kept.out[index]].float()
            share = (mine.float() - its).square().mean() / its.var().clamp_min(1e-12)
            total = total.to(share.device) + share
        return total / len(self.mine)


@dataclass(frozen=True, slots=True)
class DistillationLoss:
    """The labels' loss mixed with a teacher's.

    `normalisation` is that of the student's images, from which the teacher's are made. `divergence`
    is the task's, of (student's outputs, teacher's outputs, temperature). The loss is (1 - fraction) of
    the labels' and fraction x temperature^2 of the divergence; the square keeps gradients as large as
    the labels'. With `features`, `FEATURES` times their distance is added.
    """

    teacher: Any
    normalisation: Normalisation
    fraction: float
    temperature: float
    divergence: Callable[[Any, Any, float], Tensor]
    features: FeatureDistance | None = None

    @staticmethod
    def of(
        teacher: Any, net: Any, settings: Settings, group: ProcessGroup,
        divergence: Callable[[Any, Any, float], Tensor], kept: Kept | None = None,
    ) -> DistillationLoss | None:  # fmt: skip
        """As a training's settings say; None without a teacher. `kept`: see `FeatureDistance`."""
        if teacher is None:
            return None
        moved, images = teacher.to(group.device).eval(), net.normalisation
        features = None if kept is None else FeatureDistance(net, moved, kept)
        return DistillationLoss(
            moved, images, settings.teach, settings.temperature, divergence, features
        )

    def mixed(self, own: Tensor, outputs: Any, images: Tensor) -> Tensor:
        """The labels' loss `own` and the teacher's, for a student's `outputs` of normalised images."""
        with torch.no_grad():
            found = self.teacher(self._translated(images))
            several = isinstance(found, tuple)
            taught = tuple(one.float() for one in found) if several else found.float()
        divergence = self.divergence(outputs, taught, self.temperature)
        mixed = (1 - self.fraction) * own + self.fraction * self.temperature**2 * divergence
        return mixed if self.features is None else mixed + FEATURES * self.features()

    def _translated(self, images: Tensor) -> Tensor:
        mine, its = self.normalisation, self.teacher.normalisation
        if mine == its:
            return images
        mean, std, its_mean, its_std = (
            torch.tensor(values, device=images.device).view(3, 1, 1)
            for values in (mine.mean, mine.std, its.mean, its.std)
        )
        return (images * std + (mean - its_mean)) / its_std
