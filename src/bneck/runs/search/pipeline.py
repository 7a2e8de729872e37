"""The main job: from images and a device to the network that meets a latency, and its report.

Stages: prepare the images, fill the device's latency table, settle the target, train the seed
network, adapt it (section 4.2), check by measuring, train the result and the uniform-width
baseline from scratch, export, measure, report. Every stage writes what it finished; a run that
was killed goes on from its folder.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

from bneck.costs.count import count_whole
from bneck.costs.table import LatencyTable
from bneck.costs.table_file import read_table
from bneck.devices.measure import Candidate, measure
from bneck.devices.places import opened
from bneck.devices.runtimes import runtime
from bneck.nas.netadapt import narrowest
from bneck.records.measurement import Measurement
from bneck.records.run import NetworkRecord
from bneck.runs.answers import FileAnswers
from bneck.runs.export import ending, export, format_of
from bneck.runs.progress import PERCENT, Following
from bneck.runs.report import write_report
from bneck.runs.search.cluster import open_pool
from bneck.runs.search.experiment import Experiment, open_experiment
from bneck.runs.search.fitting import HIGH
from bneck.runs.search.handover import Handover, handed_over
from bneck.runs.search.jobs import Outcome, TrainJob, train_job
from bneck.runs.search.latency import (
    careful,
    known_table,
    measured_ms,
    patiently,
    record_table,
    table_for,
    verified_ms,
)
from bneck.runs.search.run import Run
from bneck.runs.search.settings import target_ms
from bneck.runs.search.widths import SURE, as_it_is, narrowed, network_record
from bneck.runs.search.workers import WorkerPool
from bneck.runs.train import Plan, adopt
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import load, resolve, to_text
from bneck.specs.transforms import fix_skips, rename, scale_width, with_classes, with_resolution
from bneck.specs.zoo import width_rule
from bneck.tasks.options import TrainOptions


def run_search(run: Run) -> None:
    """Carry a run from wherever it stands to its report.

    Raises:
        InputError: the data, the network or the target cannot be; nothing was trained then.
    """
    if run.record["state"] == "finished":
        _close(run)
        return
    with open_pool(run.settings.workers, run.settings.cluster) as pool:
        with run.stage("images"):
            experiment = open_experiment(run)
        seed = _seed_spec(run)
        given = handed_over(run)  # from runs.search.blocks
        if given is None:
            with run.stage("target"):
                _check_target(run, seed)
        reference = given.pace.network if given else seed
        narrows = given is None or given.measured_ms > given.limit_ms * HIGH
        with run.stage("latency table"):
            table = _table(run, seed, given, narrows)
        with run.stage("target"):
            limit_ms = _settle_target(run, seed, table, given)
            uniform = _given(run, given) if given else _uniform(run, seed, table, limit_ms)
        _train_seed_and_uniform(run, pool, experiment, seed, uniform, narrows)
        if given and not narrows:
            found = as_it_is(run, seed, table, given)
        else:
            found = narrowed(run, pool, experiment, seed, reference, table, limit_ms)
        _train_finals(run, pool, experiment, found, narrows)
    with run.stage("export and measure"):
        _ship(run, experiment, found)
        _measure_finals(run, (seed, found, uniform), reference, limit_ms)
    run.finish()
    _close(run)


def _table(run: Run, seed: NetSpec, given: Handover | None, narrows: bool) -> LatencyTable:
    """The seed's table; where nothing is to narrow that of the space answers what is left to ask."""
    if given is None:
        return table_for(run, seed)
    if narrows:
        return table_for(run, seed, given.pace)
    table = read_table(run.folder.space_table, run.wrapper)
    record_table(run, table)
    return table


def _seed_spec(run: Run) -> NetSpec:
    spec = with_resolution(load(run.seed_file), run.settings.resolution)
    run.wrapper.network(spec)  # refuses what cannot stand in it
    return spec


def _check_target(run: Run, seed: NetSpec) -> None:
    """Refuse a target that is met already or out of reach, by the clock, before anything long.

    At the pace of the device's table where there is one, as the whole search goes by it.

    Raises:
        InputError: it is one of them; a better way is named.
    """
    if run.ledger.find(event="target checked"):
        return
    fastest = narrowest(seed, kinds=run.settings.kinds)
    on = run.settings.deployment
    table = known_table(seed, on, run.wrapper)
    seed_ms, fastest_ms = measured_ms(seed, [seed, fastest], table, on, run.wrapper)
    limit_ms = target_ms(run.settings.target, seed_ms)
    if seed_ms <= limit_ms:
        raise InputError(
            f"{seed.name} at {seed.resolution} px already runs in {seed_ms:.3f} ms here, so a target of "
            f"{limit_ms:.3f} ms is met without a search; {_larger(run, seed, limit_ms, table)}"
        )
    if fastest_ms > limit_ms:
        raise InputError(
            f"{limit_ms:.3f} ms cannot be reached from {seed.name} at {seed.resolution} px: its narrowest "
            f"version runs in {fastest_ms:.3f} ms; choose a target above that, a smaller --resolution or "
            "a smaller --seed-network"
        )
    run.ledger.append({"event": "target checked"})


