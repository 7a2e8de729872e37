"""How an exported segmenter compares with its module."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.devices.runtimes import Session
from bneck.nets.quantize import Quantized, emulation
from bneck.tasks.checks import (
    MOST_ON_PROBES,
    ExportError,
    Gaps,
    check_mean,
    near,
    other_roundings,
    probes,
    roundings,
)
from bneck.tasks.segment.module import SegmentNet

Array = np.ndarray[Any, np.dtype[Any]]


@torch.inference_mode()
def compare(
    net: SegmentNet, session: Session, images: Tensor, quantized: Quantized | None,
    precision: str, *, argmax: bool,
) -> dict[str, Any]:  # fmt: skip
    """Run a file and the module on real images, one by one.

    Returns:
        images; equal_pixels, the fraction of the same class as the float module's; largest_difference of
        scores, relative to the largest. An int8 file's scores are compared with its simulation's: how many
        times as far off as other `roundings` they are; `chance` is that of a guess.

    Raises:
        ExportError: they disagree: scores by more than 1e-4 of the largest, in fp16 by a hundredth;
            in int8 by more than rounding explains, see `checks.roundings`.
    """
    net.eval()
    module = emulation(net, quantized) if quantized else net
    equal, largest = [], 0.0
    for image in images:
        wanted = module(image[None]).numpy()
        got = answer(session, image[None].numpy(), argmax=argmax)
        chosen = got if argmax else got.argmax(1)
        best = net(image[None]).numpy().argmax(1) if quantized else wanted.argmax(1)
        equal.append(float((chosen == best).mean()))
        gap = _gap(wanted, got, argmax=argmax)
        largest = max(largest, float(gap.max() / max(np.abs(wanted).max(), 1e-9)))
    found = {
        "images": len(images), "equal_pixels": float(np.mean(equal)), "largest_difference": largest,
    }  # fmt: skip
    if quantized:
        how = partial(_gaps, net, session, quantized, argmax=argmax)
        gaps = how(images)
        times = roundings(*gaps)
        check_mean(*gaps)
        roundings(*how(probes(images, net.normalisation)), MOST_ON_PROBES)
        return {**found, "roundings": times, "chance": 1 / net(images[:1]).shape[1]}
    if not near(largest, precision):
        raise ExportError(
            f"the exported file does not answer as the network does on {len(images)} images: scores differ "
            f"by {largest:.2g} of the largest; no file was kept"
        )
    return found


def _gaps(
    net: SegmentNet, session: Session, quantized: Quantized, images: Tensor, *, argmax: bool
) -> tuple[Gaps, list[Gaps]]:
    """How far a file's scores are from its simulation's, and those of other roundings."""
    same = emulation(net, quantized)
    others = other_roundings(net, quantized, images[0, 0].numel())
    gaps = [Gaps() for _ in range(1 + len(others))]
    for image in images:
        wanted = same(image[None]).numpy()
        found = [answer(session, image[None].numpy(), argmax=argmax)]
        found += [
            scores.argmax(1) if argmax else scores
            for scores in (other(image[None]).numpy() for other in others)
        ]
        for one, its in zip(found, gaps, strict=True):
            if argmax:
                its.add(np.zeros(one.shape), _gap(wanted, one, argmax=True))
            else:
                its.add(wanted, one)
    return gaps[0], gaps[1:]


def _gap(wanted: Array, got: Array, *, argmax: bool) -> Any:
    """How far scores are from others; of a choice of classes, by how much its score is below the best."""
    if argmax:
        return wanted.max(1) - np.take_along_axis(wanted, got[:, None], 1)[:, 0]
    return np.abs(got - wanted)


def answer(session: Session, image: Array, *, argmax: bool) -> Array:
    """What a file outputs for one image (1, C, H, W): classes (1, H, W), or scores (1, classes, H, W)."""
    found = session.run_all(image)[0]
    if argmax or session.metadata.get("axes") != "NHWC":
        return found
    return found.transpose(0, 3, 1, 2)
