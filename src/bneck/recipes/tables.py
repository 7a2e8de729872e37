"""Latency tables of any runtime and precision: the Python twin of `bneck table`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bneck.devices.fill import fill_table
from bneck.devices.places import usual_runtime
from bneck.graphs.forms import form
from bneck.recipes.networks import Network
from bneck.recipes.progress import Progress, Silent
from bneck.recipes.stages import table_path
from bneck.records.files import locked
from bneck.specs.errors import InputError
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
    if threads < 1:
        raise InputError(f"threads is {threads}; it must be at least 1")
    runtime_name = runtime_name or usual_runtime(device)
    form(runtime_name, precision)
    seed = resolve(network)
    path = (
        Path(out)
        if out is not None
        else table_path(
            seed, device=device, runtime_name=runtime_name, precision=precision, threads=threads
        )
    )
    with locked(path.with_suffix(".lock"), wait=True):
        table = fill_table(
            seed,
            path,
            runtime_name=runtime_name,
            precision=precision,
            place=device,
            threads=threads,
            progress=_shown(progress or Silent()),
        )
    return {
        "file": str(path),
        "network": seed.name,
        "device": device,
        "runtime": runtime_name,
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
