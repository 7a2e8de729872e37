"""How an exported classifier compares with its module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from bneck.data.batches import as_pixels
from bneck.nets.quantize import Quantized
from bneck.tasks.checks import ExportError, apart, both

if TYPE_CHECKING:
    from bneck.devices.runtimes import Session


def compare(
    net: Any, session: Session, images: Tensor, quantized: Quantized | None, precision: str,
    options: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """Run a file and the module on real images, one by one as a device would.

    Returns:
        images; label_agreement, the fraction with the same best class; largest_difference of scores,
        relative to the largest score. An int8 file is compared with its simulation.

    Raises:
        ExportError: in fp32 a label differs, or a score by more than 1e-4 of the largest; in fp16 a
            score by a hundredth; in int8 the root mean square of the scores by a tenth.
    """
    takes_pixels = session.metadata.get("input") == "pixels"
    inputs = as_pixels(images, net.normalisation) if takes_pixels else None
    wanted, got = both(lambda module, x: (module(x),), net, session, images, quantized, inputs)
    largest, near = apart(wanted, got, precision)
    agreement = float((got.argmax(1) == wanted.argmax(1)).mean())
    if not near or (precision == "fp32" and agreement < 1):
        raise ExportError(
            f"the exported file does not answer as the network does on {len(images)} images: labels agree "
            f"on {agreement:.1%}, scores differ by {largest:.2g} of the largest; no file was kept"
        )
    return {"images": len(images), "label_agreement": agreement, "largest_difference": largest}
