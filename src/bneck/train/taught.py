"""What class scores are held against: the labels, and a teacher's answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bneck.nets.build import Net
from bneck.specs.normalisation import Normalisation


def label_loss(scores: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of scores (N, classes) against labels (N,), labels smoothed."""
    return F.cross_entropy(scores, labels, label_smoothing=smoothing)


@dataclass(frozen=True, slots=True)
class Taught:
    """A teacher's answers as a loss beside the labels' (Hinton et al. 2015).

    `normalisation` is that of the student's images, from which the teacher's are made. The loss is
    (1 - share) of the labels' and share x temperature^2 of the divergence of both softened answers;
    the square keeps gradients as large as the labels'.
    """

    teacher: Net
    normalisation: Normalisation
    share: float
    temperature: float

    def mixed(self, own: Tensor, scores: Tensor, images: Tensor) -> Tensor:
        """The labels' loss `own` and the teacher's, for a student's scores (N, classes)."""
        with torch.no_grad():
            answers = self.teacher.eval()(self._translated(images)).float()
        divergence = F.kl_div(
            F.log_softmax(scores / self.temperature, 1),
            F.log_softmax(answers / self.temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.share) * own + self.share * self.temperature**2 * divergence

    def _translated(self, images: Tensor) -> Tensor:
        mine, its = self.normalisation, self.teacher.normalisation
        if mine == its:
            return images
        mean, std, its_mean, its_std = (
            torch.tensor(values, device=images.device).view(3, 1, 1)
            for values in (mine.mean, mine.std, its.mean, its.std)
        )
        return (images * std + (mean - its_mean)) / its_std
