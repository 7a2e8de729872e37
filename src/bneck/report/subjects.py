"""What can be compared: a network alone, or with what a run recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from bneck.costs.count import count
from bneck.records.run import RunFolder
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
        return fmean(self.scores) if self.scores else None


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
    record, name = folder.read(), folder.path.resolve().name
    if record["kind"] == "search":
        return _searched(name, record)
    if not folder.spec.is_file():
        raise InputError(f"{folder.path} has no spec.yaml yet; finish the run, or leave it out")
    value = ((record.get("scores") or {}).get("val") or {}).get("score")  # an import has none
    return [_subject(record, name, load(folder.spec), record, [] if value is None else [value])]


def _searched(name: str, record: dict[str, Any]) -> list[Subject]:
    found = []
    networks = {
        "seed": record.get("seed_network"), "found": record.get("found"),
        "uniform width": record.get("uniform"),
        **{one.get("title", role): one for role, one in record.get("others", {}).items()},
    }  # fmt: skip
    for role, network in networks.items():
        if network and network.get("spec"):
            spec, scores = from_text(network["spec"]), network.get("scores") or []
            one = _subject(record, f"{name}, {role}", spec, network, scores)
            measurement = network.get("measurement") or {}
            spread = measurement.get("latency_ms") or {}
            found.append(replace(
                one, latency_ms=network.get("measured_ms"), p10_ms=spread.get("p10"), p90_ms=spread.get("p90"),
                where=_where(measurement),
            ))  # fmt: skip
    if not found:
        raise InputError(f"{name} has found no network yet; report it with: bneck report")
    return found


def _subject(
    record: dict[str, Any], label: str, spec: NetSpec, costs: dict[str, Any], scores: list[float]
) -> Subject:
    judged = bool(scores) or record["kind"] == "search"
    return Subject(
        label=label, spec=spec, params=costs["params"], madds=costs["madds"], kind=record["kind"],
        task=record.get("task", ""), wrapper=record.get("wrapper") or {},
        classes=len(record.get("classes") or ()), metric=record.get("metric", "") if judged else "",
        scores=tuple(scores), data=_data(record) if judged else "",
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
