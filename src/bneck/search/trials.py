"""Trials as Optuna keeps them: their attributes, their choices, and the finished ones read back."""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bneck.search.space import Choice, Tokens

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
# Attributes of a trial.
ACCURACY, LATENCY, REJECTED, DIGEST = "accuracy", "latency_ms", "rejected", "digest"
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Judged:
    """A finished trial. `accuracy` and `latency_ms` are NaN where nobody said them.

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


def share(
    trial: FrozenTrial, choices: Sequence[Choice], shared: dict[str, BaseDistribution]
) -> None:
    """Replace a trial's choices, in the storage's memory, by their equals in `choices` and `shared`.

    A storage copies all of them, with names and options, into every trial: with 42 choices most of the
    14 kB that a trial took.
    """
    if trial.distributions == shared:
        tokens = tokens_of(choices, trial.params)
        trial.distributions = shared
        trial.params = {c.name: c.options[t] for c, t in zip(choices, tokens, strict=True)}


class Finished:
    """The finished trials of one study in the order of finishing, each read once."""

    def __init__(self) -> None:
        self._read: set[int] = set()
        self._settled = 0  # all trials of lower numbers are finished and read

    def new(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those that finished since the last time, of all trials of the study by number."""
        later = trials[self._settled :]
        new = [t for t in later if t.state in DONE and t.number not in self._read]
        self._read.update(trial.number for trial in new)
        for trial in later:
            if not trial.state.is_finished():
                break
            self._settled += 1
            self._read.discard(trial.number)
        new.sort(key=lambda t: (t.datetime_complete, t.number))
        return [trial for trial in new if trial.values is not None]

    def under_way(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those under way, of all trials of the study by number, as `new` was last given them."""
        return [t for t in trials[self._settled :] if t.state == TrialState.RUNNING]


class View:
    """A bounded view of a study's finished trials: its best, and an even share of all others.

    What it shows follows from the finished trials in the order of finishing alone.

    Args:
        most: trials that are shown; up to so many all of them are.
        best: how many of them are the best. Of several objectives those that the fewest others beat in
            all of them.
    """

    def __init__(self, *, most: int, best: int) -> None:
        self.most, self.count = most, best
        self._finished = Finished()
        self._all: list[FrozenTrial] = []
        self._best: list[FrozenTrial] = []

    def of(self, study: Study) -> Study:
        """The study as if it had the shown trials, and those under way, only."""
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        for trial in self._finished.new(trials):
            self._all.append(trial)
            self._best.append(trial)
            if len(self._best) >= 2 * self.count:
                self._best = ranked(self._best, study.directions)[: self.count]
        seen = copy.copy(study)
        shown = [*self._shown(study), *self._finished.under_way(trials)]
        seen._storage = _Shown(study._storage, shown)  # type: ignore[assignment]
        return seen

    def _shown(self, study: Study) -> list[FrozenTrial]:
        shown = self._all
        if len(shown) > self.most:
            best = {t.number: t for t in ranked(self._best, study.directions)[: self.count]}
            others = np.linspace(0, len(shown) - 1, self.most - len(best)).round().astype(int)
            shown = [*({shown[i].number: shown[i] for i in others} | best).values()]
        return sorted(shown, key=lambda trial: trial.number)


class _Shown:
    """A storage that has some of its trials only, and takes no notes.

    What Optuna's samplers note is the proposed parameters, for those who ask before these are
    written; ours are written with the trial.
    """

    def __init__(self, storage: Any, trials: list[FrozenTrial]) -> None:
        self._storage, self._trials = storage, trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As `BaseStorage` has it; never a copy."""
        return [t for t in self._trials if states is None or t.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Ignore."""


def ranked(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]
) -> list[FrozenTrial]:
    """Trials that the fewest others beat first, the older of equals first; those given up early are last.

    One trial beats another that is nowhere better and somewhere worse.
    """
    signs = [1.0 if d == StudyDirection.MAXIMIZE else -1.0 for d in directions]
    values = np.array([trial.values for trial in trials]) * signs
    least = (values[:, None] >= values).all(-1) & (values[:, None] > values).any(-1)
    beaten = least.sum(0)
    early = [trial.state == TrialState.PRUNED for trial in trials]
    order = sorted(range(len(trials)), key=lambda i: (early[i], beaten[i], trials[i].number))
    return [trials[i] for i in order]
