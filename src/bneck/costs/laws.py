"""What the rows of one shape take at any widths: a law of few terms, fitted to a few measured rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from bneck.specs.rows import squeeze_of_input, squeeze_width

Array = npt.NDArray[np.float64]
Axis = npt.NDArray[np.int64]

BLOCK = 16  # channels that a vector unit usually takes at once; the calibration says how far
WIDE = 4 * BLOCK  # channels that a kernel puts out at once where there are as many
DAMPING = 1e-3  # keeps terms that the measured rows cannot tell apart from running away


class Law:
    """Milliseconds of the rows of one shape.

    A row's layers run one after another, so its time is a sum of parts that grow with its widths: a
    constant, a part for every width (what is read, the depthwise convolution), and one for the
    product of every two neighbors (a pointwise convolution), as widths and in whole `WIDE` blocks.
    What is narrower than a block may cost something of its own. Relative errors are least among the
    rows above the mean, absolute ones below: so near nothing there is more noise of the clock than row.

    Args:
        known: measured milliseconds by widths, at least of one row.
        rounding: how far a width costs as much as the next multiple of `BLOCK`: 0 not at all, 1 fully.
        se: the rows' squeeze width, as in `costs.table.RowShape`.
    """

    def __init__(
        self, known: Mapping[tuple[int, ...], float], rounding: float, *, se: str = ""
    ) -> None:
        from scipy.optimize import nnls  # not there without the extra that measures

        self.rounding, self.se = rounding, se
        widths, ms = np.array(list(known)), np.array(list(known.values()))
        terms = self._terms(list(widths.T))
        weights = 1 / np.maximum(ms, max(float(ms.mean()), 1e-9))
        design = terms * weights[:, None]
        scale = np.maximum(np.abs(design).max(axis=0), 1e-12)
        damped = np.concatenate([design / scale, DAMPING**0.5 * np.eye(len(scale))])
        aims = np.concatenate([ms * weights, np.zeros(len(scale))])
        self._factors: Array = nnls(damped, aims)[0] / scale

    def __call__(self, axes: Sequence[Axis]) -> Array:
        """Milliseconds at widths, an array an axis, which are broadcast against each other."""
        found: Array = self._terms(axes) @ self._factors
        return found

    def _terms(self, axes: Sequence[Axis]) -> Array:
        widths = [width + self.rounding * (_up(width, BLOCK) - width) for width in axes]
        wide = [_up(width, WIDE) for width in axes]
        terms: list[Any] = [1.0, *widths, *(width < BLOCK for width in axes)]
        for (a, b), (_, wide_b) in zip(pairwise(widths), pairwise(wide), strict=True):
            terms += [a * b, a * wide_b]
        if self.se:
            squeezed = _squeezed(self.se, axes)
            terms += [squeezed, squeezed * widths[-2]]
        return np.stack(np.broadcast_arrays(*terms), axis=-1).astype(np.float64)


def _up(width: Any, block: int) -> Any:
    return -(-width // block) * block


def _squeezed(se: str, axes: Sequence[Axis]) -> Any:
    """Squeeze widths, by the rule of a shape's `se`."""
    rules: dict[str, tuple[Callable[[int], int], Axis]] = {
        "quarter": (squeeze_width, axes[-2]),
        "input": (squeeze_of_input, axes[0]),
    }
    if se not in rules:
        return int(se)
    rule, of = rules[se]
    return np.vectorize(rule, otypes=[np.int64])(of)
