"""How an exported detector compares with its module."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.devices.runtimes import Session
from bneck.nets.quantize import Quantized, emulation
from bneck.tasks.checks import (
    MOST_ON_PROBES,
    MOST_ROUNDINGS,
    TOLERANCE_HALF,
    ExportError,
    Gaps,
    check_mean,
    other_roundings,
    probes,
    roundings,
)
from bneck.tasks.detect.boxes import Found, as_boxes, detections, overlaps
from bneck.tasks.detect.head import anchors
from bneck.tasks.detect.module import DetectorNet

Answered = Sequence[Sequence[Any]]
TOLERANCE = 1e-3  # of scores, and of boxes in normalized coordinates
LEAST_COMPARED = 0.05  # scores below hardly order the boxes
# Of a file of fewer bits: the fraction of boxes that both find (of one in int8 fewer, where its simulation
# that rounds otherwise finds others too), and when two are one.
LEAST_ALIKE, LEAST_ALIKE_HALF = 0.8, 0.95
LEAST_ALIKE_SCORE, ALIKE_SCORE, ALIKE_IOU = 0.1, 0.1, 0.7


@torch.inference_mode()
def compare(
    net: DetectorNet, session: Session, images: Tensor, quantized: Quantized | None,
    precision: str, *, decode: bool,
) -> dict[str, Any]:  # fmt: skip
    """Run a file and the module on real images, and compare what both find with scores above 0.05.

    Returns:
        images, boxes (the module's), and largest_difference of a box or score, or of a file of fewer
        bits the fraction of boxes `alike` with the float module's, see `alike_share`; of an int8 file
        that does not decode also its `roundings`, see `checks`.

    Raises:
        ExportError: they disagree.
    """
    places = np.array(anchors(net.detector), np.float32)
    raw = net.eval()(images)
    wanted = _found(raw, places)
    answers = [session.run_all(image[None].numpy()) for image in images]
    if decode:
        found = [Found(as_boxes(boxes), scores, labels) for boxes, scores, labels in answers]
    else:
        found = [one for answer in answers for one in _found(answer, places)]
    boxes = sum(len(one.above(LEAST_COMPARED).scores) for one in wanted)
    how: dict[str, Any] = {"images": len(images), "boxes": boxes}
    if precision == "fp32":
        largest = max(difference(a, b) for a, b in zip(wanted, found, strict=True))
        _check(largest <= TOLERANCE, f"boxes or scores differ by {largest:.2g}", len(images))
        return {**how, "largest_difference": largest}
    # With fewer bits a slightly moved box lets another one win where two overlap, so that what counts is
    # the fraction of boxes that both find, and what comes out before decoding.
    shared = alike_share(wanted, found)
    if quantized:
        how |= {"chance": 0.0, "alike": shared}
        if decode:
            _check_decoded(net, quantized, images, found, places)
            return how
        parts = _gaps(net, quantized, images, answers)
        how["roundings"] = max(roundings(*part) for part in parts)
        for part in parts:
            check_mean(*part)
        seen = probes(images, net.normalisation)
        probed = [session.run_all(image[None].numpy()) for image in seen]
        for part in _gaps(net, quantized, seen, probed):
            roundings(*part, MOST_ON_PROBES)
        return how
    _check(shared >= LEAST_ALIKE_HALF, f"only {shared:.1%} of the boxes are alike", len(images))
    if not decode:
        apart = _apart(raw, answers)
        _check(apart <= TOLERANCE_HALF, f"its numbers are {apart:.2g} apart", len(images))
    return {**how, "alike": shared}


def _check_decoded(
    net: DetectorNet, quantized: Quantized, images: Tensor, found: Sequence[Found], places: Any
) -> None:
    """Raise unless the boxes of an int8 file are as much like its simulation's as those of other roundings."""
    same = emulation(net, quantized)(images)
    others = [other(images) for other in other_roundings(net, quantized, _least(same))]
    wanted = _found(same, places)
    usual = min(alike_share(wanted, _found(other, places)) for other in others)
    alike = alike_share(wanted, found)
    least = min(LEAST_ALIKE, 1 - MOST_ROUNDINGS * (1 - usual))
    _check(alike >= least, f"only {alike:.1%} of the boxes are alike", len(images))


def _gaps(
    net: DetectorNet, quantized: Quantized, images: Tensor, answers: Answered
) -> list[tuple[Gaps, list[Gaps]]]:
    """How far a file's offsets and logits are from its simulation's, and those of other roundings."""
    same = emulation(net, quantized)(images)
    others = [other(images) for other in other_roundings(net, quantized, _least(same))]
    found = [np.concatenate(part) for part in zip(*answers, strict=True)]
    return [
        (Gaps.of(part.numpy(), got), [Gaps.of(part.numpy(), other[i].numpy()) for other in others])
        for i, (part, got) in enumerate(zip(same, found, strict=True))
    ]


def _least(parts: Sequence[Tensor]) -> int:
    """Numbers of an image in the smallest part."""
    return min(part[0].numel() for part in parts)


def _check(agree: bool, apart: str, images: int) -> None:
    """Raise unless they agree; a comparison with NaN does not."""
    if not agree:
        raise ExportError(
            f"the exported file does not find what the network finds on {images} images: {apart}; no file "
            "was kept"
        )


def _found(outputs: Iterable[Any], places: Any) -> list[Found]:
    offsets, logits = (np.asarray(part) for part in outputs)
    return [detections(one, scores, places) for one, scores in zip(offsets, logits, strict=True)]


def _apart(wanted: Iterable[Tensor], answers: Answered) -> float:
    """Root mean square of what offsets or logits differ by, relative to theirs; the larger of both."""
    found = [np.concatenate(part) for part in zip(*answers, strict=True)]
    return max(
        float(np.sqrt(np.square(a - b).mean() / max(np.square(a).mean(), 1e-18)))
        for a, b in zip((part.numpy() for part in wanted), found, strict=True)
    )


def difference(wanted: Found, found: Found) -> float:
    """Largest difference of box or score; infinite where one of both has a box that the other lacks.

    Each box is compared with the one of its label that is nearest: equal scores may come in either order.
    Boxes whose score is within the tolerance of the least compared may be in one of both only.
    """
    largest = 0.0
    for a, b in ((wanted, found), (found, wanted)):
        for box, score, label in zip(a.boxes, a.scores, a.labels, strict=True):
            if score < LEAST_COMPARED + TOLERANCE:
                continue
            same = b.labels == label
            if not same.any():
                return float("inf")
            gaps = np.maximum(np.abs(b.boxes[same] - box).max(1), np.abs(b.scores[same] - score))
            largest = max(largest, float(gaps.min()))
    return largest


def alike_share(wanted: Sequence[Found], found: Sequence[Found]) -> float:
    """The fraction of boxes that both find, of the boxes of either; 1 where nothing is found.

    Those with scores above 0.1 are asked for. A box is found if the other has one of its label that
    overlaps it by at least 0.7, with a score at most 0.1 away.
    """
    total = alike = 0
    for one, other in zip(wanted, found, strict=True):
        for a, b in ((one, other), (other, one)):
            asked = a.above(LEAST_ALIKE_SCORE)
            shares = overlaps(asked.boxes, b.boxes)
            near = np.abs(asked.scores[:, None] - b.scores[None, :]) <= ALIKE_SCORE
            same = asked.labels[:, None] == b.labels[None, :]
            alike += int(((shares >= ALIKE_IOU) & near & same).any(1).sum())
            total += len(asked.scores)
    return alike / total if total else 1.0
