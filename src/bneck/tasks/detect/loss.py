"""Detection losses: focal loss, hard negative mining, and distillation from a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bneck.specs.errors import InputError
from bneck.tasks.detect.boxes import BACKGROUND, Boxes, Labels, corners, encode, match
from bneck.tasks.detect.head import Detector, anchors

LOSSES = ("focal", "mining")
ALPHA, GAMMA = 0.75, 2.0  # of the focal loss, as in the authors' settings for V3
CODE_SIZE = 4
NEGATIVES, LEAST_NEGATIVES = 3, 3  # per positive, and at least per image


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets of a batch's anchors: labels (N, anchors), 0 for none; offsets (N, anchors, 4)."""

    labels: Tensor
    offsets: Tensor


class DetectionLoss:
    """Loss of a detector over batches of (images, boxes, labels of every image).

    Args:
        detector: what is trained.
        loss: "focal", as V3 was trained: a sigmoid focal loss over all anchors, box loss divided
            by 4; or "mining", as V1 and V2: a sigmoid cross-entropy over the anchors with an object
            and, in each image, three times as many of the others that are most wrong.

    Raises:
        InputError: no such loss.
    """

    def __init__(self, detector: Detector, loss: str = "focal") -> None:
        check_loss(loss)
        self.mining = loss == "mining"
        self.anchors = np.array(anchors(detector), np.float32)
        self.boxes = corners(self.anchors)

    def targets(self, boxes: Sequence[Boxes], labels: Sequence[Labels]) -> Targets:
        """Match every image's boxes (corners) and labels (from 1) to the anchors."""
        wanted = np.zeros((len(boxes), len(self.anchors)), np.int64)
        offsets = np.zeros((len(boxes), len(self.anchors), 4), np.float32)
        for i, (its_boxes, its_labels) in enumerate(zip(boxes, labels, strict=True)):
            found = match(self.boxes, its_boxes)
            hit = np.flatnonzero(found >= 0)
            wanted[i, hit] = its_labels[found[hit]]
            offsets[i, hit] = encode(its_boxes[found[hit]], self.anchors[hit])
        return Targets(torch.from_numpy(wanted), torch.from_numpy(offsets))

    def of(
        self, outputs: tuple[Tensor, ...], boxes: Sequence[Boxes], labels: Sequence[Labels]
    ) -> Tensor:
        """The loss of a net's outputs for one batch, divided by the number of anchors with an object."""
        offsets, logits = outputs
        targets = self.targets(boxes, labels)
        moved = Targets(targets.labels.to(logits.device), targets.offsets.to(logits.device))
        return (mining_loss if self.mining else focal_loss)(offsets, logits, moved)


def check_loss(name: str) -> None:
    """Raise InputError where there is no such loss."""
    if name not in LOSSES:
        raise InputError(f"there is no detection loss {name!r}; known are {', '.join(LOSSES)}")


def divergence(
    outputs: tuple[Tensor, ...], taught: tuple[Tensor, ...], temperature: float
) -> Tensor:
    """How far a detector is from its teacher's: cross-entropy of softened class scores beyond the teacher's
    own entropy, and the smooth L1 distance of boxes, weighted by how sure the teacher is of an object.

    Divided by the sum of the teacher's object scores, as the labels' loss is by the objects.
    """
    offsets, logits = outputs
    its_offsets, its_logits = taught
    wanted = (its_logits[..., 1:] / temperature).sigmoid()
    scores = logits[..., 1:] / temperature
    entropy = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    floor = F.binary_cross_entropy(wanted, wanted, reduction="none")
    sure = its_logits[..., 1:].sigmoid().amax(2)
    boxes = F.smooth_l1_loss(offsets, its_offsets, reduction="none").sum(2) * sure
    total = (entropy - floor).sum() + boxes.sum() / CODE_SIZE
    return total / sure.sum().clamp(min=1)


def focal_loss(offsets: Tensor, logits: Tensor, targets: Targets) -> Tensor:
    """Sigmoid focal loss (alpha 0.75, gamma 2) of all anchors, and a quarter of the box loss."""
    wanted, entropy = _entropy(logits, targets)
    miss = (logits.sigmoid() - wanted).abs()  # 1 - p of the true answer
    weight = wanted * ALPHA + (1 - wanted) * (1 - ALPHA)
    classes = (weight * miss.pow(GAMMA) * entropy).sum()
    return _per_object(classes, _box_loss(offsets, targets).sum() / CODE_SIZE, targets)


def mining_loss(offsets: Tensor, logits: Tensor, targets: Targets) -> Tensor:
    """Sigmoid cross-entropy of positives and the hardest negatives, and the box loss.

    In each image the negatives with the largest loss count, three times as many as it has
    positives and at least three.
    """
    positive = targets.labels > BACKGROUND
    entropy = _entropy(logits, targets)[1].sum(2)
    hardness = entropy.detach().masked_fill(positive, -1.0)
    rank = hardness.argsort(1, descending=True).argsort(1)
    quota = (NEGATIVES * positive.sum(1)).clamp(min=LEAST_NEGATIVES)
    mined = ~positive & (rank < quota[:, None])
    return _per_object(entropy[positive | mined].sum(), _box_loss(offsets, targets).sum(), targets)


def _per_object(classes: Tensor, boxes: Tensor, targets: Targets) -> Tensor:
    return (classes + boxes) / (targets.labels > BACKGROUND).sum().clamp(min=1)


def _box_loss(offsets: Tensor, targets: Targets) -> Tensor:
    positive = targets.labels > BACKGROUND
    return F.smooth_l1_loss(offsets[positive], targets.offsets[positive], reduction="none")


def _entropy(logits: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Wanted scores and their sigmoid cross-entropy, (N, anchors, slots) both."""
    wanted = F.one_hot(targets.labels, logits.shape[2]).float()
    # The background has no score of its own: an anchor without an object is to have 0 everywhere.
    wanted[..., BACKGROUND] = 0
    return wanted, F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
