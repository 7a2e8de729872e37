"""What can be compared: a network as it is, or with what a run wrote down of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bneck.costs.count import count
from bneck.records.run import RunFolder
from bneck.report.numbers import mean
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text, load, resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network with its costs, and what is recorded of it.

    `scores` are shares of 1, one for each final training; `metric` says of what and `data` on which
    images. `task`, `wrapper` and `classes` are those of its record.
    `latency_ms` is a recorded measurement, `where` its device and runtime.
    """

    label: str
    spec: NetSpec
    params: int
    madds: int
    kind: str = "network"
    task: str = ""
    wrapper: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 0
    metric: str = ""
    scores: tuple[float, ...] = ()
    data: str = ""
    latency_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    where: str = ""

    @property
    def score(self) -> float | None:
        """Mean of the scores."""
        return mean(self.scores) if self.scores else None


def subjects(place: str | Path) -> list[Subject]:
    """The networks behind a name, a spec file or a run's folder; a search has up to three.

    Raises:
        InputError: it is none of them, or a run without a network yet.
    """
    folder = RunFolder(Path(place))
    if not folder.run_json.is_file():
        spec = resolve(place)
        costs = count(spec)
        return [Subject(label=str(place), spec=spec, params=costs.params, madds=costs.madds)]
    record = folder.read()
    name = folder.path.resolve().name
    return (
        _searched(name, record) if record["kind"] == "search" else [_trained(name, folder, record)]
    )


def _searched(name: str, record: dict[str, Any]) -> list[Subject]:
    found = []
    for role, key in (("seed", "seed_network"), ("found", "found"), ("uniform width", "uniform")):
        network = record.get(key) or {}
        if not network.get("spec"):
            continue
        spread = (network.get("measurement") or {}).get("latency_ms") or {}
        spec = from_text(network["spec"])
        found.append(
            Subject(
                label=f"{name}, {role}", spec=spec, kind="search", metric=record.get("metric", ""),
                task=record.get("task", ""), wrapper=record.get("wrapper") or {},
                classes=len(record.get("classes") or ()),
                params=network["params"], madds=network["madds"],
                scores=tuple(network.get("scores") or ()), data=_data(record),
                latency_ms=network.get("measured_ms"), p10_ms=spread.get("p10"), p90_ms=spread.get("p90"),
                where=_where(network.get("measurement") or {}),
            )
        )  # fmt: skip
    if not found:
        raise InputError(f"{name} has found no network yet; report it with: bneck report")
    return found


def _trained(name: str, folder: RunFolder, record: dict[str, Any]) -> Subject:
    """A training run, or an import, which has no scores."""
    if not folder.spec.is_file():
        raise InputError(f"{folder.path} has no spec.yaml yet; finish the run, or leave it out")
    spec = load(folder.spec)
    value = ((record.get("scores") or {}).get("val") or {}).get("score")
    return Subject(
        label=name, spec=spec, params=record["params"], madds=record["madds"], kind=record["kind"],
        task=record.get("task", ""), wrapper=record.get("wrapper") or {},
        classes=len(record.get("classes") or ()),
        metric="" if value is None else record["metric"], scores=() if value is None else (value,),
        data="" if value is None else _data(record),
    )  # fmt: skip


def _data(record: dict[str, Any]) -> str:
    data = record.get("data") or {}
    if not data:
        return ""
    images = data["splits"].get("val", 0)
    return f"{data['name']}, {images:,} images, {len(record['classes'])} classes"


def _where(measurement: dict[str, Any]) -> str:
    if not measurement:
        return ""
    device = measurement.get("device") or {}
    return f"{device.get('processor', '?')}, {measurement.get('runtime')}, {measurement.get('threads')} thread"
