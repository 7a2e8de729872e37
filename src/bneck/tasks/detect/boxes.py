"""Boxes: overlap, matching to anchors, the coder, non-maximum suppression (NMS). numpy only.

Boxes are corners (left, top, right, bottom); anchors and offsets from them are (centre x, centre y,
width, height). All are in normalized coordinates, rows of float32 arrays (N, 4).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Boxes: TypeAlias = npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[np.int64]

CODER = (10.0, 10.0, 5.0, 5.0)  # the authors' box coder multiplies offsets by these
SCALES = np.array(CODER, np.float32)
LARGEST_LOG = math.log(1000)  # of a box's side over its anchor's; keeps exp finite
POSITIVE_IOU = 0.5
BACKGROUND = 0

# The authors' NMS: candidates' score, overlap that drops a box, boxes that are kept.
LEAST_SCORE, NMS_IOU, MOST_BOXES = 1e-8, 0.6, 100
_LEVELS = (0.5, 0.2, 0.05, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)  # candidates are looked at score by score
_CHUNK = 128  # candidates compared with one another at a time


def corners(anchors: Boxes) -> Boxes:
    """Anchors (centre and size) as boxes (corners)."""
    half = anchors[:, 2:] / 2
    return np.concatenate((anchors[:, :2] - half, anchors[:, :2] + half), axis=1)


def overlaps(a: Boxes, b: Boxes) -> npt.NDArray[np.float32]:
    """Intersection over union of boxes (N, 4) and (M, 4): (N, M). Empty boxes overlap nothing."""
    wide = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0])
    high = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
    both = np.maximum(wide, 0) * np.maximum(high, 0)
    sides = (np.maximum(boxes[:, 2:] - boxes[:, :2], 0) for boxes in (a, b))
    area_a, area_b = (side[:, 0] * side[:, 1] for side in sides)
    union = area_a[:, None] + area_b[None, :] - both
    shares: npt.NDArray[np.float32] = both / np.maximum(union, np.float32(1e-12))
    return shares


def encode(boxes: Boxes, anchors: Boxes) -> Boxes:
    """Offsets of boxes (N, 4) from their anchors (N, 4): what the box head has to output."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], np.float32(1e-6))
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    moved = (centres - anchors[:, :2]) / anchors[:, 2:]
    return np.concatenate((moved, np.log(sides / anchors[:, 2:])), axis=1) * SCALES


def decode(offsets: Boxes, anchors: Boxes) -> Boxes:
    """Boxes (N, 4) of offsets from anchors, cut at the image's edge."""
    moved = offsets / SCALES
    centres = anchors[:, :2] + moved[:, :2] * anchors[:, 2:]
    half = np.exp(np.minimum(moved[:, 2:], np.float32(LARGEST_LOG))) * anchors[:, 2:] / 2
    return np.concatenate((centres - half, centres + half), axis=1).clip(0, 1)


def match(anchors: Boxes, boxes: Boxes) -> Labels:
    """For every anchor (corners) the index of the box that it has to find, -1 for none: (N,).

    An anchor finds the box that it overlaps most, if by at least half. Besides, every box gets the
    anchor that overlaps it most; where several boxes want the same one, the first has it.
    """
    if not len(boxes):
        return np.full(len(anchors), -1, np.int64)
    shares = overlaps(anchors, boxes)
    found = np.where(shares.max(1) >= POSITIVE_IOU, shares.argmax(1), -1)
    for box in reversed(range(len(boxes))):  # so that the first box is the last to write
        anchor = int(shares[:, box].argmax())
        if shares[anchor, box] > 0:
            found[anchor] = box
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """Detections of one image, best first: boxes (N, 4), scores (N,), labels (N,) from 1."""

    boxes: Boxes
    scores: npt.NDArray[np.float32]
    labels: Labels

    def above(self, score: float) -> Found:
        """Those with a score of at least `score`."""
        keep = self.scores >= score
        return Found(self.boxes[keep], self.scores[keep], self.labels[keep])


def detections(
    offsets: Boxes, logits: npt.NDArray[np.float32], anchors: Boxes, *,
    least_score: float = LEAST_SCORE, most: int = MOST_BOXES,
) -> Found:  # fmt: skip
    """Decode one image's predictions and drop, class by class, what overlaps a better box.

    Exact: equal to NMS of every class by itself and taking the `most` best of all that is left.
    `offsets` (anchors, 4) and `logits` (anchors, slots) are the heads' outputs; slot 0, the background, is
    not looked at. `anchors` (anchors, 4) are centre and size. Candidates have a score (a sigmoid, from 0
    to 1) above `least_score`.
    """
    boxes = decode(offsets, anchors)
    classes = logits.shape[1] - 1
    flat = np.ascontiguousarray(logits[:, 1:]).ravel()
    kept = np.empty(0, np.int64)
    for places in _candidates(flat, least_score):
        kept = _extended(kept, places, boxes, classes)
        if len(kept) >= most:
            break
    kept = kept[:most]
    return Found(
        boxes=boxes[kept // classes],
        scores=(1 / (1 + np.exp(-flat[kept].astype(np.float64)))).astype(np.float32),
        labels=kept % classes + 1,
    )


def suppress(boxes: Boxes, labels: Labels, *, iou: float = NMS_IOU) -> npt.NDArray[np.bool_]:
    """Which of these boxes, best first, no better box of the same label overlaps by more than `iou`.

    Greedy: a dropped box drops nothing.
    """
    drops = np.triu((overlaps(boxes, boxes) > iou) & (labels[:, None] == labels[None, :]), 1)
    stays: npt.NDArray[np.bool_] = ~drops.any(0)
    # Whether a box stays depends on better boxes only, so that applying the rule to all at once until
    # nothing changes gives the greedy answer.
    while True:
        again: npt.NDArray[np.bool_] = ~drops[stays].any(0)
        if np.array_equal(again, stays):
            return stays
        stays = again


def _candidates(flat: npt.NDArray[np.float32], least_score: float) -> Iterator[Labels]:
    """Places with a higher score, best first, in chunks."""
    # Level by level, so that no more scores are sorted than the caller asks for.
    above = np.float32(np.inf)
    for level in [*(level for level in _LEVELS if level > least_score), least_score]:
        floor = np.float32(_logit(level))
        places = np.flatnonzero((flat > floor) & (flat <= above))
        places = places[np.argsort(-flat[places], kind="stable")]
        yield from (places[start : start + _CHUNK] for start in range(0, len(places), _CHUNK))
        above = floor


def _extended(kept: Labels, places: Labels, boxes: Boxes, classes: int) -> Labels:
    """`kept` and those of the next best `places` that survive; places are anchor x classes + class."""
    if len(kept):
        same = places[:, None] % classes == kept[None, :] % classes
        near = overlaps(boxes[places // classes], boxes[kept // classes]) > NMS_IOU
        places = places[~(same & near).any(1)]
    stays = suppress(boxes[places // classes], places % classes)
    return np.concatenate((kept, places[stays]))


def _logit(score: float) -> float:
    return math.log(score / (1 - score)) if 0 < score < 1 else math.copysign(math.inf, score - 0.5)


def as_boxes(values: Any) -> Boxes:
    """Rows of four numbers as an array (N, 4), also where there are none."""
    return np.asarray(values, np.float32).reshape(-1, 4)
