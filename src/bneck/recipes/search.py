"""The main job: from images and a device to the network that meets a latency, and its report.

Stages: pack the images, fill the device's latency table, settle the target, train the seed
network, adapt it (section 4.2), check by measuring, train the result and the uniform-width
baseline from scratch, export, measure, report. Every stage writes what it finished; a run that
was killed goes on from its folder.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from statistics import mean
from typing import Any

import numpy as np

from bneck.costs.count import count
from bneck.costs.table import LatencyTable
from bneck.data.batches import eval_batches
from bneck.data.pack import Packed
from bneck.devices.measure import DEFAULT_RUNTIME, Candidate, measure
from bneck.devices.places import usual_runtime
from bneck.export.files import export_file
from bneck.nets.weights import load_net
from bneck.recipes.crew import Crew
from bneck.recipes.jobs import Images, Outcome, TrainJob, train_job
from bneck.recipes.judge import Judge, proposal_record
from bneck.recipes.progress import PERCENT, Following
from bneck.recipes.run import Run
from bneck.recipes.stages import (
    CAREFUL,
    known_table,
    measured_ms,
    pack_images,
    patiently,
    table_for,
)
from bneck.recipes.target import target_ms
from bneck.recipes.verify import verified_ms
from bneck.records.files import write_bytes, write_text
from bneck.records.measurement import Measurement
from bneck.records.run import NetworkRecord, StepRecord
from bneck.report.page import write_report
from bneck.search.netadapt import Step, adapt, narrowest
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text, load, resolve, to_text
from bneck.specs.transforms import fix_skips, rename, scale_width, with_classes, with_resolution
from bneck.specs.zoo import width_rule

MAX_CORRECTIONS = 5
CHECK_IMAGES = 256
SURE = 0.99  # measured this far below the target, the final measurement will not undo it


def run_search(run: Run) -> None:
    """Carry a run from wherever it stands to its report.

    Raises:
        InputError: the data, the network or the target cannot be; nothing was trained then.
    """
    if run.record["state"] == "finished":
        _close(run)
        return
    with Crew(run.settings.workers) as crew:
        with run.stage("images"):
            packed, images = pack_images(run)
        seed = _seed_spec(run, packed)
        given = run.ledger.find(event="blocks found")  # what recipes.block_search left behind
        if given is None:
            with run.stage("target"):
                _check_target(run, seed)
        with run.stage("latency table"):
            table = table_for(run, seed)
        with run.stage("target"):
            limit_ms = _settle_target(run, seed, table)
            uniform = _given(run, given) if given else _uniform(run, seed, table, limit_ms)
        _train_seed_and_uniform(run, crew, images, seed, uniform)
        found = _adapt(run, crew, images, seed, table, limit_ms)
        _train_finals(run, crew, images, found)
    with run.stage("export and measure"):
        _export(run, packed, found)
        _measure_finals(run, seed, found, uniform, limit_ms)
    run.finish()
    _close(run)


def _seed_spec(run: Run, packed: Packed) -> NetSpec:
    spec = with_classes(load(run.seed_file), len(packed.classes))
    return with_resolution(spec, run.settings.resolution)


def _check_target(run: Run, seed: NetSpec) -> None:
    """Refuse a target that is met already or out of reach, by the clock, before anything long.

    At the pace of the device's table where there is one, as the whole search goes by it.

    Raises:
        InputError: it is one of them; a better way is named.
    """
    if run.ledger.find(event="target checked"):
        return
    fastest = narrowest(seed, kinds=run.settings.kinds)
    device = run.settings.device
    table = known_table(seed, device)
    seed_ms, fastest_ms = measured_ms(seed, [seed, fastest], table, device)
    limit_ms = target_ms(run.settings.target, seed_ms)
    if seed_ms <= limit_ms:
        raise InputError(
            f"{seed.name} at {seed.resolution} px already runs in {seed_ms:.3f} ms here, so a target of "
            f"{limit_ms:.3f} ms is met without a search; {_larger(seed, limit_ms, table, device)}"
        )
    if fastest_ms > limit_ms:
        raise InputError(
            f"{limit_ms:.3f} ms cannot be reached from {seed.name} at {seed.resolution} px: its narrowest "
            f"version runs in {fastest_ms:.3f} ms; choose a target above that, a smaller --resolution or "
            "a smaller --seed-network"
        )
    run.ledger.append({"event": "target checked"})


def _settle_target(run: Run, seed: NetSpec, table: LatencyTable) -> float:
    """The target in milliseconds, at the pace of the table."""
    seed_ms = verified_ms(run, seed, seed, table)
    limit_ms = target_ms(run.settings.target, seed_ms)
    run.record["target"], run.record["target_ms"] = run.settings.target, limit_ms
    run.record["seed_network"] = {**_network_record(seed, table), "measured_ms": seed_ms}
    run.save()
    return limit_ms


def _aim_ms(limit_ms: float, table: LatencyTable) -> float:
    """The estimate at which to stop: below the limit by the table's usual error."""
    return limit_ms * (1 - table.error().median)


