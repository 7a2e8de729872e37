"""Measure whole networks: specs or exported files, interleaved, with one record each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bneck.devices.models import network_model
from bneck.devices.places import describe
from bneck.devices.protocol import REFERENCE, Protocol, Run, race
from bneck.devices.runtimes import Runtime, runtime
from bneck.records.commit import commit
from bneck.records.measurement import Measurement, Spread
from bneck.specs.network import NetSpec
from bneck.specs.zoo import network

DEFAULT_RUNTIME = "onnxruntime"
REFERENCE_NAME = "v3-small-0.5@64"  # small enough to run in every round, large enough to time


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network to time: its spec, and the exported file's bytes where there are any.

    `runtime` is the engine that runs it; None leaves it to the caller. `precision` is what a file
    written from the spec is written in, and what an exported file is known to be.
    """

    spec: NetSpec
    model: bytes | None = None
    runtime: str | None = None
    precision: str = "fp32"

    def file(self, engine: Runtime | None = None) -> bytes:
        """The bytes to load; without an exported file the spec is written with random weights."""
        if self.model is not None:
            return self.model
        return network_model(self.spec, engine or runtime(DEFAULT_RUNTIME), self.precision)

    def prepare(self, engine: Runtime, threads: int) -> Run:
        """Load it; what comes back runs it once on a fixed image."""
        session = engine.load(self.file(engine), threads=threads)
        side, channels = self.spec.resolution, self.spec.channels
        rng = np.random.default_rng(1)
        if session.metadata.get("input") == "pixels":
            pixels = rng.integers(0, 256, (1, side, side, channels), dtype=np.uint8)
            return session.prepare(pixels)
        image = rng.standard_normal((1, channels, side, side), dtype=np.float32)
        return session.prepare(image)


def measure(
    candidates: Sequence[Candidate],
    *,
    runtime_name: str = DEFAULT_RUNTIME,
    place: str = "local",
    protocol: Protocol | None = None,
    reference: Candidate | None = None,
    nominal_ms: float | None = None,
    on_round: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """Measure networks on a device, at batch 1, interleaved in shuffled rounds.

    Args:
        candidates: the networks, in the order of the records that come back.
        runtime_name: the engine of candidates that name none.
        place: the device.
        protocol: the timing protocol; None takes the usual one.
        reference: what runs in every round to tell drift; None takes a small network of the zoo.
        nominal_ms: the reference's time that means pace 1, from an earlier measurement on this
            device, so that latencies of different minutes compare; None corrects nothing.
        on_round: called with (rounds done, rounds) for progress.

    Raises:
        TimingError: the machine was too busy.
        InputError: no such runtime or device.
    """
    protocol = protocol or Protocol()
    device = describe(place)
    names = [c.runtime or runtime_name for c in candidates]
    engines = {name: runtime(name) for name in dict.fromkeys(names)}
    runs = {
        str(i): c.prepare(engines[name], protocol.threads)
        for i, (c, name) in enumerate(zip(candidates, names, strict=True))
    }
    reference = reference or Candidate(network(REFERENCE_NAME))
    reference_run = reference.prepare(engines[names[0]], protocol.threads)
    samples = race(runs, reference_run, protocol, nominal_ms=nominal_ms, on_round=on_round)
    reference_ms = statistics.median(samples[REFERENCE].round_ms)
    pace = reference_ms / nominal_ms if nominal_ms else 1.0
    found = []
    for i, (candidate, name) in enumerate(zip(candidates, names, strict=True)):
        sample = samples[str(i)]
        raw = Spread.of(sample.wall_ms)
        paced = _paced(raw, statistics.median(sample.paced_ms)) if nominal_ms else raw
        found.append(
            Measurement(
                network=candidate.spec.name,
                digest=candidate.spec.digest(),
                resolution=candidate.spec.resolution,
                runtime=name,
                runtime_version=engines[name].version,
                precision=candidate.precision,
                threads=protocol.threads,
                device=device,
                warmup=protocol.warmup,
                n=len(sample.wall_ms),
                rounds=protocol.rounds,
                repeated=sample.repeated,
                latency_ms=paced,
                raw_latency_ms=raw,
                cpu_ms=statistics.median(sample.cpu_ms),
                reference=reference.spec.name,
                reference_ms=reference_ms,
                pace=pace,
                rounds_ms=tuple(sample.paced_ms),
                rounds_cpu_ms=tuple(sample.round_cpu_ms),
                commit=commit(),
            )
        )
    return found


def _paced(raw: Spread, median: float) -> Spread:
    factor = median / raw.median
    return replace(raw, median=median, p10=raw.p10 * factor, p90=raw.p90 * factor)
