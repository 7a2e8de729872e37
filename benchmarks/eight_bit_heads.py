"""Detectors and segmenters in 8 bits against float on this machine, in LiteRT and ONNX Runtime.

python benchmarks/eight_bit_heads.py [detect | HEIGHTxWIDTH] [ROUNDS] [NETWORK ...]

Random weights, one thread, everything interleaved in shuffled rounds; classes come out of segmenters.
Ratios are of CPU time, which other processes disturb less than wall time: 8-bit over float of the
same network and runtime, round by round, median and 10th to 90th percentile.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from bneck.devices.measure import Candidate, measure
from bneck.devices.models import wrapped_model
from bneck.devices.protocol import Protocol
from bneck.devices.runtimes import runtime
from bneck.records.measurement import Spread
from bneck.runs.measure import PATIENT
from bneck.tasks.options import parse_size
from bneck.tasks.registry import task

DETECTORS = ("v3-small+dagger", "v3-large+dagger", "v2")
SEGMENTERS = ("v3-small+rf2", "v3-large+rf2", "v2-0.35+rf2")
RUNTIMES, PRECISIONS = ("litert", "onnxruntime"), ("fp32", "int8")


def main() -> None:
    """Measure and print a table."""
    what = sys.argv[1] if len(sys.argv) > 1 else "detect"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    names = sys.argv[3:] or (DETECTORS if what == "detect" else SEGMENTERS)
    found = detectors(names, rounds) if what == "detect" else segmenters(names, what, rounds)
    print(f"{'network':32} runtime            fp32 ms   int8 ms  int8 / fp32")
    for (name, engine, precision), times in found.items():
        if precision == "int8":
            base = found[name, engine, "fp32"]
            ratio = Spread.of([a / b for a, b in zip(times, base, strict=True)])
            ours, theirs = Spread.of(times).median, Spread.of(base).median
            print(
                f"{name:32} {engine:18} {theirs:7.2f} {ours:9.2f}  {ratio.median:.2f} "
                f"({ratio.p10:.2f} to {ratio.p90:.2f})"
            )


Times = dict[tuple[str, str, str], Sequence[float]]


def detectors(names: Sequence[str], rounds: int) -> Times:
    """CPU times of every round, by network, runtime and precision."""
    chosen = task("detect")
    arranged = [chosen.arrange(name, chosen.Options(), None) for name in names]
    return timed(
        [
            Candidate(spec, runtime=engine, precision=precision, wrapper=wrapper)
            for spec, wrapper in arranged
            for engine in RUNTIMES
            for precision in PRECISIONS
        ],
        replace(Protocol(), rounds=rounds),
    )


def segmenters(names: Sequence[str], size: str, rounds: int) -> Times:
    """CPU times of every round, by network, runtime and precision."""
    chosen, pixels = task("segment"), parse_size(size)
    arranged = [chosen.arrange(name, chosen.Options(size=pixels), None) for name in names]
    return timed(
        [
            Candidate(
                spec,
                wrapped_model(
                    wrapper.around(spec), runtime(engine), pixels, precision, finished=True
                ),
                engine,
                precision,
                wrapper=wrapper,
                pixels=pixels,
            )
            for spec, wrapper in arranged
            for engine in RUNTIMES
            for precision in PRECISIONS
        ],
        replace(PATIENT, rounds=rounds),
    )


def timed(candidates: Sequence[Candidate], protocol: Protocol) -> Times:
    """Whatever the spread."""
    found = measure(candidates, protocol=replace(protocol, max_repeats=0, max_spread=float("inf")))
    return {
        (one.network, f"{one.runtime} {one.runtime_version}", one.precision): one.rounds_cpu_ms
        for one in found
    }


if __name__ == "__main__":
    main()
