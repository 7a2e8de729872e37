"""The search by importance against NetAdapt that inherits weights by the same importance: time and score.

    bneck search ... --method importance --out A
    bneck search ... --method netadapt --out B
    python benchmarks/against_netadapt.py A B

Both runs with the same data, start, target, epochs and seed. The time of a search is that of importance and of
what chooses widths from it: allocation with its measurements, or NetAdapt's trials. Trainings of the seed
network and of the result are left out, and so is NetAdapt's second seed network, which does not learn from the
held-out images.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean
from typing import Any

from bneck.records.run import RunFolder

SEARCHES = ("importance", "widths", "adapt")
ALIKE = ("data", "resolution", "targets", "seed", "training", "recovery", "start", "threads")


def told(folder: str) -> tuple[float, float]:
    """Print what a run found; seconds of its search and the mean score of its network."""
    record: Any = RunFolder(Path(folder)).read()
    seconds = sum(one["seconds"] for one in record["stages"] if one["name"] in SEARCHES)
    score = mean(record["found"]["scores"])
    share = record["measured_latency_ms"] / record["target_ms"]
    print(
        f"{record['settings']['method']:10} search {seconds:7.1f} s of {record['seconds']:.0f} s in all; "
        f"{record['metric']} {score:.1%} at {share:.3f} of the target; seed network "
        f"{mean(record['seed_network']['scores']):.1%}"
    )
    return seconds, score


def main(ours: str, netadapt: str) -> None:
    one, other = (RunFolder(Path(run)).read()["settings"] for run in (ours, netadapt))
    if differ := [name for name in ALIKE if one[name] != other[name]]:
        raise SystemExit(f"the runs differ in {', '.join(differ)}; make them with the same options")
    (seconds, score), (its_seconds, its_score) = told(ours), told(netadapt)
    print(
        f"importance takes 1/{its_seconds / seconds:.1f} of NetAdapt's search time and is "
        f"{100 * (score - its_score):+.1f} points from it"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
