"""A few images read whole and brought to one size, whatever they are annotated with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    read = (_stretched(deep(files[i], bits), size) for i in spread(len(files), count))
    found = [pixels for pixels in read if not isinstance(pixels, str)]
    if not found:
        raise InputError(f"no image can be read, the first is {files[0]}; pass others with --data")
    return normalise(torch.from_numpy(np.stack(found)), normalisation)


def spread(there: int, count: int) -> list[int]:
    """At most `count` indices from 0 to below `there`, evenly."""
    return [int(i) for i in np.linspace(0, there - 1, min(count, there))]


def evenly(there: int, count: int, by_class: Mapping[str, Sequence[int]]) -> list[int]:
    """At most `count` indices from 0 to below `there`, as many of each class as it has and the count allows.

    `by_class` has those of each class, which may share some; {} spreads over all.

    >>> evenly(9, 4, {"many": [0, 1, 2, 3, 4, 5, 6], "few": [7, 8]})
    [0, 6, 7, 8]
    """
    if there <= count:
        return list(range(there))
    if not by_class:
        return spread(there, count)

    def chosen(each: int) -> list[int]:
        parts = (spread(len(those), each) for those in by_class.values())
        pairs = zip(by_class.values(), parts, strict=True)
        return list(dict.fromkeys(those[i] for those, part in pairs for i in part))

    each = 0
    while len(more := chosen(each + 1)) <= count and each < there:
        each += 1
    found = chosen(each)
    rest = [index for index in more if index not in set(found)]
    return sorted(found + [rest[i] for i in spread(len(rest), count - len(found))])


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
