"""Annotated images as batches for a detector: decoded once, cropped by overlap, mirrored, recoloured."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bneck.data.batches import normalise
from bneck.data.depth import deep
from bneck.data.folders import DataError
from bneck.data.images import Pixels, read_ahead, read_stretched
from bneck.data.vary import recoloured, sample
from bneck.records.files import write_json
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.tasks.detect.boxes import Boxes, Labels
from bneck.tasks.detect.intake.coco import Annotated, Picture

Batch = tuple[Tensor, list[Boxes], list[Labels]]

MARGIN = 1.25  # stored side over the input's, so that crops do not blur
# A crop must cover one of the objects by at least this fraction; drawn again for each image.
COVERED = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
WHOLE = 0.15  # fraction of the images that stay as they are
AREA, ASPECT = (0.1, 1.0), (0.5, 2.0)  # of a crop: fraction of the image, width / height
TRIES = 50
LEAST_SHOWN = 0.3  # fraction of a box that a crop must show for the box to stay


@dataclass(frozen=True, slots=True)
class BoxAugment:
    """How training images are augmented: random crops by overlap (as the authors do), mirroring, colour.

    `colour` changes brightness, contrast and saturation by a factor from 1 - colour to 1 + colour.
    """

    crop: bool = True
    flip: bool = True
    colour: float = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A split's images, stretched to (N, 3, side, side) uint8 RGB, and its annotations."""

    images: Pixels
    annotated: Annotated


def store(
    annotated: Annotated, side: int, folder: Path, *, name: str,
    on_image: Callable[[int], None] | None = None,
) -> Stored:  # fmt: skip
    """Decode a split's images into `folder/NAME.u8`, or open the file if it holds them already.

    Raises:
        DataError: more than one image in a hundred cannot be read, or the folder cannot be written.
    """
    pixels, index = folder / f"{name}.u8", folder / f"{name}.json"
    fingerprint = _fingerprint(annotated, side)
    bad = _held(index, fingerprint) if pixels.is_file() else None
    if bad is None:
        bad = _write(annotated, side, pixels, on_image)
        write_json(index, {"fingerprint": fingerprint, "bad": {str(k): v for k, v in bad.items()}})
    kept = annotated.without(bad)
    shape = (len(kept.pictures), 3, side, side)
    return Stored(np.memmap(pixels, np.uint8, "r", shape=shape), kept)


def _held(index: Path, fingerprint: str) -> dict[int, str] | None:
    try:
        held = json.loads(index.read_text("utf-8"))
        bad = {int(key): str(reason) for key, reason in held["bad"].items()}
        return bad if held["fingerprint"] == fingerprint else None
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None


def _write(
    annotated: Annotated, side: int, path: Path, on_image: Callable[[int], None] | None
) -> dict[int, str]:
    bad: dict[int, str] = {}
    unfinished = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            for picture, pixels in _decoded(annotated, side):
                if isinstance(pixels, str):
                    bad[picture.id] = pixels
                else:
                    file.write(pixels.tobytes())
                if on_image:
                    on_image(1)
        os.replace(unfinished, path)
    except OSError as error:
        needed_mb = len(annotated.pictures) * 3 * side * side / 1e6
        raise DataError(
            f"the images cannot be stored in {path.parent}: {error.strerror or error}; they need "
            f"{max(1, round(needed_mb))} MB there: make room, or choose another folder"
        ) from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    annotated.without(bad)  # refuses too many
    return bad


def _decoded(annotated: Annotated, side: int) -> Iterator[tuple[Picture, Pixels | str]]:
    files = [deep(picture.path, annotated.bits) for picture in annotated.pictures]
    return zip(
        annotated.pictures, read_ahead(files, partial(read_stretched, side=side)), strict=True
    )


def _fingerprint(annotated: Annotated, side: int) -> str:
    digest = hashlib.sha256(repr((side, annotated.bits)).encode())
    for picture in annotated.pictures:
        state = picture.path.stat()
        told = (picture.id, str(picture.path), state.st_size, state.st_mtime_ns)
        digest.update(repr(told).encode())
    return digest.hexdigest()


