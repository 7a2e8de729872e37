"""What every training of a search has in common: the task, what surrounds a network, the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bneck.nets.importance import Importance
from bneck.nets.shrink import Kept, kept_channels, shrink_into
from bneck.nets.weights import fill
from bneck.runs.answers import ModuleAnswers
from bneck.runs.progress import Courteous
from bneck.runs.search.workers import worker_device
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.specs.wrapper import Wrapper
from bneck.tasks.contract import Data, Scores, Task
from bneck.tasks.registry import task
from bneck.training.loop import fit
from bneck.training.processes import ProcessGroup
from bneck.training.settings import Settings


@dataclass(frozen=True, slots=True)
class Experiment:
    """Builds, trains and scores networks of a task on a run's images; travels to worker processes.

    With `heldout`, networks are fitted on the train images that are not held out and scored on those
    that are; else fitted on all train images and scored on val.
    """

    task_name: str
    wrapper: Wrapper
    data: Data
    compute: str | None = None
    normalisation: Normalisation = IMAGENET

    @property
    def task(self) -> Task:
        """What networks are for."""
        return task(self.task_name)

    def build(self, spec: NetSpec, seed: int) -> nn.Module:
        """Freshly initialised."""
        return self._normalised(self.task.module(spec, self.wrapper, seed=seed))

    def load(self, spec: NetSpec, weights: Path) -> nn.Module:
        """With the weights of a file, in evaluation mode."""
        net = self._normalised(self.task.module(spec, self.wrapper))
        fill(net, weights, spec.name)
        return net.eval()

    def _normalised(self, net: nn.Module) -> nn.Module:
        net.normalisation = self.normalisation  # type: ignore[assignment]  # weights files lack it
        return net

    def shrink(self, net: Any, spec: NetSpec, importance: Importance | None = None) -> nn.Module:
        """The most important channels in a narrower network."""
        return shrink_into(net, self.task.module(spec, self.wrapper), importance)

    def kept(self, net: Any, spec: NetSpec, importance: Importance | None) -> Kept | None:
        """The channels that `shrink` keeps by an importance; None by L2 norms, and where all stay."""
        if importance is None or spec.rows == net.spec.rows:
            return None
        return kept_channels(net, self.wrapper.around(spec), importance)

    def fit(
        self, net: Any, settings: Settings, *, heldout: bool, teacher: Any = None,
        kept: Kept | None = None, **how: Any,
    ) -> None:  # fmt: skip
        """Train in place, from a teacher too where there is one; `how` as in `training.loop.fit`.

        `kept` are the channels of a network as wide as the teacher that it was narrowed from.
        """
        group = ProcessGroup(device=worker_device(self.compute))
        problem = self.data.problem(
            net, settings, heldout=heldout, group=group, teacher=teacher, kept=kept
        )
        fit(net, problem, settings, group=group, **how)

    def score(self, net: Any, *, heldout: bool) -> Scores:
        """What a network scores."""
        answers = ModuleAnswers(self.task, net.to(worker_device(self.compute)))
        return self.data.evaluate(answers, "heldout" if heldout else "val", Courteous())
