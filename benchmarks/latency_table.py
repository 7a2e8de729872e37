"""How exact is a latency table on networks that a search finds?

Fills a fresh table on this machine as `bneck table` does. Then the allocator draws further networks with
that table, of other importances than those that calibrate it, so that what the table flatters is
chosen; each is measured as a search verifies it. Printed: the table's
own error on its held-out networks, then that of its estimates of the further ones, before any was
measured ("fixed") and when it has learned from those measured before ("learning").

    python benchmarks/latency_table.py v3-small@128 v2@128 v3-large@224 [--networks 40]
        [--importance FILE] [--runtime onnxruntime] [--table FILE]

FILE: the importance.safetensors of a search, of which every other network takes a perturbed copy.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from bneck.costs.table import LatencyTable
from bneck.devices.deployment import Deployment
from bneck.devices.fill import fill_table
from bneck.nas.allocation.allocator import Allocator
from bneck.nas.allocation.drawn import as_searched
from bneck.nets.importance import Importance
from bneck.runs.search.latency import measured_ms, seed_plan
from bneck.specs.network import NetSpec
from bneck.specs.text import resolve
from bneck.specs.transforms import fix_skips

BATCH = 10  # networks that race each other


def of_trained(seed: NetSpec, table: LatencyTable, count: int, file: Path) -> list[NetSpec]:
    """By the importance of a trained network, perturbed by group and by channel."""
    groups, rng = Importance.load(file).groups, np.random.default_rng(1)
    seed, seed_ms, found = fix_skips(seed), table.estimate_ms(seed), list[NetSpec]()
    for _ in range(count):
        perturbed = {
            key: values * rng.lognormal(0, 0.7) * rng.lognormal(0, 0.5, len(values))
            for key, values in groups.items()
        }
        allocator = Allocator(seed, perturbed, table)
        target_ms = max(rng.uniform(0.25, 0.9) * seed_ms, allocator.fastest_ms() * 1.001)
        found.append(allocator.at(target_ms).spec)
    return found


def told(errors: list[float]) -> str:
    """Columns of a table of results."""
    sizes = np.abs(errors)
    return f"{np.median(sizes):.1%} | {np.percentile(sizes, 95):.1%} | {np.mean(errors):+.1%}"


def main() -> None:
    """Print one line a seed network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", nargs="+")
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument("--importance", type=Path)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    print(
        "| seed | entries | fill s | held out: median | p95 | mean "
        "| fixed: median | p95 | mean | learning: median | p95 | mean |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name in given.seeds:
        seed, on = resolve(name), Deployment(runtime=given.runtime)
        with tempfile.TemporaryDirectory() as folder:
            path, start = given.table or Path(folder) / "table.jsonl", time.perf_counter()
            table = fill_table(seed, path, plan=seed_plan(seed), runtime_name=on.runtime)
        seconds, own = time.perf_counter() - start, table.error()
        specs = as_searched(seed, table, given.networks, draw=1)
        if given.importance:
            trained = of_trained(seed, table, given.networks, given.importance)
            specs = [pair[i % 2] for i, pair in enumerate(zip(specs, trained, strict=True))]
        fixed = [table.estimate_ms(spec) for spec in specs]
        measured, learning = list[float](), list[float]()
        for i in range(0, len(specs), BATCH):
            measured += measured_ms(seed, specs[i : i + BATCH], table, on)
        for spec, ms in zip(specs, measured, strict=True):
            learning.append(table.estimate_ms(spec) / ms - 1)
            table.learn(spec, ms)
        errors = [estimate / ms - 1 for estimate, ms in zip(fixed, measured, strict=True)]
        entries = sum(len(widths) for widths in table.rows.values())
        held_out = f"{own.median:.1%} | {own.p95:.1%} | {own.bias:+.1%}"
        print(
            f"| {name} | {entries} | {seconds:.0f} | {held_out} | {told(errors)} | {told(learning)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
