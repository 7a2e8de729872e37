"""Races in which every network is loaded several times.

Where an engine happens to put a network's buffers makes copies of one network differ by up to 7 %
(LiteRT, V3-Large) for as long as they live. Rounds of all copies together have that in their spread.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from bneck.devices.measure import Candidate, measure
from bneck.devices.protocol import Protocol
from bneck.records.measurement import Measurement


def measure_copies(
    candidates: Sequence[Candidate], protocol: Protocol, copies: int
) -> list[Measurement]:
    """One record a candidate, with the rounds of all its copies one behind another."""
    found = measure([c for _ in range(copies) for c in candidates], protocol=protocol)
    return [merged(found[i :: len(candidates)]) for i in range(len(candidates))]


def merged(records: Sequence[Measurement]) -> Measurement:
    return replace(
        records[0],
        cpu_ms=statistics.median(one.cpu_ms or 0.0 for one in records),
        rounds_ms=tuple(ms for one in records for ms in one.rounds_ms),
        rounds_cpu_ms=tuple(ms for one in records for ms in one.rounds_cpu_ms),
    )
