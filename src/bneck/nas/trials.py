"""Trials as Optuna keeps them: their attributes, their choices, and the finished ones read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from bneck.nas.space import Choice, Tokens

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
# Attributes of a trial.
ACCURACY, LATENCY, REJECTED, DIGEST = "accuracy", "latency_ms", "rejected", "digest"
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Judged:
    """A finished trial. `accuracy` and `latency_ms` are NaN where they are not known.

    `rejected`: over the latency limit, never trained; its value is the reward of accuracy 0.
    """

    number: int
    tokens: Tokens
    value: float
    accuracy: float
    latency_ms: float
    rejected: bool


def distributions(choices: Sequence[Choice]) -> dict[str, BaseDistribution]:
    """The choices as Optuna takes them."""
    return {choice.name: CategoricalDistribution(choice.options) for choice in choices}


def tokens_of(choices: Sequence[Choice], params: dict[str, Any]) -> Tokens:
    """The tokens of a trial's parameters."""
    return tuple(choice.options.index(params[choice.name]) for choice in choices)


def under_way(trials: Sequence[FrozenTrial], choices: int) -> list[FrozenTrial]:
    """Those of a study's trials that are not finished and whose choices are all written down."""
    return [t for t in trials if t.state == TrialState.RUNNING and len(t.params) == choices]


class Finished:
    """The finished trials of one study in the order of finishing, each read once."""

    def __init__(self) -> None:
        self._read: set[int] = set()

    def new(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those of a study's trials that finished since the last time and have a value."""
        new = [t for t in trials if t.state in DONE and t.number not in self._read]
        self._read.update(trial.number for trial in new)
        new.sort(key=lambda t: (t.datetime_complete, t.number))
        return [trial for trial in new if trial.values is not None]
