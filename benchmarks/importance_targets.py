"""How near a search by importance comes to its targets by the clock, without any training.

    python benchmarks/importance_targets.py choose RUNS.json [--network v3-small@128] [--runs 20]
    python benchmarks/importance_targets.py again RUNS.json

`choose` fills the network's latency table on this machine (or takes that of the cache folder), draws a
random importance for every run, and chooses widths for targets from 35 to 85 % of the network's latency
as a run does. What it chose is measured once more, which nothing was decided by. `again` measures
the same networks at a later time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bneck.costs.table_file import read_table
from bneck.devices.deployment import Deployment
from bneck.devices.fill import fill_table
from bneck.nas.allocation.allocator import Allocator
from bneck.nas.allocation.drawn import random_importance
from bneck.records.ledger import Ledger
from bneck.records.progress import Silent
from bneck.runs.search.latency import Latencies, measured_ms, seed_plan, table_path
from bneck.runs.search.widths.clocks import by_clocks
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text, resolve, to_text
from bneck.specs.transforms import fix_skips
from bneck.specs.wrapper import PLAIN

LOWEST, HIGHEST = 0.35, 0.85


def choose(network: str, runs: int) -> dict[str, Any]:
    """Choose widths for every target; what came out, as shares of the targets."""
    seed = resolve(network)
    path = table_path(seed)
    fill_table(seed, path, plan=seed_plan(seed))
    results: list[dict[str, Any]] = []
    nominal_ms = 0.0
    for number in range(runs):
        table = read_table(path)  # one that has learned nothing
        nominal_ms = float(table.header["reference_ms"])
        share = LOWEST + (HIGHEST - LOWEST) * number / max(runs - 1, 1)
        importance = random_importance(fix_skips(seed), np.random.default_rng(number))
        with tempfile.TemporaryDirectory() as folder:
            run: Any = SimpleNamespace(
                ledger=Ledger(Path(folder) / "ledger.jsonl"), wrapper=PLAIN, progress=Silent(),
                settings=SimpleNamespace(deployment=Deployment()),
            )  # fmt: skip
            latencies = Latencies(run, seed, table)
            limit_ms = share * latencies.verified_ms(seed)

            def proposal(
                aim_ms: float, importance: Any = importance, table: Any = table
            ) -> NetSpec:
                allocator = Allocator(fix_skips(seed), importance, table)
                return allocator.at(max(aim_ms, allocator.fastest_ms())).spec

            (found,) = by_clocks(latencies, limit_ms, {"found": proposal})
            decided = latencies.mean_ms(found)
            tries = len(run.ledger.all(event="verified")) - 1
        (after,) = measured_ms(seed, [found], table)
        results.append({
            "share": share, "limit_ms": limit_ms, "spec": to_text(found), "tries": tries,
            "decided": decided / limit_ms, "after": after / limit_ms,
        })  # fmt: skip
        print(
            f"{share:.3f} of {seed.name}: {tries} networks measured, decided at {decided / limit_ms:.4f}, "
            f"measured after it {after / limit_ms:.4f} of the target",
            flush=True,
        )
    return {"network": network, "nominal_ms": nominal_ms, "runs": results}


def again(found: dict[str, Any]) -> None:
    """Measure the same networks once more, next to the seed network."""
    seed = resolve(found["network"])
    table = read_table(table_path(seed))
    for one in found["runs"]:
        (ms,) = measured_ms(seed, [from_text(one["spec"])], table)
        one["later"] = ms / one["limit_ms"]
        print(f"{one['share']:.3f}: {one['later']:.4f} of the target", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("choose", "again"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--network", default="v3-small@128")
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    if args.what == "choose":
        found = choose(args.network, args.runs)
        keys, low, high = ("decided", "after"), 0.97, 1.0
    else:
        found = json.loads(args.file.read_text(encoding="utf-8"))
        again(found)
        keys, low, high = ("later",), 0.96, 1.01
    args.file.write_text(json.dumps(found, indent=1), encoding="utf-8")
    for key in keys:
        hits = sum(low <= one[key] <= high for one in found["runs"])
        print(f"{key}: {hits} of {len(found['runs'])} within {low:.2f} to {high:.2f} of the target")


if __name__ == "__main__":
    main()
