"""Files of one network timed against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bneck.devices.measure import measure
from bneck.devices.protocol import Protocol, TimingError
from bneck.runs.networks import candidate_of_file
from bneck.runs.progress import Progress


def time_rows(
    rows: Sequence[dict[str, Any]], runtime_name: str, rounds: int, progress: Progress
) -> None:
    """Enter `latency_ms` and the `ratio` to the first into rows with a "file", if the machine is quiet."""
    kept = [row for row in rows if "file" in row]
    candidates = [candidate_of_file(Path(row["file"]), runtime_name) for row in kept]
    progress.stage("timing", rounds)
    try:
        found = measure(
            candidates,
            protocol=Protocol(rounds=rounds),
            on_round=lambda done, all_: progress.advance(1),
        )
    except TimingError as error:  # what was trained and judged is worth more than its time
        progress.say(f"not timed: {error}")
        return
    for row, one in zip(kept, found, strict=True):
        row["latency_ms"] = one.latency_ms.median
        row["ratio"] = asdict(one.ratio(found[0]))
