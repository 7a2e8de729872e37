"""Image-mask pairs, read when asked for; crops for training, whole images for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from bneck.data.batches import normalise
from bneck.data.depth import FULL, deep
from bneck.data.folders import DataError
from bneck.data.images import Pixels, read_whole
from bneck.data.memory import room
from bneck.data.read import Size, resized
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.tasks.segment.intake.matching import Pair
from bneck.tasks.segment.masks import IGNORED, Labels, read_mask

STEP = 0.25  # between scales
SETS = 2  # that a training run or a search has at once: train, and what is scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Vary:
    """How training pairs are augmented: the protocol of the DeepLab line (6.4).

    A scale is drawn from `scales` (low, high) in steps of 0.25, then a crop; what the crop reaches
    beyond the image is the mean colour and ignored. `flip` mirrors every second one.
    """

    scales: tuple[float, float] = (0.5, 2.0)
    flip: bool = True

    def scale(self, share: float) -> float:
        """The scale for a random number from 0 to below 1."""
        low, high = self.scales
        return low + STEP * int(share * (int((high - low) / STEP + 1e-9) + 1))


@dataclass(frozen=True, slots=True)
class Survey:
    """What all masks of a split hold: pixels of every class, and the pairs where all is ignored."""

    pixels: npt.NDArray[np.int64]
    empty: tuple[int, ...]

    def weights(self) -> tuple[float, ...]:
        """Class weights: the median class's pixels over each class's; 0 where there are none."""
        seen = self.pixels[self.pixels > 0]
        middle = float(np.median(seen)) if len(seen) else 1.0
        return tuple(middle / float(n) if n else 0.0 for n in self.pixels)


class Scenes:
    """The pairs of a split. Decoded pairs stay in memory until they fill `kept_bytes`.

    `size` is the (height, width) in pixels that images are brought to; None leaves them as they are.
    `whole_masks` leaves masks at their own size where images are resized, for validation.
    `kept_bytes` of None is `data.memory.room` for two sets in one process. `bits` are those of values of
    more than 8 bits.
    """

    def __init__(
        self, pairs: Sequence[Pair], labels: Labels, *, size: Size | None = None,
        whole_masks: bool = False, kept_bytes: int | None = None, bits: int = FULL,
    ) -> None:  # fmt: skip
        self.pairs = tuple(pairs)
        self.labels = labels
        self.size = size
        self.whole_masks = whole_masks
        self.bits = bits
        self._kept: dict[int, tuple[Pixels, Pixels]] = {}
        self.kept_bytes = room(SETS, 1) if kept_bytes is None else kept_bytes
        self._room = self.kept_bytes

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8 of class numbers.

        Raises:
            DataError: a file cannot be read or does not fit the other, or the labels.
        """
        if index in self._kept:
            return self._kept[index]
        pair = self.pairs[index]
        image = read_whole(deep(pair.image, self.bits))
        if isinstance(image, str):
            raise DataError(
                f"image {pair.image} cannot be read: {image}; replace it or delete the pair"
            )
        mask = read_mask(pair.mask, self.labels, size=image.shape[:2], turn=pair.turn)
        if self.size is not None:
            image = resized(image, self.size)
            mask = mask if self.whole_masks else resized(mask, self.size, nearest=True)
        self._room -= image.nbytes + mask.nbytes
        if self._room >= 0:
            self._kept[index] = image, mask
        return image, mask

    def survey(self, on_scene: Callable[[int], None] | None = None) -> Survey:
        """Read every pair once; `on_scene` is called with 1 after each.

        Raises:
            DataError: a bad file, nothing but ignored pixels everywhere, or next to them one class of several.
        """
        classes = len(self.labels.names)
        pixels, empty, ignored = np.zeros(classes, np.int64), [], 0
        for index in range(len(self)):
            counts = np.bincount(self.read(index)[1].ravel(), minlength=256)
            found, ignored = counts[:classes], ignored + int(counts[IGNORED])
            pixels += found
            if not found.any():
                empty.append(index)
            if on_scene:
                on_scene(1)
        if len(empty) == len(self):
            raise DataError(
                f"all pixels of all {len(self)} masks are ignored (the first is {self.pairs[0].mask}); check "
                "the class list and --ignore"
            )
        if (
            classes > 1 and (pixels > 0).sum() == 1
        ):  # as objects that are ignored, or in alpha alone
            only = self.labels.names[int(pixels.argmax())]
            either = "ignored or " if ignored else ""
            raise DataError(
                f"all pixels of all {len(self)} masks are {either}of the class {only!r}, so there is nothing "
                f"to learn (the first is {self.pairs[0].mask}); check the masks, the class list and --ignore"
            )
        return Survey(pixels, tuple(empty))


