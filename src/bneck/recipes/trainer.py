"""How a search trains and judges networks of a task: the one contract that every task fulfils."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict

from torch import nn

from bneck.recipes.run import Run
from bneck.specs.network import NetSpec
from bneck.specs.wrapper import Wrapper
from bneck.train.loop import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a network is worth on some images.

    `score` is the task's metric as a share of 1. `expected` is what networks are compared by while they
    are searched: the same, or something that moves more smoothly with the weights. `failed` says why
    a short training diverged; it scores 0 then.
    """

    score: float
    expected: float
    loss: float | None = None
    failed: str | None = None


class Outcome(TypedDict):
    """What judging gave, the seconds that the job took, and how many of them were no training.

    `failed` is there only where the training diverged; see `Judged`.
    """

    score: float
    loss: float | None
    expected: float
    seconds: float
    setup_seconds: float
    failed: NotRequired[str]


class Trainer(Protocol):
    """Trains and judges networks of a task on a run's images; a plain value that travels to workers.

    `wrapper` stands round every network. With `heldout`, networks are fitted on the train images that
    are not held out and judged on those that are; else fitted on all and judged on val. `chance` is
    about what a network scores that has learned nothing.
    """

    def __hash__(self) -> int: ...

    @property
    def metric(self) -> str:
        """What `Judged.score` is, as a person calls it."""

    @property
    def wrapper(self) -> Wrapper: ...

    @property
    def chance(self) -> float: ...

    def prepared(self, spec: NetSpec) -> NetSpec:
        """A network as the task takes it: with its classes."""

    def fitted(self) -> int:
        """How many images proposals are fitted on."""

    def build(self, spec: NetSpec, seed: int) -> nn.Module:
        """Freshly initialised."""

    def load(self, spec: NetSpec, weights: Path) -> nn.Module:
        """With the weights of a file, in evaluation mode."""

    def shrink(self, net: Any, spec: NetSpec) -> nn.Module:
        """The strongest channels in a narrower network."""

    def fit(self, net: Any, settings: Settings, *, heldout: bool, **how: Any) -> None:
        """Train in place; `how` as in `train.loop.fit`."""

    def judge(self, net: Any, *, heldout: bool) -> Judged:
        """Judge."""

    def ship(self, run: Run, spec: NetSpec, weights: Path) -> dict[str, Any]:
        """Write the files of the network that was found, each checked; what to enter in the record.

        "export" says how the usual file compared with the module; "shipped", where the device runs
        another file, its name, runtime, precision, score and the same.
        """
