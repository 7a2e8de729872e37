"""Loss and accuracy of classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bneck.tasks.data import Answers, Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Over `n` images: the fraction whose best score is the label, and mean cross-entropy in nats.

    `top5` is the fraction whose label is among the five best scores. `expected` is the mean
    probability of the true class: the top-1 to be expected if predictions were drawn from the scores.
    """

    # `expected` tells nearly equal nets apart where counting predictions cannot.
    n: int
    top1: float
    top5: float
    loss: float
    expected: float

    def scores(self, split: str, **details: Any) -> Scores:
        """The same as records keep it, with further details."""
        return Scores(
            split=split, images=self.n, score=self.top1, expected=self.expected, loss=self.loss,
            details={"top5": self.top5, **details},
        )  # fmt: skip


def loss(scores: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of scores (N, classes) against labels (N,), labels smoothed."""
    return F.cross_entropy(scores, labels, label_smoothing=smoothing)


def divergence(scores: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of two nets' softened class scores, (N, classes) both."""
    return F.kl_div(
        F.log_softmax(scores / temperature, 1),
        F.log_softmax(taught / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )


def evaluate(
    answers: Answers,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    background: bool = False,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Accuracy:
    """Accuracy over batches of (images, labels).

    With `background` the first class is left out, and labels count from the second. `total` adds up
    the sums of several processes, each of which looks at images of its own.
    """
    sums = torch.zeros(5, dtype=torch.float64)
    with torch.inference_mode():
        for images, labels in batches:
            scores = torch.from_numpy(answers(images)[0])
            scores, labels = scores[:, 1:] if background else scores, labels.cpu()
            best = scores.topk(min(5, scores.shape[1]), 1).indices
            found = (
                torch.tensor(len(labels)),
                (scores.argmax(1) == labels).sum(),
                (best == labels[:, None]).sum(),
                F.cross_entropy(scores, labels, reduction="sum"),
                scores.softmax(1).gather(1, labels[:, None]).sum(),
            )
            sums += torch.stack([value.double() for value in found])
    if total is not None:
        sums = total(sums)
    n = int(sums[0])
    top1, top5, loss, expected = (float(value) / max(n, 1) for value in sums[1:])
    return Accuracy(n=n, top1=top1, top5=top5, loss=loss, expected=expected)
