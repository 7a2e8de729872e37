"""What stands behind a name, a spec file or a run's folder, to be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.costs.count import count
from bneck.records.run import RunFolder
from bneck.report.subjects import Subject
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text, load, resolve
from bneck.tasks.detect.count import count_detector
from bneck.tasks.detect.head import ssdlite
from bneck.tasks.segment.count import count_segmenter
from bneck.tasks.segment.head import from_settings


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
    match record.get("kind"):
        case "search":
            return _searched(name, record)
        case "detect":
            return [_detected(name, folder, record)]
        case "segment":
            return [_segmented(name, folder, record)]
        case _:
            return [_classified(name, folder, record)]


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
                label=f"{name}, {role}", spec=spec, kind="search", metric=record.get("metric", "top-1"),
                params=network["params"], madds=network["madds"],
                scores=tuple(network.get("scores") or ()), data=_data(record),
                latency_ms=network.get("measured_ms"), p10_ms=spread.get("p10"), p90_ms=spread.get("p90"),
                where=_where(network.get("measurement") or {}),
            )
        )  # fmt: skip
    if not found:
        raise InputError(f"{name} has found no network yet; report it with: bneck report")
    return found


def _classified(name: str, folder: RunFolder, record: dict[str, Any]) -> Subject:
    spec = _spec(folder)
    costs = count(spec)
    top1 = record.get("top1")
    return Subject(
        label=name, spec=spec, params=costs.params, madds=costs.madds,
        kind=str(record.get("kind")), metric="top-1" if top1 is not None else "",
        scores=() if top1 is None else (top1,), data=_data(record) if top1 is not None else "",
    )  # fmt: skip


def _detected(name: str, folder: RunFolder, record: dict[str, Any]) -> Subject:
    spec = _spec(folder)
    classes, side = len(record["classes"]), record["detector"]["resolution"]
    costs = count_detector(ssdlite(spec, classes=classes, resolution=side))
    found = (record.get("evaluations") or {}).get("val") or {}
    score = found.get("AP")
    return Subject(
        label=name, spec=spec, params=record.get("params", costs.params),
        madds=record.get("madds", costs.madds), kind="detect", metric="mAP",
        scores=() if score is None else (score,),
        data=f"{Path(str(record['settings']['data'])).name} val, {found.get('images', 0)} images",
    )  # fmt: skip


def _segmented(name: str, folder: RunFolder, record: dict[str, Any]) -> Subject:
    spec = _spec(folder)
    size = record["settings"].get("size") or record["settings"]["crop"]
    costs = count_segmenter(from_settings(spec, record["segmenter"]), tuple(size))
    val = next((s for s in record.get("scores", ()) if s["split"] == "val"), None)
    return Subject(
        label=name, spec=spec, params=costs.params, madds=costs.madds, kind="segment", metric="mIOU",
        scores=() if val is None else (val["miou"],),
        data=f"{Path(str(record['settings']['data'])).name} val, {val['images'] if val else 0} images",
    )  # fmt: skip


def _spec(folder: RunFolder) -> NetSpec:
    if not folder.spec.is_file():
        raise InputError(f"{folder.path} has no spec.yaml yet; finish the run, or leave it out")
    return load(folder.spec)


def _data(record: dict[str, Any]) -> str:
    data = record.get("data") or {}
    if not data:
        return ""
    return (
        f"{data.get('name')}, {data.get('val', 0):,} images, {len(data.get('classes', ()))} classes"
    )


def _where(measurement: dict[str, Any]) -> str:
    if not measurement:
        return ""
    device = measurement.get("device") or {}
    return f"{device.get('processor', '?')}, {measurement.get('runtime')}, {measurement.get('threads')} thread"