def _settle_target(run: Run, seed: NetSpec, table: LatencyTable, given: Handover | None) -> float:
    """The target in milliseconds, at the pace of the table."""
    if given is None:
        seed_ms = verified_ms(run, seed, seed, table)
        limit_ms = target_ms(run.settings.target, seed_ms)
    else:
        seed_ms, limit_ms = given.measured_ms, given.limit_ms
    run.record["target"], run.record["target_ms"] = run.settings.target, limit_ms
    run.record["seed_network"] = {**network_record(seed, table), "measured_ms": seed_ms}
    run.save()
    return limit_ms


def _larger(run: Run, seed: NetSpec, limit_ms: float, table: LatencyTable | None) -> str:
    """Advice for a loose target: the smallest network of the zoo that is slower than it."""
    names = [f"{family}{width}" for family in ("v3-small", "v3-large") for width in ("", "-1.25")]
    specs = [
        with_resolution(with_classes(resolve(n), seed.classes), seed.resolution) for n in names
    ]
    times = measured_ms(seed, specs, table, run.settings.deployment, run.wrapper)
    slower = sorted((ms, name) for ms, name in zip(times, names, strict=True) if ms > limit_ms)
    if slower:
        return f"search from --seed-network {slower[0][1]} ({slower[0][0]:.3f} ms) or set a lower target"
    ms, name = max(zip(times, names, strict=True))
    return f"even {name} runs in {ms:.3f} ms: train that one as it is, or set a lower target"


def _uniform(run: Run, seed: NetSpec, table: LatencyTable, limit_ms: float) -> NetSpec:
    """The widest uniform-width version of the seed that measures within the limit."""
    within: dict[str, tuple[float, int, NetSpec]] = {}
    for percent in range(25, 100):
        spec = scale_width(seed, percent / 100, width_rule(seed.name))
        if table.covers(spec):
            within.setdefault(spec.digest(), (table.estimate_ms(spec), percent, spec))
    for ms, percent, spec in sorted(within.values(), key=lambda entry: -entry[0]):
        if ms > limit_ms * 1.05:
            continue
        measured = verified_ms(run, seed, spec, table)
        if measured <= limit_ms * SURE:
            spec = rename(spec, f"{seed.name}-{percent / 100:g}")
            run.record["uniform"] = {**network_record(spec, table), "width": percent / 100}
            run.save()
            return spec
    raise InputError(
        f"no uniform width of {seed.name} from 0.25 to 0.99 runs in {limit_ms:.3f} ms; choose a higher target"
    )


def _given(run: Run, given: Handover) -> NetSpec:
    """The baseline that the block search found by the clock: another network, in no table of this seed."""
    spec = given.baseline
    costs = count_whole(spec, run.wrapper)
    run.record["uniform"] = NetworkRecord(
        name=spec.name,
        digest=spec.digest(),
        spec=to_text(spec),
        params=costs.params,
        madds=costs.madds,
        width=given.width,
    )
    run.save()
    return spec


def _train_seed_and_uniform(
    run: Run,
    pool: WorkerPool,
    experiment: Experiment,
    seed: NetSpec,
    uniform: NetSpec,
    narrows: bool,
) -> None:
    """The seed network for the search; next to it, what the search is compared with.

    Where nothing is to narrow the seed is the result, which is trained as such.
    """
    jobs = _final_jobs(run, experiment, {"uniform": uniform, **({"seed": seed} if narrows else {})})
    if narrows:
        spec = fix_skips(seed)
        jobs["seed-heldout"] = job_for(run, experiment, spec, "seed-heldout", 0, heldout=True)
    with run.stage("train seed and baseline"):
        outcomes = train_all(run, pool, jobs)
    if narrows:
        run.record["seed_network"]["heldout_score"] = outcomes["seed-heldout"]["score"]
    _record_outcomes(run, outcomes)


def _train_finals(
    run: Run, pool: WorkerPool, experiment: Experiment, found: NetSpec, narrows: bool
) -> None:
    with run.stage("train result"):
        outcomes = train_all(run, pool, _final_jobs(run, experiment, {"found": found}))
    if not narrows:
        outcomes["seed-0"] = outcomes["found-0"]
    _record_outcomes(run, outcomes)


def _final_jobs(run: Run, experiment: Experiment, specs: dict[str, NetSpec]) -> dict[str, TrainJob]:
    return {
        f"{role}-{n}": job_for(run, experiment, spec, f"{role}-{n}", n, heldout=False)
        for role, spec in specs.items()
        # The seed network is only a landmark; what is compared is trained several times.
        for n in range(1 if role == "seed" else run.settings.repeats)
    }


def job_for(
    run: Run, experiment: Experiment, spec: NetSpec, name: str, repeat: int, *, heldout: bool
) -> TrainJob:
    """A full training of `spec`, the `repeat`-th with another seed."""
    seed = run.settings.seed + 1000 * repeat
    return TrainJob(
        spec=spec,
        experiment=experiment,
        settings=replace(run.settings.training, seed=seed),
        weights=run.folder.scratch / f"{name}.safetensors",
        checkpoint=run.folder.scratch / f"{name}.checkpoint",
        mark=run.folder.scratch / f"{name}.mark",
        heldout=heldout,
    )


