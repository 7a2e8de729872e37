"""The published networks on a device: latency next to published accuracy, and the front of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bneck.devices.deployment import Deployment
from bneck.records.files import write_text
from bneck.records.progress import Progress
from bneck.report.scatter import Chart, Point, Series, draw_charts
from bneck.runs.choose.known import SIDES, Known
from bneck.runs.choose.race import latencies

# A resolution is measured where pixels alone put it between these shares of the target: fewer pixels take
# more than their share of the time, since some of it is the same for any size.
NEAR = (0.4, 1.2)


def device_table(
    known: Sequence[Known], on: Deployment, limit_ms: float | None, progress: Progress, *,
    again: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Networks at their resolutions, and near a target also at others.

    Args:
        known: the networks.
        on: device, runtime, precision and threads.
        limit_ms: the target; None measures published resolutions only.
        progress: receives what happens.
        again: forget what was measured earlier.

    Returns:
        device, runtime, runtime_version, precision, threads, target_ms, and "networks": what is known
        of each with latency_ms (median), p10_ms, p90_ms and within (None without a target), the
        fastest first.
    """
    entries = list(known)
    found = latencies([one.spec for one in entries], on, progress, again=again)
    if limit_ms is not None:
        times = [one.latency_ms.median for one in found]
        more = _near(entries, times, limit_ms)
        entries += more
        found += latencies([one.spec for one in more], on, progress)
    rows = [
        {
            "network": one.network, "resolution": one.resolution, "latency_ms": timed.latency_ms.median,
            "p10_ms": timed.latency_ms.p10, "p90_ms": timed.latency_ms.p90, "top1": one.top1,
            "source": one.source, "weights": one.weights, "license": one.license,
            "command": one.command,
            "within": None if limit_ms is None else timed.latency_ms.median <= limit_ms,
        }
        for one, timed in zip(entries, found, strict=True)
    ]  # fmt: skip
    first = found[0]
    return {
        "device": first.device.processor, "place": on.device, "runtime": on.runtime,
        "runtime_version": first.runtime_version, "precision": on.precision, "threads": on.threads,
        "target_ms": limit_ms, "networks": sorted(rows, key=lambda row: float(row["latency_ms"])),
    }  # fmt: skip


def _near(entries: Sequence[Known], times: Sequence[float], limit_ms: float) -> list[Known]:
    """The resolutions that are not there yet and may be worth a look at this target."""
    there = {(one.network, one.resolution) for one in entries}
    low, high = NEAR[0] * limit_ms, NEAR[1] * limit_ms
    found = {}
    for one, ms in zip(entries, times, strict=True):
        for side in SIDES:
            expected_ms = ms * (side / one.resolution) ** 2
            if (one.network, side) not in there and low <= expected_ms <= high:
                found[one.network, side] = one.at(side)
    return list(found.values())


def draw_front(found: dict[str, Any], path: Path) -> None:
    """Write published accuracy over measured latency as a picture; the front is joined."""
    rows = [row for row in found["networks"] if row["top1"] is not None]
    ahead, best = [], 0.0
    for row in rows:
        if row["top1"] > best:
            ahead.append(row)
            best = row["top1"]
    behind = [row for row in rows if row not in ahead]
    limit_ms = found["target_ms"]
    chart = Chart(
        title=f"{found['device']}, {found['runtime']}, {found['precision']}",
        x="measured latency (ms)", y="published top-1 (%)", log_x=True,
        series=(
            Series(name="front", points=_points(ahead), joined=True, named=True),
            Series(name="others", points=_points(behind), colour=5, hollow=True),
        ),
        lines=() if limit_ms is None else ((limit_ms, f"target {limit_ms:g} ms"),),
    )  # fmt: skip
    picture = draw_charts(path.stem, "Published accuracy over measured latency", [chart])
    write_text(path, picture.whole)


def _points(rows: Sequence[dict[str, Any]]) -> tuple[Point, ...]:
    return tuple(
        Point(
            row["latency_ms"], row["top1"],
            f"{row['network']}@{row['resolution']}: {row['latency_ms']:.3f} ms, {row['top1']:g} % "
            f"({row['source']})",
            row["p10_ms"], row["p90_ms"],
        )
        for row in rows
    )  # fmt: skip