def crop_batches(
    scenes: Scenes, indices: npt.NDArray[np.int64], *, crop: Size, batch: int, vary: Vary,
    seed: int, epoch: int, first: int = 0, share: tuple[int, int] = (0, 1),
    normalisation: Normalisation = IMAGENET,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """Yield (N, 3, *crop) float32 and (N, *crop) int64 in an order new each epoch.

    From batch `first` on; the last, incomplete one is dropped. How a pair is augmented depends on (seed,
    epoch, its index) and on nothing else. `share` (k, n) gives the k-th of n equal parts of every batch.

    Raises:
        DataError: fewer pairs than a batch, or a bad file.
    """
    if len(indices) < batch:
        raise DataError(
            f"{len(indices)} images do not fill one batch of {batch}; choose a smaller --batch"
        )
    order = np.random.default_rng((seed, epoch, 0)).permutation(indices)
    size = batch // share[1]
    for start in range(first * batch, len(order) - batch + 1, batch):
        images, masks = [], []
        for i in order[start : start + batch][share[0] * size : (share[0] + 1) * size].tolist():
            rng = np.random.default_rng((seed, epoch, 1, i))
            image, mask = _varied(*scenes.read(i), crop, vary, rng)
            images.append(image)
            masks.append(mask)
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        yield normalise(pixels, normalisation), torch.from_numpy(np.stack(masks)).long()


def as_batch(image: Pixels, normalisation: Normalisation = IMAGENET) -> Tensor:
    """An image (H, W, 3) uint8 as a batch of one, normalised: (1, 3, H, W) float32."""
    pixels = torch.from_numpy(image.copy())[None].permute(0, 3, 1, 2)
    return normalise(pixels, normalisation).contiguous()


def _varied(
    image: Pixels, mask: Pixels, crop: Size, vary: Vary, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Scale, crop, pad, flip; resized by the crop's own box, so that nothing else is computed."""
    draws = rng.random(4)
    scale = vary.scale(draws[0])
    spans, inner = [], []  # per side, down and right: what of the image is seen, and how large
    for side, want, draw in zip(mask.shape, crop, draws[1:3], strict=True):
        after = max(1, round(side * scale))
        part = min(after, want)
        start, share = int(draw * (after - part + 1)), side / after
        spans.append((start * share, min((start + part) * share, side)))
        inner.append(part)
    (top, bottom), (left, right) = spans
    box, into, how = (left, top, right, bottom), (inner[1], inner[0]), Image.Resampling
    colours = np.full((*crop, 3), [round(255 * m) for m in IMAGENET.mean], np.uint8)
    numbers = np.full(crop, IGNORED, np.uint8)
    inside = np.s_[: inner[0], : inner[1]]
    colours[inside] = np.asarray(Image.fromarray(image).resize(into, how.BILINEAR, box=box))
    numbers[inside] = np.asarray(Image.fromarray(mask).resize(into, how.NEAREST, box=box))
    if vary.flip and draws[3] < 0.5:
        return np.ascontiguousarray(colours[:, ::-1]), np.ascontiguousarray(numbers[:, ::-1])
    return colours, numbers
