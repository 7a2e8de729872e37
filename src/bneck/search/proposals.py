"""What a sampler proposes, before anything of it is written down.

`optuna.Study.ask` writes a trial choice by choice: with 42 of them SQLite took some 100 ms a trial, a journal
13. Here the sampler is asked first and the whole trial is written in one go, which is also what a
kill cannot cut in two.
"""

from __future__ import annotations

import copy
from collections.abc import Container
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

UNWRITTEN = -1  # the id of a trial that no storage knows yet


@dataclass(frozen=True, slots=True)
class Proposal:
    """Parameters of the trial of that number, and what the sampler wants to remember with it."""

    number: int
    params: dict[str, Any]
    system_attrs: dict[str, Any] = field(default_factory=dict)


class _Collecting:
    """A storage that keeps to itself what is noted of the unwritten trial; all else is the storage's.

    Its trials are those given: a sampler may ask for them several times, each time a query.
    """

    def __init__(self, storage: Any, trials: list[FrozenTrial]) -> None:
        self._storage, self._trials = storage, trials
        self.system_attrs: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As `BaseStorage` has it; never a copy."""
        if states is None:
            return self._trials
        return [t for t in self._trials if t.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As `BaseStorage` has it."""
        if trial_id == UNWRITTEN:
            self.system_attrs[key] = value
        else:
            self._storage.set_trial_system_attr(trial_id, key, value)


def propose(
    study: Study, distributions: dict[str, BaseDistribution], trials: list[FrozenTrial]
) -> Proposal:
    """What the study's sampler takes next for these distributions; the study stays as it is.

    `trials` are all that the study has.
    """
    collecting, asking = _Collecting(study._storage, trials), copy.copy(study)
    asking._storage = collecting  # type: ignore[assignment]
    trial = FrozenTrial(
        number=len(trials),
        trial_id=UNWRITTEN,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs=collecting.system_attrs,
        intermediate_values={},
    )
    sampler = study.sampler
    sampler.before_trial(asking, trial)
    known = sampler.infer_relative_search_space(asking, trial)
    params = sampler.sample_relative(asking, trial, known)
    for name, distribution in distributions.items():
        if name not in params:
            params[name] = sampler.sample_independent(asking, trial, name, distribution)
    params = {name: params[name] for name in distributions}
    return Proposal(trial.number, params, collecting.system_attrs)
