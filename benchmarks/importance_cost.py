"""What the importance of channels costs: its pass over images against a training epoch on the same ones.

    python benchmarks/importance_cost.py DATA [NETWORK] [RESOLUTION] [ROUNDS]

Each of both is a process of its own, with one thread, so that its largest resident memory is its own; they
take turns. CPU time counts, so that a neighbour slows neither. The memory before, images and network read, is
the same for both.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bneck.records.progress import Silent
from bneck.tasks.registry import DEFAULT, task
from bneck.training.loop import fit

KINDS = ("importance", "training")


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(kind: str, data: str, network: str, side: int, scratch: Path) -> None:
    """Do one of both; tell images, seconds of CPU time, and MB before and at most."""
    torch.set_num_threads(1)
    chosen = task(DEFAULT)
    options = chosen.Options(resolution=side)
    dataset = chosen.find(data, options, seed=0)
    spec, wrapper = chosen.arrange(network, options, dataset)
    images = chosen.prepare(
        dataset, spec, wrapper, options, scratch=scratch, seed=0, progress=Silent()
    )
    settings = chosen.recipe(
        "finetune", images=dataset.splits["train"], epochs=1.0, started=True, seed=0
    )
    net: Any = chosen.module(spec, wrapper, seed=0)
    before, begun = peak_mb(), time.process_time()
    if kind == "importance":
        count = images.importance(net, settings, Silent()).images
    else:
        problem = images.problem(net, settings)
        fit(net, problem, settings)
        count = problem.images // settings.batch * settings.batch
    seconds = time.process_time() - begun
    print(json.dumps([count, seconds, before, peak_mb()]))


def main(data: str, network: str = "v3-small", side: int = 128, rounds: int = 5) -> None:
    found: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(rounds + 1):
            for kind in KINDS:
                command = [
                    sys.executable,
                    __file__,
                    "--child",
                    kind,
                    data,
                    network,
                    str(side),
                    scratch,
                ]
                told = json.loads(subprocess.check_output(command))
                if number:  # the first one decodes the images
                    found[kind].append(told)
    print(f"{network} at {side} px, {rounds} rounds, one thread, CPU time")
    for kind, rows in found.items():
        count, seconds, before, most = (median(column) for column in zip(*rows, strict=True))
        print(
            f"{kind:10} {count:5.0f} images in {seconds:5.1f} s, {count / seconds:4.0f} images/s; "
            f"{most:.0f} MB at most, {most - before:.0f} above those before"
        )
    ratios = [a[1] / b[1] for a, b in zip(*found.values(), strict=True)]
    print(
        f"importance takes {median(ratios):.2f} of an epoch ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "--child":
        child(*arguments[1:4], int(arguments[4]), Path(arguments[5]))
    else:
        main(*arguments[:2], *map(int, arguments[2:]))