def _larger(seed: NetSpec, limit_ms: float, table: LatencyTable | None, device: str) -> str:
    """Advice for a loose target: the smallest network of the zoo that is slower than it."""
    names = [f"{family}{width}" for family in ("v3-small", "v3-large") for width in ("", "-1.25")]
    specs = [
        with_resolution(with_classes(resolve(n), seed.classes), seed.resolution) for n in names
    ]
    times = measured_ms(seed, specs, table, device)
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
            run.record["uniform"] = {**_network_record(spec, table), "width": percent / 100}
            run.save()
            return spec
    raise InputError(
        f"no uniform width of {seed.name} from 0.25 to 0.99 runs in {limit_ms:.3f} ms; choose a higher target"
    )


def _given(run: Run, found: dict[str, Any]) -> NetSpec:
    """The baseline that the block search found by the clock: another network, in no table of this seed."""
    spec = from_text(found["baseline"])
    costs = count(spec)
    run.record["uniform"] = NetworkRecord(
        name=spec.name,
        digest=spec.digest(),
        spec=found["baseline"],
        params=costs.params,
        madds=costs.madds,
        width=found["width"],
    )
    run.save()
    return spec


def _train_seed_and_uniform(
    run: Run, crew: Crew, images: Images, seed: NetSpec, uniform: NetSpec
) -> None:
    """The seed network for the search; beside it, what the search is compared with."""
    jobs = {"seed-heldout": job_for(run, images, fix_skips(seed), "seed-heldout", 0, heldout=True)}
    jobs |= _final_jobs(run, images, {"uniform": uniform, "seed": seed})
    with run.stage("train seed and baseline"):
        outcomes = train_all(run, crew, jobs)
    run.record["seed_network"]["heldout_top1"] = outcomes["seed-heldout"]["top1"]
    _record_outcomes(run, outcomes)


def _train_finals(run: Run, crew: Crew, images: Images, found: NetSpec) -> None:
    with run.stage("train result"):
        outcomes = train_all(run, crew, _final_jobs(run, images, {"found": found}))
    _record_outcomes(run, outcomes)


def _final_jobs(run: Run, images: Images, specs: dict[str, NetSpec]) -> dict[str, TrainJob]:
    return {
        f"{role}-{n}": job_for(run, images, spec, f"{role}-{n}", n, heldout=False)
        for role, spec in specs.items()
        # The seed network is only a landmark; what is compared is trained several times.
        for n in range(1 if role == "seed" else run.settings.repeats)
    }


def job_for(
    run: Run, images: Images, spec: NetSpec, name: str, repeat: int, *, heldout: bool
) -> TrainJob:
    """A full training of `spec`, the `repeat`-th with another seed."""
    seed = run.settings.seed + 1000 * repeat
    return TrainJob(
        spec=spec,
        images=images,
        settings=replace(run.settings.training, seed=seed),
        weights=run.folder.scratch / f"{name}.safetensors",
        checkpoint=run.folder.scratch / f"{name}.checkpoint",
        mark=run.folder.scratch / f"{name}.mark",
        heldout=heldout,
    )


def train_all(run: Run, crew: Crew, jobs: dict[str, TrainJob]) -> dict[str, dict[str, Any]]:
    """Outcomes by job name; those in the ledger are not trained again."""
    open_jobs = [name for name in jobs if run.ledger.find(event="trained", name=name) is None]
    if open_jobs:
        run.progress.stage(f"training {len(open_jobs)} networks, percent", PERCENT * len(open_jobs))

    def done(index: int, outcome: Outcome) -> None:
        name = open_jobs[index]
        run.ledger.append({"event": "trained", "name": name, **outcome})
        run.progress.say(f"{name}: top-1 {outcome['top1']:.1%}")

    with Following(run.progress, [jobs[name].mark for name in open_jobs]):
        crew.run(train_job, [(jobs[name],) for name in open_jobs], done)
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
            record["top1"] = [r["top1"] for r in repeats]
            record["loss"] = [r["loss"] for r in repeats]
    run.save()


