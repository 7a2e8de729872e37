"""Latency of segmenters on this machine: graphs of their values with random weights, interleaved."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bneck.devices.places import describe
from bneck.devices.protocol import REFERENCE, Protocol, race
from bneck.devices.runtimes import Runtime, runtime
from bneck.devices.timing import RunTimer, Timer
from bneck.graphs.onnx_graph import random_weights
from bneck.graphs.segmenter_graph import segmenter_graph
from bneck.records.commit import commit
from bneck.records.measurement import Spread
from bneck.specs.errors import InputError
from bneck.specs.segmenter import Segmenter, segmenter, segmenter_layers
from bneck.specs.zoo import network

Size = tuple[int, int]
REFERENCE_NAME, REFERENCE_SIZE = "v3-small-0.5+rf2+os16", (96, 192)
# Runs take from tenths of a second on, so few are enough for a burst.
PROTOCOL = Protocol(rounds=5, burst_ms=0.0, least_runs=1, warmup=1, first_warmup=1, max_repeats=2)


def measure_segmenters(
    segmenters: Sequence[Segmenter],
    size: Size,
    *,
    argmax: bool = False,
    runtime_name: str = "onnxruntime",
    protocol: Protocol = PROTOCOL,
    on_round: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Measure segmenters at one image size, batch 1, in shuffled rounds.

    Args:
        segmenters: what to measure, in the order of the records that come back.
        size: (height, width) in pixels.
        argmax: with the choice of the best class.
        runtime_name: the engine.
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
    engine = runtime(runtime_name)
    timers = {
        str(i): _prepared(seg, size, engine, protocol.threads, argmax=argmax)
        for i, seg in enumerate(segmenters)
    }
    small = segmenter(network(REFERENCE_NAME))
    reference = _prepared(small, REFERENCE_SIZE, engine, protocol.threads, argmax=False)
    samples = race(timers, reference, protocol, on_round=on_round)
    cpu = [statistics.median(samples[str(i)].cpu_ms) for i in range(len(segmenters))]
    device = describe("local")
    found = []
    for i, seg in enumerate(segmenters):
        sample, wall = samples[str(i)], Spread.of(samples[str(i)].wall_ms)
        found.append(
            {
                "segmenter": seg.name,
                "size": list(size),
                "output_stride": seg.output_stride,
                "argmax": argmax,
                "digest": seg.network.digest(),
                "runtime": engine.name,
                "runtime_version": engine.version,
                "precision": "fp32",
                "threads": protocol.threads,
                "processor": device.processor,
                "cores": device.cores,
                "pinned": device.pinned,
                "rounds": protocol.rounds,
                "n": len(sample.wall_ms),
                "repeated": sample.repeated,
                "wall_ms": {"median": wall.median, "p10": wall.p10, "p90": wall.p90},
                "cpu_ms": cpu[i],
                "ratio": cpu[i] / cpu[0],
                "reference_ms": statistics.median(samples[REFERENCE].round_ms),
                "commit": commit(),
            }
        )
    return found


def _prepared(seg: Segmenter, size: Size, engine: Runtime, threads: int, *, argmax: bool) -> Timer:
    weights = random_weights(segmenter_layers(seg, size), np.random.default_rng(0))
    model = segmenter_graph(seg, weights, size, argmax=argmax)
    session = engine.load(model.SerializeToString(), threads=threads)
    shape = (1, seg.network.channels, *size)
    image = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    return RunTimer(lambda: session.run(image), threads)
