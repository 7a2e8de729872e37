"""The paper's ablations by the clock: Table 5, Figs 5, 8 and 9, and the stem of section 5.1.

python benchmarks/ablations.py [RUNTIME ...] [--rounds N] [--loads N]

For every runtime one interleaved race of all networks, random weights at 224 px, batch 1, one thread.
Ratios are to V3-Large of the same race, round by round: median, 10th and 90th percentile, of wall
time paced by the reference and of CPU time; the paper's next to them where it prints one.
"unfused" writes h-swish as separate operators, relu6(x + 3) times x, as the paper's "no opt" does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from bneck.costs.count import count
from bneck.devices.measure import Candidate, measure
from bneck.devices.models import network_model
from bneck.devices.protocol import Protocol
from bneck.devices.runtimes import runtime
from bneck.records.measurement import Measurement
from bneck.specs.network import NetSpec
from bneck.specs.variants import fig9_components
from bneck.specs.zoo import network

V3 = 51.4  # milliseconds on a Pixel 1, Table 5
# Table 5: the variant's latency with h-swish as one operator, and as several.
TABLE5 = {
    "v3-large": (51.4, 57.5),
    "v3-large+relu": (50.5, None),
    "v3-large+hswish16": (53.5, 68.9),
    "v3-large+hswish112": (51.0, 54.4),
}
FIG8_WIDTHS = ("0.5", "0.75")
# Section 5.1 as ratios: the efficient last stage saves 11 %, the stem 2 ms.
SECTION5 = {"v3-large+original-tail": 1 / 0.89, "v3-large+stem32-relu": (V3 + 2) / V3}

Row = tuple[str, NetSpec, bool, float | None]
"""Label, network, whether h-swish is unfused, and the paper's ratio to V3-Large."""


def rows() -> Iterator[Row]:
    """What races, V3-Large first."""
    for name, (fused, unfused) in TABLE5.items():
        yield f"Table 5: {name}", network(name), False, fused / V3
        if unfused:
            yield f"Table 5: {name}, unfused", network(name), True, unfused / V3
    for width in FIG8_WIDTHS:
        for variant in ("+relu", "+hswish16", "", "+hswish112"):
            spec = network(f"v3-large-{width}{variant}")
            yield f"Fig. 8: {spec.name}", spec, False, None
            if variant != "+relu":
                yield f"Fig. 8: {spec.name}, unfused", spec, True, None
    for name, paper in SECTION5.items():
        yield f"Section 5.1: {name}", network(name), False, paper
    components = fig9_components(network("mnasnet-a1"), network("v3-large"))
    for label, spec in components[:-1]:
        yield f"Fig. 9: {label}", spec, False, 71 / 51 if label == "seed network" else None


def candidate(spec: NetSpec, unfused: bool, engine: str) -> Candidate:
    form = "split" if unfused else None
    return Candidate(spec, network_model(spec, runtime(engine), hswish=form), engine)


def report(engine: str, rounds: int, loads: int) -> None:
    listed = list(rows())
    protocol = Protocol(
        rounds=rounds, loads=loads, burst_ms=15, least_runs=2, max_repeats=2, max_spread=1e9
    )
    found = measure([candidate(s, u, engine) for _, s, u, _ in listed], protocol=protocol)
    first = found[0]
    print(
        f"\n{engine} {first.runtime_version}, {rounds} rounds of {loads} loads; "
        f"V3-Large {first.cpu_ms:.2f} ms of CPU"
    )
    print("| network | M madds | wall / V3-Large | CPU / V3-Large | paper |")
    print("|---|--:|--:|--:|--:|")
    for (label, spec, _, paper), one in zip(listed, found, strict=True):
        printed = f"{paper:.3f}" if paper else "-"
        print(
            f"| {label} | {count(spec).madds / 1e6:.1f} | {ratio(one, first, 'wall')} | "
            f"{ratio(one, first, 'cpu')} | {printed} |",
            flush=True,
        )


def ratio(one: Measurement, other: Measurement, kind: str) -> str:
    spread = one.ratio(other) if kind == "wall" else one.cpu_ratio(other)
    return f"{spread.median:.3f} ({spread.p10:.3f}-{spread.p90:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runtimes", nargs="*", default=["litert", "onnxruntime", "openvino"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--loads", type=int, default=5)
    options = parser.parse_args()
    for engine in options.runtimes:
        report(engine, options.rounds, options.loads)


if __name__ == "__main__":
    main()
