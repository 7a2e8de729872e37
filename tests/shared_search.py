"""One of several runs that share a study: `python shared_search.py LEDGER LOG TRIALS RUN`.

Judging is a short sleep and a line in LOG; the last line says how many of the trials it knows in the end.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from bneck.nas.reward import Reward
from bneck.nas.study import Study
from test_study import SMALL, accuracy, madds


def open_study(ledger: str, run: str, target_ms: float = 2.0) -> Study:
    """The shared study as one run opens it."""
    reward = Reward(kind="paper", target_ms=target_ms)
    return Study(
        SMALL, reward=reward, estimate=madds, searcher="evolution", ledger=ledger, seed=1,
        name="together", run=run,
    )  # fmt: skip


def main(ledger: str, log: Path, wanted: int, run: str) -> None:
    """Search until the runs together have judged so many networks."""
    study, rng = open_study(ledger, run), random.Random(run)
    while asked := study.ask():
        time.sleep(rng.uniform(0, 0.05))
        with log.open("a") as file:
            file.write(f"{run} {asked.number} {asked.spec.digest()} {len(study.trials)}\n")
        study.tell(asked, accuracy(asked.spec))
        study.refresh()
        if len(study.trials) >= wanted:
            break
    study.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
