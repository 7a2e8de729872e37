"""Latency as a search decides by it: the target, the device's table, networks measured and remembered."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from bneck.costs.table import LatencyTable, TableError
from bneck.costs.table_file import FORMAT, read_table
from bneck.devices.deployment import Deployment
from bneck.devices.fill import Plan, fill_table, plan_for
from bneck.devices.measure import Candidate, measure
from bneck.devices.places import Place, identity, opened
from bneck.devices.protocol import Protocol, TimingError
from bneck.records.files import cache_folder, locked, write_bytes
from bneck.records.ledger import Ledger
from bneck.runs.search.run import Run
from bneck.specs.network import NetSpec
from bneck.specs.wrapper import PLAIN, Wrapper

CAREFUL = Protocol(rounds=8, loads=3, burst_ms=30.0)
USUAL = Deployment()
PATIENCE, PAUSE_S = 6, 10.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pace:
    """What latencies are relative to: a network, and its milliseconds that mean pace 1.

    Without milliseconds those that it has when a table is begun.
    """

    network: NetSpec
    nominal_ms: float | None = None


def table_for(run: Run, seed: NetSpec, pace: Pace | None = None) -> LatencyTable:
    """The latency table of this device for `seed`: the run's own copy, else the device's, filled.

    The device's table is kept in the user's cache folder and serves every later run; a copy goes
    into the run's folder, so that a resumed run decides by the same figures. Without a `pace` it is
    that of `seed` itself.
    """
    if pace is None:
        reference, nominal_ms, space = seed, None, None
    else:
        reference, nominal_ms = pace.network, pace.nominal_ms
        space = f"{seed.digest()} {nominal_ms}"
    path = table_path(reference, run.settings.deployment, space=space, wrapper=run.wrapper)
    plan = plan_for(seed, run.wrapper)
    table = filled_table(run, reference, plan, path, run.folder.table, nominal_ms=nominal_ms)
    record_table(run, table)
    return table


def record_table(run: Run, table: LatencyTable) -> None:
    """Write down what a run's latency table is like, and say it."""
    error, line = table.error(), table.line()
    run.record["table"] = {
        "entries": sum(len(widths) for widths in table.rows.values()),
        "rounding": line.rounding,
        "scale": line.scale,
        "offset_ms": line.offset_ms,
        "networks": error.networks,
        "median": error.median,
        "p95": error.p95,
        "reference": table.header["reference"],
        "reference_ms": table.header["reference_ms"],
    }
    run.record["runtime"] = table.header["runtime"]
    run.record["runtime_version"] = table.header["runtime_version"]
    run.record["precision"] = table.header["precision"]
    run.save()
    run.progress.say(f"latency table: {error}")


def filled_table(
    run: Run,
    reference: NetSpec,
    plan: Plan,
    path: Path,
    copy: Path,
    *,
    nominal_ms: float | None = None,
) -> LatencyTable:
    """The run's own `copy` of the device's table at `path`, which is filled first if need be."""
    if not copy.is_file():
        with locked(path.with_suffix(".lock"), wait=True):
            advances = [("", 0)]

            def progress(what: str, done: int, total: int) -> None:
                if advances[-1][0] != what:
                    run.progress.stage(f"measuring {what}", total)
                    advances.append((what, 0))
                run.progress.advance(done - advances[-1][1])
                advances.append((what, done))

            on = run.settings.deployment
            fill_table(
                reference,
                path,
                plan=plan,
                runtime_name=on.runtime,
                precision=on.precision,
                place=on.device,
                threads=on.threads,
                nominal_ms=nominal_ms,
                progress=progress,
            )
            write_bytes(copy, path.read_bytes())
    return read_table(copy, run.wrapper)


