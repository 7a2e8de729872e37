"""How well a supernet ranks networks that are then trained alone.

    python benchmarks/supernet_rank.py DATA OUT [--space v3-small] [--resolution 64] [--epochs 30]
        [--alone 6] [--networks 20] [--seeds 2]

What `bneck search --from-scratch --supernet` prints for the eight networks that it checks, for more of
them and with what the figure is worth. A supernet is trained for EPOCHS; random networks of the space are
judged by its weights, and trained alone for ALONE epochs once a seed, as trials without a supernet
are. All are judged on the same held-out images by the mean probability of the right class.

Printed: Kendall's tau between the supernet and the mean of the trainings alone, between two trainings
alone (what is noise in them no ranking can agree with), and between multiply-adds or parameters and the
trainings: a ranking that costs nothing. Behind each the 95 % interval of 10,000 resamplings of the
networks. OUT keeps what was done, so that the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

from bneck.costs.count import count
from bneck.data.folders import list_images
from bneck.data.pack import pack
from bneck.runs.search.jobs import Images, ProxyJob, proxy_job
from bneck.runs.search.supernet import InheritedJob, SupernetJob, inherited_job, supernet_job
from bneck.tasks.classify.recipes import small_data
from bneck.nas.spaces import space as named_space

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


def main() -> None:
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
    parser.add_argument("--seeds", type=int, default=2, help="trainings of a network alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    packed = pack(list_images(args.data), args.resolution, args.out / "pack")
    images = Images(pack=args.out / "pack", heldout_share=0.2, seed=0)
    space = named_space(args.space, resolution=args.resolution, classes=len(packed.classes))
    fitted = len(images.open()[1])
    print(f"{fitted} images to train on, {len(images.open()[2])} held out")
    kept = Kept(args.out / "figures.jsonl")
    shared = SupernetJob(
        space=space, images=images, settings=small_data(images=fitted, epochs=args.epochs),
        weights=args.out / "supernet.safetensors", checkpoint=args.out / "supernet.checkpoint",
        mark=args.out / "supernet.mark",
    )  # fmt: skip
    kept.figure("supernet", lambda: supernet_job(shared))
    rng, alone = random.Random(0), small_data(images=fitted, epochs=args.alone)
    drawn = [space.sample(rng) for _ in range(args.networks)]
    inherited, trained = [], []
    for n, tokens in enumerate(drawn):
        own = InheritedJob(space=space, tokens=tokens, images=images, weights=shared.weights)
        inherited.append(
            kept.figure(f"inherited {n}", lambda own=own: inherited_job(own)["expected"])
        )
    for seed in range(args.seeds):
        trained.append([])
        for n, tokens in enumerate(drawn):
            job = ProxyJob(
                spec=space.decode(tokens), images=images, settings=replace(alone, seed=seed),
                until=args.alone, checkpoint=args.out / f"alone-{seed}-{n}.checkpoint",
            )  # fmt: skip
            trained[seed].append(
                kept.figure(f"alone {seed} {n}", lambda job=job: proxy_job(job)["expected"])
            )
            job.checkpoint.unlink(missing_ok=True)
    mean, costs = np.mean(trained, 0), [count(space.decode(tokens)) for tokens in drawn]
    print(
        f"\n| Kendall's tau over {len(drawn)} networks, against the mean of {args.seeds} | |\n|---|--:|"
    )
    print(f"| supernet of {args.epochs:g} epochs | {tau(inherited, mean)} |")
    print(f"| multiply-adds | {tau([c.madds for c in costs], mean)} |")
    print(f"| parameters | {tau([c.params for c in costs], mean)} |")
    if args.seeds > 1:
        print(f"| two trainings alone, one another | {tau(trained[0], trained[1])} |")
    print(
        f"\nmean probability of the right class: by the supernet {min(inherited):.3f} to "
        f"{max(inherited):.3f}, alone {mean.min():.3f} to {mean.max():.3f}, "
        f"by chance {1 / len(packed.classes):.3f}"
    )


if __name__ == "__main__":
    main()