def train_all(run: Run, pool: WorkerPool, jobs: dict[str, TrainJob]) -> dict[str, dict[str, Any]]:
    """Outcomes by job name; those in the ledger are not trained again."""
    open_jobs = [name for name in jobs if run.ledger.find(event="trained", name=name) is None]
    if open_jobs:
        run.progress.stage(f"training {len(open_jobs)} networks, percent", PERCENT * len(open_jobs))

    def done(index: int, outcome: Outcome) -> None:
        name = open_jobs[index]
        run.ledger.append({"event": "trained", "name": name, **outcome})
        jobs[name].checkpoint.unlink(missing_ok=True)
        run.progress.say(f"{name}: {run.metric} {outcome['score']:.1%}")

    with Following(run.progress, [jobs[name].mark for name in open_jobs]):
        pool.run(train_job, [(jobs[name],) for name in open_jobs], done)
    found = {name: run.ledger.find(event="trained", name=name) for name in jobs}
    return {name: outcome for name, outcome in found.items() if outcome is not None}


def _record_outcomes(run: Run, outcomes: dict[str, dict[str, Any]]) -> None:
    for role, key in (("seed", "seed_network"), ("uniform", "uniform"), ("found", "found")):
        repeats = [
            outcomes[f"{role}-{n}"]
            for n in range(run.settings.repeats)
            if f"{role}-{n}" in outcomes
        ]
        if repeats:
            record: dict[str, Any] = run.record[key]  # type: ignore[literal-required]
            record["scores"] = [r["score"] for r in repeats]
            record["loss"] = [r["loss"] for r in repeats]
    run.save()


def _ship(run: Run, experiment: Experiment, found: NetSpec) -> None:
    """The found network as a finished run in `found`, with the file for the device, each file checked."""
    chosen, settings = run.task, run.settings
    plan = Plan(
        task=chosen,
        classes=tuple(run.record["classes"]),
        data={k: v for k, v in run.record["data"].items() if k not in ("heldout", "prepared")},
        spec=found,
        wrapper=run.wrapper,
        settings=settings.training,
        common=TrainOptions(seed=settings.seed, bad_share=settings.bad_share),
        own=settings.options,
    )
    # The first training ships, not the best: picking by val scores would flatter the figure.
    weights = run.folder.scratch / "found-0.safetensors"
    adopted = adopt(run.folder.found, plan, weights, experiment.data, run.progress)
    run.record["export"] = {"file": "found/model.onnx", **adopted["files"]["model.onnx"]}
    on = settings.deployment
    if not on.is_plain:
        exported = export(
            run.folder.found, format_of(on.runtime), precision=on.precision, progress=run.progress
        )
        file = Path(exported["file"])
        score = experiment.data.evaluate(FileAnswers(file, on.runtime), "val", run.progress).score
        run.record["shipped"] = {**exported, "file": f"found/{file.name}", "score": score}
    run.save()


def _measure_finals(
    run: Run,
    networks: tuple[NetSpec, NetSpec, NetSpec],
    reference: NetSpec,
    limit_ms: float,
) -> None:
    """Seed, found and uniform network in one race, the found one by the file that is shipped."""
    on, wrapper = run.settings.deployment, run.wrapper
    engine = runtime(on.runtime)
    shipped = engine.read(run.folder.found / f"model{ending(on.precision)}{engine.suffix}")
    candidates = [
        Candidate(spec, model, precision=on.precision, wrapper=wrapper)
        for spec, model in zip(networks, (None, shipped, None), strict=True)
    ]
    nominal = float(run.record["table"]["reference_ms"])
    with opened(on.device) as device:
        results: list[Measurement] = patiently(
            device,
            lambda: measure(
                candidates,
                runtime_name=on.runtime,
                place=device,
                protocol=careful(on),
                reference=Candidate(reference, precision=on.precision, wrapper=wrapper),
                nominal_ms=nominal,
            ),
        )
    for key, result in zip(("seed_network", "found", "uniform"), results, strict=True):
        record: NetworkRecord = run.record[key]  # type: ignore[literal-required]
        record["measurement"] = result.as_json()
        record["measured_ms"] = result.latency_ms.median
    run.record["measured_latency_ms"] = results[1].latency_ms.median
    run.record["estimated_latency_ms"] = run.record["found"]["estimated_ms"]
    run.record["meets_target"] = results[1].latency_ms.median <= limit_ms
    run.record["score"] = mean(run.record["found"]["scores"])
    run.record["baseline"] = {
        "latency_ms": results[2].latency_ms.median,
        "score": mean(run.record["uniform"]["scores"]),
    }
    run.record["device"] = asdict(results[1].device)
    run.save()


def _close(run: Run) -> None:
    """What a finished run still needs; the same again where it was killed in the middle of it."""
    write_report(run.folder.path)
    shutil.rmtree(run.folder.scratch, ignore_errors=True)
