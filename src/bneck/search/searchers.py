"""The searchers by name: ours, and Optuna's, on the same choices and trials."""

from __future__ import annotations

import optuna
from optuna.samplers import BaseSampler

from bneck.search.latency import TokenEstimate
from bneck.search.predictor import Predictor
from bneck.search.reward import Reward
from bneck.search.samplers import Evolution, RandomTokens, Reseeded
from bneck.search.space import Space
from bneck.specs.errors import InputError

SEARCHERS = (
    "predictor", "evolution", "controller", "controller-tuned", "tpe", "nsga2", "gp", "random",
)  # fmt: skip
PARETO_SEARCHERS = ("predictor", "tpe", "nsga2", "gp", "random")


def sampler(
    name: str,
    space: Space,
    *,
    reward: Reward,
    estimate: TokenEstimate | None,
    seed: int,
    sweep: bool = False,
) -> BaseSampler:
    """A searcher by name; all choose from the same choices and learn from the same trials.

    Args:
        name: one of `SEARCHERS`.
        space: where it searches.
        reward: of a trial.
        estimate: tokens -> milliseconds; only "predictor" looks at it.
        seed: everything random follows from it.
        sweep: look for the whole front, not for the best reward.

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
            from bneck.search.controller import PAPER, TUNED, Controller

            return Controller(choices, PAPER if name == "controller" else TUNED, seed=seed)
        case "tpe":
            return Reseeded(
                choices, lambda s: optuna.samplers.TPESampler(seed=s, multivariate=True), seed=seed
            )
        case "nsga2":
            return Reseeded(choices, lambda s: optuna.samplers.NSGAIISampler(seed=s), seed=seed)
        case "gp":
            return Reseeded(choices, lambda s: optuna.samplers.GPSampler(seed=s), seed=seed)
        case "random":
            return RandomTokens(choices, seed=seed)
    raise InputError(f"there is no searcher {name!r}; known are {', '.join(SEARCHERS)}")
