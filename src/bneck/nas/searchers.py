"""The searchers by name: ours, and Optuna's, on the same choices and trials."""

from __future__ import annotations

import warnings
from functools import partial

import optuna
from optuna.samplers import BaseSampler

from bneck.nas.latency import TokenEstimate
from bneck.nas.predictor import Predictor
from bneck.nas.reward import Reward
from bneck.nas.samplers import Evolution, OnReplay, OptunaSearcher, RandomTokens, Searcher
from bneck.nas.space import Space
from bneck.specs.errors import InputError

SEARCHERS = (
    "predictor", "evolution", "controller", "controller-tuned", "tpe", "nsga2", "gp", "random",
)  # fmt: skip
PARETO_SEARCHERS = ("predictor", "tpe", "nsga2", "gp", "random")


def sampler(
    name: str, space: Space, *, reward: Reward, estimate: TokenEstimate | None, seed: int,
    sweep: bool = False, on_replay: OnReplay | None = None,
) -> Searcher:  # fmt: skip
    """A searcher by name; all choose from the same choices and learn from the same trials.

    Args:
        name: one of `SEARCHERS`.
        space: where it searches.
        reward: of a trial.
        estimate: tokens -> milliseconds; only "predictor" looks at it.
        seed: everything random follows from it.
        sweep: look for the whole Pareto front, not for the best reward.
        on_replay: called while a searcher catches up with the trials of a resumed search.

    Raises:
        InputError: no such searcher.
    """
    choices = space.choices
    match name:
        case "predictor":
            return Predictor(choices, reward=reward, estimate=estimate, seed=seed, sweep=sweep)
        case "evolution":
            return Evolution(choices, seed=seed)
        case "controller" | "controller-tuned":
            from bneck.nas.controller import PAPER, TUNED, Controller

            ppo = PAPER if name == "controller" else TUNED
            return Controller(choices, ppo, seed=seed, on_replay=on_replay)
        case "tpe" | "nsga2" | "gp":
            return OptunaSearcher(choices, partial(_optuna, name), sweep=sweep, seed=seed)
        case "random":
            return RandomTokens(choices, seed=seed)
    raise InputError(f"there is no searcher {name!r}; known are {', '.join(SEARCHERS)}")


def _optuna(name: str, seed: int) -> BaseSampler:
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    with warnings.catch_warnings():
        # What Optuna 5 has for good, 4 warns of as experimental, with every trial.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed)
        # What is under way counts as bad, so that a batch is not one network four times. Which
        # of the two is the default depends on Optuna's version.
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
