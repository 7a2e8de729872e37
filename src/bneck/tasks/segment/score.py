"""Segmentation: cross-entropy over pixels, mIOU from one confusion matrix, decoding, whole or sliding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bneck.data.images import Pixels
from bneck.data.masks import IGNORED
from bneck.data.scenes import Scenes, as_batch
from bneck.tasks.segment.module import SegmentNet
from bneck.tasks.segment.strips import STRIP_NUMBERS, Source, scores_in_strips

BAND_NUMBERS = 1 << 22  # at most in a band of scores at full size: 16 MB
WHOLE_PIXELS = 1 << 22  # larger images are looked at in strips

Matrix = npt.NDArray[np.int64]


def loss(scores: Tensor, masks: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of scores (N, classes, H, W) over the pixels of (N, H, W) not ignored.

    0, with gradients of 0, where all are ignored. `weights` are of classes: (classes,).
    """
    total = F.cross_entropy(scores, masks, weight=weights, ignore_index=IGNORED, reduction="sum")
    valid = masks != IGNORED
    share = valid if weights is None else weights[masks.where(valid, 0)] * valid
    return total / share.sum().clamp(min=1e-6 if weights is not None else 1)


@dataclass(frozen=True, slots=True)
class Score:
    """What a confusion matrix says. Shares are from 0 to 1.

    `iou` has one value a class: TP / (TP + FP + FN); NaN for a class that is neither in the masks
    nor predicted. `miou` is the mean over the others, `pixels` the share of right pixels.
    """

    miou: float
    pixels: float
    iou: tuple[float, ...]


class Confusion:
    """One matrix for a whole data set, as Cityscapes scores: row the mask's class, column ours."""

    def __init__(self, classes: int) -> None:
        self.matrix: Matrix = np.zeros((classes, classes), np.int64)

    def add(self, predicted: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> Matrix:
        """Count one image, class numbers (H, W) both; ignored pixels of the mask are left out.

        Returns:
            The image's own matrix.
        """
        classes = len(self.matrix)
        valid = mask != IGNORED
        pairs = mask[valid].astype(np.int64) * classes + predicted[valid]
        own = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
        self.matrix += own
        return own

    def score(self) -> Score:
        """The score so far."""
        return score(self.matrix)


def score(matrix: Matrix) -> Score:
    """Score of a confusion matrix; of an empty one all values are NaN."""
    right = np.diag(matrix).astype(float)
    union = matrix.sum(0) + matrix.sum(1) - right
    with np.errstate(invalid="ignore"):
        iou = right / union
        pixels = right.sum() / matrix.sum()
    miou = float(np.nanmean(iou)) if (union > 0).any() else float("nan")
    return Score(miou=miou, pixels=float(pixels), iou=tuple(float(v) for v in iou))


@torch.inference_mode()
def predict_huge(
    net: SegmentNet, image: npt.NDArray[np.uint8], *, strip_numbers: int = STRIP_NUMBERS
) -> npt.NDArray[np.uint8]:
    """What `predict` gives for an image (H, W, 3) uint8 at its own size, in far less memory.

    Equal to it but for rounding, see `nets.strips`. An image of 4096 x 8192 pixels stays under 2 GB.
    """
    height, width = image.shape[:2]
    source = Source(lambda top, bottom: as_batch(image[top:bottom]), height, width)
    return best(scores_in_strips(net, source, strip_numbers=strip_numbers), (height, width))


@torch.inference_mode()
def predict(
    net: SegmentNet,
    image: Tensor,
    size: tuple[int, int],
    *,
    sliding: tuple[int, int] | None = None,
) -> npt.NDArray[np.uint8]:
    """The best class of every pixel of one image, (H, W) uint8 of `size`.

    Args:
        net: put into evaluation mode.
        image: (1, channels, h, w), normalised.
        size: of the answer; scores, not classes, are resized to it.
        sliding: a window (height, width): scores are the mean of those of windows that overlap by a
            third, as some protocols judge. None looks at the whole image, as the paper does.
    """
    net.eval()
    if sliding is None:
        low, last = net.features(image)
        scores = net.head(low, last)
        return best(scores, size)
    height, width = image.shape[2:]
    window = min(sliding[0], height), min(sliding[1], width)
    total = image.new_zeros(1, net.seg.classes, height, width)
    seen = image.new_zeros(1, 1, height, width)
    for top in starts(height, window[0]):
        for left in starts(width, window[1]):
            part = np.s_[:, :, top : top + window[0], left : left + window[1]]
            total[part] += net(image[part])
            seen[part] += 1
    return best(total / seen, size)


def best(
    scores: Tensor, size: tuple[int, int], *, band: int | None = None
) -> npt.NDArray[np.uint8]:
    """The best class of every pixel of scores (1, classes, h, w) resized to `size`, bilinearly.

    Worked out in bands of rows, so that the scores at full size are never held.
    """
    if band is None:
        band = max(1, BAND_NUMBERS // (scores.shape[1] * size[1]))
    high = scores.shape[2]
    found = np.empty(size, np.uint8)
    columns = F.interpolate(scores, (high, size[1]), mode="bilinear", align_corners=True)
    for top in range(0, size[0], band):
        rows = torch.arange(top, min(top + band, size[0]), dtype=torch.float64)
        at = rows * ((high - 1) / max(size[0] - 1, 1))
        low = at.floor().long().clamp(0, high - 1)
        share = (at - low).to(scores.dtype)[:, None]
        over = (low + 1).clamp(max=high - 1)
        mixed = columns[:, :, low] * (1 - share) + columns[:, :, over] * share
        found[top : top + len(rows)] = mixed.argmax(1)[0].to(torch.uint8).numpy()
    return found


def starts(length: int, window: int) -> Sequence[int]:
    """Where windows begin so that they cover `length` and overlap by about a third."""
    if window >= length:
        return [0]
    steps = -(-(length - window) // max(1, window * 2 // 3))
    return [round(i * (length - window) / steps) for i in range(steps + 1)]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The score of a split, its matrix, and every image's own mIOU (NaN where all is ignored)."""

    score: Score
    matrix: Matrix
    images: tuple[float, ...]


def evaluate(
    net: SegmentNet,
    scenes: Scenes,
    *,
    sliding: tuple[int, int] | None = None,
    on_scene: Callable[[int], None] | None = None,
) -> Evaluation:
    """Judge a segmenter on all scenes, each at its mask's size, single scale (6.4).

    Args:
        net: put into evaluation mode.
        scenes: with `whole_masks`, so that images may be smaller than the masks they are judged by.
        sliding: a window, see `predict`.
        on_scene: called with 1 after each.

    Raises:
        DataError: a bad file.
    """
    return judge(
        lambda image, size: predict(net, as_batch(image), size, sliding=sliding),
        net.seg.classes,
        scenes,
        on_scene=on_scene,
    )


def judge(
    see: Callable[[Pixels, tuple[int, int]], npt.NDArray[np.uint8]],
    classes: int,
    scenes: Scenes,
    *,
    on_scene: Callable[[int], None] | None = None,
) -> Evaluation:
    """Judge whatever gives an image's classes at a size, (H, W); see `evaluate`."""
    total, images = Confusion(classes), []
    for index in range(len(scenes)):
        image, mask = scenes.read(index)
        found = see(image, (mask.shape[0], mask.shape[1]))
        images.append(score(total.add(found, mask)).miou)
        if on_scene:
            on_scene(1)
    return Evaluation(total.score(), total.matrix, tuple(images))
