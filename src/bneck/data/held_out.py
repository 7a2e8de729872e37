"""Which train images a search holds out where images have no single class to balance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bneck.data.folders import DataError

MOST = 1000  # images that judge a proposal: enough to tell proposals apart, and judged in seconds

Indices = npt.NDArray[np.int64]


def held_out(indices: Indices, share: float, seed: int) -> tuple[Indices, Indices]:
    """Indices to fit on and those held out, each ascending: a random share, at least one, at most 1,000.

    Raises:
        DataError: fewer than two images.
    """
    if len(indices) < 2:
        raise DataError(
            f"there are {len(indices)} images to train on; a search holds some out, add images"
        )
    count = min(MOST, max(1, round(share * len(indices))))
    mixed = np.random.default_rng((seed, 2)).permutation(indices)
    return np.sort(mixed[count:]), np.sort(mixed[:count])
