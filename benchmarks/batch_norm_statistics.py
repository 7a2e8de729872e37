"""Whether proposals rank better when batch norm's statistics are measured again before they are judged.

    python benchmarks/batch_norm_statistics.py OUT [--seeds 3] [--proposals 15] [--long 62]

V3-Small is trained on the built-in images at the built-in resolution, as `bneck search` trains a seed, once a
seed. NetAdapt's proposals at cuts of 1, 4 and 10 % of the multiply-adds are fine-tuned for the
default number of steps, in two orders of the images, and judged by the mean probability of the true class on
the held-out images: with the statistics as the tuning left them, and with those of 1,000 fitted images.

Printed: Kendall's tau of both with the mean of two fine-tunings of LONG steps, and between these two, which
says how much of the ranking is noise.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from scipy.stats import kendalltau

from bneck.costs.count import count
from bneck.nas.netadapt import ALL, propose
from bneck.nets.batch_norm import reestimate
from bneck.nets.build import Net
from bneck.records.progress import Silent
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.main import BUILTIN_EPOCHS, BUILTIN_STEPS, HELDOUT
from bneck.runs.search.settings import tuning
from bneck.specs.network import NetSpec
from bneck.specs.transforms import fix_skips
from bneck.tasks.registry import DEFAULT, task
from bneck.training.settings import Settings

CUTS = (0.01, 0.04, 0.1)
IMAGES, BATCH = 1000, 250
ORDERS = 2


def tuned(
    experiment: Experiment, parent: Net, spec: NetSpec, settings: Settings, steps: int
) -> tuple[float, float]:
    """What a proposal is worth after so many steps, without and with statistics measured again."""
    net = experiment.shrink(parent, spec)
    per_epoch = experiment.data.fitted(heldout=True) // settings.batch
    schedule = replace(settings, epochs=(steps + 1) / per_epoch)
    experiment.fit(net, schedule, heldout=True, until=steps / per_epoch)
    plain = experiment.score(net, heldout=True).expected
    reestimate(net, experiment.data.images(net, "fit", IMAGES).split(BATCH))
    return plain, experiment.score(net, heldout=True).expected


def proposed(seed: NetSpec, wanted: int) -> list[NetSpec]:
    """Proposals of all cuts, drawn at random."""
    madds = count(seed).madds
    rng, found = random.Random(0), []
    for cut in CUTS:
        made = propose(seed, cut * madds, lambda s: float(count(s).madds), seed=seed, kinds=ALL)
        found += [p.spec for p in rng.sample(made, min(len(made), wanted // len(CUTS)))]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--proposals", type=int, default=15)
    parser.add_argument("--long", type=int, default=62, help="steps of the long fine-tuning")
    args = parser.parse_args()
    torch.set_num_threads(1)
    chosen = task(DEFAULT)
    options = chosen.Options()
    dataset = chosen.find(None, options, seed=0)
    base, wrapper = chosen.arrange(chosen.default_network, options, dataset)
    spec = fix_skips(base)
    specs = proposed(spec, args.proposals)
    taus: dict[str, list[float]] = {"as tuned": [], "measured again": [], "long": []}
    for seed in range(args.seeds):
        training = chosen.recipe(
            None, images=dataset.splits["train"], epochs=BUILTIN_EPOCHS, started=False, seed=seed
        )
        data = chosen.prepare(
            dataset, base, wrapper, options, scratch=args.out / f"data-{seed}", seed=seed,
            heldout=HELDOUT, progress=Silent(),
        )  # fmt: skip
        experiment = Experiment(task_name=chosen.name, wrapper=wrapper, data=data)
        parent = experiment.build(spec, seed)
        experiment.fit(parent, training, heldout=True)
        print(f"seed {seed}: {experiment.score(parent, heldout=True)}", flush=True)
        orders = [replace(tuning(training), seed=seed + n) for n in range(1, ORDERS + 1)]
        long, short = (
            np.array([[tuned(experiment, parent, s, o, steps) for o in orders] for s in specs])
            for steps in (args.long, BUILTIN_STEPS)
        )  # (proposals, orders, without and with)
        reference = long[:, :, 0].mean(1)
        taus["long"].append(kendalltau(*long[:, :, 0].T).statistic)
        for n, name in enumerate(("as tuned", "measured again")):
            now = [kendalltau(reference, short[:, o, n]).statistic for o in range(ORDERS)]
            taus[name] += now
            print(
                f"seed {seed}, {name}: tau {now[0]:.2f} {now[1]:.2f}, mean probability "
                f"{short[:, :, n].mean():.3f} (long {long[:, :, n].mean():.3f})",
                flush=True,
            )
    for name, values in taus.items():
        print(f"{name}: tau {mean(values):.2f}, std {stdev(values):.2f} (n = {len(values)})")
    print(f"{len(specs)} proposals, {time.process_time():.0f} s of CPU time")


if __name__ == "__main__":
    main()
