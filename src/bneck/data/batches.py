"""From stored images to normalised float batches, augmented for training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from bneck.data.folders import DataError, held_out
from bneck.data.images import Pixels
from bneck.data.pack import Split
from bneck.specs.normalisation import IMAGENET, Normalisation

_GREY = (0.299, 0.587, 0.114)  # Rec. 601
_DRAWS = 8  # random numbers an image gets: area, aspect, x, y, flip, and three of colour
_PIECE = 16  # images worked on at a time; 128 at once leave the cache and take twice as long


@dataclass(frozen=True, slots=True)
class Augment:
    """How training images are varied.

    `area` is the range of the crop's share of the image, `aspect` that of its width / height (what
    sticks out of the image is cut off), `flip` mirrors every second image, `colour` changes
    brightness, contrast and saturation by a factor from 1 - colour to 1 + colour each.
    """

    area: tuple[float, float] = (0.35, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    colour: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise DataError(f"area is {self.area}; it must be two shares, 0 < low <= high <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise DataError(f"aspect is {self.aspect}; it must be two ratios, 0 < low <= high")
        if not 0 <= self.colour <= 1:
            raise DataError(f"colour is {self.colour!r}; it must be from 0 to 1")


def normalise(images: Tensor, normalisation: Normalisation = IMAGENET) -> Tensor:
    """(N, 3, H, W) uint8 RGB to float32 with a network's mean and spread, ImageNet's by default."""
    return _normalised(images.float(), normalisation)


def train_batches(
    split: Split,
    indices: npt.NDArray[np.int64],
    *,
    resolution: int,
    batch: int,
    augment: Augment,
    seed: int,
    epoch: int,
    drop_last: bool = True,
    normalisation: Normalisation = IMAGENET,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (N, 3, resolution, resolution) float32 and (N,) int64 in an order new each epoch.

    How an image is varied depends on (seed, epoch, index of the image) and on nothing else.
    `drop_last` leaves out the last batch where it would be smaller than the others.

    Raises:
        DataError: at the call, for sizes or indices that cannot be.
    """
    _check(split, indices, resolution, batch)
    if seed < 0 or epoch < 0:
        raise DataError(f"seed is {seed} and epoch {epoch}; both must be 0 or more")
    if drop_last and len(indices) < batch:
        raise DataError(
            f"{len(indices)} images do not fill one batch of {batch}; take a smaller batch"
        )
    order = np.random.default_rng((seed, epoch, 0)).permutation(indices)
    # Row i belongs to image i, however many rows there are.
    draws = np.random.default_rng((seed, epoch, 1)).random(
        (int(order.max()) + 1, _DRAWS), np.float32
    )
    end = len(order) - len(order) % batch if drop_last else len(order)
    parts = (order[start : start + batch] for start in range(0, end, batch))
    return (
        (
            _augmented(split.images[part], draws[part], resolution, augment, normalisation),
            torch.from_numpy(split.labels[part]),
        )
        for part in parts
    )


