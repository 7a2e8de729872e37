"""Classification: top-1, and scores that a person can read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Over `n` images: share whose best score is the label, and mean cross-entropy in nats.

    `top5` is the share whose label is among the five best scores. `expected` is the mean
    probability of the right class: the top-1 to be expected if answers were drawn from the scores.
    It tells nearly equal nets apart where counting answers cannot.
    """

    n: int
    top1: float
    top5: float
    loss: float
    expected: float


def evaluate(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    background: bool = False,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Accuracy:
    """Accuracy of a net, put into evaluation mode, over batches of (images, labels).

    With `background` the first of its classes is left out, and labels count from the second. `total`
    adds up the sums of several processes, each of which looks at images of its own.
    """
    net.eval()
    sums = torch.zeros(5, dtype=torch.float64)
    with torch.inference_mode():
        for images, labels in batches:
            scores = net(images.contiguous(memory_format=torch.channels_last)).float()
            scores = scores[:, 1:] if background else scores
            best = scores.topk(min(5, scores.shape[1]), 1).indices
            found = (
                torch.tensor(len(labels)),
                (scores.argmax(1) == labels).sum(),
                (best == labels[:, None]).sum(),
                F.cross_entropy(scores, labels, reduction="sum"),
                scores.softmax(1).gather(1, labels[:, None]).sum(),
            )
            sums += torch.stack([value.cpu().double() for value in found])
    if total is not None:
        sums = total(sums)
    n = int(sums[0])
    top1, top5, loss, expected = (float(value) / max(n, 1) for value in sums[1:])
    return Accuracy(n=n, top1=top1, top5=top5, loss=loss, expected=expected)


@dataclass(frozen=True, slots=True)
class Guess:
    """A class and its softmax probability."""

    label: str
    score: float


def guesses(scores: Tensor, classes: Sequence[str], *, top: int = 5) -> list[list[Guess]]:
    """For scores (N, classes): the `top` classes of every image, best first."""
    best = scores.softmax(1).topk(min(top, len(classes)), 1)
    return [
        [Guess(classes[int(i)], float(p)) for p, i in zip(*pair, strict=True)]
        for pair in zip(best.values, best.indices, strict=True)
    ]
