"""Scoring segmenters: mIOU from one confusion matrix; the class of every pixel, whole or in windows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bneck.data.depth import deep
from bneck.data.images import Pixels, read_whole
from bneck.data.read import resized
from bneck.records.files import write_whole
from bneck.records.progress import Progress
from bneck.specs.errors import InputError, few
from bneck.tasks.contract import Answers, Prediction, Scores, Size
from bneck.tasks.data import check_divided, known_bits
from bneck.tasks.options import sized
from bneck.tasks.segment.drawing import class_shares, overlay
from bneck.tasks.segment.masks import IGNORED
from bneck.tasks.segment.module import SegmentNet
from bneck.tasks.segment.pairs import list_pairs
from bneck.tasks.segment.scenes import Scenes, as_batch
from bneck.tasks.segment.strips import STRIP_NUMBERS, Source, scores_in_strips

BAND_NUMBERS = 1 << 22  # at most in a band of scores at full size: 16 MB
WHOLE_PIXELS = 1 << 22  # larger images are looked at in strips
SHOWN = 3  # best and worst images that are drawn

Matrix = npt.NDArray[np.int64]
Mask = npt.NDArray[np.uint8]
See = Callable[[Pixels, Size], Mask]


@dataclass(frozen=True, slots=True)
class Score:
    """What a confusion matrix says, as fractions from 0 to 1.

    `iou` has one value per class: TP / (TP + FP + FN); NaN for a class that is neither in the masks
    nor predicted. `miou` is the mean over the others, `pixels` the pixel accuracy.
    """

    miou: float
    pixels: float
    iou: tuple[float, ...]


def confusion(predicted: Mask, mask: Mask, classes: int) -> Matrix:
    """Pixels (classes, classes) of one image, as Cityscapes counts them: row the mask's class, column ours.

    Class numbers (H, W) both; ignored pixels of the mask are left out.
    """
    valid = mask != IGNORED
    pairs = mask[valid].astype(np.int64) * classes + predicted[valid]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def matrix_score(matrix: Matrix) -> Score:
    """Score of a confusion matrix; of an empty one all values are NaN."""
    right = np.diag(matrix).astype(float)
    union = matrix.sum(0) + matrix.sum(1) - right
    with np.errstate(invalid="ignore"):
        iou = right / union
        pixels = right.sum() / matrix.sum()
    miou = float(np.nanmean(iou)) if (union > 0).any() else float("nan")
    return Score(miou=miou, pixels=float(pixels), iou=tuple(iou.tolist()))


@torch.inference_mode()
def predict_huge(net: SegmentNet, image: Pixels, *, strip_numbers: int = STRIP_NUMBERS) -> Mask:
    """What `predict` gives for an image (H, W, 3) uint8 at its own size, in far less memory.

    Equal to it but for rounding, see `segment.strips`. An image of 4096 x 8192 pixels stays under 2 GB.
    """
    height, width = image.shape[:2]
    source = Source(
        lambda top, bottom: as_batch(image[top:bottom], net.normalisation), height, width
    )
    return best(scores_in_strips(net, source, strip_numbers=strip_numbers), (height, width))


@torch.inference_mode()
def predict(net: SegmentNet, image: Tensor, size: Size, *, sliding: Size | None = None) -> Mask:
    """The best class of every pixel of one image (1, channels, h, w), normalised: (H, W) uint8 of `size`.

    Scores, not classes, are resized. `sliding` is a window (height, width): scores are the mean of those
    of windows that overlap by a third, as some protocols evaluate. None looks at the whole image, as the
    paper does.
    """
    net.eval()
    if sliding is None:
        return best(net.head(*net.features(image)), size)
    sides = (image.shape[2], image.shape[3])
    high, wide = (min(window, side) for window, side in zip(sliding, sides, strict=True))
    total = image.new_zeros(1, net.seg.classes, *sides)
    seen = image.new_zeros(1, 1, *sides)
    for top, left in product(starts(sides[0], high), starts(sides[1], wide)):
        part = np.s_[:, :, top : top + high, left : left + wide]
        total[part] += net(image[part])
        seen[part] += 1
    return best(total / seen, size)


def best(scores: Tensor, size: Size, *, band: int | None = None) -> Mask:
    """The best class of every pixel of scores (1, classes, h, w) resized to `size`, bilinearly.

    Computed in bands of `band` rows, so that the scores at full size are never held.
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


def score_of(answers: Answers, *, sliding: Size | None = None) -> See:
    """What gives the classes of an image (h, w, 3) at a size, for a module or a file."""
    normalisation = answers.normalisation
    if answers.net is not None:
        net: Any = answers.net
        return lambda image, size: predict(
            net, as_batch(image, net.normalisation), size, sliding=sliding
        )
    assert answers.size is not None
    taken, axes = answers.size, answers.metadata.get("axes")

    def see(image: Pixels, size: Size) -> Mask:
        found = answers(as_batch(resized(image, taken), normalisation))[0]
        if axes == "NHW":  # the file chooses the classes itself
            return resized(found[0].astype(np.uint8), size, nearest=True)
        scores = found.transpose(0, 3, 1, 2) if axes == "NHWC" else found
        return best(torch.from_numpy(np.ascontiguousarray(scores)), size)

    return see


