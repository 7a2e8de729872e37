"""From stored images to normalised float batches, augmented for training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bneck.data.folders import DataError, held_out
from bneck.data.pack import Split
from bneck.data.stream import Stream, ahead
from bneck.data.vary import Augment, Plan, distorted, recoloured
from bneck.specs.normalisation import IMAGENET, Normalisation

CPU = torch.device("cpu")
_DRAWS = 8  # random numbers an image gets: area, aspect, x, y, flip, and three of colour
_PIECE = 16  # images worked on at a time; 128 at once leave the cache and take twice as long


class Images(Protocol):
    """A split's images, wherever they are, as training and evaluation see them.

    Both methods give pixels from 0 to 255 as (N, 3, resolution, resolution) floats on `device`, and
    (N,) labels; a label of -100 says that the image could not be read.
    """

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) class indices."""

    def crops(
        self, indices: npt.NDArray[np.int64], draws: npt.NDArray[np.float32], plan: Plan
    ) -> tuple[Tensor, Tensor]:
        """Random crops, mirrored or not, as `draws` (N, 5) from 0 to 1 say."""

    def centres(
        self, indices: npt.NDArray[np.int64], resolution: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Central crops of 87.5 % of the shorter side."""


def normalise(images: Tensor, normalisation: Normalisation = IMAGENET) -> Tensor:
    """(N, 3, H, W) uint8 RGB to float32 with a network's mean and spread, ImageNet's by default."""
    return _normalised(images.float(), normalisation)


def train_batches(
    split: Images,
    indices: npt.NDArray[np.int64],
    *,
    resolution: int,
    batch: int,
    augment: Augment,
    seed: int,
    epoch: int,
    first: int = 0,
    share: tuple[int, int] = (0, 1),
    drop_last: bool = True,
    normalisation: Normalisation = IMAGENET,
    device: torch.device = CPU,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (N, 3, resolution, resolution) float32 and (N,) int64 in an order new each epoch.

    How an image is varied depends on (seed, epoch, index of the image) and on nothing else.
    `first` is the batch to begin with. `share` (k, n) gives the k-th of n equal parts of every batch,
    for n processes that work on one batch together. `drop_last` leaves out the last batch where it
    would be smaller than the others.

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
    rows = int(order.max()) + 1
    draws = np.random.default_rng((seed, epoch, 1)).random((rows, _DRAWS), np.float32)
    colours = None
    if augment.distort != "none":
        colours = np.random.default_rng((seed, epoch, 2)).random((rows, 5), np.float32)
    end = len(order) - len(order) % batch if drop_last else len(order)
    plan = Plan(augment, resolution, (seed, epoch), device)
    size = batch // share[1]
    parts = (
        order[start : start + batch][share[0] * size : (share[0] + 1) * size]
        for start in range(first * batch, end, batch)
    )
    made = (_varied(split, part, draws, colours, plan, normalisation) for part in parts)
    return ahead(made) if isinstance(split, Stream) else made


def _varied(
    split: Images,
    part: npt.NDArray[np.int64],
    draws: npt.NDArray[np.float32],
    colours: npt.NDArray[np.float32] | None,
    plan: Plan,
    normalisation: Normalisation,
) -> tuple[Tensor, Tensor]:
    pieces, labels = [], []
    whole = isinstance(split, Stream) or plan.device.type != "cpu"
    size = len(part) if whole else _PIECE
    for start in range(0, len(part), size):
        piece = part[start : start + size]
        numbers = draws[piece]
        images, its_labels = split.crops(piece, numbers[:, :5], plan)
        if plan.augment.colour:
            factors = 1 + plan.augment.colour * (2 * torch.from_numpy(numbers[:, 5:]) - 1)
            images = recoloured(images, factors.to(plan.device))
        if colours is not None:
            images = distorted(images, colours[piece], plan.augment.distort)
        pieces.append(_normalised(images, normalisation))
        labels.append(its_labels)
    if len(pieces) == 1:
        return pieces[0], labels[0]  # torch.cat would copy it
    return torch.cat(pieces), torch.cat(labels)


def eval_batches(
    split: Images,
    indices: npt.NDArray[np.int64],
    *,
    resolution: int,
    batch: int,
    normalisation: Normalisation = IMAGENET,
    device: torch.device = CPU,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the central crops as (N, 3, resolution, resolution) float32, with (N,) int64 labels.

    In the order of `indices`; the last batch may be smaller. Images that cannot be read are left out.

    Raises:
        DataError: at the call, for sizes or indices that cannot be.
    """
    _check(split, indices, resolution, batch)
    if isinstance(split, Split) and resolution > split.images.shape[-1]:
        raise DataError(
            f"the stored images have side {split.images.shape[-1]}, less than resolution {resolution}; "
            f"pack them again at resolution {resolution}"
        )
    parts = (indices[start : start + batch] for start in range(0, len(indices), batch))
    made = (_central(split, part, resolution, normalisation, device) for part in parts)
    return ahead(made) if isinstance(split, Stream) else made


def _central(
    split: Images,
    part: npt.NDArray[np.int64],
    resolution: int,
    normalisation: Normalisation,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    images, labels = split.centres(part, resolution, device)
    readable = labels >= 0
    if not readable.all():
        images, labels = images[readable], labels[readable]
    return _normalised(images, normalisation), labels


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


def _check(split: Images, indices: npt.NDArray[np.int64], resolution: int, batch: int) -> None:
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
    mean, std = _mean_and_std(normalisation, images.device)
    return images.sub_(mean).div_(std)


def _mean_and_std(normalisation: Normalisation, device: torch.device) -> tuple[Tensor, Tensor]:
    values = torch.tensor((normalisation.mean, normalisation.std), device=device) * 255
    return values[0].view(3, 1, 1), values[1].view(3, 1, 1)


def as_pixels(images: Tensor, normalisation: Normalisation) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Normalised images (N, C, H, W) back to the pixels that they were, (N, H, W, C) uint8."""
    mean, std = _mean_and_std(normalisation, images.device)
    pixels = (images * std + mean).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()
