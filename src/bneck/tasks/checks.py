"""How near an exported file must come to its module, and the error of one that does not."""

from __future__ import annotations

from bneck.specs.errors import InputError

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
