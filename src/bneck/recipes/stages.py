"""The first stages of a run: images packed, the device's latency table filled, networks measured."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bneck.costs.table import LatencyTable, TableError
from bneck.costs.table_file import FORMAT, read_table
from bneck.data.builtin import fashion_pack
from bneck.data.folders import list_images
from bneck.data.pack import Packed, open_pack, pack
from bneck.devices.deployment import Deployment
from bneck.devices.fill import Plan, fill_table, plan_for
from bneck.devices.measure import Candidate, measure
from bneck.devices.places import identity
from bneck.devices.protocol import Protocol, TimingError
from bneck.recipes.jobs import Images
from bneck.recipes.run import Run
from bneck.records.files import locked, write_bytes
from bneck.specs.network import NetSpec

CAREFUL = Protocol(rounds=8, loads=3, burst_ms=30.0)
PLAIN = Deployment()
PATIENCE, PAUSE_S = 6, 10.0

T = TypeVar("T")


def pack_images(run: Run) -> tuple[Packed, Images]:
    """Decode the run's images once, for all its processes.

    Raises:
        InputError: no such folder, an empty class, too many bad images.
    """
    settings, folder = run.settings, run.folder.scratch / "pack"
    images = Images(pack=folder, heldout_share=settings.heldout, seed=settings.seed)
    if "data" in run.record:  # a resumed run goes on with the images it began with
        return open_pack(folder), images
    if run.data is None:
        packed, name = fashion_pack(folder, settings.resolution), "Fashion-MNIST (built in)"
    else:
        listing, name = list_images(run.data, seed=settings.seed), run.data.name
        run.progress.stage("reading images", len(listing.train) + len(listing.val))
        packed = pack(listing, settings.resolution, folder, progress=_Advances(run))
    run.record["data"] = {
        "name": name,
        "classes": list(packed.classes),
        "resolution": settings.resolution,
        "train": len(packed.train.labels),
        "val": len(packed.val.labels),
        "heldout": len(images.open()[2]),
        "bad": [[str(bad.path), bad.reason] for bad in packed.bad],
    }
    run.save()
    if packed.bad:
        run.progress.say(
            f"{len(packed.bad)} unreadable images left out, listed in {run.folder.run_json}"
        )
    return packed, images


class _Advances:
    """Turns (done, all) into steps of a progress bar."""

    def __init__(self, run: Run) -> None:
        self.run, self.before = run, 0

    def __call__(self, done: int, total: int) -> None:
        self.run.progress.advance(done - self.before)
        self.before = done


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
        reference, nominal_ms, path = seed, None, table_path(seed, run.settings.deployment)
    else:
        reference, nominal_ms = pace.network, pace.nominal_ms
        path = table_path(reference, run.settings.deployment, space=f"{seed.digest()} {nominal_ms}")
    plan = plan_for(seed)
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
    return read_table(copy)


def table_path(seed: NetSpec, on: Deployment = PLAIN, *, space: str | None = None) -> Path:
    """Where a deployment's table for a seed network lies, in the user's cache folder.

    `space` is the digest of a space whose table is measured beside that network.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
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
    )
    content = " ".join(map(str, what))
    key = hashlib.sha256(content.encode()).hexdigest()[:12]
    # A spec file may be called anything, "../x" too.
    name = re.sub(r"[^\w.-]", "-", seed.name.partition("@")[0])[:40]
    return cache / "bneck" / "tables" / f"{name}-{seed.resolution}-{key}.jsonl"


def known_table(seed: NetSpec, on: Deployment = PLAIN) -> LatencyTable | None:
    """A deployment's table for `seed` as an earlier run left it, or None."""
    path = table_path(seed, on)
    with suppress(TableError):
        return read_table(path) if path.is_file() else None
    return None


def measured_ms(
    seed: NetSpec,
    specs: Sequence[NetSpec],
    table: LatencyTable | None = None,
    on: Deployment = PLAIN,
) -> list[float]:
    """Measured latency of networks in milliseconds, at the pace that the seed had for the table.

    Without a table, at the seed's pace of the moment.
    """
    nominal = float(table.header["reference_ms"]) if table else None
    candidates = [Candidate(spec, precision=on.precision) for spec in specs]
    found = patiently(
        lambda: measure(
            candidates,
            runtime_name=on.runtime,
            place=on.device,
            protocol=CAREFUL,
            reference=Candidate(seed, precision=on.precision),
            nominal_ms=nominal,
        )
    )
    return [measurement.latency_ms.median for measurement in found]


def patiently(measurement: Callable[[], T]) -> T:
    """Measure, again after a pause while the machine is too busy.

    Raises:
        TimingError: it still was after a minute.
    """
    for _ in range(PATIENCE):
        try:
            return measurement()
        except TimingError:
            time.sleep(PAUSE_S)
    return measurement()
