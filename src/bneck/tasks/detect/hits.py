"""True positives, false positives and misses among detections. numpy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bneck.tasks.detect.boxes import Boxes, Found, Labels, overlaps

HIT_IOU = 0.5
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one image: `hit` of every detection, `ignored` where it lies in a crowd, `missed` objects."""

    hit: Flags
    ignored: Flags
    missed: Flags

    @property
    def counts(self) -> tuple[int, int, int]:
        """True positives, misses and false positives."""
        false = ~self.hit & ~self.ignored
        return int(self.hit.sum()), int(self.missed.sum()), int(false.sum())

    @property
    def error(self) -> float:
        """Misses and false positives as a fraction of all that is shown or missed."""
        hits, missed, false = self.counts
        return (missed + false) / max(1, hits + missed + false)


def judge(found: Found, boxes: Boxes, labels: Labels, crowd: Flags) -> Verdict:
    """Give each detection, best first, the free object of its class that it overlaps most.

    It hits if they share at least half of their union. What hits nothing but has half of its area
    in a crowd of its class is ignored. Crowds are never missed.
    """
    count = len(found.scores)
    hit, ignored = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    free = ~crowd
    shares = overlaps(found.boxes, boxes)
    for i, label in enumerate(found.labels):
        open_shares = np.where(free & (labels == label), shares[i], -1.0)
        best = int(open_shares.argmax()) if len(labels) else -1
        if best >= 0 and open_shares[best] >= HIT_IOU:
            hit[i], free[best] = True, False
        else:
            crowded = _inside(found.boxes[i], boxes[crowd & (labels == label)])
            ignored[i] = bool((crowded >= 0.5).any())
    return Verdict(hit=hit, ignored=ignored, missed=free)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The least score to show, and what showing so much gives: fractions from 0 to 1."""

    score: float
    precision: float
    recall: float
    f1: float


def best_threshold(judged: Iterable[tuple[Found, Verdict]]) -> Threshold | None:
    """The least score with the best harmonic mean of precision and recall; None without objects."""
    scores, hits, objects = [np.empty(0, np.float32)], [np.empty(0, np.bool_)], 0
    for found, verdict in judged:
        scores.append(found.scores[~verdict.ignored])
        hits.append(verdict.hit[~verdict.ignored])
        objects += int(verdict.missed.sum() + verdict.hit.sum())
    every = np.concatenate(scores)
    if not objects or not len(every):
        return None
    order = np.argsort(-every, kind="stable")
    right = np.cumsum(np.concatenate(hits)[order])
    shown = np.arange(1, len(every) + 1)
    f1 = 2 * right / (shown + objects)
    best = int(f1.argmax())
    return Threshold(
        score=float(every[order][best]), precision=float(right[best] / shown[best]),
        recall=float(right[best] / objects), f1=float(f1[best]),
    )  # fmt: skip


def _inside(box: npt.NDArray[np.float32], boxes: Boxes) -> npt.NDArray[np.float64]:
    """Fraction of `box` that lies inside each of `boxes`: (N,)."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    area = max(float((box[2:] - box[:2]).prod()), 1e-12)
    shares: npt.NDArray[np.float64] = np.maximum(sides, 0).prod(1) / area
    return shares
