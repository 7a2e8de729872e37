"""How near an exported file must come to its module, and the error of one that does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bneck.specs.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from bneck.devices.runtimes import Session
    from bneck.nets.quantize import Quantized
    from bneck.specs.normalisation import Normalisation

Array = npt.NDArray[Any]

TOLERANCE = 1e-4  # largest difference of outputs in fp32, relative to the largest output
# Weights in half precision are off by up to 2^-11 of themselves.
TOLERANCE_HALF = 0.01
# An int8 file rounds every number to one of two neighbours, as its simulation does, but not always to the
# same one. So the simulation that rounds to either at random tells how far apart two right files may be, in
# root mean square. Files of three runtimes are 0.2 to 0.7 of that from the simulation (docs/lab-log.md). A
# network that amplifies any rounding until its outputs are unlike brings both near 1; the rest is for chance.
MOST_ROUNDINGS = 1.3
# Probes are few, and saturate: right files are up to 1.1 there, broken ones 3 to 20.
MOST_ON_PROBES = 2.6
NOTHING = 1e-6  # outputs are this near zero where a range is empty
# Numbers of an image to tell the other roundings from, and simulations at most.
DRAWN, MOST_DRAWS = 64, 8
LEAST_NUMBERS = 32  # that a mean over images is judged by: outputs, of every other simulation
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
    """Simulations that round otherwise, enough of them to tell how far apart they are.

    `outputs` is how many numbers one image has.
    """
    from bneck.nets.quantize import emulation

    draws = min(MOST_DRAWS, max(1, -(-DRAWN // max(outputs, 1))))
    return [emulation(net, quantized, dither=seed) for seed in range(draws)]


@dataclass(slots=True)
class Gaps:
    """How far outputs are from the simulation's: `add` them image by image."""

    images: int = 0
    squares: float = 0.0
    total: Any = 0.0

    def add(self, wanted: Array, got: Array) -> None:
        """The outputs for one image, of any shape."""
        gap = np.subtract(got, wanted, dtype=np.float64)
        self.images += 1
        self.squares += float(np.square(gap).mean())
        self.total = self.total + gap

    def sizes(self) -> Array:
        """Mean squared gap of single images, and that of the gap that is common to them, its mean."""
        common = np.square(self.total / self.images).mean()
        return np.array([self.squares / self.images, common])

    @staticmethod
    def of(wanted: Array, got: Array) -> Gaps:
        """Of outputs for several images, (N, ...) both."""
        found = Gaps()
        for one, other in zip(wanted, got, strict=True):
            found.add(one, other)
        return found


def roundings(found: Gaps, usual: Sequence[Gaps], most: float = MOST_ROUNDINGS) -> float:
    """How many times as far an int8 file is from its simulation as other roundings are, in root mean square.

    Args:
        found: the file's gaps.
        usual: those of every simulation that rounds otherwise.
        most: how many times are allowed.

    Raises:
        ExportError: it is more, so the file computes something else.
    """
    return _times(found, usual, 0, most)


def check_mean(found: Gaps, usual: Sequence[Gaps]) -> None:
    """Compare the mean gaps over many images: roundings nearly cancel in it, what is wrong does not.

    Raises:
        ExportError: the file's is larger than other roundings explain.
    """
    if np.size(found.total) * len(usual) >= LEAST_NUMBERS:
        _times(found, usual, 1, MOST_ROUNDINGS)


def _times(found: Gaps, usual: Sequence[Gaps], which: int, most: float) -> float:
    among = np.mean([one.sizes()[which] for one in usual])
    times = float(np.sqrt(found.sizes()[which]) / max(np.sqrt(among), NOTHING))
    if not times <= most:  # a NaN is not near either
        raise ExportError(
            f"the exported file does not answer as the network does on {found.images} images: it is "
            f"{times:.3g} times as far from the simulated int8 network as rounding explains, so it is broken; "
            "no file was kept; export for another runtime with --format"
        )
    return times


def int8_file(
    outputs: Callable[[Any, Tensor], tuple[Tensor, ...]], net: Any, session: Session,
    images: Tensor, quantized: Quantized, inputs: Callable[[Tensor], Array] | None = None,
) -> tuple[Array, dict[str, float]]:  # fmt: skip
    """Compare the numbers of an int8 file and its simulation on images, and on `probes` of their size.

    `inputs` gives images as the file takes them, where it takes them otherwise.

    Returns:
        The file's numbers for the images, (N, numbers); largest_difference, relative to the largest, and
        roundings, see there, both of the images.

    Raises:
        ExportError: the file is broken.
    """

    def compared(those: Tensor) -> tuple[Array, Array, tuple[Gaps, list[Gaps]]]:
        given = None if inputs is None else inputs(those)
        wanted, got = both(outputs, net, session, those, quantized, given)
        usual = [
            Gaps.of(wanted, numbers(outputs, other, those))
            for other in other_roundings(net, quantized, wanted.shape[1])
        ]
        return wanted, got, (Gaps.of(wanted, got), usual)

    wanted, got, gaps = compared(images)
    times = roundings(*gaps)
    check_mean(*gaps)
    roundings(*compared(probes(images, net.normalisation))[2], MOST_ON_PROBES)
    return got, {"largest_difference": largest_gap(wanted, got), "roundings": times}


def probes(images: Tensor, normalisation: Normalisation) -> Tensor:
    """Six pictures of the size of `images`, of any colors: noise, columns and rows. Normalised.

    On photos that are smooth or dark, a kernel that is transposed or a channel that is wrong may hardly show.
    """
    import torch

    from bneck.data.batches import normalise

    _, channels, height, width = images.shape
    rng = np.random.default_rng(0)
    pixels = np.empty((6, channels, height, width), np.uint8)
    for number, size in enumerate([(height, width), (1, width), (height, 1)] * 2):
        pixels[number] = rng.integers(0, 256, (channels, *size), np.uint8)
    return normalise(torch.from_numpy(pixels), normalisation)


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
