"""CPU time of ask and tell beside so many finished trials, and how much memory a search grows by.

    python benchmarks/searcher_overhead.py [--trials 1000 --trials 10000] [--searcher NAME ...]

MnasNet's space of 42 choices, trials in memory; the finished trials are random networks with an accuracy made
of their parameters, latency stands for millions of multiply-adds. The first ask reads them all (the
controller replays its updates): that is what a resume costs, printed apart.
"""

from __future__ import annotations

import argparse
import random
import resource
import time

import optuna

from bneck.costs.count import count
from bneck.search.reward import Reward
from bneck.search.samplers import ACCURACY, LATENCY, distributions, tokens_of
from bneck.search.searchers import SEARCHERS, sampler
from bneck.search.space import Tokens
from bneck.search.spaces import mnasnet

ASKED = 40
SPACE = mnasnet()
REWARD = Reward(kind="paper", target_ms=300.0)


def costs(tokens: Tokens) -> tuple[float, float]:
    """(accuracy, millions of multiply-adds), both made up from counts."""
    counted = count(SPACE.decode(tokens))
    return min(0.95, 0.5 + 0.1 * (counted.params / 1e6) ** 0.5), counted.madds / 1e6


def measure(searcher: str, trials: int) -> None:
    """Print one line."""
    rng, wanted = random.Random(0), distributions(SPACE.choices)
    chosen = sampler(searcher, SPACE, reward=REWARD, estimate=lambda t: costs(t)[1], seed=0)
    study = optuna.create_study(direction="maximize", sampler=chosen)
    for _ in range(trials):
        tokens = tuple(SPACE.sample(rng))
        accuracy = rng.uniform(0.5, 0.8)
        params = {c.name: c.options[t] for c, t in zip(SPACE.choices, tokens, strict=True)}
        study._storage.create_new_trial(
            study._study_id,
            optuna.trial.create_trial(
                params=params,
                distributions=wanted,
                value=accuracy,
                user_attrs={ACCURACY: accuracy, LATENCY: 300.0},
            ),
        )
    times = []
    for number in range(ASKED + 1):
        start = time.process_time()
        trial = study.ask(wanted)
        asked = time.process_time() - start
        if number == 1:
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        accuracy, latency = costs(tokens_of(SPACE.choices, trial.params))
        start = time.process_time()
        trial.set_user_attr(ACCURACY, accuracy)
        trial.set_user_attr(LATENCY, latency)
        study.tell(trial, REWARD(accuracy, latency))
        times.append(1e3 * (asked + time.process_time() - start))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown
    later = sorted(times[1:])
    print(
        f"| {searcher} | {trials} | {sum(later) / ASKED:.1f} | {later[-1]:.1f} | {times[0] / 1e3:.1f} | "
        f"{grown / 1024:.1f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, action="append")
    parser.add_argument("--searcher", action="append", choices=SEARCHERS)
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print("| searcher | trials before | ms a trial | most ms | first s | memory MB |")
    print("|---|--:|--:|--:|--:|--:|")
    for trials in args.trials or (1_000, 10_000):
        for searcher in args.searcher or ("random", "evolution", "predictor", "controller", "tpe"):
            measure(searcher, trials)


if __name__ == "__main__":
    main()
