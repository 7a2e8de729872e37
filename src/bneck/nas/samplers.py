"""Searchers behind one interface: Optuna's ask and tell, over the choices of a space.

What our own searchers propose is a function of the finished trials in the order of finishing, the
trial's number and the seed alone. A resumed search therefore proposes what the unbroken one would have.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from bneck.nas.space import Choice, Tokens
from bneck.nas.trials import (
    ACCURACY,
    LATENCY,
    REJECTED,
    Finished,
    Judged,
    distributions,
    tokens_of,
    under_way,
)  # fmt: skip

OnReplay = Callable[[int, int], None]  # (updates replayed, of so many)


@dataclass(frozen=True, slots=True)
class Proposal:
    """Parameters of a trial before anything of it is written down, and what the searcher notes with it."""

    params: dict[str, Any]
    system_attrs: dict[str, Any] = field(default_factory=dict)


class TokenSampler(BaseSampler):
    """A searcher that proposes whole token sequences; subclasses say which (`propose`).

    Everything random follows from `seed` and the trial's number.
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

    def proposal(self, trials: Sequence[FrozenTrial], number: int) -> Proposal:
        """The trial of that number, from all trials of the study by number."""
        self._history += map(self._judged, self._finished.new(trials))
        pending = {tokens_of(self.choices, t.params) for t in under_way(trials, len(self.choices))}
        tokens = self.propose(self._history, pending, number)
        return Proposal({c.name: c.options[t] for c, t in zip(self.choices, tokens, strict=True)})

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All choices at once."""
        return distributions(self.choices)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal as Optuna's parameters."""
        return self.proposal(study.get_trials(deepcopy=False), trial.number).params

    def sample_independent(self, *asked: Any, **named: Any) -> Any:
        """Optuna asks for parameters here that are not in the relative space: none are."""
        raise NotImplementedError

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
        return self.draw(self.rng(number))


class Evolution(TokenSampler):
    """Regularised evolution (Real et al. 2019): the best of a random sample of the young, mutated.

    `population` of the last finished trials are alive; `sample` of them compete to be the parent.
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


class OptunaSearcher:
    """One of Optuna's samplers, made again for every trial with a seed of its own.

    A resumed search therefore goes on as the unbroken one would have. The sampler works on a copy of
    the finished trials in memory: what it writes down while it is asked costs nothing there, and the
    ledger gets the whole trial.

    `make` is called with a seed. In a `sweep` trials have an accuracy and a latency, not one reward.
    """

    def __init__(
        self, choices: Sequence[Choice], make: Callable[[int], BaseSampler], *,
        sweep: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        self.make, self.seed = make, seed
        self._space = distributions(choices)
        goals: list[Any] = ["maximize", "minimize"] if sweep else ["maximize"]
        self._copy = optuna.create_study(directions=goals)
        self._copied = 0  # trials of the copy
        self._finished = Finished()
        self._under_way: dict[int, int] = {}  # numbers in the copy by numbers in the study

    def proposal(self, trials: Sequence[FrozenTrial], number: int) -> Proposal:
        """The trial of that number, from all trials of the study by number."""
        self._follow(trials)
        at = self._add(create_trial(state=TrialState.RUNNING))
        asking = self._copy.get_trials(deepcopy=False)[at]
        words = np.random.SeedSequence([self.seed, number]).generate_state(1)
        sampler = self.make(int(words[0] % 2**31))
        sampler.before_trial(self._copy, asking)
        # The space is known. Optuna would work out from every trial that all of them have it.
        params = sampler.sample_relative(self._copy, asking, self._space)
        for name, distribution in self._space.items():
            if name not in params:
                params[name] = sampler.sample_independent(self._copy, asking, name, distribution)
        noted = self._copy.get_trials(deepcopy=False)[at].system_attrs
        self._copy.tell(at, state=TrialState.FAIL)
        # TPE and GP also note the parameters, for those who ask before these are written.
        noted = {key: value for key, value in noted.items() if "relative_params" not in key}
        return Proposal({name: params[name] for name in self._space}, noted)

    def _follow(self, trials: Sequence[FrozenTrial]) -> None:
        """Copy what happened to the study's trials; one that is over replaces the one under way."""
        running = under_way(trials, len(self._space))
        for number in self._under_way.keys() - {t.number for t in running}:
            self._copy.tell(self._under_way.pop(number), state=TrialState.FAIL)
        for trial in self._finished.new(trials):
            self._add(trial)
        for trial in running:
            if trial.number not in self._under_way:
                self._under_way[trial.number] = self._add(trial)

    def _add(self, trial: FrozenTrial) -> int:
        self._copy.add_trial(trial)
        self._copied += 1
        return self._copied - 1


Searcher: TypeAlias = TokenSampler | OptunaSearcher
