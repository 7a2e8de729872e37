"""How an exported classifier compares with its module."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from bneck.data.batches import as_pixels
from bneck.nets.quantize import Quantized
from bneck.tasks.checks import Array, ExportError, both, int8_file, largest_gap, near, numbers

if TYPE_CHECKING:
    from bneck.devices.runtimes import Session


def compare(
    net: Any, session: Session, images: Tensor, quantized: Quantized | None, precision: str,
    options: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """Run a file and the module on real images, one by one as a device would.

    Returns:
        images; label_agreement, the fraction with the same best class; largest_difference of scores,
        relative to the largest score. An int8 file's labels are compared with the float module's, its
        scores with those of its simulation, see `checks.int8_file`; `chance` is that of a guess.

    Raises:
        ExportError: in fp32 a label differs, or a score by more than 1e-4 of the largest; in fp16 a
            score by a hundredth; in int8 scores by more than rounding explains.
    """
    inputs = None
    if session.metadata.get("input") == "pixels":
        inputs = partial(as_pixels, normalisation=net.normalisation)
    if quantized:
        got, found = int8_file(_scores, net, session, images, quantized, inputs)
        agreement = _agreement(numbers(_scores, net.eval(), images), got)
        return {
            "images": len(images), "label_agreement": agreement, **found, "chance": 1 / got.shape[1],
        }  # fmt: skip
    given = None if inputs is None else inputs(images)
    wanted, got = both(_scores, net, session, images, None, given)
    largest, agreement = largest_gap(wanted, got), _agreement(wanted, got)
    if not near(largest, precision) or (precision == "fp32" and agreement < 1):
        raise ExportError(
            f"the exported file does not answer as the network does on {len(images)} images: labels agree "
            f"on {agreement:.1%}, scores differ by {largest:.2g} of the largest; no file was kept"
        )
    return {"images": len(images), "label_agreement": agreement, "largest_difference": largest}


def _scores(module: Any, images: Tensor) -> tuple[Tensor, ...]:
    return (module(images),)


def _agreement(wanted: Array, got: Array) -> float:
    return float((got.argmax(1) == wanted.argmax(1)).mean())
