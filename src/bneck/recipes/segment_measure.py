"""Latency of segmenters on this machine: files of their values with random weights, interleaved."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np

from bneck.devices.models import wrapped_model
from bneck.devices.places import describe
from bneck.devices.protocol import REFERENCE, Protocol, Samples, race
from bneck.devices.runtimes import Runtime, runtime
from bneck.devices.timing import RunTimer, Timer
from bneck.records.commit import commit
from bneck.records.measurement import Spread
from bneck.specs.errors import InputError
from bneck.specs.zoo import network
from bneck.tasks.segment.head import Segmenter, segmenter

Size = tuple[int, int]
REFERENCE_NAME, REFERENCE_SIZE = "v3-small-0.5+rf2+os16", (96, 192)
# Runs take from tenths of a second on, so few are enough for a burst.
PROTOCOL = Protocol(rounds=5, burst_ms=0.0, least_runs=1, warmup=1, first_warmup=1, max_repeats=2)


def measure_segmenters(
    segmenters: Sequence[Segmenter],
    size: Size,
    *,
    argmax: bool = False,
    runtime_name: str | Sequence[str] = "onnxruntime",
    precision: str | Sequence[str] = "fp32",
    protocol: Protocol = PROTOCOL,
    on_round: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Measure segmenters at one image size, batch 1, in shuffled rounds, all runtimes and precisions.

    Args:
        segmenters: what to measure, in the order of the records that come back.
        size: (height, width) in pixels.
        argmax: with the choice of the best class.
        runtime_name: the engine, or several.
        precision: "fp32", "fp16" or "int8", or several.
        protocol: how often, and when to distrust; None takes five rounds of single runs.
        on_round: called with (rounds done, rounds).

    Returns:
        A record each: what ran where, the spread of its wall times and the median of its CPU times in
        milliseconds, and the latter's ratio to the first segmenter's, which is the steadier figure
        beside other processes.

    Raises:
        TimingError: the machine was too busy.
        InputError: nothing to measure, or no such runtime.
    """
    if not segmenters:
        raise InputError("there is nothing to measure; name a network")
    names = [runtime_name] if isinstance(runtime_name, str) else list(runtime_name)
    precisions = [precision] if isinstance(precision, str) else list(precision)
    engines = {name: runtime(name) for name in names}
    runs = list(product(engines.values(), precisions, segmenters))
    timers = {
        str(i): _prepared(seg, size, engine, kind, protocol.threads, argmax=argmax)
        for i, (engine, kind, seg) in enumerate(runs)
    }
    small = segmenter(network(REFERENCE_NAME))
    reference = _prepared(
        small, REFERENCE_SIZE, engines[names[0]], "fp32", protocol.threads, argmax=False
    )
    samples = race(timers, reference, protocol, on_round=on_round)
    device = describe("local")
    known = {
        "size": list(size),
        "argmax": argmax,
        "threads": protocol.threads,
        "processor": device.processor,
        "cores": device.cores,
        "pinned": device.pinned,
        "rounds": protocol.rounds,
        "reference_ms": statistics.median(samples[REFERENCE].round_ms),
        "commit": commit(),
    }
    return [
        {
            "segmenter": seg.name,
            "output_stride": seg.output_stride,
            "digest": seg.network.digest(),
            "runtime": engine.name,
            "runtime_version": engine.version,
            "precision": kind,
            **_times(samples[str(i)], samples["0"]),
            **known,
        }
        for i, (engine, kind, seg) in enumerate(runs)
    ]


def _times(sample: Samples, first: Samples) -> dict[str, Any]:
    """Wall and CPU times in milliseconds, and the latter over the first one's: of medians, and by round."""
    cpu, first_cpu = (statistics.median(one.cpu_ms) for one in (sample, first))
    rounds = zip(sample.round_cpu_ms, first.round_cpu_ms, strict=True)
    return {
        "n": len(sample.wall_ms),
        "repeated": sample.repeated,
        "wall_ms": asdict(Spread.of(sample.wall_ms)),
        "cpu_ms": cpu,
        "ratio": cpu / first_cpu,
        "rounds_cpu_ms": sample.round_cpu_ms,
        "rounds_ratio": asdict(Spread.of([ours / theirs for ours, theirs in rounds])),
    }


def _prepared(
    seg: Segmenter, size: Size, engine: Runtime, precision: str, threads: int, *, argmax: bool
) -> Timer:
    model = wrapped_model(seg, engine, size, precision, finished=argmax)
    session = engine.load(model, threads=threads)
    shape = (1, seg.network.channels, *size)
    image = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    return RunTimer(session.prepare(image), threads)
