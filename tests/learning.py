"""Training a classifier on packed pictures, as tests of the loop do."""

from __future__ import annotations

from typing import Any

from torch import nn

from bneck.tasks.classify.dataset import ImageData
from bneck.training.loop import fit
from bneck.training.processes import ALONE, ProcessGroup
from bneck.training.settings import Settings


class Module:
    """A bare module as `tasks.contract.Answers`, for tests of scoring."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, images: Any) -> tuple[Any, ...]:
        return (self.net(images).detach().numpy(),)


def train(
    net: Any,
    data: ImageData,
    settings: Settings,
    *,
    teacher: Any = None,
    group: ProcessGroup = ALONE,
    **how: Any,
) -> Any:
    """Train in place on all train images; `how` as in `training.loop.fit`."""
    settings.check(group)
    problem = data.problem(net, settings, group=group, teacher=teacher)
    return fit(net, problem, settings, group=group, **how)