def _adapt(
    run: Run, crew: Crew, images: Images, seed: NetSpec, table: LatencyTable, limit_ms: float
) -> NetSpec:
    """NetAdapt until a network also measures within the limit."""
    judge = Judge(run, crew, images)
    spec, accuracy = fix_skips(seed), judge.accuracy
    fastest_ms = table.estimate_ms(narrowest(seed, kinds=run.settings.kinds))
    aim_ms = max(fastest_ms, _aim_ms(limit_ms, table))
    steps: list[StepRecord] = []
    with run.stage("adapt"):
        for _ in range(MAX_CORRECTIONS):
            judge.clock.start()
            for step in adapt(
                seed,
                start=spec,
                first=len(steps) + 1,
                accuracy=accuracy,
                target_ms=aim_ms,
                delta_ms=run.settings.delta * table.estimate_ms(fix_skips(seed)),
                estimate=table.estimate_ms,
                judge=judge,
                kinds=run.settings.kinds,
                control=judge.control,
            ):
                judge.keep(step)
                steps.append(_step_record(step, judge.top1))
                spec, accuracy = step.kept.proposal.spec, step.kept.accuracy
            judge.clock.stop()
            measured = verified_ms(run, seed, spec, table)
            if measured <= limit_ms * SURE:
                break
            # The table was too hopeful for this network; go on by what the clock said.
            aim_ms = table.estimate_ms(spec) * min(0.995, limit_ms * SURE / measured)
            if aim_ms < fastest_ms:
                break  # the record will say that the target is missed
            run.progress.say(
                f"measured {measured:.3f} ms, above the target of {limit_ms:.3f} ms: narrowing further"
            )
    found = rename(spec, f"{seed.name}-adapted")
    run.record["found"] = {**_network_record(found, table), "heldout_top1": judge.top1}
    run.record["steps"] = steps
    run.record["overhead_seconds"] = judge.overhead_seconds
    run.save()
    write_text(run.folder.spec, to_text(found))
    return found


def _export(run: Run, packed: Packed, found: NetSpec) -> None:
    # The first training ships, not the best: picking by val accuracy would flatter the figure.
    weights = run.folder.scratch / "found-0.safetensors"
    write_bytes(run.folder.weights, weights.read_bytes())
    net = load_net(found, run.folder.weights)
    split = packed.val
    indices = np.unique(np.linspace(0, len(split.labels) - 1, CHECK_IMAGES).astype(np.int64))
    batches = eval_batches(split, indices, resolution=found.resolution, batch=len(indices))
    images = next(iter(batches))[0]
    check = export_file(net, run.folder.model, images, classes=packed.classes)
    run.record["export"] = check.as_json()
    run.save()


def _measure_finals(
    run: Run, seed: NetSpec, found: NetSpec, uniform: NetSpec, limit_ms: float
) -> None:
    device = run.settings.device
    engine = usual_runtime(device)
    # The shipped file itself, where the device's runtime reads it.
    shipped = run.folder.model.read_bytes() if engine == DEFAULT_RUNTIME else None
    candidates = [Candidate(seed), Candidate(found, shipped), Candidate(uniform)]
    nominal = float(run.record["table"]["reference_ms"])
    results: list[Measurement] = patiently(
        lambda: measure(
            candidates,
            runtime_name=engine,
            place=device,
            protocol=CAREFUL,
            reference=candidates[0],
            nominal_ms=nominal,
        )
    )
    for key, result in zip(("seed_network", "found", "uniform"), results, strict=True):
        record: NetworkRecord = run.record[key]  # type: ignore[literal-required]
        record["measurement"] = result.as_json()
        record["measured_ms"] = result.latency_ms.median
    run.record["measured_latency_ms"] = results[1].latency_ms.median
    run.record["estimated_latency_ms"] = run.record["found"]["estimated_ms"]
    run.record["meets_target"] = results[1].latency_ms.median <= limit_ms
    run.record["top1"] = mean(run.record["found"]["top1"])
    run.record["baseline"] = {
        "latency_ms": results[2].latency_ms.median,
        "top1": mean(run.record["uniform"]["top1"]),
    }
    run.record["device"] = asdict(results[1].device)
    run.save()


def _close(run: Run) -> None:
    """What a finished run still needs; the same again where it was killed in the middle of it."""
    write_report(run.folder.path)
    shutil.rmtree(run.folder.scratch, ignore_errors=True)


def _network_record(spec: NetSpec, table: LatencyTable) -> NetworkRecord:
    costs = count(spec)
    return NetworkRecord(
        name=spec.name,
        digest=spec.digest(),
        spec=to_text(spec),
        params=costs.params,
        madds=costs.madds,
        estimated_ms=table.estimate_ms(spec),
    )


def _step_record(step: Step, top1: float) -> StepRecord:
    kept = step.kept
    return StepRecord(
        number=step.number,
        proposal=proposal_record(kept.proposal),
        digest=kept.proposal.spec.digest(),
        estimated_ms=kept.proposal.estimated_ms,
        accuracy=top1,
        trials=len(step.trials),
    )
