"""Images to calibrate and check a detector's or a segmenter's file with: the run's own, or a folder's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.data.batches import normalise
from bneck.data.coco import find_annotations, read_coco
from bneck.data.folders import SUFFIXES
from bneck.data.images import Pixels, read_stretched, read_whole
from bneck.data.pairs import list_pairs
from bneck.data.scenes import resized
from bneck.graphs.forms import form
from bneck.nets.build import WrappedNet
from bneck.nets.calibrate import calibrate
from bneck.nets.quantize import Quantized
from bneck.recipes.progress import Progress
from bneck.specs.errors import InputError
from bneck.specs.normalisation import Normalisation

CALIBRATING = 128  # images at most
LEAST, ALL_NUMBERS = 8, 1 << 27  # images at least, and numbers of all images beyond that: 0.5 GB
NUMBERS = 1 << 23  # of images at most in a batch: 32 MB; activations are some ten times as much


def run_images(record: dict[str, Any], split: str, data: str | Path | None) -> list[Path]:
    """The image files of a run's split; of all pictures below `data` where that is given.

    Raises:
        InputError: no such data, or no pictures there.
    """
    settings = record["settings"]
    if data is not None:
        root = Path(data)
        found = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise InputError(f"{root} has no pictures; give a folder of pictures by --data")
        return found
    root = Path(settings["data"])
    if record["kind"] == "detect":
        beside = None if settings["images"] is None else Path(settings["images"])
        annotated = read_coco(find_annotations(root, (split,))[split], images=beside)
        return [picture.path for picture in annotated.pictures]
    classes = Path(settings["classes"]) if settings["classes"] else None
    scenery = list_pairs(root, classes=classes, ignore=settings["ignore"], seed=settings["seed"])
    return [pair.image for pair in scenery.split(split)]


def read_images(
    files: Sequence[Path], size: tuple[int, int], count: int, normalisation: Normalisation
) -> Tensor:
    """`count` images, spread evenly over the files, stretched to `size` and normalised: (N, 3, H, W).

    Fewer where they are large (21 of 1024 x 2048 pixels); those that cannot be read
    are left out.

    Raises:
        InputError: none can be read.
    """
    count = min(count, len(files), max(LEAST, ALL_NUMBERS // (3 * size[0] * size[1])))
    places = np.unique(np.linspace(0, len(files) - 1, count).astype(int))
    read = (_stretched(files[i], size) for i in places)
    found = [pixels for pixels in read if not isinstance(pixels, str)]
    if not found:
        raise InputError(f"no image can be read, the first is {files[0]}; give others by --data")
    return normalise(torch.from_numpy(np.stack(found)), normalisation)


def _stretched(file: Path, size: tuple[int, int]) -> Pixels | str:
    if size[0] == size[1]:
        return read_stretched(file, size[0])
    whole = read_whole(file)
    return whole if isinstance(whole, str) else resized(whole, size).transpose(2, 0, 1)


def calibrated(net: WrappedNet, images: Tensor, runtime_name: str, progress: Progress) -> Quantized:
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
