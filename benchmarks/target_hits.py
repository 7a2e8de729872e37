"""How near a search from scratch comes to a latency target, without any training.

    python benchmarks/target_hits.py [--space v3-small] [--resolution 48] [--target 70%] [--runs 10]
        [--trials 60] [--slack 0] [--table FILE] [--measure]

The space's latency table is really measured on this machine (or read from FILE, which is filled if it
is not there); accuracy is made up from counts with noise. Every run is a block search in hard mode with a
seed of its own; the network of the highest reward is fitted to the target by widths, as a run does
it. With --slack 0.15 the blocks stand above the target and widths alone (in place of NetAdapt, which
would have to train) narrow them to it.

Printed: latency / target of the chosen trial and of the fitted network, both by the table. With
--measure the fit goes by the clock, as in a run, and a second measurement of what came out, which
nothing was decided by, stands next to it.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from bneck.costs.count import count
from bneck.devices import fill
from bneck.nas.fitting import fit_widths
from bneck.nas.reward import Reward
from bneck.nas.spaces import space as named_space
from bneck.nas.study import Study
from bneck.runs.search.fitting import AIM, fit_by_clock
from bneck.runs.search.latency import measured_ms
from bneck.runs.search.settings import target_ms
from bneck.specs.network import NetSpec
from bneck.specs.transforms import with_classes, with_resolution
from bneck.specs.zoo import network

LOW = 0.98


def accuracy(spec: NetSpec, rng: random.Random) -> float:
    """Rises with parameters and multiply-adds at a falling rate; a training's noise on top."""
    costs = count(spec)
    value = 0.4 + 0.12 * (costs.params / 1e6) ** 0.4 + 0.05 * (costs.madds / 1e7) ** 0.3
    return min(0.95, value + rng.gauss(0, 0.005))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--space", default="v3-small")
    parser.add_argument("--resolution", type=int, default=48)
    parser.add_argument("--target", default="70%", help="a time, or a share of V3-Small's latency")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--slack", type=float, default=0.0)
    parser.add_argument("--table", type=Path, default=Path("space-table.jsonl"))
    parser.add_argument("--measure", action="store_true")
    args = parser.parse_args()
    base = with_resolution(with_classes(network("v3-small"), 10), args.resolution)
    space = named_space(args.space, resolution=args.resolution, classes=10)
    rng = random.Random(0)
    networks = [space.decode(space.sample(rng)) for _ in range(fill.NETWORKS_IN_ALL)]
    plan = fill.plan_for_all(space.covering(), networks, name=space.name, digest=space.digest())
    table = fill.fill_table(base, args.table, plan=plan)
    limit_ms = target_ms(args.target, float(table.header["reference_ms"]))
    print(f"{space.name} at {args.resolution} px: {table.error()}; target {limit_ms:.4f} ms")
    print("| seed | trial / target | fitted / target, table | measured | measured again |")
    print("|--:|--:|--:|--:|--:|")
    hits = {"table": 0, "clock": 0, "again": 0}
    for seed in range(args.runs):
        aim_ms = limit_ms * (1 + args.slack)
        study = Study(
            space,
            reward=Reward(kind="hard", target_ms=aim_ms, limit_ms=aim_ms),
            estimate=table.estimate_ms,
            seed=seed,
        )
        noise = random.Random(seed)
        while len(study.trials) < args.trials and (asked := study.ask()):
            study.tell(asked, accuracy(asked.spec, noise))
        best = study.best(1)[0]
        spec = space.decode(best.tokens)
        fitted = fit_widths(spec, AIM * limit_ms, table.estimate_ms)
        estimated = table.estimate_ms(fitted) / limit_ms
        hits["table"] += LOW <= estimated <= 1
        cells = [f"{best.latency_ms / limit_ms:.3f}", f"{estimated:.3f}", "-", "-"]
        if args.measure:
            clock = lambda s: measured_ms(base, [s], table)[0]  # noqa: E731
            by_clock = fit_by_clock(spec, limit_ms, table, clock)
            again = clock(by_clock.spec) / limit_ms
            shares = by_clock.measured_ms / limit_ms, again
            hits["clock"] += LOW <= shares[0] <= 1
            hits["again"] += LOW <= shares[1] <= 1
            cells[2:] = [f"{share:.3f}" for share in shares]
        print(f"| {seed} | " + " | ".join(cells) + " |", flush=True)
    what = hits if args.measure else {"table": hits["table"]}
    for name, number in what.items():
        print(f"within 2 % below and never above, by {name}: {number} of {args.runs}")


if __name__ == "__main__":
    main()
