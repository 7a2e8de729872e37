"""How an exported segmenter compares with its module."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.devices.runtimes import Session
from bneck.nets.quantize import Quantized, emulation
from bneck.tasks.checks import TOLERANCE, TOLERANCE_8_BIT, TOLERANCE_HALF, ExportError
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
        scores, relative to the largest. An int8 file's scores are compared with its simulation's.

    Raises:
        ExportError: they disagree: scores by more than 1e-4 of the largest, in fp16 by a hundredth;
            in int8 their root mean square by more than a tenth of the simulation's.
    """
    net.eval()
    module = emulation(net, quantized) if quantized else net
    equal, largest, squares, all_squares = [], 0.0, 0.0, 0.0
    for image in images:
        wanted = module(image[None]).numpy()
        got = answer(session, image[None].numpy(), argmax=argmax)
        chosen = got if argmax else got.argmax(1)
        best = net(image[None]).numpy().argmax(1) if quantized else wanted.argmax(1)
        equal.append(float((chosen == best).mean()))
        if argmax:  # another class may be chosen only where its score is as good
            gap = wanted.max(1) - np.take_along_axis(wanted, chosen[:, None], 1)[:, 0]
        else:
            gap = np.abs(got - wanted)
        largest = max(largest, float(gap.max() / max(np.abs(wanted).max(), 1e-9)))
        squares += float(np.square(gap, dtype=np.float64).mean())
        all_squares += float(np.square(wanted, dtype=np.float64).mean())
    if quantized:
        answers = (squares / max(all_squares, 1e-18)) ** 0.5 <= TOLERANCE_8_BIT
    else:
        answers = largest <= (TOLERANCE_HALF if precision == "fp16" else TOLERANCE)
    if not answers:
        raise ExportError(
            f"the exported file does not answer as the network does on {len(images)} images: scores differ "
            f"by {largest:.2g} of the largest; no file was kept"
        )
    pixels = float(np.mean(equal))
    return {"images": len(images), "equal_pixels": pixels, "largest_difference": largest}


def answer(session: Session, image: Array, *, argmax: bool) -> Array:
    """What a file outputs for one image (1, C, H, W): classes (1, H, W), or scores (1, classes, H, W)."""
    found = session.run_all(image)[0]
    if argmax or session.metadata.get("axes") != "NHWC":
        return found
    return found.transpose(0, 3, 1, 2)