def box_batches(
    stored: Stored, *, resolution: int, batch: int, augment: BoxAugment, seed: int, epoch: int,
    first: int = 0, normalisation: Normalisation = IMAGENET, share: tuple[int, int] = (0, 1),
    indices: npt.NDArray[np.int64] | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """Yield images (N, 3, resolution, resolution) float32 normalised, with every image's boxes and labels.

    Of the images of `indices`, all by default, in an order new each epoch, from batch `first` on; the
    last, incomplete batch is left out. How an image is augmented depends on (seed, epoch, index of the
    image) and on nothing else. Crowd boxes are left out. `share` (k, n) gives the k-th of n equal parts
    of every batch, for n processes.
    """
    chosen = np.arange(len(stored.images)) if indices is None else indices
    order = np.random.default_rng((seed, epoch, 0)).permutation(chosen)
    size = batch // share[1]
    for start in range(first * batch, len(order) - batch + 1, batch):
        part = order[start : start + batch][share[0] * size : (share[0] + 1) * size]
        yield varied(stored, part, resolution, augment, (seed, epoch), normalisation)


def varied(
    stored: Stored, indices: npt.NDArray[np.int64], resolution: int, augment: BoxAugment,
    seeds: tuple[int, int], normalisation: Normalisation = IMAGENET,
) -> Batch:  # fmt: skip
    """The images of `indices`, each augmented by random numbers of its own."""
    windows, factors = np.empty((len(indices), 4)), np.empty((len(indices), 3), np.float32)
    boxes, labels = [], []
    for i, index in enumerate(indices):
        rng = np.random.default_rng((*seeds, 1, int(index)))
        picture = stored.annotated.pictures[index]
        its_boxes, its_labels = picture.boxes[~picture.crowd], picture.labels[~picture.crowd]
        window = crop_window(its_boxes, rng) if augment.crop else np.array((0.0, 0.0, 1.0, 1.0))
        its_boxes, its_labels = cropped(its_boxes, its_labels, window)
        mirror = augment.flip and rng.random() < 0.5
        if mirror:
            its_boxes = its_boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + np.array((1, 0, 1, 0))
        left, top, right, bottom = window
        width = (left - right) if mirror else (right - left)
        windows[i] = (left + right - 1, top + bottom - 1, width, bottom - top)
        factors[i] = 1 + augment.colour * rng.uniform(-1, 1, 3)
        boxes.append(its_boxes.astype(np.float32))
        labels.append(its_labels)
    images = torch.from_numpy(stored.images[indices]).float()
    x, y, wide, high = torch.from_numpy(windows.astype(np.float32)).unbind(1)
    images = sample(images, (x, y, wide, high), resolution)
    if augment.colour:
        images = recoloured(images, torch.from_numpy(factors))
    return normalise(images, normalisation), boxes, labels


def crop_window(boxes: Boxes, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A random window (left, top, right, bottom), in normalized coordinates, for boxes (N, 4).

    As the authors crop: 15 % stay whole; else a fraction is drawn from `COVERED`, and the first of 50
    windows that covers one of the boxes by as much is taken. If none does, the image stays whole.
    Without boxes any window does.
    """
    whole = np.array((0.0, 0.0, 1.0, 1.0))
    if rng.random() < WHOLE:
        return whole
    least = max(COVERED[rng.integers(len(COVERED))], LEAST_SHOWN)
    area = rng.uniform(*AREA, TRIES)
    aspect = np.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1]), TRIES))
    width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
    place = rng.random((TRIES, 2))
    fits = (width <= 1) & (height <= 1)
    left, top = place[:, 0] * (1 - width), place[:, 1] * (1 - height)
    windows = np.stack((left, top, left + width, top + height), axis=1)[fits]
    if len(boxes):
        windows = windows[covered(boxes, windows).max(1) >= least]
    return windows[0] if len(windows) else whole


def covered(boxes: Boxes, windows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Fraction of every box (N, 4) that lies inside each of the windows (W, 4): (W, N)."""
    low = np.maximum(boxes[None, :, :2], windows[:, None, :2])
    high = np.minimum(boxes[None, :, 2:], windows[:, None, 2:])
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    shares: npt.NDArray[np.float64] = np.maximum(high - low, 0).prod(2) / sides.prod(1)
    return shares


def cropped(boxes: Boxes, labels: Labels, window: npt.NDArray[np.float64]) -> tuple[Boxes, Labels]:
    """Boxes and labels as a window shows them: cut at its edges, without what it hardly shows."""
    keep = covered(boxes, window[None])[0] >= LEAST_SHOWN
    size = np.tile(window[2:] - window[:2], 2)
    moved = (boxes[keep] - np.tile(window[:2], 2)) / size
    return np.clip(moved, 0, 1).astype(np.float32), labels[keep]


def eval_images(
    annotated: Annotated, *, resolution: int, batch: int, normalisation: Normalisation = IMAGENET
) -> Iterator[tuple[list[Picture], dict[int, str], Tensor]]:
    """Yield pictures that can be read, by id why others cannot, and the images of the former.

    Images are whole, stretched and normalised, (N, 3, resolution, resolution) float32, in order.
    """
    decoded = _decoded(annotated, resolution)
    while part := list(islice(decoded, batch)):
        good = [(picture, pixels) for picture, pixels in part if not isinstance(pixels, str)]
        bad = {picture.id: why for picture, why in part if isinstance(why, str)}
        stacked = np.array([p for _, p in good], np.uint8).reshape(-1, 3, resolution, resolution)
        images = normalise(torch.from_numpy(stacked), normalisation)
        yield [picture for picture, _ in good], bad, images
