"""Beginning a detector from the backbone of another run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bneck.data.pictures import BoxAugment, Stored, varied
from bneck.nets.transfer import is_folded, restore_statistics, transferred
from bneck.recipes.networks import build
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError
from bneck.specs.text import resolve
from bneck.tasks.detect.head import Detector
from bneck.tasks.detect.module import DetectorNet, take_backbone

STATISTICS_IMAGES = 128  # from which folded batch norms learn their statistics
BATCH = 16


def fitting(detector: Detector, start: Path) -> Detector:
    """The detector as the start's weights need it: their padding and batch norm's epsilon.

    Raises:
        InputError: the start has no trained weights.
    """
    if not RunFolder(start).weights.is_file():
        raise InputError(
            f"{start} has no trained weights; give the folder of an import or a finished run"
        )
    spec = resolve(start)
    network = replace(detector.network, padding=spec.padding, bn_eps=spec.bn_eps)
    return replace(detector, network=network)


def start_from(net: DetectorNet, start: Path, images: Sequence[torch.Tensor]) -> None:
    """Take the backbone and the normalisation of another run.

    Where batch norm was folded in its weights, statistics are made from `images`; () makes none.

    Raises:
        InputError: the detector's network is not the start's, nor a narrower one.
    """
    begin = build(start)
    net.normalisation = begin.normalisation
    if images and is_folded(begin):
        restore_statistics(begin, images)
    begin = transferred(begin, net.detector.network)
    take_backbone(net, dict(begin.state_dict()), str(start))


def some_images(stored: Stored, net: DetectorNet) -> list[torch.Tensor]:
    """Whole train images, spread evenly, as batches."""
    indices = np.unique(np.linspace(0, len(stored.images) - 1, STATISTICS_IMAGES).astype(np.int64))
    plain = BoxAugment(crop=False, flip=False, colour=0.0)
    return [
        varied(
            stored,
            indices[i : i + BATCH],
            net.detector.resolution,
            plain,
            (0, 0),
            net.normalisation,
        )[0]
        for i in range(0, len(indices), BATCH)
    ]
