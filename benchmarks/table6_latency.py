"""Processor time of Table 6's eleven detectors, as ratios to V2's, beside the paper's latencies.

python benchmarks/table6_latency.py [ROUNDS]

ONNX Runtime on one thread, 320 px, random weights, without decoding and suppression. In every round each
network runs a few times in shuffled order; what is compared is processor time within the round, so
that a machine on which other work goes on gives ratios too (its caches are shared all the same:
`bneck measure --task detect` has the wall times of a quiet machine).
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from bneck.devices.models import wrapped_model
from bneck.devices.runtimes import OnnxRuntime
from bneck.tasks.detect.count import TABLE6
from bneck.tasks.detect.head import ssdlite

RUNS = 3  # of a network in a round; the fastest counts


def loaded(name: str) -> Callable[[], object]:
    """A function that runs a network's detector once."""
    detector = ssdlite(name)
    engine = OnnxRuntime()
    session = engine.load(wrapped_model(detector, engine, (320, 320)), threads=1)
    image = np.random.default_rng(1).standard_normal((1, 3, 320, 320), dtype=np.float32)
    return lambda: session.run_all(image)


def main() -> None:
    """Print milliseconds and ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    runs = {row.network: loaded(row.network) for row in TABLE6}
    shuffle = random.Random(0)
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name in shuffle.sample([*runs], len(runs)):
            best = float("inf")
            for _ in range(RUNS):
                start = time.process_time()
                runs[name]()
                best = min(best, (time.process_time() - start) * 1e3)
            taken[name].append(best)
    v2 = next(row for row in TABLE6 if row.network == "v2")
    print("row              ms     ratio to V2 (10th to 90th percentile)   paper")
    for row in TABLE6:
        ratios = [a / b for a, b in zip(taken[row.network], taken["v2"], strict=True)]
        low, middle, high = np.percentile(ratios, [10, 50, 90])
        print(
            f"{row.label:<16} {statistics.median(taken[row.network]):5.1f}  {middle:.3f} "
            f"({low:.3f} to {high:.3f})  {row.latency_ms / v2.latency_ms:.3f}"
        )


if __name__ == "__main__":
    main()