def table_path(
    seed: NetSpec,
    on: Deployment = USUAL,
    *,
    space: str | None = None,
    wrapper: Wrapper = PLAIN,
) -> Path:
    """Where a deployment's table for a seed network in a wrapper lies, in the user's cache folder.

    `space` is the digest of a space whose table is measured beside that network.
    """
    processor, version = identity(on.device, on.runtime)
    what = (
        FORMAT,
        *([] if on.device == "local" else [on.device]),
        processor,
        on.runtime,
        version,
        on.precision,
        on.threads,
        seed.digest(),
        *([space] if space else []),
        *([wrapper.key] if wrapper.key else []),
    )
    content = " ".join(map(str, what))
    key = hashlib.sha256(content.encode()).hexdigest()[:12]
    # A spec file may be called anything, "../x" too.
    name = re.sub(r"[^\w.-]", "-", seed.name.partition("@")[0])[:40]
    return cache_folder("tables") / f"{name}-{seed.resolution}-{key}.jsonl"


def known_table(
    seed: NetSpec, on: Deployment = USUAL, wrapper: Wrapper = PLAIN
) -> LatencyTable | None:
    """A deployment's table for `seed` as an earlier run left it, or None."""
    path = table_path(seed, on, wrapper=wrapper)
    with suppress(TableError):
        return read_table(path, wrapper) if path.is_file() else None
    return None


def measured_ms(
    seed: NetSpec,
    specs: Sequence[NetSpec],
    table: LatencyTable | None = None,
    on: Deployment = USUAL,
    wrapper: Wrapper = PLAIN,
) -> list[float]:
    """Measured latency of networks in milliseconds, at the pace that the seed had for the table.

    Without a table, at the seed's pace of the moment.
    """
    nominal = float(table.header["reference_ms"]) if table else None
    candidates = [Candidate(spec, precision=on.precision, wrapper=wrapper) for spec in specs]
    with opened(on.device) as device:
        found = patiently(
            device,
            lambda: measure(
                candidates,
                runtime_name=on.runtime,
                place=device,
                protocol=careful(on),
                reference=Candidate(seed, precision=on.precision, wrapper=wrapper),
                nominal_ms=nominal,
            ),
        )
    return [measurement.latency_ms.median for measurement in found]


def careful(on: Deployment) -> Protocol:
    """The protocol of what a search decides and reports by."""
    return replace(CAREFUL, threads=on.threads)


def patiently(device: Place, measurement: Callable[[], T]) -> T:
    """Measure, again after a pause while the device is too busy.

    Raises:
        TimingError: it still was after a minute.
    """
    for _ in range(PATIENCE):
        try:
            return measurement()
        except TimingError:
            device.wait(PAUSE_S)
    return measurement()


def verified_ms(run: Run, reference: NetSpec, spec: NetSpec, table: LatencyTable) -> float:
    """Measured latency of a network in milliseconds, at the pace of the table.

    `reference` is the network whose pace that is.
    """
    digest = spec.digest()
    known = run.ledger.find(event="verified", digest=digest)
    if known is None:
        known = {
            "event": "verified",
            "digest": digest,
            "measured_ms": _remembered_ms(reference, spec, table, run),
            "estimated_ms": table.estimate_ms(spec),
        }
        run.ledger.append(known)
    return float(known["measured_ms"])


def _remembered_ms(reference: NetSpec, spec: NetSpec, table: LatencyTable, run: Run) -> float:
    on, wrapper = run.settings.deployment, run.wrapper
    path = table_path(reference, on, wrapper=wrapper).with_suffix(".networks.jsonl")
    # A table that was filled anew has another pace; what was measured beside the old one is void.
    key = {"digest": spec.digest(), "reference_ms": table.header["reference_ms"]}
    with locked(path.with_suffix(".lock"), wait=True):
        memory = Ledger(path)
        entry = memory.find(**key)
        if entry is None:
            entry = {**key, "measured_ms": measured_ms(reference, [spec], table, on, wrapper)[0]}
            memory.append(entry)
    return float(entry["measured_ms"])
