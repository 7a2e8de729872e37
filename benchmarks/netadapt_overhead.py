"""What NetAdapt costs besides training: proposing for V3-Large, and its share of a whole run.

python benchmarks/netadapt_overhead.py [RUN ...]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from bneck.devices.fill import fill_table
from bneck.nas.netadapt import propose
from bneck.records.run import RunFolder
from bneck.specs.transforms import fix_skips
from bneck.specs.zoo import network


def main(runs: list[str]) -> None:
    """Print the time of one step's proposals, and the overhead of finished runs."""
    seed = fix_skips(network("v3-large"))
    with tempfile.TemporaryDirectory() as folder:
        table = fill_table(network("v3-large"), Path(folder) / "table.jsonl")
    latency_ms = table.estimate_ms(seed)
    times = []
    for _ in range(30):
        table._cache.clear()  # every repeat interpolates anew, as the first step of a run does
        start = time.perf_counter()
        proposals = propose(seed, 0.01 * latency_ms, table.estimate_ms, seed=seed)
        times.append((time.perf_counter() - start) * 1e3)
    print(
        f"{len(proposals)} proposals for v3-large: median {statistics.median(times):.1f} ms, "
        f"most {max(times):.1f} ms, over {len(times)} repeats"
    )
    for run in runs:
        record = RunFolder(Path(run)).read()
        share = record["overhead_seconds"] / record["seconds"]
        print(
            f"{run}: overhead {record['overhead_seconds']:.1f} s of {record['seconds']:.0f} s = {share:.2%}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
