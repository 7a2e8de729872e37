"""A measurement: what a clock said of a network on a device, with all that is needed to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median and 10th and 90th percentile: of times in milliseconds, or of ratios."""

    median: float
    p10: float
    p90: float

    @staticmethod
    def of(samples: Sequence[float]) -> Spread:
        """The spread of at least one sample."""
        p10, median, p90 = np.percentile(np.asarray(samples, dtype=np.float64), [10, 50, 90])
        return Spread(median=float(median), p10=float(p10), p90=float(p90))


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where a clock ran: what the machine calls its processor, and how many cores it has."""

    place: str
    processor: str
    cores: int
    system: str
    pinned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Latency of one network at batch 1.

    `latency_ms` is wall time, `cpu_ms` process CPU time, `fastest_ms` the wall time of the fastest run.
    `pace` is how slow the reference network ran in the same rounds against its nominal time (1.0: as fast
    as then). Where a nominal time is known, `latency_ms` is scaled: its median is the nominal time, times this
    network's fastest run over that of the reference. `raw_latency_ms` is what the clock said.
    `rounds_ms` has the median of every round, each divided by the reference's pace next to it;
    `rounds_cpu_ms` that of CPU time, as it was. Some devices tell no CPU time: then `cpu_ms` is None.
    The image is `resolution` pixels high and `width` wide, as high where that is None.
    `profile` is what the device's own tool prints of single operators, where it was asked to.
    """

    network: str
    digest: str
    resolution: int
    runtime: str
    runtime_version: str
    precision: str
    threads: int
    device: Device
    warmup: int
    n: int
    rounds: int
    repeated: int
    latency_ms: Spread
    raw_latency_ms: Spread
    cpu_ms: float | None
    reference: str
    reference_ms: float
    pace: float
    commit: str
    fastest_ms: float | None = None
    rounds_ms: tuple[float, ...] = ()
    rounds_cpu_ms: tuple[float, ...] = ()
    profile: str | None = None
    width: int | None = None

    def ratio(self, other: Measurement) -> Spread:
        """How many times longer this one took than `other`, round by round of one interleaved race."""
        return _ratio(self.rounds_ms, other.rounds_ms)

    def cpu_ratio(self, other: Measurement) -> Spread:
        """The same of CPU time: what holds on a machine that others use; for one thread only."""
        return _ratio(self.rounds_cpu_ms, other.rounds_cpu_ms)

    def as_json(self) -> dict[str, Any]:
        """Plain values for a json file."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Measurement:
        """What `as_json` gave; fields that this version does not know are left out.

        Raises:
            LookupError, TypeError: the values are those of no measurement.
        """
        known = {f.name: values[f.name] for f in fields(Measurement) if f.name in values}
        device = values["device"]
        for name in ("latency_ms", "raw_latency_ms"):
            known[name] = Spread(**values[name])
        for name in ("rounds_ms", "rounds_cpu_ms"):
            known[name] = tuple(values.get(name, ()))
        mine = {f.name: device[f.name] for f in fields(Device) if f.name in device}
        return Measurement(**known | {"device": Device(**mine)})


def _ratio(mine: Sequence[float], theirs: Sequence[float]) -> Spread:
    return Spread.of([a / b for a, b in zip(mine, theirs, strict=True)])
