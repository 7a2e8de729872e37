"""Latency as a search decides by it: tables of a device, and networks measured once and remembered."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from bneck.costs.table import LatencyTable, TableError
from bneck.costs.table_file import FORMAT, read_table
from bneck.devices.deployment import Deployment
from bneck.devices.fill import NETWORKS_IN_ALL, Plan, fill_table, filling_s, plan_for
from bneck.devices.measure import Candidate, OnRound, measure
from bneck.devices.places import identity, opened
from bneck.devices.protocol import Protocol, TimingError
from bneck.devices.runtimes import runtime
from bneck.graphs.forms import form
from bneck.nas.allocation.drawn import as_searched
from bneck.records.files import cache_folder, locked, write_bytes
from bneck.records.ledger import Ledger
from bneck.records.measurement import Measurement
from bneck.records.progress import Progress, Silent, about
from bneck.runs.folder import check_file
from bneck.runs.networks import Network
from bneck.runs.progress import Staged
from bneck.runs.search.run import Run
from bneck.specs.network import NetSpec
from bneck.specs.text import resolve
from bneck.specs.wrapper import PLAIN, Wrapper

# Loads differ more than rounds: twelve measurements of a network had a spread of 0.5 % with six loads of four
# rounds, and of 0.85 % with three of eight, in the same two seconds.
CAREFUL = Protocol(rounds=4, loads=6, burst_ms=30.0, max_spread=1.0)
USUAL = Deployment()
PAUSES_S = (2.0, 4.0, 8.0, 16.0, 30.0)  # until a busy device is quiet
DISTURBED = 0.08  # median error; quiet tables have 0.01 to 0.03
GLANCES, GLANCED_RUNS = 3, 4


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds of networks on a run's device, all relative to one network, the `reference`.

    What `table` estimates and what is measured compare, because both are divided by the slowdown of the
    reference since the table was begun. The table learns from every network that is verified. A resumed
    run verifies the same ones in the same order, from its ledger, so its estimates are the same.
    """

    run: Run
    reference: NetSpec
    table: LatencyTable

    def measure_again(self, specs: Sequence[NetSpec], number: int) -> None:
        """Measure networks against each other for the `number`-th time; `mean_ms` takes it into account."""
        ledger = self.run.ledger
        wanted = [
            spec for spec in specs
            if ledger.find(event="measured again", digest=spec.digest(), number=number) is None
        ]  # fmt: skip
        if wanted:
            on = self.run.settings.deployment
            times = measured_ms(self.reference, wanted, self.table, on, self.run.wrapper)
            for spec, ms in zip(wanted, times, strict=True):
                self.note(spec, ms, number)

    def note(self, spec: NetSpec, ms: float, number: int) -> None:
        """Take into account what a network measured at some other time."""
        event = {"event": "measured again", "digest": spec.digest(), "number": number}
        if self.run.ledger.find(**event) is None:
            self.run.ledger.append({**event, "measured_ms": ms})

    def times_ms(self, spec: NetSpec, before: int | None = None) -> list[float]:
        """All that was measured of a network, or what was `before` the time of a number."""
        first, again = self.verified_ms(spec), self.run.ledger.all(event="measured again")
        return [first] + [
            float(one["measured_ms"]) for one in again
            if one["digest"] == spec.digest() and (before is None or one["number"] < before)
        ]  # fmt: skip

    def mean_ms(self, spec: NetSpec, before: int | None = None) -> float:
        """The mean of `times_ms`."""
        return mean(self.times_ms(spec, before))

    def verified_ms(self, spec: NetSpec) -> float:
        """Measured milliseconds, once per device and table: another run finds them in the cache folder.

        The table is calibrated anew with them.
        """
        known = self.run.ledger.find(event="verified", digest=spec.digest())
        if known is None:
            ms = self._remembered_ms(spec)
            known = {
                "event": "verified", "digest": spec.digest(), "measured_ms": ms,
                "estimated_ms": self.table.estimate_ms(spec),
            }  # fmt: skip
            self.run.ledger.append(known)
        ms = float(known["measured_ms"])
        self.table.learn(spec, ms)
        return ms

    def measured_ms(self, spec: NetSpec) -> float:
        """Measured milliseconds, once per run: for networks of a space, of which few come again."""
        known = self.run.ledger.find(event="measured", digest=spec.digest())
        if known is None:
            known = {
                "event": "measured",
                "digest": spec.digest(),
                "measured_ms": self._now_ms(spec),
            }
            self.run.ledger.append(known)
        return float(known["measured_ms"])

    def _now_ms(self, spec: NetSpec) -> float:
        on = self.run.settings.deployment
        return measured_ms(self.reference, [spec], self.table, on, self.run.wrapper)[0]

    def _remembered_ms(self, spec: NetSpec) -> float:
        run = self.run
        path = table_path(self.reference, run.settings.deployment, wrapper=run.wrapper)
        path = path.with_suffix(".networks.jsonl")
        # A table that was filled again has another pace; what was measured next to the old one is void.
        key = {"digest": spec.digest(), "reference_ms": self.table.header["reference_ms"]}
        with filling(path, run.progress):
            memory = Ledger(path)
            entry = memory.find(**key)
            if entry is None:
                entry = {**key, "measured_ms": self._now_ms(spec)}
                memory.append(entry)
        return float(entry["measured_ms"])


