"""How exact is a latency table, and does it matter how its rows are measured?

Fills a fresh table for a seed network on this machine, then measures every row of its grid once
more *alone* (without the narrow convolutions around it), calibrates both on the same networks and
prints the error of both on the same held-out ones.

    python benchmarks/latency_table.py v3-small@224 v3-small@48 v3-large@224
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bneck.costs.table import LatencyTable
from bneck.devices import fill
from bneck.devices.measure import Candidate
from bneck.devices.places.local import Local
from bneck.devices.protocol import race
from bneck.devices.runtimes import Runtime, runtime
from bneck.devices.timing import RunTimer, Timer
from bneck.graphs.onnx_graph import layers_graph
from bneck.graphs.weights import random_weights
from bneck.specs.network import NetSpec
from bneck.specs.zoo import network


def alone(engine: Runtime, entry: fill.Entry) -> Timer:
    """One row by itself, as many tables of other projects have it."""
    walk = [layer for layer in fill._walk(*entry) if layer.row == 1]
    rng = np.random.default_rng(0)
    model = layers_graph(
        walk,
        random_weights(walk, rng),
        padding=entry[0].padding,
        gate=entry[0].gate or "hsigmoid",
    )
    session = engine.load(model.SerializeToString(), threads=1)
    image = rng.standard_normal((1, walk[0].width_in, *walk[0].size_in), dtype=np.float32)
    return RunTimer(lambda: session.run(image))


def table_of_rows_alone(seed: NetSpec, between: LatencyTable) -> LatencyTable:
    """The same grid measured alone, calibrated and judged on the same measured networks."""
    engine = runtime("onnxruntime")
    reference = Candidate(seed).timer(Local(), engine, 1)
    entries = [entry for entry in fill.grid(seed) if entry[0].kind != "context"]
    table = LatencyTable(between.header)
    for start in range(0, len(entries), fill.BATCH):
        batch = entries[start : start + fill.BATCH]
        timers = {str(i): alone(engine, entry) for i, entry in enumerate(batch)}
        samples = race(timers, reference, fill.ROWS, nominal_ms=between.header["reference_ms"])
        for i, entry in enumerate(batch):
            table.add_row(*entry, statistics.median(samples[str(i)].paced_ms))
    for spec, (_, ms, held_out) in zip(
        fill.calibration_networks(seed), between.networks, strict=True
    ):
        table.add_network(table.sum_rows(spec), ms, held_out)
    return table


def main(names: list[str]) -> None:
    """Print one line a seed network and way of measuring."""
    print(
        "| seed | rows measured | entries | fill s | s an entry "
        "| rounding | scale | offset ms | held out | median | p95 |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name in names:
        seed = network(name)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            between = fill.fill_table(seed, Path(folder) / "table.jsonl")
            seconds = time.perf_counter() - start
        for how, table in (("between", between), ("alone", table_of_rows_alone(seed, between))):
            entries = sum(len(widths) for widths in table.rows.values())
            line, error = table.line(), table.error()
            filled = f"{seconds:.0f} | {seconds / entries:.3f}" if how == "between" else "- | -"
            print(
                f"| {name} | {how} | {entries} | {filled} "
                f"| {line.rounding:.2f} | {line.scale:.3f} | {line.offset_ms:.4f} "
                f"| {error.networks} | {error.median:.1%} | {error.p95:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:] or ["v3-small@224", "v3-small@48", "v3-large@224"])
