"""A search with four workers that tests kill: `python killed_search.py LEDGER FOLDER TRIALS`.

Judging is a short sleep and a line in FOLDER/judged.log; the ledger holds what it holds in a search that
trains.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from bneck.nas.reward import Reward
from bneck.nas.study import Asked, Study
from bneck.runs.search.workers import WorkerPool
from test_study import SMALL, accuracy, madds

WORKERS, BATCH = 4, 8
REWARD = Reward(kind="paper", target_ms=2.0)


def open_study(ledger: str) -> Study:
    """The study of the killed search."""
    return Study(SMALL, reward=REWARD, estimate=madds, searcher="evolution", ledger=ledger, seed=1)


def judge(folder: Path, asked: Asked) -> float:
    """An accuracy, and a line that says whose."""
    time.sleep(0.02 + 0.1 * (asked.number % 3))
    with (folder / "judged.log").open("a") as file:
        file.write(f"{asked.number} {asked.spec.digest()} {os.getpid()}\n")
    return accuracy(asked.spec)


def main(ledger: str, folder: Path, wanted: int) -> None:
    """Search until so many networks are judged."""
    study = open_study(ledger)
    batch = study.under_way()
    (folder / f"began-{os.getpid()}").touch()
    with WorkerPool(WORKERS) as pool:
        while len(study.trials) < wanted:
            room = min(BATCH, wanted - len(study.trials)) - len(batch)
            batch += [asked for _ in range(room) if (asked := study.ask())]
            told = list(batch)
            pool.run(judge, [(folder, one) for one in told], lambda n, v: study.tell(told[n], v))  # noqa: B023
            batch = []
    study.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
