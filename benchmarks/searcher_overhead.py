"""What a searcher and its ledger cost a trial, and whether memory stays flat.

    python benchmarks/searcher_overhead.py [--trials 1000 --trials 10000] [--searcher NAME ...]
        [--ledger memory --ledger journal --ledger sqlite]
    python benchmarks/searcher_overhead.py --grow 10000 [--searcher NAME ...]

MnasNet's space of 42 choices; accuracy and latency are made up from counts. The first form times ask and tell
of `bneck.nas.study.Study` beside so many finished trials: CPU time and wall time a trial, and the most of
each. The first ask reads the finished trials (the controller replays its updates): that is what a resume
costs, printed apart.

The second form is one search of so many trials in memory, from nothing; after every tenth of it stands the
resident memory of the process in MB. What the trials themselves take grows with them, whoever
proposes them: `random` is the measure for that. Entered are also proposals that were judged before: they
need no training but stand in the ledger. A searcher that has nothing new any more ends there.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

import optuna
from optuna.trial import create_trial

from bneck.costs.count import count
from bneck.nas.reward import Reward
from bneck.nas.searchers import SEARCHERS
from bneck.nas.spaces import mnasnet
from bneck.nas.study import Study
from bneck.nas.trials import ACCURACY, DIGEST, LATENCY, distributions
from bneck.specs.network import NetSpec

ASKED = 40
SPACE = mnasnet()
REWARD = Reward(kind="paper", target_ms=300.0)
LEDGERS = ("memory", "journal", "sqlite")


def estimate(spec: NetSpec) -> float:
    """Millions of multiply-adds, in place of milliseconds."""
    return count(spec).madds / 1e6


def accuracy(spec: NetSpec) -> float:
    """Made up from the number of parameters."""
    return min(0.95, 0.5 + 0.1 * (count(spec).params / 1e6) ** 0.5)


def place(kind: str, folder: str) -> str | Path | None:
    """Where a ledger of that kind stands."""
    if kind == "memory":
        return None
    return Path(folder) / "j.log" if kind == "journal" else f"sqlite:///{folder}/trials.db"


def measure(searcher: str, trials: int, ledger: str) -> None:
    """Print one line."""
    rng, wanted = random.Random(0), distributions(SPACE.choices)
    with tempfile.TemporaryDirectory() as folder:
        given = {"reward": REWARD, "estimate": estimate, "searcher": searcher}
        study = Study(SPACE, **given, ledger=place(ledger, folder))
        for n in range(trials):
            tokens, value = SPACE.sample(rng), rng.uniform(0.5, 0.8)
            params = {c.name: c.options[t] for c, t in zip(SPACE.choices, tokens, strict=True)}
            noted = {ACCURACY: value, LATENCY: 300.0, DIGEST: f"made-up-{n}"}
            study._study.add_trial(
                create_trial(params=params, distributions=wanted, value=value, user_attrs=noted)
            )
        spent, waited = [], []
        for _ in range(ASKED + 1):
            start = time.process_time(), time.perf_counter()
            asked = study.ask()
            cpu, wall = time.process_time() - start[0], time.perf_counter() - start[1]
            assert asked is not None
            told = accuracy(asked.spec)
            start = time.process_time(), time.perf_counter()
            study.tell(asked, told)
            spent.append(1e3 * (cpu + time.process_time() - start[0]))
            waited.append(1e3 * (wall + time.perf_counter() - start[1]))
    cells = [f"{sum(t[1:]) / ASKED:.1f} | {max(t[1:]):.1f}" for t in (spent, waited)]
    print(
        f"| {searcher} | {ledger} | {trials} | " + " | ".join(cells) + f" | {spent[0] / 1e3:.1f} |",
        flush=True,
    )


def grow(searcher: str, trials: int) -> None:
    """Print one line of resident memory."""
    study = Study(SPACE, reward=REWARD, estimate=estimate, searcher=searcher)
    start, sizes = time.process_time(), [resident_mb()]
    for n in range(1, trials + 1):
        if (asked := study.ask()) is None:  # it has nothing new any more
            break
        study.tell(asked, accuracy(asked.spec))
        if n % (trials // 10) == 0:
            sizes.append(resident_mb())
    ms = 1e3 * (time.process_time() - start) / n
    cells = " | ".join(f"{size:.0f}" for size in sizes)
    entered = len(study._study.get_trials(deepcopy=False))
    print(f"| {searcher} | {cells} | {ms:.1f} | {entered} |", flush=True)


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, action="append")
    parser.add_argument("--searcher", action="append", choices=SEARCHERS)
    parser.add_argument("--ledger", action="append", choices=LEDGERS)
    parser.add_argument("--grow", type=int, metavar="TRIALS")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searchers = args.searcher or ("random", "evolution", "predictor", "controller", "tpe")
    if args.grow:
        marks = " | ".join(f"{args.grow * i // 10}" for i in range(11))
        print(f"| searcher, MB after trials | {marks} | CPU ms a trial | entered |")
        print("|---|" + "--:|" * 13)
        for searcher in searchers:
            if (child := os.fork()) == 0:  # each with a memory of its own
                grow(searcher, args.grow)
                os._exit(0)
            os.waitpid(child, 0)
        return
    print("| searcher | ledger | trials before | CPU ms | most | wall ms | most | first ask s |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for trials in args.trials or (1_000, 10_000):
        for ledger in args.ledger or LEDGERS:
            for searcher in searchers:
                measure(searcher, trials, ledger)


if __name__ == "__main__":
    main()
