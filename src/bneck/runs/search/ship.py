"""The end of a search: the best network as a finished run with its files, and all measured together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from bneck.devices.measure import Candidate
from bneck.devices.runtimes import runtime
from bneck.records.run import RunFolder
from bneck.runs.answers import FileAnswers
from bneck.runs.export import ending, export, format_of
from bneck.runs.load import trained
from bneck.runs.quantize import recovered
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.latency import measured
from bneck.runs.search.run import Run
from bneck.runs.train import Plan, adopt
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text
from bneck.tasks.options import TrainOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a search found: a network, its trained weights, where they were trained, and the limit.

    Latencies are relative to `reference`; `folder` is where the network goes.
    """

    found: NetSpec
    weights: Path
    experiment: Experiment
    reference: NetSpec
    limit_ms: float
    folder: Path


def ship(run: Run, result: Result) -> None:
    """The found network as a finished run, with the file for the device, each file checked."""
    settings, data, folder = run.settings, result.experiment.data, result.folder
    known = {k: v for k, v in run.record["data"].items() if k not in ("heldout", "prepared")}
    plan = Plan(
        task=run.task, classes=tuple(run.record["classes"]), spec=result.found, wrapper=run.wrapper,
        data={**known, "resolution": result.found.resolution},
        settings=settings.training, own=settings.options,
        common=TrainOptions(seed=settings.seed, bad_share=settings.bad_share, start=settings.start),
        source=run.record.get("source"), normalisation=result.experiment.normalisation,
    )  # fmt: skip
    kept = RunFolder(folder)
    if kept.run_json.is_file() and kept.read()["digest"] != result.found.digest():
        shutil.rmtree(folder)  # it missed the target
    adopted = adopt(folder, plan, result.weights, data, run.progress)
    run.record["export"] = {
        "file": f"{folder.name}/model.onnx", **adopted["files"]["model.onnx"],
    }  # fmt: skip
    on = settings.deployment
    if on.precision == "int8":
        exported = recovered(
            trained(folder), data, runtime(on.runtime), compute=settings.compute, seed=settings.seed,
            progress=run.progress,
        )  # fmt: skip
        file = Path(exported["file"])
        run.record["shipped"] = {**exported, "file": f"{folder.name}/{file.name}"}
        run.progress.say(
            f"int8: {run.metric} {exported['ptq']:.1%} calibrated, {exported['qat']:.1%} fine-tuned with its "
            "rounding; the better one ships"
        )
    elif not on.is_plain:
        exported = export(
            folder, format_of(on.runtime), precision=on.precision, progress=run.progress
        )
        file = Path(exported["file"])
        score = data.evaluate(FileAnswers(file, on.runtime), "val", run.progress).score
        run.record["shipped"] = {**exported, "file": f"{folder.name}/{file.name}", "score": score}
    run.save()


def compared(run: Run) -> Iterator[tuple[str, Any]]:
    """Roles and records of the networks that a report compares, the found one by what is shipped."""
    record: Any = run.record
    for role, key in (("seed", "seed_network"), ("found", "found"), ("uniform", "uniform")):
        yield role, record[key]
    yield from record.get("others", {}).items()


def measure_finals(run: Run, result: Result) -> None:
    """Measure the networks of a report interleaved, the found one by the file that is shipped."""
    on, record = run.settings.deployment, run.record
    engine = runtime(on.runtime)
    shipped = engine.read(result.folder / f"model{ending(on.precision)}{engine.suffix}")
    networks = list(compared(run))
    candidates = [
        Candidate(
            from_text(network["spec"]), shipped if role == "found" else None, precision=on.precision,
            wrapper=run.wrapper,
        )
        for role, network in networks
    ]  # fmt: skip
    nominal_ms = float(record["table"]["reference_ms"])
    results = measured(candidates, result.reference, nominal_ms, on, run.wrapper)
    for (_, network), found in zip(networks, results, strict=True):
        network["measurement"] = found.as_json()
        network["measured_ms"] = found.latency_ms.median
    found_ms = record["found"]["measured_ms"]
    record["measured_latency_ms"] = found_ms
    record["estimated_latency_ms"] = record["found"].get("estimated_ms", found_ms)
    record["meets_target"] = found_ms <= result.limit_ms
    record["score"] = mean(record["found"]["scores"])
    record["baseline"] = {
        "latency_ms": record["uniform"]["measured_ms"], "score": mean(record["uniform"]["scores"]),
    }  # fmt: skip
    record["device"] = asdict(results[0].device)
    run.save()
