"""A few images read whole and brought to one size, whatever they are annotated with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bneck.data.batches import normalise
from bneck.data.depth import FULL, Encoded, deep
from bneck.data.images import Pixels, read_stretched, read_whole
from bneck.specs.errors import InputError
from bneck.specs.normalisation import Normalisation

Size = tuple[int, int]


def read_images(
    files: Sequence[Path],
    size: Size,
    count: int,
    normalisation: Normalisation,
    *,
    bits: int = FULL,
) -> Tensor:
    """`count` images, spread evenly over the files, stretched to `size` and normalised: (N, 3, H, W).

    Those that cannot be read are left out.

    Raises:
        InputError: none can be read.
    """
    places = np.unique(np.linspace(0, len(files) - 1, min(count, len(files))).astype(int))
    read = (_stretched(deep(files[i], bits), size) for i in places)
    found = [pixels for pixels in read if not isinstance(pixels, str)]
    if not found:
        raise InputError(f"no image can be read, the first is {files[0]}; pass others with --data")
    return normalise(torch.from_numpy(np.stack(found)), normalisation)


def resized(values: Pixels, size: Size, *, nearest: bool = False) -> Pixels:
    """An image (bilinear, antialiased) or a mask (nearest) at (height, width)."""
    if values.shape[:2] == size:
        return values
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), how))


def _stretched(file: Encoded, size: Size) -> Pixels | str:
    if size[0] == size[1]:
        return read_stretched(file, size[0])
    whole = read_whole(file)
    return whole if isinstance(whole, str) else resized(whole, size).transpose(2, 0, 1)
