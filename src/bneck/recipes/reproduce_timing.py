"""The latencies behind the paper's tables: what is to be timed, one race of it, or records of one."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bneck.recipes.progress import Progress
from bneck.records.measurement import Measurement, Spread
from bneck.report.exhibits import Pair
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import resolve
from bneck.specs.transforms import rename
from bneck.tasks.segment.count import FULL, HALF
from bneck.tasks.segment.head import Segmenter

Key = tuple[str, str]  # a network's name and its precision
UNFUSED = " unfused"  # behind the name of a network whose h-swish is made of several operators
DETECTOR = "ssdlite "
MOST_WALL_OVER_CPU = 1.1


@dataclass
class Wanted:
    """What the exhibits need timed. Keys keep the order in which they were asked for."""

    networks: dict[Key, NetSpec] = field(default_factory=dict)
    detectors: dict[str, None] = field(default_factory=dict)
    segmenters: dict[str, Segmenter] = field(default_factory=dict)

    def want(self, names: Iterable[str | NetSpec], precision: str = "fp32") -> None:
        """Classifiers; a name may end in " unfused"."""
        for name in names:
            label = name if isinstance(name, str) else name.name
            plain = name.removesuffix(UNFUSED) if isinstance(name, str) else name
            self.networks[label, precision] = rename(resolve(plain), label)


@dataclass
class Timing:
    """Measured latencies by key; every network of one race, or of one file of records.

    `segmenters` have (name, "HEIGHTxWIDTH") as keys.
    """

    found: dict[Key, Measurement] = field(default_factory=dict)
    segmenters: dict[Key, dict[str, Any]] = field(default_factory=dict)

    def ms(self, name: str, precision: str = "fp32") -> Pair:
        """The median of a network in milliseconds with its spread; an empty pair without one."""
        one = self.found.get((name, precision))
        if one is None:
            return Pair()
        if _by_cpu(one):
            return Pair(ours=one.cpu_ms)
        return Pair(ours=one.latency_ms.median, low=one.latency_ms.p10, high=one.latency_ms.p90)

    def ratio(self, key: Key, base: Key) -> Spread | None:
        """How many times longer one takes than another, round by round where they raced."""
        one, other = self.found.get(key), self.found.get(base)
        if one is None or other is None:
            return None
        if _by_cpu(one) and _by_cpu(other) and len(one.rounds_cpu_ms) == len(other.rounds_cpu_ms):
            return one.cpu_ratio(other)
        if one.rounds_ms and len(one.rounds_ms) == len(other.rounds_ms):
            return one.ratio(other)
        plain = one.latency_ms.median / other.latency_ms.median
        return Spread(median=plain, p10=plain, p90=plain)

    def sentence(self) -> str:
        """What was measured where, for a note; "" if nothing was."""
        if not self.found:
            return ""
        one = next(iter(self.found.values()))
        what = "CPU time" if _by_cpu(one) else "wall time"
        shares = [m.raw_latency_ms.median / m.cpu_ms for m in self.found.values() if m.cpu_ms]
        busy = statistics.median(shares) if shares else 1.0
        disturbed = (
            f" Other work disturbed the machine (wall time {busy:.2f} of CPU time)."
            if one.threads == 1 and busy > MOST_WALL_OVER_CPU
            else ""
        )
        return (
            f"Latencies: {one.device.place}, {one.device.processor}, {one.runtime} {one.runtime_version}, "
            f"{one.threads} thread{'s' if one.threads > 1 else ''}, batch 1, random weights; medians of "
            f"{what}, ratios taken round by round over {one.rounds} interleaved rounds (10th to 90th "
            f"percentile), commit {one.commit}.{disturbed}"
        )

    def segmenters_sentence(self) -> str:
        """The same of segmenters."""
        if not self.segmenters:
            return ""
        one = next(iter(self.segmenters.values()))
        return (
            f"Latencies: {one['processor']}, {one['runtime']} {one['runtime_version']}, "
            f"{one['threads']} thread, batch 1, random weights, scores at full size; median CPU time of "
            f"{one['rounds']} interleaved rounds, commit {one['commit']}."
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `read_timing` takes them."""
        return {
            "measurements": [one.as_json() for one in self.found.values()],
            "segmenters": list(self.segmenters.values()),
        }


