"""Calibrating a detector or a segmenter, and the images for it and for checking its file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from bneck.data.images import Encoded, Pixels, read_stretched, read_whole
from bneck.data.scenes import resized
from bneck.data.sources import Source
from bneck.graphs.forms import form
from bneck.nets.calibrate import calibrate
from bneck.nets.quantize import Quantized
from bneck.nets.quantize_heads import AnyNet
from bneck.recipes.pictures import spread_images
from bneck.recipes.progress import Progress
from bneck.specs.normalisation import Normalisation

CALIBRATING = 128  # images at most
LEAST, ALL_NUMBERS = 8, 1 << 27  # images at least, and numbers of all images beyond that: 0.5 GB
NUMBERS = 1 << 23  # of images at most in a batch: 32 MB; activations are some ten times as much


def read_images(
    source: Source, size: tuple[int, int], count: int, normalisation: Normalisation
) -> Tensor:
    """`count` images, spread evenly over the source, stretched to `size`, normalised: (N, 3, H, W).

    Fewer where they are large (21 of 1024 x 2048 pixels); those that cannot be read
    are left out.

    Raises:
        InputError: none can be read.
    """
    count = min(count, max(LEAST, ALL_NUMBERS // (3 * size[0] * size[1])))
    return spread_images(source, partial(_stretched, size=size), count, normalisation)


def _stretched(file: Encoded, size: tuple[int, int]) -> Pixels | str:
    if size[0] == size[1]:
        return read_stretched(file, size[0])
    whole = read_whole(file)
    return whole if isinstance(whole, str) else resized(whole, size).transpose(2, 0, 1)


def calibrated(net: AnyNet, images: Tensor, runtime_name: str, progress: Progress) -> Quantized:
    """A net in 8 bits, post-training, in a runtime's form.

    Raises:
        InputError: fewer than 8 images, or the runtime knows no 8 bits.
    """
    hswish = form(runtime_name, "int8")
    progress.stage("calibrating", len(images))
    return calibrate(net, batches(images, progress), hswish)


def batches(images: Tensor, progress: Progress) -> Iterator[Tensor]:
    """Images in batches that fit into memory with what is made of them."""
    for batch in torch.split(images, max(1, min(16, NUMBERS // images[0].numel()))):
        yield batch
        progress.advance(len(batch))
