"""Importance of a net's channels on a run's training images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from bneck.nets.build import WrappedNet
from bneck.nets.importance import Importance, each_image, measure_importance
from bneck.records.progress import Progress
from bneck.tasks.contract import Data
from bneck.training.processes import ALONE, ProcessGroup
from bneck.training.settings import Settings


def importance_on(
    data: Data,
    net: WrappedNet,
    settings: Settings,
    progress: Progress,
    *,
    heldout: bool = False,
    group: ProcessGroup = ALONE,
) -> Importance:
    """One pass over at most 1,000 training images, augmented, in the batches of the training's first epoch.

    Args:
        data: the images.
        net: whose channels count; it comes back on the processor.
        settings: of the training.
        progress: receives what happens.
        heldout: leave out the images that a search holds out.
        group: where to compute; each of its processes looks at all images.

    Raises:
        InputError: the loss is not finite.
    """
    progress.stage("measuring the importance of channels", 1)
    device = group.device
    # No process takes more at once than in a step of the training.
    batch = min(settings.batch // (settings.accumulate * group.size), data.fitted(heldout=heldout))
    problem = data.problem(
        net, replace(settings, batch=batch, accumulate=1), heldout=heldout,
        group=ProcessGroup(device=device),
    )  # fmt: skip

    def batches() -> Iterator[Any]:
        for images, *targets in problem.batches(0, 0):
            yield images.to(device).contiguous(memory_format=torch.channels_last), *targets

    net.to(device)
    found = measure_importance(net, batches(), each_image(problem.loss))
    net.cpu()
    progress.advance(1)
    return found
