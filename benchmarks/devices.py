"""The paper's two ratios on every device that is named: the same files, the same protocol, another clock.

python benchmarks/devices.py DEVICE... (`--rounds N` before them; default local)
"""

from __future__ import annotations

import os
import sys

from bneck.costs.paper import paper_ratio
from bneck.devices.measure import Candidate, measure
from bneck.devices.places import opened
from bneck.devices.protocol import Protocol
from bneck.records.measurement import Spread
from bneck.specs.zoo import network

PAIRS = (("v3-large", "v2"), ("v3-small", "v2-0.35"))


def main(names: list[str], rounds: int) -> None:
    """Print a line a device and pair."""
    # Busy machines are let through: the spread is printed.
    protocol = Protocol(rounds=rounds, max_spread=10)
    print("| device | runtime | ratio | wall | CPU time | paper | ms | load |")
    print("|---|---|---|--:|--:|--:|--:|--:|")
    for name in names:
        before = os.getloadavg()[0]
        with opened(name) as device:
            runtime = device.runtimes[0]
            candidates = [Candidate(network(one)) for pair in PAIRS for one in pair]
            found = measure(candidates, runtime_name=runtime, place=device, protocol=protocol)
        load = f"{before:.1f} to {os.getloadavg()[0]:.1f}"
        for i, pair in enumerate(PAIRS):
            one, other = found[2 * i : 2 * i + 2]
            cpu = _said(one.cpu_ratio(other)) if one.rounds_cpu_ms else "-"
            printed = paper_ratio(pair[0], "fp32", pair[1], "fp32")
            print(
                f"| {name} | {runtime} {one.runtime_version} | {pair[0]} / {pair[1]} "
                f"| {_said(one.ratio(other))} | {cpu} | {printed:.2f} "
                f"| {one.latency_ms.median:.2f} / {other.latency_ms.median:.2f} | {load} |",
                flush=True,
            )


def _said(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.p10:.2f}-{ratio.p90:.2f})"


if __name__ == "__main__":
    words = sys.argv[1:]
    wanted = int(words.pop(words.index("--rounds") + 1)) if "--rounds" in words else 20
    main([word for word in words if word != "--rounds"] or ["local"], wanted)