def table_for(
    run: Run, seed: NetSpec, reference: NetSpec | None = None, reference_ms: float | None = None
) -> LatencyTable:
    """The latency table of this device for `seed`: the run's own copy, else the device's, filled.

    The device's table is kept in the user's cache folder and serves every later run; a copy goes
    into the run's folder, so that a resumed run decides by the same figures. Times are relative to
    `seed` itself, or to a `reference` that took so many milliseconds.
    """
    space = None if reference is None else f"{seed.digest()} {reference_ms}"
    reference = reference or seed
    path = table_path(reference, run.settings.deployment, space=space, wrapper=run.wrapper)
    table = filled_table(
        run, reference, seed_plan(seed, run.wrapper), path, run.folder.table, reference_ms
    )
    record_table(run, table)
    return table


def seed_plan(seed: NetSpec, wrapper: Wrapper = PLAIN, count: int = NETWORKS_IN_ALL) -> Plan:
    """The table for every narrower version of `seed`, judged on networks as a search finds them."""
    return plan_for(seed, partial(as_searched, seed), wrapper, count=count)


def clock_seconds(
    run: Run, seed: NetSpec, seed_ms: float, measured: Mapping[str, int]
) -> dict[str, float]:
    """About how long a run's measurements take, by stage: of its table, and of so many networks in others."""
    table = run.folder.table.is_file() or known_table(seed, run.settings.deployment, run.wrapper)
    seconds = {name: CAREFUL.seconds(count, seed_ms, seed_ms) for name, count in measured.items()}
    filling = 0.0 if table else filling_s(seed_plan(seed, run.wrapper), seed_ms)
    return {**seconds, "latency table": filling}


def record_table(run: Run, table: LatencyTable) -> None:
    """Write down what a run's latency table is like, and say it."""
    error, header = table.error(), table.header
    run.record["table"] = {
        "entries": _entries(table),
        **_line(table),
        **{k: getattr(error, k) for k in ("networks", "median", "p95", "bias")},
        "reference": header["reference"],
        "reference_ms": header["reference_ms"],
    }
    for key in ("runtime", "runtime_version", "precision"):
        run.record[key] = header[key]
    run.save()
    run.progress.say(f"latency table: {error}")


def filled_table(
    run: Run, reference: NetSpec, plan: Plan, path: Path, copy: Path,
    reference_ms: float | None = None,
) -> LatencyTable:  # fmt: skip
    """The run's own `copy` of the device's table at `path`, which is filled first if need be."""
    if not copy.is_file():
        with filling(path, run.progress):
            _fill(reference, path, run.settings.deployment, run.progress, plan, reference_ms)
            write_bytes(copy, path.read_bytes())
    return read_table(copy, run.wrapper)


