"""The paper's pairs of networks on every runtime and in both precisions, one interleaved race each.

python benchmarks/runtimes.py [RUNTIME ...] [--rounds N] [--loads N] [--zoo] [--precisions fp32 int8]

Prints, for every runtime, V3-Large / V2 and V3-Small / V2-0.35 beside the paper's ratios, 8-bit over
float for each network (`--zoo`: of the whole zoo), and the share of one core's measured matrix-product peak
that a float network reaches. Ratios are medians over the rounds of ratios within a round, with their 10th
and 90th percentile, of CPU time, which on one thread other users of the machine disturb least; of wall
time after them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch

from bneck.costs.count import count
from bneck.costs.paper import paper_ratio
from bneck.devices.measure import Candidate, measure
from bneck.devices.models import network_model
from bneck.devices.protocol import Protocol
from bneck.devices.runtimes import runtime
from bneck.devices.timing import pinned
from bneck.records.measurement import Measurement
from bneck.specs.zoo import NETWORKS, network

PAIRS = (("v3-large", "v2"), ("v3-small", "v2-0.35"))
PAPERS = ("fp32", "int8")
NAMES = tuple(name for pair in PAIRS for name in pair)


def peak_gflops() -> float:
    """Best of 20 products of two 1024 x 1024 float32 matrices on one thread, by CPU time."""
    torch.set_num_threads(1)
    a = torch.randn(1024, 1024)
    times = []
    with pinned(1):
        for _ in range(20):
            start = time.process_time()
            a @ a
            times.append(time.process_time() - start)
    return 2 * 1024**3 / min(times) / 1e9


def ratio(one: Measurement, other: Measurement) -> str:
    cpu, wall = one.cpu_ratio(other), one.ratio(other)
    return f"{cpu.median:.3f} ({cpu.p10:.3f}-{cpu.p90:.3f}), wall {wall.median:.3f}"


def report(
    engine: str, rounds: int, loads: int, names: Sequence[str], asked: Sequence[str]
) -> None:
    precisions = [one for one in runtime(engine).precisions if one in asked]
    keys = [(name, precision) for precision in precisions for name in names]
    specs = {name: network(name) for name in names}
    kind = runtime(engine)
    candidates = [
        Candidate(specs[name], network_model(specs[name], kind, precision), engine, precision)
        for name, precision in keys
    ]
    protocol = Protocol(
        rounds=rounds, loads=loads, burst_ms=15, least_runs=2, max_repeats=1, max_spread=1e9
    )
    found = dict(zip(keys, measure(candidates, protocol=protocol), strict=True))
    first = found[keys[0]]
    print(f"\n{engine} {first.runtime_version}, {rounds} rounds of {loads} loads")
    for precision in precisions:
        for name, against in PAIRS if precision in PAPERS else ():
            one, other = found[name, precision], found[against, precision]
            printed = paper_ratio(name, precision, against, precision)
            print(
                f"{precision} {name} / {against}: {ratio(one, other)}, paper {printed:.3f}; "
                f"{one.cpu_ms:.2f} / {other.cpu_ms:.2f} ms of CPU time"
            )
    for precision in precisions[1:]:
        for name in names:
            one, other = found[name, precision], found[name, "fp32"]
            slower = "  slower than float" if one.cpu_ratio(other).median > 1 else ""
            print(f"{name} {precision} / fp32: {ratio(one, other)}{slower}")
    for name in NAMES:
        reached = 2 * count(network(name)).madds / found[name, "fp32"].cpu_ms / 1e6
        print(f"{name} fp32: {reached:.1f} GFLOP/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runtimes", nargs="*", default=["litert", "onnxruntime", "openvino"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument(
        "--zoo", action="store_true", help="every network of the zoo, not the pairs alone"
    )
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16", "int8"])
    options = parser.parse_args()
    names = tuple(dict.fromkeys((*NAMES, *(NETWORKS if options.zoo else ()))))
    peaks = [peak_gflops()]
    for engine in options.runtimes:
        report(engine, options.rounds, options.loads, names, options.precisions)
        peaks.append(peak_gflops())
    print(f"\none core's matrix product: {statistics.median(peaks):.1f} GFLOP/s")


if __name__ == "__main__":
    main()
