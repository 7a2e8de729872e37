"""The runs in a folder, a line each, from their records alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bneck.records.files import is_locked
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError

USUAL = "runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """What a listing says of one run, or of the network that a search found for a further target.

    `state` is "finished", "running" (a process works on it), "stopped" (it can be resumed) or "unreadable";
    `problem` says why it is that. `score` is a fraction of 1 in `metric`; `started` is UTC as in the record.
    """

    run: str
    kind: str | None = None
    task: str | None = None
    network: str | None = None
    target: str | None = None
    latency_ms: float | None = None
    metric: str | None = None
    score: float | None = None
    state: str
    started: str | None = None
    problem: str | None = None


def list_runs(folder: str | Path | None = None) -> list[dict[str, Any]]:
    """The runs that lie directly in a folder, the newest first; or the one run that the folder is.

    Args:
        folder: None takes `runs`, which need not exist.

    Returns:
        A dictionary per line, with the fields of `RunLine`.

    Raises:
        InputError: there is no such folder.
    """
    root = Path(USUAL if folder is None else folder)
    if folder is not None and not root.is_dir():
        raise InputError(f"there is no folder {root}; check the path")
    alone = RunFolder(root).run_json.is_file()
    found = [root] if alone else [path.parent for path in root.glob("*/run.json")]
    runs = [(list(_lines(path)), path) for path in found]
    runs.sort(key=lambda run: (run[0][0].started or "", run[1]), reverse=True)
    return [asdict(line) for lines, _ in runs for line in lines]


def _lines(path: Path) -> Iterator[RunLine]:
    folder = RunFolder(path)
    try:
        record = folder.read()
        state = record.get("state", "running")
        if state != "finished":
            state = "running" if is_locked(path / ".lock") else "stopped"
        common = {
            "kind": record.get("kind"), "task": record.get("task"), "metric": record.get("metric"),
            "state": state, "started": record.get("started"),
        }  # fmt: skip
        yield RunLine(run=str(path), **_network(record), **common)
        for one in record.get("family", []):
            there = path / one["export"]["file"].partition("/")[0]
            yield RunLine(run=str(there), **_network(one), **common)
    except InputError as error:
        yield RunLine(run=str(path), state="unreadable", problem=str(error))
    except (LookupError, TypeError, AttributeError):
        problem = f"{folder.run_json} lacks what its kind has"
        yield RunLine(run=str(path), state="unreadable", problem=problem)


def _network(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of its network; a training's and an import's have the same fields or lack them."""
    settings = record.get("settings") or {}
    network = record.get("found") or record.get("seed_network") or record
    score = record.get("score")
    if score is None and record.get("scores"):
        scores = record["scores"]
        score = (scores.get("val") or next(iter(scores.values())))["score"]
    targets = settings.get("targets") or [None]
    return {
        "network": network.get("name") or _named(settings.get("seed_network")),
        "target": record.get("target") or targets[0],
        "latency_ms": record.get("measured_latency_ms"),
        "score": score,
    }


def _named(network: str | None) -> str | None:
    """A network as it was asked for; of a run or an import its name."""
    folder = RunFolder(Path(network or ""))
    return folder.read().get("name") if folder.run_json.is_file() else network