def latency_table(
    network: Network,
    *,
    device: str = "local",
    runtime_name: str | None = None,
    precision: str = "fp32",
    threads: int = 1,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fill the latency table of a network and all its narrower versions, and check its estimates.

    What the file holds already is not measured again; a killed run is resumed.

    Args:
        network: the widest network that the table shall answer for.
        device: where it is measured, as in `bneck.measure`.
        runtime_name: onnxruntime, litert or openvino; None: the device's usual one.
        precision: "fp32", "fp16" or "int8".
        threads: of the runtime.
        out: the file; None: the user's cache folder, where a search looks for it.
        progress: receives what happens.

    Returns:
        its file, entries, the seed's own latency, and its error on networks that calibrated nothing.

    Raises:
        InputError: no such network, device or runtime, or a file that is another table.
    """
    on, told = Deployment.of(device, runtime_name, precision, threads=threads), progress or Silent()
    seed = resolve(network)
    path = table_path(seed, on) if out is None else Path(out)
    if out is not None:
        check_file(path, ".jsonl")
    plan = seed_plan(seed)
    if not path.is_file():
        seconds = filling_s(plan, glanced_ms([seed], on, PLAIN)[0])
        told.say(
            f"latency table of {seed.name}: {len(plan.entries)} rows and {plan.count} networks in {on.runtime} "
            f"{precision}, {about(seconds)} at the speed of this device"
        )
    with filling(path, told):
        table = _fill(seed, path, on, told, plan)
    return {
        "file": str(path), "network": seed.name, "device": device, "runtime": on.runtime,
        "precision": precision, "threads": threads, "entries": _entries(table),
        "seed_ms": float(table.header["reference_ms"]), "line": _line(table),
        "error": asdict(table.error()), "summary": str(table.error()),
    }  # fmt: skip


def filling(path: Path, progress: Progress) -> AbstractContextManager[None]:
    """Keep other processes from measuring for a file; wait for one that does, and say so."""
    return locked(
        path.with_suffix(".lock"),
        on_wait=lambda: progress.say(
            f"another process is measuring for {path}: waiting for it, to use what it measures"
        ),
    )


def _fill(
    reference: NetSpec, path: Path, on: Deployment, progress: Progress, plan: Plan,
    reference_ms: float | None = None,
) -> LatencyTable:  # fmt: skip
    def filled() -> LatencyTable:
        return fill_table(
            reference, path, plan=plan, runtime_name=on.runtime, precision=on.precision, place=on.device,
            threads=on.threads, nominal_ms=reference_ms, progress=Staged(progress, "measuring"),
        )  # fmt: skip

    table = filled()
    if (median := table.error().median) > DISTURBED:
        progress.say(
            f"the latency table is {median:.0%} off on networks that it was not made from, as where something "
            "else runs on the device: it is measured once more"
        )
        path.unlink()
        table = filled()
    return table


def _line(table: LatencyTable) -> dict[str, float]:
    line = table.line()
    return {"rounding": line.rounding, "scale": line.scale, "offset_ms": line.offset_ms}


def _entries(table: LatencyTable) -> int:
    return sum(len(widths) for widths in table.rows.values())


def table_path(
    seed: NetSpec, on: Deployment = USUAL, *, space: str | None = None, wrapper: Wrapper = PLAIN
) -> Path:
    """Where a deployment's table for a seed network in a wrapper lies, in the user's cache folder.

    `space` is the digest of a space whose table is measured next to that network.
    """
    processor, version = identity(on.device, on.runtime)
    what = (
        FORMAT, on.device if on.device != "local" else None, processor, on.runtime, version,
        on.precision, on.threads, seed.digest(), space, wrapper.key or None,
        # The form of int8 files has changed before; that of others has not.
        form(on.runtime, on.precision) if on.precision == "int8" else None,
    )  # fmt: skip
    content = " ".join(str(one) for one in what if one is not None)
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
    """Measured latency of networks in milliseconds, relative to the seed's when the table was begun.

    Without a table, relative to the seed's of the moment.
    """
    candidates = [Candidate(spec, precision=on.precision, wrapper=wrapper) for spec in specs]
    nominal_ms = float(table.header["reference_ms"]) if table else None
    found = measured(candidates, seed, nominal_ms, on, wrapper)
    return [measurement.latency_ms.median for measurement in found]


def glanced_ms(specs: Sequence[NetSpec], on: Deployment, wrapper: Wrapper) -> list[float]:
    """Rough milliseconds within seconds, also on a busy device: the least of a few runs each."""
    engine, found = runtime(on.runtime), list[float]()
    with opened(on.device) as device:
        device.check(on.runtime)
        for spec in specs:
            candidate = Candidate(spec, precision=on.precision, wrapper=wrapper)
            with closing(candidate.timer(device, engine, on.threads)) as timer:
                bursts = [timer.burst(GLANCED_RUNS, 1) for _ in range(GLANCES)]
            found.append(min(ms for burst in bursts for ms in burst.wall_ms))
    return found


def measured(
    candidates: Sequence[Candidate],
    reference: NetSpec,
    nominal_ms: float | None,
    on: Deployment,
    wrapper: Wrapper,
    protocol: Protocol = CAREFUL,
    on_round: OnRound | None = None,
) -> list[Measurement]:
    """Measure, by the protocol that a search decides by, again after a pause while the device is busy.

    Raises:
        TimingError: it still was after a minute.
    """
    protocol, pauses = replace(protocol, threads=on.threads), iter(PAUSES_S)
    busy = False
    with opened(on.device) as device:
        while True:
            try:
                return measure(
                    candidates, runtime_name=on.runtime, place=device, protocol=protocol,
                    reference=Candidate(reference, precision=on.precision, wrapper=wrapper),
                    # What another process times, or loads to time, may be what disturbs it.
                    nominal_ms=nominal_ms, alone=busy, on_round=on_round,
                )  # fmt: skip
            except TimingError:
                pause_s = next(pauses, None)
                if pause_s is None:
                    raise
                busy = True
                device.wait(pause_s)
