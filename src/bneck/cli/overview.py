"""The commands that look round: runs, doctor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from rich.table import Table
from typer import Argument

from bneck.cli.options import Json, new_table, print_json, print_line, print_table

NONE = "-"


def runs(
    folder: Annotated[
        Path | None, Argument(help="A folder with runs in it, or a run's folder; default runs.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the runs in a folder, the newest first. Python: bneck.list_runs(folder)"""
    from bneck.records.listing import USUAL, list_runs

    found = list_runs(folder)
    if as_json:
        print_json(found)
    elif found:
        print_table(runs_table(found))
        for one in found:
            if one["problem"]:
                print_line(f"- {one['run']}: {one['problem']}")
    else:
        print(f"there are no runs in {folder or USUAL} yet; begin one with: bneck search")


def doctor(as_json: Json = False) -> None:
    """Print what this machine has for bneck, and how to install what is missing.

    Python: bneck.doctor()
    """
    from bneck.devices.doctor import doctor as look

    found = look()
    if as_json:
        print_json(found)
        return
    for line in machine_lines(found):
        print_line(line)
    for table in doctor_tables(found):
        print_table(table)
    if not found["missing"]:
        print("nothing is missing")


def runs_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """The runs, a line each; several networks of one search have a line each, too."""
    rows = [
        (
            one["run"], one["kind"] or NONE, one["task"] or NONE, one["network"] or NONE,
            one["target"] or NONE, NONE if one["latency_ms"] is None else f"{one['latency_ms']:.3f}",
            NONE if one["score"] is None else f"{one['metric']} {one['score']:.1%}",
            one["state"], _when(one["started"]),
        )
        for one in found
    ]  # fmt: skip
    columns = ("run", "kind", "task", "network", "target", "ms", "score", "state", "started")
    return new_table("", columns, rows, left=(0, 1, 2, 3, 7, 8))


def machine_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What `bneck.doctor` found out about the machine, as lines."""
    yield f"bneck {found['bneck']} ({found['commit']}), Python {found['python']}, {found['system']}"
    yield (
        f"processor: {found['processor']}, {clocks(found['cores'])}; {found['memory_gb']:.0f} GB of memory"
    )
    gpus = [f"{one['name']}, {one['memory_gb']:.0f} GB" for one in found["gpus"]]
    yield f"GPU: {'; '.join(gpus) or 'none that torch can use'}"
    yield from (f"- {note}" for note in found["notes"])
    for one in found["disk"]:
        yield f"disk for {one['what']}: {one['free_gb']:.1f} of {one['total_gb']:.1f} GB free, {one['folder']}"
    versions = {
        name: version for extra in found["extras"] for name, version in extra["packages"].items()
    }
    listed = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield f"packages: {listed or 'none of any extra'}"
    tools = [f"{name} {path or 'not found'}" for name, path in found["tools"].items()]
    yield f"for other devices: {', '.join(tools)}"


def clocks(cores: Sequence[Mapping[str, Any]]) -> str:
    """The cores in words, those of one clock together: "4 cores up to 2.40 GHz, 4 cores up to 1.80 GHz"."""
    kinds = Counter(_clock(one) for one in cores)
    said = ", ".join(f"{n} core{'s' if n > 1 else ''}{clock}" for clock, n in kinds.items())
    barred = sum(not one["usable"] for one in cores)
    return said + (f" ({barred} not for this process)" if barred else "")


def doctor_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of `bneck doctor`: runtimes, caches, and what is not installed."""
    runtimes = [
        (one["name"], one["version"] or NONE, ", ".join(one["precisions"]) or NONE,
         one["install"] or one["problem"] or "ready")
        for one in found["runtimes"]
    ]  # fmt: skip
    titles = ("runtime", "version", "precisions", "state")
    yield new_table("runtimes", titles, runtimes, left=(0, 1, 2, 3))
    if caches := [
        (one["what"], f"{one['files']:,}", f"{one['size_mb']:,.1f}", one["folder"])
        for one in found["caches"]
    ]:
        yield new_table("caches", ("cache", "files", "MB", "folder"), caches, left=(0, 3))
    if missing := [
        (one["purpose"], ", ".join(one["packages"]), one["install"]) for one in found["missing"]
    ]:
        columns = ("for", "packages", "install it with")
        yield new_table("not installed", columns, missing, left=(0, 1, 2))


def _clock(core: Mapping[str, Any]) -> str:
    if core["max_mhz"]:
        return f" up to {core['max_mhz'] / 1000:.2f} GHz"
    # The present clock differs from core to core and from second to second: tenths are enough.
    return f" now at {core['mhz'] / 1000:.1f} GHz" if core["mhz"] else ""


def _when(started: str | None) -> str:
    if started is None:
        return NONE
    return f"{datetime.fromisoformat(started).astimezone():%Y-%m-%d %H:%M}"
