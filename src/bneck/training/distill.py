"""Distillation: learning a teacher's outputs (Hinton et al. 2015), whatever the task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bneck.specs.normalisation import Normalisation
from bneck.training.processes import ProcessGroup
from bneck.training.settings import Settings


@dataclass(frozen=True, slots=True)
class DistillationLoss:
    """The labels' loss mixed with a teacher's.

    `normalisation` is that of the student's images, from which the teacher's are made. `divergence`
    is the task's, of (student's outputs, teacher's outputs, temperature). The loss is (1 - fraction) of
    the labels' and fraction x temperature^2 of the divergence; the square keeps gradients as large as
    the labels'.
    """

    teacher: Any
    normalisation: Normalisation
    fraction: float
    temperature: float
    divergence: Callable[[Any, Any, float], Tensor]

    @staticmethod
    def of(
        teacher: Any, net: Any, settings: Settings, group: ProcessGroup,
        divergence: Callable[[Any, Any, float], Tensor],
    ) -> DistillationLoss | None:  # fmt: skip
        """As a training's settings say; None without a teacher."""
        if teacher is None:
            return None
        moved, images = teacher.to(group.device).eval(), net.normalisation
        return DistillationLoss(moved, images, settings.teach, settings.temperature, divergence)

    def mixed(self, own: Tensor, outputs: Any, images: Tensor) -> Tensor:
        """The labels' loss `own` and the teacher's, for a student's `outputs` of normalised images."""
        with torch.no_grad():
            found = self.teacher(self._translated(images))
            several = isinstance(found, tuple)
            taught = tuple(one.float() for one in found) if several else found.float()
        divergence = self.divergence(outputs, taught, self.temperature)
        return (1 - self.fraction) * own + self.fraction * self.temperature**2 * divergence

    def _translated(self, images: Tensor) -> Tensor:
        mine, its = self.normalisation, self.teacher.normalisation
        if mine == its:
            return images
        mean, std, its_mean, its_std = (
            torch.tensor(values, device=images.device).view(3, 1, 1)
            for values in (mine.mean, mine.std, its.mean, its.std)
        )
        return (images * std + (mean - its_mean)) / its_std
