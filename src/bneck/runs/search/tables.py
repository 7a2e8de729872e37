"""Latency tables of any runtime and precision: the Python twin of `bneck table`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bneck.devices.deployment import Deployment
from bneck.devices.fill import fill_table
from bneck.records.files import locked
from bneck.records.progress import Progress, Silent
from bneck.runs.networks import Network
from bneck.runs.search.latency import table_path
from bneck.specs.text import resolve


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
    """Fill the latency table of a network and all its narrower versions, and judge it.

    What the file holds already is not measured again; a killed run is gone on with.

    Args:
        network: the widest network that the table shall answer for.
        device: where it is measured (docs/devices.md).
        runtime_name: the engine: onnxruntime, litert or openvino; None: the device's usual one.
        precision: "fp32", "fp16" or "int8".
        threads: of the engine.
        out: the file; None: the user's cache folder, where a search looks for it.
        progress: receives what happens; None tells nobody.

    Returns:
        its file, entries, the seed's own latency, and its error on networks that calibrated nothing.

    Raises:
        InputError: no such network, device or runtime, or a file that is another table.
    """
    on = Deployment.of(device, runtime_name, precision, threads=threads)
    seed = resolve(network)
    path = table_path(seed, on) if out is None else Path(out)
    with locked(path.with_suffix(".lock"), wait=True):
        table = fill_table(
            seed,
            path,
            runtime_name=on.runtime,
            precision=on.precision,
            place=on.device,
            threads=on.threads,
            progress=_shown(progress or Silent()),
        )
    return {
        "file": str(path),
        "network": seed.name,
        "device": device,
        "runtime": on.runtime,
        "precision": precision,
        "threads": threads,
        "entries": sum(len(widths) for widths in table.rows.values()),
        "seed_ms": float(table.header["reference_ms"]),
        "line": asdict(table.line()),
        "error": asdict(table.error()),
        "summary": str(table.error()),
    }


def _shown(progress: Progress) -> Callable[[str, int, int], None]:
    before = {"": 0}

    def on_entries(what: str, done: int, total: int) -> None:
        if what not in before:
            progress.stage(f"measuring {what}", total)
        progress.advance(done - before.get(what, 0))
        before[what] = done

    return on_entries
