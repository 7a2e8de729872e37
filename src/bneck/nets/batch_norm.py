"""Batch norm's statistics measured again, after a change of the weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def reestimate(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give all batch norms the mean statistics of `batches`, normalised images (N, channels, H, W).

    The net is left in evaluation mode.
    """
    momenta = {m: m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
    for norm in momenta:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    net.train()
    for images in batches:
        net(images)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    net.eval()
