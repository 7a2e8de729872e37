"""How an exported classifier compares with its module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bneck.data.batches import as_pixels
from bneck.nets.quantize import Quantized, emulation
from bneck.tasks.checks import TOLERANCE, TOLERANCE_8_BIT, TOLERANCE_HALF, ExportError

if TYPE_CHECKING:
    from bneck.devices.runtimes import Session


@torch.inference_mode()
def compare(
    net: Any, session: Session, images: Tensor, quantized: Quantized | None, precision: str
) -> dict[str, Any]:
    """Run a file and the module on real images, one by one as a device would.

    Returns:
        images; label_agreement, the fraction with the same best class; largest_difference of scores,
        relative to the largest score. An int8 file is compared with its simulation.

    Raises:
        ExportError: in fp32 a label differs, or a score by more than 1e-4 of the largest; in fp16 a
            score by a hundredth; in int8 the root mean square of the scores by a tenth.
    """
    module = emulation(net, quantized) if quantized else net.eval()
    wanted = module(images).numpy()
    inputs = images.numpy()
    if session.metadata.get("input") == "pixels":
        inputs = as_pixels(images, net.normalisation)
    got = np.concatenate([session.run(image[None]) for image in inputs])
    largest = float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-9))
    agreement = float((got.argmax(1) == wanted.argmax(1)).mean())
    match precision:  # written so that a score that is NaN fails too
        case "fp32":
            answers = agreement == 1.0 and largest <= TOLERANCE
        case "fp16":
            answers = largest <= TOLERANCE_HALF
        case _:
            apart = float(np.sqrt(np.square(got - wanted).mean() / np.square(wanted).mean()))
            answers = apart <= TOLERANCE_8_BIT
    if not answers:
        raise ExportError(
            f"the exported file does not answer as the network does on {len(images)} images: labels agree "
            f"on {agreement:.1%}, scores differ by {largest:.2g} of the largest; no file was kept"
        )
    return {
        "images": len(images),
        "label_agreement": agreement,
        "largest_difference": largest,
    }
