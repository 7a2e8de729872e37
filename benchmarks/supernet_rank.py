"""How well a supernet ranks networks that are then trained alone.

    python benchmarks/supernet_rank.py DATA OUT [--space v3-small] [--resolution 64] [--epochs 30]
        [--alone 6] [--networks 20] [--supernets 1] [--seeds 2]

`bneck search --from-scratch --supernet` prints Kendall's tau for the eight networks that it checks. This
measures it on more networks, with confidence intervals. SUPERNETS supernets are trained for EPOCHS, with
a seed each. Random networks of the space are evaluated with the weights of every supernet. The same
networks are trained alone for ALONE epochs, once per seed, like trials without a supernet. All
evaluations use the same held-out images and the mean probability of the true class.

Prints Kendall's tau of each supernet against the mean of the training runs alone. To compare: the tau
between two supernets, between two training runs alone (their noise bounds every ranking), and of
multiply-adds and parameters, which cost nothing. Each has the 95 % interval of 10,000 resamplings of the
networks. OUT keeps all figures, so the same command resumes after a kill.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

from bneck.costs.count import Count, count
from bneck.data.folders import list_images
from bneck.data.pack import pack
from bneck.nas.spaces import space as named_space
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.jobs import ProxyJob, proxy_job
from bneck.runs.search.supernet import InheritedJob, SupernetJob, inherited_job, supernet_job
from bneck.specs.wrapper import Plain
from bneck.tasks.classify.dataset import ImageData
from bneck.tasks.classify.recipes import small_data

RESAMPLED = 10_000


class Kept:
    """Figures by name in a file of json lines, each worked out once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.known = {entry["name"]: entry for entry in map(json.loads, lines)}

    def figure(self, name: str, work: object) -> float:
        """The figure of that name, from `work()` if it is not known yet."""
        if name not in self.known:
            start = time.process_time()
            entry = {"name": name, "value": float(work()), "cpu_s": time.process_time() - start}  # type: ignore[operator]
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            self.known[name] = entry
            print(f"{name}: {entry['value']:.4f} ({entry['cpu_s']:.0f} s)", flush=True)
        return float(self.known[name]["value"])


def tau(left: Sequence[float], right: Sequence[float]) -> str:
    """Kendall's tau and its interval."""
    one, other = np.array(left), np.array(right)
    rng, found = np.random.default_rng(0), []
    for _ in range(RESAMPLED):
        drawn = rng.integers(len(one), size=len(one))
        found.append(kendalltau(one[drawn], other[drawn]).statistic)
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return f"{kendalltau(one, other).statistic:.2f} ({low:.2f} to {high:.2f})"


def trained_whole(job: SupernetJob) -> float:
    """Train a supernet; 1, a diverged training ends the benchmark."""
    if (failed := supernet_job(job)) is not None:
        raise SystemExit(f"the supernet's training failed: {failed}")
    return 1.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--space", default="v3-small")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=30.0, help="of the supernet")
    parser.add_argument("--alone", type=int, default=6, help="epochs of a network alone")
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--supernets", type=int, default=1, help="supernets, with a seed each")
    parser.add_argument("--seeds", type=int, default=2, help="training runs of a network alone")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    packed = pack(list_images(args.data), args.resolution, args.out / "pack")
    data = ImageData(
        scratch=args.out / "pack", streamed=None, fingerprint=None, classes=packed.classes,
        heldout_share=0.2, seed=0, bad_share=0.01,
    )  # fmt: skip
    experiment = Experiment(task_name="classify", wrapper=Plain(), data=data)
    space = named_space(args.space, resolution=args.resolution, classes=len(packed.classes))
    fitted = len(data.open().fit)
    print(f"{fitted} images to train on, {len(data.open().held)} held out")
    kept, rng = Kept(args.out / "figures.jsonl"), random.Random(0)
    drawn = [space.sample(rng) for _ in range(args.networks)]

    def inherited(seed: int) -> list[float]:
        shared = SupernetJob(
            space=space, experiment=experiment, weights=args.out / f"supernet-{seed}.safetensors",
            settings=small_data(images=fitted, epochs=args.epochs, seed=seed),
            checkpoint=args.out / f"supernet-{seed}.checkpoint", mark=args.out / "supernet.mark",
        )  # fmt: skip
        kept.figure(f"supernet {seed}", lambda: trained_whole(shared))
        jobs = [
            InheritedJob(space=space, tokens=tokens, experiment=experiment, weights=shared.weights)
            for tokens in drawn
        ]
        return [
            kept.figure(f"inherited {seed} {n}", lambda job=job: inherited_job(job)["expected"])
            for n, job in enumerate(jobs)
        ]

    def alone(seed: int) -> list[float]:
        found = []
        for n, tokens in enumerate(drawn):
            job = ProxyJob(
                spec=space.decode(tokens), experiment=experiment, until=args.alone,
                settings=small_data(images=fitted, epochs=args.alone, seed=seed),
                checkpoint=args.out / f"alone-{seed}-{n}.checkpoint",
            )  # fmt: skip
            found.append(
                kept.figure(f"alone {seed} {n}", lambda job=job: proxy_job(job)["expected"])
            )
            job.checkpoint.unlink(missing_ok=True)
        return found

    shared, trained = [inherited(0)], [alone(0)]
    shared += [inherited(seed) for seed in range(1, args.supernets)]
    trained += [alone(seed) for seed in range(1, args.seeds)]
    costs = [count(space.decode(tokens)) for tokens in drawn]
    report(args, shared, trained, costs)
    print(f"by chance {1 / len(packed.classes):.3f}")


def report(
    args: argparse.Namespace,
    shared: Sequence[Sequence[float]],
    trained: Sequence[Sequence[float]],
    costs: Sequence[Count],
) -> None:
    """Print the table, from the scores by every supernet and of every training run alone."""
    mean = np.mean(trained, 0)
    print(
        f"\n| Kendall's tau over {len(costs)} networks, against the mean of {args.seeds} | |\n|---|--:|"
    )
    for seed, found in enumerate(shared):
        print(f"| supernet of {args.epochs:g} epochs, seed {seed} | {tau(found, mean)} |")
    if args.supernets > 1:
        print(f"| mean of the {args.supernets} supernets | {tau(np.mean(shared, 0), mean)} |")
        print(f"| two supernets, one another | {tau(shared[0], shared[1])} |")
    print(f"| multiply-adds | {tau([c.madds for c in costs], mean)} |")
    print(f"| parameters | {tau([c.params for c in costs], mean)} |")
    if args.seeds > 1:
        print(f"| two training runs alone, one another | {tau(trained[0], trained[1])} |")
    print(
        f"\nmean probability of the true class: by a supernet {np.min(shared):.3f} to "
        f"{np.max(shared):.3f}, alone {mean.min():.3f} to {mean.max():.3f}"
    )


if __name__ == "__main__":
    main()
