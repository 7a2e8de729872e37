"""Measure whole networks: specs or exported files, interleaved, with one record each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from bneck.devices.models import wrapped_model
from bneck.devices.places import Place, opened
from bneck.devices.protocol import REFERENCE, Protocol, Samples, race
from bneck.devices.runtimes import Runtime, runtime
from bneck.devices.timing import Timer
from bneck.records.commit import commit
from bneck.records.measurement import Measurement, Spread
from bneck.specs.network import NetSpec
from bneck.specs.wrapper import PLAIN, Wrapper
from bneck.specs.zoo import network

REFERENCE_NAME = "v3-small-0.5@64"  # small enough to run in every round, large enough to time


OnRound: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network to time: its spec, and the exported file's bytes if there are any.

    `runtime` runs it; None leaves it to the caller. `precision` is that of the file, given or written
    from the spec. `wrapper` surrounds the network. `pixels` is the (height, width) of a file's image;
    None takes the wrapper's.
    """

    spec: NetSpec
    model: bytes | None = None
    runtime: str | None = None
    precision: str = "fp32"
    wrapper: Wrapper = PLAIN
    pixels: tuple[int, int] | None = None

    def file(self, engine: Runtime) -> bytes:
        """The bytes to load; without an exported file the spec is written with random weights."""
        if self.model is not None:
            return self.model
        wrapped, size = self.wrapper.around(self.spec), self.wrapper.size(self.spec)
        return wrapped_model(wrapped, engine, size, self.precision)

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width of its image."""
        return (self.spec.channels, *(self.pixels or self.wrapper.size(self.spec)))

    def timer(self, place: Place, engine: Runtime, threads: int) -> Timer:
        """Load it on a device."""
        model = self.file(engine)
        return place.load(model, runtime=engine.name, threads=threads, size=self.size)


Pair: TypeAlias = tuple[Candidate, Runtime]


def measure(
    candidates: Sequence[Candidate],
    *,
    runtime_name: str = "onnxruntime",
    place: str | Place = "local",
    protocol: Protocol | None = None,
    reference: Candidate | None = None,
    nominal_ms: float | None = None,
    profile: bool = False,
    alone: bool = False,
    on_round: OnRound | None = None,
) -> list[Measurement]:
    """Measure networks on a device, at batch 1, interleaved in shuffled rounds.

    Args:
        candidates: the networks, in the order of the records that come back.
        runtime_name: of candidates that name no runtime.
        place: the device.
        protocol: the timing protocol; None takes the usual one.
        reference: runs in every round to tell drift; None takes a small network of the zoo.
        nominal_ms: the reference's time at slowdown factor 1, from an earlier measurement on this
            device, so that latencies of different minutes compare; None corrects nothing.
        profile: also ask the device for the times of single operators.
        alone: let no other process time on this machine meanwhile, see `devices.machine`.
        on_round: called with (rounds done, rounds) for progress.

    Raises:
        TimingError: the machine was too busy.
        InputError: no such runtime or device.
    """
    protocol = protocol or Protocol()
    reference = reference or Candidate(network(REFERENCE_NAME))
    names = [candidate.runtime or runtime_name for candidate in candidates]
    with opened(place) as device, device.timing(alone=alone):
        engines = {name: runtime(name) for name in dict.fromkeys(names)}
        for name in engines:
            device.check(name)
        described = device.describe()
        versions = {name: device.version(name) for name in engines}
        # Files are written once, however often they are loaded.
        pairs = [
            (replace(candidate, model=candidate.file(engines[name])), engines[name])
            for candidate, name in zip(candidates, names, strict=True)
        ]
        profiles = [
            device.profile(
                candidate.file(engine), runtime=engine.name, threads=protocol.threads, size=candidate.size
            )
            if profile
            else None
            for candidate, engine in pairs
        ]  # fmt: skip
        raced = [*pairs, (reference, engines[names[0]])]
        samples: dict[str, Samples] = {}
        for load in range(protocol.loads):
            counted = _counted(on_round, load, protocol.loads)
            for name, sample in _raced(device, raced, protocol, nominal_ms, counted, load).items():
                samples.setdefault(name, Samples()).extend(sample)
    reference_ms = statistics.median(samples[REFERENCE].round_ms)
    return [
        _record(
            candidate, samples[name], protocol, nominal_ms, runtime=engine.name,
            runtime_version=versions[engine.name], device=described, reference=reference.spec.name,
            reference_ms=reference_ms, profile=told,
        )
        for name, (candidate, engine), told in zip(_names(pairs), pairs, profiles, strict=True)
    ]  # fmt: skip


def _record(
    candidate: Candidate, sample: Samples, protocol: Protocol, nominal_ms: float | None, *,
    reference_ms: float, **known: Any,
) -> Measurement:  # fmt: skip
    raw = Spread.of(sample.wall_ms)
    return Measurement(
        network=candidate.spec.name,
        digest=candidate.spec.digest(),
        resolution=candidate.size[1],
        width=candidate.size[2],
        precision=candidate.precision,
        threads=protocol.threads,
        warmup=protocol.warmup,
        n=sample.runs,
        rounds=protocol.rounds * protocol.loads,
        repeated=sample.repeated,
        latency_ms=_scaled(raw, sample.undisturbed_ms(nominal_ms)) if nominal_ms else raw,
        raw_latency_ms=raw,
        fastest_ms=min(sample.wall_ms),
        cpu_ms=statistics.median(sample.cpu_ms) if sample.cpu_ms else None,
        reference_ms=reference_ms,
        pace=reference_ms / nominal_ms if nominal_ms else 1.0,
        rounds_ms=tuple(sample.paced_ms),
        rounds_cpu_ms=tuple(sample.round_cpu_ms),
        commit=commit(),
        **known,
    )


def _raced(
    device: Place, pairs: Sequence[Pair], protocol: Protocol, nominal_ms: float | None,
    on_round: OnRound | None, seed: int,
) -> dict[str, Samples]:  # fmt: skip
    """Load all, race them, the last of them as the reference, and let the device forget them."""
    with ExitStack() as stack:
        *timers, reference = [
            stack.enter_context(closing(candidate.timer(device, engine, protocol.threads)))
            for candidate, engine in pairs
        ]
        named = dict(zip(_names(pairs[:-1]), timers, strict=True))
        return race(named, reference, protocol, seed=seed, nominal_ms=nominal_ms, on_round=on_round)


def _counted(on_round: OnRound | None, load: int, loads: int) -> OnRound | None:
    """`on_round` for one race of several, told of the rounds of all."""
    if on_round is None:
        return None
    return lambda done, rounds: on_round(load * rounds + done, loads * rounds)


def _names(pairs: Sequence[Pair]) -> list[str]:
    """What to call candidates in messages; one that comes again has a number."""
    names: list[str] = []
    for candidate, engine in pairs:
        name = f"{candidate.spec.name} in {engine.name} {candidate.precision}"
        again = sum(known.partition(" #")[0] == name for known in names)
        names.append(f"{name} #{again + 1}" if again else name)
    return names


def _scaled(raw: Spread, median: float) -> Spread:
    factor = median / raw.median
    return replace(raw, median=median, p10=raw.p10 * factor, p90=raw.p90 * factor)
