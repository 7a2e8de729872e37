"""The latencies of the paper's tables: what is to be timed, one interleaved benchmark, or records of one."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bneck.devices.measure import Candidate, measure
from bneck.devices.protocol import Protocol
from bneck.records.measurement import Measurement, Spread
from bneck.records.progress import Advancing, Progress
from bneck.report.exhibits import Pair
from bneck.runs.measure import PATIENT
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import resolve
from bneck.specs.transforms import rename
from bneck.tasks.registry import DEFAULT, task
from bneck.tasks.segment.count import FULL, HALF

Key = tuple[str, str]  # a network's name, see `sized`, and its precision
UNFUSED = " unfused"  # after the name of a network whose h-swish is made of several operators
DETECTOR = "ssdlite "  # before the name of a detector's backbone
MOST_WALL_OVER_CPU = 1.1


@dataclass
class Wanted:
    """What the exhibits need timed. Keys keep the order in which they were asked for.

    Detectors go by their network's name, segmenters by that, their head and its filters.
    """

    networks: dict[Key, NetSpec] = field(default_factory=dict)
    detectors: dict[str, None] = field(default_factory=dict)
    segmenters: dict[tuple[str, str, int], None] = field(default_factory=dict)

    def want(self, names: Iterable[str | NetSpec], precision: str = "fp32") -> None:
        """Classifiers; a name may end in " unfused"."""
        for name in names:
            label = name if isinstance(name, str) else name.name
            plain = name.removesuffix(UNFUSED) if isinstance(name, str) else name
            self.networks[label, precision] = rename(resolve(plain), label)


@dataclass
class Timing:
    """Measured latencies by key; every network of one race, or of one file of records."""

    found: dict[Key, Measurement] = field(default_factory=dict)

    def add(self, records: Iterable[Measurement]) -> None:
        """Take in measurements; a later one replaces an earlier one of the same network."""
        for one in records:
            name = sized(one.network, (one.resolution, one.width or one.resolution))
            self.found[name, one.precision] = one

    def ms(self, name: str, precision: str = "fp32") -> Pair:
        """The median of a network in milliseconds with its spread; an empty pair without one."""
        one = self.found.get((name, precision))
        if one is None:
            return Pair()
        if _by_cpu(one):
            return Pair(ours=one.cpu_ms)  # a record holds CPU time without a spread
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

    def sentence(self, name: str = DEFAULT) -> str:
        """What was measured where of a task, for a note; "" if nothing was."""
        found = [one for key, one in self.found.items() if _task(key[0]) == name]
        if not found:
            return ""
        one = found[0]
        what = "CPU time" if _by_cpu(one) else "wall time"
        shares = [m.raw_latency_ms.median / m.cpu_ms for m in found if m.cpu_ms]
        busy = statistics.median(shares) if shares else 1.0
        disturbed = ""
        if one.threads == 1 and busy > MOST_WALL_OVER_CPU:
            disturbed = f" Other work disturbed the machine (wall time {busy:.2f} of CPU time)."
        scores = ", scores at full size" if name == "segment" else ""
        return (
            f"Latencies: {one.device.place}, {one.device.processor}, {one.runtime} {one.runtime_version}, "
            f"{one.threads} thread{'s' if one.threads > 1 else ''}, batch 1, random weights{scores}; medians "
            f"of {what}, ratios taken round by round over {one.rounds} interleaved rounds (10th to 90th "
            f"percentile), commit {one.commit}.{disturbed}"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `read_timing` takes them."""
        return {"measurements": [one.as_json() for one in self.found.values()]}


def sized(name: str, size: tuple[int, int]) -> str:
    """What a network goes by at (height, width): with the size after its name if that is no square."""
    return name if size[0] == size[1] else f"{name} {_text(size)}"


def _task(name: str) -> str:
    """The task of a network that `sized` has named: segmenters alone see images that are no squares."""
    if name.startswith(DETECTOR):
        return "detect"
    return "segment" if re.search(r" \d+x\d+$", name) else "classify"


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
            timing.add([Measurement.from_json(one) for one in data["measurements"]])
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise InputError(
                f"{path} holds no latencies; give what bneck measure --json printed, or the "
                "latencies.json of an earlier bneck reproduce"
            ) from None
    return timing


def measured(
    wanted: Wanted, *, quick: bool, runtime: str, device: str, threads: int, progress: Progress
) -> Timing:
    """Race everything that is wanted: classifiers, detectors and segmenters, each among themselves.

    A busy machine is not refused: CPU time within a round is compared, and its spread is printed.
    """
    protocol = Protocol(
        threads=threads, rounds=6 if quick else 20, burst_ms=8.0 if quick else 20.0,
        least_runs=2 if quick else 3, first_warmup=3, warmup=1, max_repeats=1, max_spread=1e9,
    )  # fmt: skip
    slow = replace(
        PATIENT, threads=threads, rounds=3 if quick else 5, max_repeats=1, max_spread=1e9
    )
    timing = Timing()

    def race(what: str, candidates: list[Candidate], protocol: Protocol, place: str) -> None:
        if candidates:
            progress.stage(f"timing {what}", protocol.rounds)
            on_round = Advancing(progress)
            timing.add(measure(candidates, place=place, protocol=protocol, on_round=on_round))

    race("classifiers", _classifiers(wanted.networks, runtime, progress), protocol, device)
    race("detectors", [_wrapped("detect", name) for name in wanted.detectors], protocol, "local")
    for size in (HALF,) if quick else (HALF, FULL):
        segmenters = [
            _wrapped("segment", name, head=head, filters=filters, size=_text(size))
            for name, head, filters in wanted.segmenters
        ]
        race(f"segmenters at {_text(size)}", segmenters, slow, "local")
    return timing


def _classifiers(networks: dict[Key, NetSpec], runtime: str, progress: Progress) -> list[Candidate]:
    if networks:
        progress.stage("writing networks", len(networks))
    candidates = []
    for (name, precision), spec in networks.items():
        model = _unfused(spec) if name.endswith(UNFUSED) else None
        candidates.append(Candidate(spec, model, runtime, precision))
        progress.advance(1)
    return candidates


def _wrapped(name: str, network: str, **options: Any) -> Candidate:
    """A network with a task's head, in ONNX Runtime."""
    chosen = task(name)
    spec, wrapper = chosen.arrange(network, chosen.Options(**options), None)
    spec = rename(spec, chosen.title(spec, wrapper))
    return Candidate(spec, None, "onnxruntime", wrapper=wrapper)


def _unfused(spec: NetSpec) -> bytes:
    """A file with h-swish as four operators, none of which ONNX Runtime fuses."""
    from bneck.devices.models import network_model
    from bneck.devices.runtimes import runtime

    return network_model(spec, runtime("onnxruntime"), hswish="split")


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