def score(
    answers: Answers, scenes: Scenes, split: str, progress: Progress, *,
    sliding: Size | None = None, out: Path | None = None,
) -> Scores:  # fmt: skip
    """Score on all pairs, each at its mask's size, single scale (6.4), from one confusion matrix.

    `scenes` have `whole_masks`, so that images may be smaller than the masks they are scored by.
    `sliding` is a window, see `predict`. The best and the worst images are drawn in `out`.

    Raises:
        DataError: a bad file.
    """
    progress.stage(f"scoring {split}", len(scenes))
    see, names = score_of(answers, sliding=sliding), scenes.labels.names
    total, images = np.zeros((len(names), len(names)), np.int64), []
    for index in range(len(scenes)):
        image, mask = scenes.read(index)
        found = see(image, (mask.shape[0], mask.shape[1]))
        own = confusion(found, mask, len(names))
        images.append(matrix_score(own).miou)
        total += own
        progress.advance(1)
    overall = matrix_score(total)
    value = _number(overall.miou)
    details: dict[str, Any] = {
        "pixels": _number(overall.pixels),
        "iou": {name: _number(one) for name, one in zip(names, overall.iou, strict=True)},
    }
    if out is not None:
        details["shown"] = _draw(see, scenes, images, split, out)
    return Scores(
        split=split, images=len(scenes), score=value, expected=value or 0.0, details=details
    )


def _draw(
    see: See, scenes: Scenes, images: Sequence[float], split: str, out: Path
) -> list[dict[str, Any]]:
    """Overlays of the best and the worst images, with what a record says of them."""
    order = [int(i) for i in np.argsort(images) if not math.isnan(images[i])]
    worst, top = order[:SHOWN], order[::-1][: min(SHOWN, len(order) - SHOWN)]
    shown = []
    for what, indices in (("best", top), ("worst", worst)):
        for rank, index in enumerate(indices, start=1):
            image = scenes.read(index)[0]
            classes = see(image, (image.shape[0], image.shape[1]))
            page = overlay(image, classes, scenes.labels.names, scenes.labels.colours)
            name = f"{what}-{rank}.png" if split == "val" else f"{split}-{what}-{rank}.png"
            write_whole(out / name, partial(page.save, format="png"))
            path = str(scenes.pairs[index].image)
            shown.append({"file": name, "image": path, "miou": images[index]})
    return shown


def split_scenes(
    answers: Answers, data: str | None, options: Any, split: str, record: Mapping[str, Any], seed: int
) -> Scenes:  # fmt: skip
    """A split of `data`, or of the run's own data where that is None, as the network is scored on it.

    Raises:
        InputError: no data, or data of other classes than the network's.
    """
    root = (record.get("data") or {}).get("path") if data is None else data
    if root is None:
        raise InputError(
            "this file is not in a run folder, so its dataset is unknown; pass images and masks with --data"
        )
    own, classes = _own_options(record), options.classes
    if classes is None and data is None:
        classes = own.get("classes")
    scenery = list_pairs(
        Path(str(root)), classes=None if classes is None else Path(classes),
        ignore=options.ignore or tuple(own.get("ignore") or ()), seed=seed, divide=data is None,
    )  # fmt: skip
    if data is None:
        check_divided(scenery.found.val, record, root)
    if list(scenery.labels.names) != list(answers.labels):
        raise InputError(
            f"the data has the classes {few(scenery.labels.names)}, and the network was trained on "
            f"{few(answers.labels)}; they must be the same, in the same order"
        )
    size = answers.size or _trained_size(record)
    bits = known_bits(answers, record)
    return Scenes(scenery.split(split), scenery.labels, size=size, whole_masks=True, bits=bits)


def _own_options(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return (record.get("options") or {}).get("task") or {}


def _trained_size(record: Mapping[str, Any]) -> Size | None:
    """The (height, width) that a run brought its images to; None where they stayed as they are."""
    return sized(_own_options(record).get("size"))


def seen(answers: Answers, path: Path, record: Mapping[str, Any]) -> Prediction:
    """The class of every pixel of a picture, at the picture's own size.

    Raises:
        InputError: it cannot be read.
    """
    pixels = read_whole(deep(path, known_bits(answers, record)))
    if isinstance(pixels, str):
        raise InputError(f"picture {path} cannot be read: {pixels}; give another one")
    own, size = (pixels.shape[0], pixels.shape[1]), _trained_size(record)
    if answers.net is not None and size is None and own[0] * own[1] > WHOLE_PIXELS:
        net: Any = answers.net
        classes = predict_huge(net, pixels)
    else:
        image = resized(pixels, size) if answers.net is not None and size else pixels
        classes = score_of(answers)(image, own)
    stored = answers.metadata.get("labels")  # of a file; a run's record has them too
    labels = record["data"]["labels"] if stored is None else json.loads(stored)
    shares = dict(zip(labels["names"], class_shares(classes, len(labels["names"])), strict=True))
    most = sorted(shares.items(), key=lambda entry: -entry[1])[:5]
    return Prediction(
        found={"shares": shares},
        line=", ".join(f"{name} {share:.1%}" for name, share in most if share),
        raw=(pixels, classes, labels),
    )


def _number(value: float) -> float | None:
    """None for NaN, as JSON has it."""
    return None if math.isnan(value) else value
