"""Loss of segmenters: cross-entropy over pixels, and what a teacher adds to it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bneck.tasks.segment.masks import IGNORED


def loss(scores: Tensor, masks: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of scores (N, classes, H, W) over the pixels of (N, H, W) not ignored.

    0, with gradients of 0, where all are ignored. `weights` are of classes: (classes,).
    """
    total = F.cross_entropy(scores, masks, weight=weights, ignore_index=IGNORED, reduction="sum")
    valid = masks != IGNORED
    share = valid if weights is None else weights[masks.where(valid, 0)] * valid
    return total / share.sum().clamp(min=1e-6 if weights is not None else 1)


def divergence(scores: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened class scores (N, classes, H, W), mean over pixels."""
    ours, theirs = (F.log_softmax(part / temperature, 1) for part in (scores, taught))
    total = F.kl_div(ours, theirs, reduction="sum", log_target=True)
    return total / (scores.numel() / scores.shape[1])