def _by_cpu(one: Measurement) -> bool:
    """Whether CPU time is the steadier figure: one thread of this machine, which others use too."""
    return one.threads == 1 and one.device.place == "local" and bool(one.cpu_ms)


def read_timing(paths: Sequence[str | Path]) -> Timing:
    """Latencies from files that `bneck measure --json` or `bneck reproduce` wrote.

    Raises:
        InputError: a file is neither.
    """
    timing = Timing()
    for path in paths:
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if isinstance(data, list):
                data = {"measurements": data}
            records = [Measurement.from_json(one) for one in data["measurements"]]
            segmenters = list(data.get("segmenters", []))
            keys = [(one["segmenter"], _size(one["size"])) for one in segmenters]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise InputError(
                f"{path} holds no latencies; give what bneck measure --json printed, or the "
                "latencies.json of an earlier bneck reproduce"
            ) from None
        timing.found |= {(one.network, one.precision): one for one in records}
        timing.segmenters |= dict(zip(keys, segmenters, strict=True))
    return timing


def measured(
    wanted: Wanted, *, quick: bool, runtime: str, device: str, threads: int, progress: Progress
) -> Timing:
    """Race everything that is wanted: classifiers, detectors and segmenters, each among themselves.

    A busy machine is not refused: CPU time within a round is compared, and its spread is printed.
    """
    from bneck.devices.protocol import Protocol
    from bneck.recipes.detectors import measure_detectors

    rounds = 6 if quick else 20
    protocol = Protocol(
        threads=threads, rounds=rounds, burst_ms=8.0 if quick else 20.0, least_runs=2 if quick else 3,
        first_warmup=3, warmup=1, max_repeats=1, max_spread=1e9,
    )  # fmt: skip
    timing = Timing()
    if wanted.networks:
        found = _race(wanted.networks, runtime, device, protocol, progress)
        timing.found |= {(one.network, one.precision): one for one in found}
    if wanted.detectors:
        advance = _stage(progress, "timing detectors", rounds)
        found = measure_detectors(*wanted.detectors, protocol=protocol, on_round=advance)
        timing.found |= {(one.network, one.precision): one for one in found}
    if wanted.segmenters:
        for size in (HALF,) if quick else (HALF, FULL):
            timing.segmenters |= _segmenters(wanted.segmenters, size, quick, progress)
    return timing


def _race(
    networks: dict[Key, NetSpec], runtime: str, device: str, protocol: Any, progress: Progress
) -> list[Measurement]:
    from bneck.devices.measure import Candidate, measure

    progress.stage("writing networks", len(networks))
    candidates = []
    for (name, precision), spec in networks.items():
        model = _unfused(spec) if name.endswith(UNFUSED) else None
        candidates.append(Candidate(spec, model, runtime, precision))
        progress.advance(1)
    advance = _stage(progress, "timing classifiers", protocol.rounds)
    return measure(
        candidates, runtime_name=runtime, place=device, protocol=protocol, on_round=advance
    )


def _unfused(spec: NetSpec) -> bytes:
    import numpy as np

    from bneck.graphs.onnx_graph import network_graph
    from bneck.graphs.onnx_unfused import unfused
    from bneck.graphs.weights import random_weights
    from bneck.specs.network import layers

    weights = random_weights(layers(spec), np.random.default_rng(0))
    return bytes(unfused(network_graph(spec, weights)).SerializeToString())


def _segmenters(
    segmenters: dict[str, Segmenter], size: tuple[int, int], quick: bool, progress: Progress
) -> dict[Key, dict[str, Any]]:
    from dataclasses import replace

    from bneck.recipes.segment_measure import PROTOCOL, measure_segmenters

    protocol = replace(PROTOCOL, rounds=3 if quick else 5, max_repeats=1, max_spread=1e9)
    advance = _stage(progress, f"timing segmenters at {_size(size)}", protocol.rounds)
    found = measure_segmenters([*segmenters.values()], size, protocol=protocol, on_round=advance)
    return {(one["segmenter"], _size(one["size"])): one for one in found}


def _size(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


def _stage(progress: Progress, name: str, rounds: int) -> Callable[[int, int], None]:
    progress.stage(name, rounds)
    return lambda done, total: progress.advance(1)
