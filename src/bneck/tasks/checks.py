"""How near an exported file must come to its module, and the error of one that does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bneck.specs.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from bneck.devices.runtimes import Session
    from bneck.nets.quantize import Quantized

Array = npt.NDArray[Any]

TOLERANCE = 1e-4  # largest difference of outputs in fp32, relative to the largest output
# Weights in half precision are off by up to 2^-11 of themselves.
TOLERANCE_HALF = 0.01
# Between an int8 file and its simulation: ties round differently, and that adds up over the layers; a
# single output may be far off, so this is the root mean square relative to that of the outputs.
TOLERANCE_8_BIT = 0.1


CHOSEN = "chosen on {split} and measured on {split}, so it may be too high"
"""Said next to a number that was the best of several on the images that it is measured on."""


class ExportError(InputError):
    """An exported file that does not answer as the module does; the file is gone."""


def both(
    outputs: Callable[[Any, Tensor], tuple[Tensor, ...]], net: Any, session: Session,
    images: Tensor, quantized: Quantized | None, inputs: Array | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """All numbers that a module (in int8 its simulation) and its file give for images, (N, numbers) both.

    The file sees them one by one, as on a device; `inputs` are the same where it takes them otherwise.
    """
    import torch

    from bneck.nets.quantize import emulation

    with torch.inference_mode():
        found = outputs(emulation(net, quantized) if quantized else net.eval(), images)
    wanted = [one.numpy().reshape(len(images), -1) for one in found]
    each = images.numpy() if inputs is None else inputs
    got = [np.hstack([one.ravel() for one in session.run_all(image[None])]) for image in each]
    return np.hstack(wanted), np.stack(got)


def apart(wanted: Array, got: Array, precision: str) -> tuple[float, bool]:
    """The largest difference, relative to the largest output, and whether the precision allows it."""
    gap = np.abs(got - wanted)
    off = largest = float(gap.max() / max(np.abs(wanted).max(), 1e-9))
    allowed = TOLERANCE_HALF if precision == "fp16" else TOLERANCE
    if precision == "int8":
        off, allowed = float(np.sqrt((gap**2).mean() / (wanted**2).mean())), TOLERANCE_8_BIT
    return largest, off <= allowed  # a NaN is not near either
