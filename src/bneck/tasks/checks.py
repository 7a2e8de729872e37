"""How near an exported file must come to its module, and the error of one that does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
# An int8 file rounds every number to one of two neighbours, as its simulation does, but not always to the
# same one. So the simulation that rounds to either at random tells how far apart two right files may be, in
# root mean square. Files of three runtimes are 0.2 to 0.7 of that from the simulation (docs/lab-log.md). A
# network that amplifies any rounding until its outputs are unlike brings both near 1; the rest is for chance.
MOST_ROUNDINGS = 1.3
NOTHING = 1e-6  # outputs are this near zero where a range is empty
DRAWN, MOST_DRAWS = 256, 8  # numbers to tell the other roundings from, and simulations at most
LEAST_TELLING = 8  # images, to tell that answers are worse than chance
ENOUGH = 0.95  # fraction of the float network's answers; below, it is said how to get more
FINE_TUNE = "bneck quantize RUN --epochs 2"


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
    from bneck.nets.quantize import emulation

    wanted = numbers(outputs, emulation(net, quantized) if quantized else net.eval(), images)
    each = images.numpy() if inputs is None else inputs
    got = [np.hstack([one.ravel() for one in session.run_all(image[None])]) for image in each]
    return wanted, np.stack(got)


def numbers(
    outputs: Callable[[Any, Tensor], tuple[Tensor, ...]], module: Any, images: Tensor
) -> Array:
    """All numbers that a module gives for images, (N, numbers)."""
    import torch

    with torch.inference_mode():
        found = outputs(module, images)
    return np.hstack([one.numpy().reshape(len(images), -1) for one in found])


def largest_gap(wanted: Array, got: Array) -> float:
    """The largest difference, relative to the largest output."""
    return float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-9))


def near(largest: float, precision: str) -> bool:
    """Whether a float file may differ by so much; a NaN is not near."""
    return largest <= (TOLERANCE_HALF if precision == "fp16" else TOLERANCE)


def other_roundings(net: Any, quantized: Quantized, outputs: int) -> list[Any]:
    """Simulations that round otherwise, enough of them to tell from so many outputs how far apart they are."""
    from bneck.nets.quantize import emulation

    draws = min(MOST_DRAWS, max(1, -(-DRAWN // max(outputs, 1))))
    return [emulation(net, quantized, dither=seed) for seed in range(draws)]


def roundings(gap: float, usual: Sequence[float], images: int) -> float:
    """How many times as far an int8 file is from its simulation as other roundings are, in root mean square.

    Args:
        gap: mean squared difference between the file's outputs and the simulation's.
        usual: the same of every simulation that rounds otherwise.
        images: how many images they are of.

    Raises:
        ExportError: more than `MOST_ROUNDINGS` times, so the file computes something else.
    """
    times = float(np.sqrt(gap) / max(np.sqrt(np.mean(usual)), NOTHING))
    if not times <= MOST_ROUNDINGS:  # a NaN is not near either
        raise ExportError(
            f"the exported file does not answer as the network does on {images} images: it is {times:.3g} "
            "times as far from the simulated int8 network as rounding explains, so it is broken; no file was "
            "kept; export for another runtime with --format"
        )
    return times


def squared(wanted: Array, got: Array) -> float:
    """Mean squared difference."""
    return float(np.square(np.subtract(got, wanted, dtype=np.float64)).mean())


def int8_file(
    outputs: Callable[[Any, Tensor], tuple[Tensor, ...]], net: Any, images: Tensor,
    quantized: Quantized, wanted: Array, got: Array,
) -> dict[str, float]:  # fmt: skip
    """Compare the numbers of an int8 file and its simulation, (N, numbers) both, see `both`.

    Returns:
        largest_difference, relative to the largest; roundings, see there.

    Raises:
        ExportError: the file is broken.
    """
    usual = [
        squared(wanted, numbers(outputs, other, images))
        for other in other_roundings(net, quantized, wanted.size)
    ]
    times = roundings(squared(wanted, got), usual, len(images))
    return {"largest_difference": largest_gap(wanted, got), "roundings": times}


def check_chance(check: Mapping[str, Any], agrees: str, images: int) -> None:
    """Raise ExportError where an int8 file gives the float network's answer less often than a guess does.

    `agrees` names the fraction of equal answers in `check`; too few images say nothing.
    """
    chance = check.get("chance", 0.0)
    if chance < 1 and images >= LEAST_TELLING and check.get(agrees, 1.0) < chance:
        raise ExportError(
            f"in int8 the network gives {check[agrees]:.1%} of its float answers on {images} images, less than "
            f"by chance ({chance:.1%}); no file was kept; calibrate on images like those that it was trained "
            f"on (--data), or fine-tune it with: {FINE_TUNE}"
        )


def advice(check: Mapping[str, Any], agrees: str) -> list[str]:
    """What improves an int8 file that gives other answers than its float network; [] for any other."""
    kept = check.get(agrees, 1.0)
    if "chance" not in check or kept >= ENOUGH:
        return []
    return [
        f"int8 changes {1 - kept:.1%} of the float network's answers on these images; calibrate on more "
        f"images, or on images like those that it was trained on (--data), or fine-tune it with: {FINE_TUNE}"
    ]
