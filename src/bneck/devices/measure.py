"""Measure whole networks: specs or exported files, interleaved, with one record each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bneck.devices.places import describe
from bneck.devices.protocol import REFERENCE, Protocol, Run, race
from bneck.devices.runtimes import Runtime, runtime
from bneck.graphs.onnx_graph import network_graph, random_weights
from bneck.records.commit import commit
from bneck.records.measurement import Measurement, Spread
from bneck.specs.network import NetSpec, layers
from bneck.specs.zoo import network

REFERENCE_NAME = "v3-small-0.5@64"  # small enough to run in every round, large enough to time


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network to time: its spec, and the exported file's bytes where there are any."""

    spec: NetSpec
    model: bytes | None = None

    def file(self) -> bytes:
        """The bytes to load; without an exported file the spec is written with random weights."""
        if self.model is not None:
            return self.model
        weights = random_weights(layers(self.spec), np.random.default_rng(0))
        return bytes(network_graph(self.spec, weights).SerializeToString())

    def prepare(self, engine: Runtime, threads: int) -> Run:
        """Load it; what comes back runs it once on a fixed image."""
        session = engine.load(self.file(), threads=threads)
        shape = (1, self.spec.channels, self.spec.resolution, self.spec.resolution)
        image = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
        return lambda: session.run(image)


def measure(
    candidates: Sequence[Candidate],
    *,
    runtime_name: str = "onnxruntime",
    place: str = "local",
    protocol: Protocol | None = None,
    reference: Candidate | None = None,
    nominal_ms: float | None = None,
    on_round: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """Measure networks on a device, at batch 1, interleaved in shuffled rounds.

    Args:
        candidates: the networks, in the order of the records that come back.
        runtime_name: the engine.
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
    engine = runtime(runtime_name)
    runs = {str(i): c.prepare(engine, protocol.threads) for i, c in enumerate(candidates)}
    reference = reference or Candidate(network(REFERENCE_NAME))
    reference_run = reference.prepare(engine, protocol.threads)
    samples = race(runs, reference_run, protocol, nominal_ms=nominal_ms, on_round=on_round)
    reference_ms = statistics.median(samples[REFERENCE].round_ms)
    pace = reference_ms / nominal_ms if nominal_ms else 1.0
    found = []
    for i, candidate in enumerate(candidates):
        sample = samples[str(i)]
        raw = Spread.of(sample.wall_ms)
        paced = _paced(raw, statistics.median(sample.paced_ms)) if nominal_ms else raw
        found.append(
            Measurement(
                network=candidate.spec.name,
                digest=candidate.spec.digest(),
                resolution=candidate.spec.resolution,
                runtime=engine.name,
                runtime_version=engine.version,
                precision="fp32",
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
                commit=commit(),
            )
        )
    return found


def _paced(raw: Spread, median: float) -> Spread:
    factor = median / raw.median
    return replace(raw, median=median, p10=raw.p10 * factor, p90=raw.p90 * factor)
