"""Searchers behind one interface: Optuna's ask and tell, over the choices of a space.

What our own searchers propose is a function of the finished trials in the order of finishing, the
trial's number and the seed alone. A resumed search therefore proposes what the unbroken one would have.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from bneck.search.space import Choice, Tokens
from bneck.search.trials import (
    ACCURACY,
    LATENCY,
    REJECTED,
    Finished,
    Judged,
    View,
    distributions,
    tokens_of,
)

OnReplay = Callable[[int, int], None]  # (updates replayed, of so many)


class TokenSampler(BaseSampler):
    """A searcher that proposes whole token sequences; subclasses say which (`propose`).

    Args:
        choices: of the space.
        seed: everything random follows from it and the trial's number.
    """

    def __init__(self, choices: Sequence[Choice], *, seed: int = 0) -> None:
        self.choices, self.seed = tuple(choices), seed
        self.sizes = tuple(len(choice.options) for choice in choices)
        self._history: list[Judged] = []
        self._finished = Finished()

    @abstractmethod
    def propose(self, history: Sequence[Judged], pending: set[Tokens], number: int) -> Tokens:
        """The next tokens.

        Args:
            history: finished trials in the order of finishing; only ever longer than last time.
            pending: tokens of the trials under way.
            number: of the trial that the tokens are for.
        """

    def rng(self, number: int) -> np.random.Generator:
        """The random numbers of one trial."""
        return np.random.default_rng([self.seed, number])

    def draw(self, rng: np.random.Generator) -> Tokens:
        """Tokens drawn alike from all."""
        return tuple(int(rng.integers(size)) for size in self.sizes)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All choices at once."""
        return distributions(self.choices)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal as Optuna's parameters."""
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        self._history += map(self._judged, self._finished.new(trials))
        pending = {
            tokens_of(self.choices, t.params)
            for t in self._finished.under_way(trials)
            if len(t.params) == len(self.choices)
        }
        tokens = self.propose(self._history, pending, trial.number)
        return {c.name: c.options[t] for c, t in zip(self.choices, tokens, strict=True)}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Never needed by a space; a parameter that somebody adds is drawn at random."""
        assert isinstance(param_distribution, CategoricalDistribution)
        options: Sequence[Any] = param_distribution.choices
        return options[int(self.rng(trial.number).integers(len(options)))]

    def _judged(self, trial: FrozenTrial) -> Judged:
        return Judged(
            number=trial.number,
            tokens=tokens_of(self.choices, trial.params),
            value=trial.values[0],
            accuracy=float(trial.user_attrs.get(ACCURACY, np.nan)),
            latency_ms=float(trial.user_attrs.get(LATENCY, np.nan)),
            rejected=bool(trial.user_attrs.get(REJECTED, False)),
        )


class RandomTokens(TokenSampler):
    """Random search: all tokens alike."""

    def propose(self, history: Sequence[Judged], pending: set[Tokens], number: int) -> Tokens:
        """See `TokenSampler.propose`."""
        return self.draw(self.rng(number))


class Evolution(TokenSampler):
    """Regularised evolution (Real et al. 2019): the best of a random sample of the young, mutated.

    Args:
        choices: of the space.
        seed: of everything random.
        population: how many of the last finished trials are alive.
        sample: how many of them compete to be the parent.
    """

    def __init__(
        self, choices: Sequence[Choice], *, seed: int = 0, population: int = 50, sample: int = 15
    ) -> None:
        super().__init__(choices, seed=seed)
        self.population, self.sample = population, sample
        self._alive: list[Judged] = []
        self._seen: set[Tokens] = set()
        self._read = 0

    def propose(self, history: Sequence[Judged], pending: set[Tokens], number: int) -> Tokens:
        """See `TokenSampler.propose`."""
        for judged in history[self._read :]:
            self._seen.add(judged.tokens)
            if not judged.rejected:
                self._alive = [*self._alive, judged][-self.population :]
        self._read = len(history)
        rng = self.rng(number)
        if len(self._alive) < self.population:
            return self.draw(rng)
        rivals = rng.choice(len(self._alive), min(self.sample, len(self._alive)), replace=False)
        parent = max((self._alive[i] for i in rivals), key=lambda j: j.value)
        child: Tokens = parent.tokens
        for _ in range(20):
            child = self._mutated(child, rng)
            if child not in self._seen and child not in pending:
                break
        return child

    def _mutated(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        """One token changed."""
        free = [i for i, size in enumerate(self.sizes) if size > 1]
        place = int(rng.choice(free))
        step = 1 + int(rng.integers(self.sizes[place] - 1))
        new = (tokens[place] + step) % self.sizes[place]
        return (*tokens[:place], int(new), *tokens[place + 1 :])


class Reseeded(BaseSampler):
    """One of Optuna's samplers, made anew for every trial with a seed of its own.

    Their state lies in the study, but for their random numbers; so a resumed search goes on as the unbroken
    one would have.

    Args:
        choices: of the space.
        make: seed -> sampler.
        seed: everything random follows from it and the trial's number.
        view: what it is shown of the study; None shows all of it.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        make: Callable[[int], BaseSampler],
        *,
        seed: int = 0,
        view: View | None = None,
    ) -> None:
        self.choices, self.make, self.seed, self.view = tuple(choices), make, seed, view
        self._current = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """A fresh sampler for this trial."""
        words = np.random.SeedSequence([self.seed, trial.number]).generate_state(1)
        self._current = self.make(int(words[0] % 2**31))
        self._current.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All choices at once; Optuna's would find out from every trial that all have them."""
        return distributions(self.choices)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """That sampler's parameters."""
        study = study if self.view is None else self.view.of(study)
        return self._current.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """That sampler's parameter."""
        return self._current.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """That sampler's bookkeeping."""
        self._current.after_trial(study, trial, state, values)