def eval_batches(
    split: Split,
    indices: npt.NDArray[np.int64],
    *,
    resolution: int,
    batch: int,
    normalisation: Normalisation = IMAGENET,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the central crops as (N, 3, resolution, resolution) float32, with (N,) int64 labels.

    In the order of `indices`; the last batch may be smaller.

    Raises:
        DataError: at the call, for sizes or indices that cannot be.
    """
    _check(split, indices, resolution, batch)
    side = split.images.shape[-1]
    if resolution > side:
        raise DataError(
            f"the stored images have side {side}, less than resolution {resolution}; pack them "
            f"again at resolution {resolution}"
        )
    inside = slice((side - resolution) // 2, (side - resolution) // 2 + resolution)
    parts = (indices[start : start + batch] for start in range(0, len(indices), batch))
    return (
        (
            normalise(torch.from_numpy(split.images[part][:, :, inside, inside]), normalisation),
            torch.from_numpy(split.labels[part]),
        )
        for part in parts
    )


def holdout(
    labels: npt.NDArray[np.int64], share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices (to fit on, held out), each ascending; `share` of every class is held out.

    At least one image of a class is held out and one is fitted on; a single one is fitted on.

    Raises:
        DataError: `share` is not between 0 and 1, or no class has two images.
    """
    if not 0 < share < 1:
        raise DataError(f"share is {share!r}; it must be above 0 and below 1")
    if seed < 0:
        raise DataError(f"seed is {seed}; it must be 0 or more")
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rng = np.random.default_rng((seed, int(label)))
        held[rng.permutation(members)[: held_out(len(members), share)]] = True
    if not held.any():
        raise DataError("no class has two images, so none can be held out; add images")
    return np.flatnonzero(~held), np.flatnonzero(held)


def _check(split: Split, indices: npt.NDArray[np.int64], resolution: int, batch: int) -> None:
    for name, value in (("resolution", resolution), ("batch", batch)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DataError(f"{name} is {value!r}; it must be a whole number of at least 1")
    count = len(split.labels)
    if not len(indices):
        raise DataError("there are no indices; give those of at least one image")
    if indices.min() < 0 or indices.max() >= count:
        raise DataError(
            f"the indices go from {indices.min()} to {indices.max()}; there are {count} images, so "
            f"they must be from 0 to {count - 1}"
        )


def _normalised(images: Tensor, normalisation: Normalisation) -> Tensor:
    """In place, for pixels from 0 to 255."""
    mean = torch.tensor(normalisation.mean, device=images.device).view(3, 1, 1) * 255
    std = torch.tensor(normalisation.std, device=images.device).view(3, 1, 1) * 255
    return images.sub_(mean).div_(std)


def _augmented(
    images: Pixels,
    draws: npt.NDArray[np.float32],
    resolution: int,
    augment: Augment,
    normalisation: Normalisation,
) -> Tensor:
    pieces = []
    for start in range(0, len(images), _PIECE):
        piece = torch.from_numpy(images[start : start + _PIECE]).float()
        numbers = torch.from_numpy(draws[start : start + _PIECE])
        piece = _cropped(piece, numbers[:, :5], resolution, augment)
        if augment.colour:
            piece = recoloured(piece, 1 + augment.colour * (2 * numbers[:, 5:] - 1))
        pieces.append(_normalised(piece, normalisation))
    return torch.cat(pieces)


def _cropped(images: Tensor, draws: Tensor, resolution: int, augment: Augment) -> Tensor:
    """One crop an image, its edges between pixels, resized bilinearly; (N, 3, H, W) floats."""
    area, aspect, x, y, flip = draws.unbind(1)
    area = augment.area[0] + (augment.area[1] - augment.area[0]) * area
    low, high = np.log(augment.aspect)
    aspect = torch.exp(low + (high - low) * aspect)
    # Sizes as shares of the image; centres from -1 to 1, as grid_sample has them.
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    centre_x, centre_y = (1 - width) * (2 * x - 1), (1 - height) * (2 * y - 1)
    if augment.flip:
        width = torch.where(flip < 0.5, -width, width)
    return sample(images, (centre_x, centre_y, width, height), resolution)


def sample(
    images: Tensor, windows: tuple[Tensor, Tensor, Tensor, Tensor], resolution: int
) -> Tensor:
    """Windows of (N, 3, H, W) floats, resized bilinearly to (N, 3, resolution, resolution).

    `windows` are centre x, centre y, width and height, (N,) each: centres from -1 to 1, sizes as shares
    of the image. A negative width mirrors.
    """
    centre_x, centre_y, width, height = windows
    steps = (2 * torch.arange(resolution) + 1) / resolution - 1
    columns = centre_x[:, None] + width[:, None] * steps
    rows = centre_y[:, None] + height[:, None] * steps
    shape = (len(images), resolution, resolution)
    grid = torch.stack((columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)), dim=3)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def recoloured(images: Tensor, factors: Tensor) -> Tensor:
    """Apply (N, 3) factors of brightness, contrast and saturation to pixels from 0 to 255."""
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    images = (images * brightness).clamp_(0, 255)
    average = _grey(images).mean(dim=(2, 3), keepdim=True)
    images = torch.lerp(average, images, contrast).clamp_(0, 255)
    return torch.lerp(_grey(images), images, saturation).clamp_(0, 255)


def _grey(images: Tensor) -> Tensor:
    weights = torch.tensor(_GREY).view(3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)
