"""The default search: from images and a device to the network that meets a latency, and its report.

Stages: prepare the images, fill the device's latency table, settle the target, train the seed
network, adapt it (section 4.2), check by measuring, train the result and the uniform-width
baseline from random weights, export, measure, report. Every stage writes what it finished; a run that
was killed is resumed from its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from bneck.costs.laws import BLOCK
from bneck.costs.table import LatencyTable
from bneck.costs.table_file import read_table
from bneck.devices.measure import Candidate
from bneck.devices.runtimes import runtime
from bneck.nas.allocation.allocator import GRID
from bneck.nas.allocation.drawn import smallest
from bneck.nas.netadapt import narrowest
from bneck.runs.answers import FileAnswers
from bneck.runs.export import ending, export, format_of
from bneck.runs.search.finals import Handover, handed_over
from bneck.runs.search.fitting import HIGH
from bneck.runs.search.inherited import narrowed_both, recover, trained_seed
from bneck.runs.search.latency import (
    Latencies,
    glanced_ms,
    known_table,
    measured,
    measured_ms,
    record_table,
    table_for,
)
from bneck.runs.search.run import Run
from bneck.runs.search.settings import target_ms
from bneck.runs.search.trials import job_for, train_all
from bneck.runs.search.widths import SURE, as_it_is, narrowed
from bneck.runs.train import Plan, adopt
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import load, resolve
from bneck.specs.transforms import fix_skips, rename, scale_width, with_classes, with_resolution
from bneck.specs.zoo import width_rule
from bneck.tasks.options import TrainOptions

CLEAR = 1.5  # a factor that a glance is never off by


@dataclass(frozen=True, slots=True, kw_only=True)
class _Searched:
    """What a search found and compares: `role` names the trainings of the network that ships."""

    found: NetSpec
    uniform: NetSpec
    reference: NetSpec
    limit_ms: float
    role: str = "found"


def run_search(run: Run) -> None:
    """Carry a run from wherever it stands to its report.

    Raises:
        InputError: the data, the network or the target cannot be; nothing was trained then.
    """
    if run.record["state"] == "finished":
        run.close()
        return
    with run.working():
        seed = with_resolution(load(run.seed_file), run.settings.resolution)
        run.wrapper.network(seed)  # refuses what cannot stand in it
        narrow = _by_netadapt if run.settings.start is None else _by_importance
        done = narrow(run, seed)
    with run.stage("export and measure"):
        _ship(run, done.found, done.role)
        _measure_finals(run, (seed, done.found, done.uniform), done.reference, done.limit_ms)
    run.finish()


def _by_importance(run: Run, seed: NetSpec) -> _Searched:
    with run.stage("target"):
        _check_target(run, seed)
    with run.stage("latency table"):
        latencies = Latencies(run, seed, table_for(run, seed))
    with run.stage("target"):
        limit_ms = _settle_target(run, seed, latencies, None)
    parent = trained_seed(run, fix_skips(seed))
    found, uniform = narrowed_both(run, parent, latencies, limit_ms)
    role, shipped = recover(run, parent, found, uniform)
    return _Searched(found=shipped, uniform=uniform, reference=seed, limit_ms=limit_ms, role=role)


def _by_netadapt(run: Run, seed: NetSpec) -> _Searched:
    given = handed_over(run)
    # Blocks that are already fast enough leave NetAdapt nothing to do.
    narrows = given is None or given.measured_ms > given.limit_ms * HIGH
    if given is None:
        with run.stage("target"):
            _check_target(run, seed)
    with run.stage("latency table"):
        table = _table(run, seed, given, narrows)
    latencies = Latencies(run, given.reference if given else seed, table)
    with run.stage("target"):
        limit_ms = _settle_target(run, seed, latencies, given)
        uniform = _uniform(run, latencies, limit_ms, given)
    _train_seed_and_uniform(run, seed, uniform, narrows)
    if given and not narrows:
        found = as_it_is(run, seed, table, given)
    else:
        found = narrowed(run, seed, latencies, limit_ms)
    _train_result(run, found, narrows)
    return _Searched(found=found, uniform=uniform, reference=latencies.reference, limit_ms=limit_ms)


def _table(run: Run, seed: NetSpec, given: Handover | None, narrows: bool) -> LatencyTable:
    """The seed's table; where nothing is to narrow that of the space answers what is left to ask."""
    if given is None:
        return table_for(run, seed)
    if narrows:
        return table_for(run, seed, given.reference, given.reference_ms)
    table = read_table(run.folder.space_table, run.wrapper)
    record_table(run, table)
    return table


def _check_target(run: Run, seed: NetSpec) -> None:
    """Refuse a target that is met already or out of reach, by measuring, before anything long.

    A glance decides what is clear, and takes seconds also while the device is busy. Times are relative to
    the device's table where there is one, as in the whole search.

    Raises:
        InputError: it is one of them; a better way is named.
    """
    if run.ledger.find(event="target checked"):
        return
    on = run.settings.deployment
    table = known_table(seed, on, run.wrapper)

    def glanced(specs: Sequence[NetSpec]) -> list[float]:
        seed_ms, *times = glanced_ms([seed, *specs], on, run.wrapper)
        nominal_ms = float(table.header["reference_ms"]) if table else seed_ms
        return [ms / seed_ms * nominal_ms for ms in times]

    def carefully(specs: Sequence[NetSpec]) -> list[float]:
        return measured_ms(seed, specs, table, on, run.wrapper)

    fastest = _fastest(run, seed)
    for measure, clear in ((glanced, CLEAR), (carefully, 1.0)):
        seed_ms, *others = measure([seed, *fastest])
        fastest_ms, limit_ms = min(others), target_ms(run.settings.target, seed_ms)
        if seed_ms * clear <= limit_ms:
            raise InputError(
                f"{seed.name} at {seed.resolution} px already runs in {seed_ms:.3f} ms here, so a target of "
                f"{limit_ms:.3f} ms is met without a search; {_larger(seed, limit_ms, measure)}"
            )
        if fastest_ms > limit_ms * clear:
            which = "narrowest" if run.settings.start is None else "fastest"
            raise InputError(
                f"{limit_ms:.3f} ms cannot be reached from {seed.name} at {seed.resolution} px: its {which} "
                f"version runs in {fastest_ms:.3f} ms; choose a target above that, a smaller --resolution "
                "or a smaller --seed-network"
            )
        if fastest_ms * clear <= limit_ms <= seed_ms / clear:
            break
    run.ledger.append({"event": "target checked"})


def _fastest(run: Run, seed: NetSpec) -> list[NetSpec]:
    """What no version that the search may choose is faster than, one or the other."""
    if run.settings.start is None:
        return [narrowest(seed, kinds=run.settings.kinds)]
    # A runtime may take longer for 8 channels than for a whole block of them.
    return [smallest(seed, run.wrapper, least) for least in (GRID, BLOCK)]


def _larger(
    seed: NetSpec, limit_ms: float, measure: Callable[[Sequence[NetSpec]], list[float]]
) -> str:
    """Advice for a loose target: the smallest network of the zoo that is slower than it."""
    names = [f"{family}{width}" for family in ("v3-small", "v3-large") for width in ("", "-1.25")]
    specs = [
        with_resolution(with_classes(resolve(n), seed.classes), seed.resolution) for n in names
    ]
    timed = sorted(zip(measure(specs), names, strict=True))
    slower = [(ms, name) for ms, name in timed if ms > limit_ms]
    if slower:
        return f"search from --seed-network {slower[0][1]} ({slower[0][0]:.3f} ms) or set a lower target"
    ms, name = timed[-1]
    return f"even {name} runs in {ms:.3f} ms: train that one as it is, or set a lower target"


def _settle_target(run: Run, seed: NetSpec, latencies: Latencies, given: Handover | None) -> float:
    """The target in milliseconds, relative to the table's reference."""
    if given is None:
        seed_ms = latencies.verified_ms(seed)
        limit_ms = target_ms(run.settings.target, seed_ms)
    else:
        seed_ms, limit_ms = given.measured_ms, given.limit_ms
    run.record["target"], run.record["target_ms"] = run.settings.target, limit_ms
    run.record["seed_network"] = run.network_record(seed, latencies.table)
    run.record["seed_network"]["measured_ms"] = seed_ms
    run.save()
    return limit_ms


def _uniform(run: Run, latencies: Latencies, limit_ms: float, given: Handover | None) -> NetSpec:
    """The baseline: the widest uniform-width version of the seed that measures within the limit."""
    if given:  # the block search measured it: another network, in no table of this seed
        return _keep_uniform(run, given.baseline, given.width)
    seed, table = latencies.reference, latencies.table
    within: dict[str, tuple[float, int, NetSpec]] = {}
    for percent in range(25, 100):
        spec = scale_width(seed, percent / 100, width_rule(seed.name))
        if table.covers(spec):
            within.setdefault(spec.digest(), (table.estimate_ms(spec), percent, spec))
    for ms, percent, spec in sorted(within.values(), key=lambda entry: -entry[0]):
        if ms <= limit_ms * 1.05 and latencies.verified_ms(spec) <= limit_ms * SURE:
            spec = rename(spec, f"{seed.name}-{percent / 100:g}")
            return _keep_uniform(run, spec, percent / 100, table)
    raise InputError(
        f"no uniform width of {seed.name} from 0.25 to 0.99 runs in {limit_ms:.3f} ms; choose a higher target"
    )


def _keep_uniform(
    run: Run, spec: NetSpec, width: float, table: LatencyTable | None = None
) -> NetSpec:
    run.record["uniform"] = run.network_record(spec, table)
    run.record["uniform"]["width"] = width
    run.save()
    return spec


def _train_seed_and_uniform(run: Run, seed: NetSpec, uniform: NetSpec, narrows: bool) -> None:
    """The seed network for the search; next to it, what the search is compared with.

    Where nothing is to narrow the seed is the result, which is trained as such.
    """
    jobs = _repeated(run, "uniform", uniform)
    if narrows:
        # The seed network is only a landmark; what is compared is trained several times.
        jobs["seed-0"] = job_for(run, seed, "seed-0", 0)
        jobs["seed-heldout"] = job_for(run, fix_skips(seed), "seed-heldout", 0, heldout=True)
    with run.stage("train seed and baseline"):
        outcomes = train_all(run, jobs)
    if narrows:
        run.record["seed_network"]["heldout_score"] = outcomes["seed-heldout"]["score"]
    _record_outcomes(run, outcomes)


def _train_result(run: Run, found: NetSpec, narrows: bool) -> None:
    with run.stage("train result"):
        outcomes = train_all(run, _repeated(run, "found", found))
    if not narrows:
        outcomes["seed-0"] = outcomes["found-0"]
    _record_outcomes(run, outcomes)


def _repeated(run: Run, role: str, spec: NetSpec) -> dict[str, Any]:
    names = [f"{role}-{n}" for n in range(run.settings.repeats)]
    return {name: job_for(run, spec, name, n) for n, name in enumerate(names)}


def _record_outcomes(run: Run, outcomes: dict[str, dict[str, Any]]) -> None:
    for role, key in (("seed", "seed_network"), ("uniform", "uniform"), ("found", "found")):
        names = [f"{role}-{n}" for n in range(run.settings.repeats)]
        if repeats := [outcomes[name] for name in names if name in outcomes]:
            record: dict[str, Any] = run.record[key]  # type: ignore[literal-required]
            record["scores"] = [r["score"] for r in repeats]
            record["loss"] = [r["loss"] for r in repeats]
    run.save()


def _ship(run: Run, found: NetSpec, role: str) -> None:
    """The found network as a finished run in `found`, with the file for the device, each file checked."""
    settings, data = run.settings, run.experiment.data
    plan = Plan(
        task=run.task, classes=tuple(run.record["classes"]), spec=found, wrapper=run.wrapper,
        data={k: v for k, v in run.record["data"].items() if k not in ("heldout", "prepared")},
        settings=settings.training, own=settings.options,
        common=TrainOptions(seed=settings.seed, bad_share=settings.bad_share, start=settings.start),
        source=run.record.get("source"), normalisation=run.experiment.normalisation,
    )  # fmt: skip
    # The first training ships, not the best: picking by val scores would flatter the figure.
    weights = run.folder.scratch / f"{role}-0.safetensors"
    adopted = adopt(run.folder.found, plan, weights, data, run.progress)
    run.record["export"] = {"file": "found/model.onnx", **adopted["files"]["model.onnx"]}
    on = settings.deployment
    if not on.is_plain:
        exported = export(
            run.folder.found, format_of(on.runtime), precision=on.precision, progress=run.progress
        )
        file = Path(exported["file"])
        score = data.evaluate(FileAnswers(file, on.runtime), "val", run.progress).score
        run.record["shipped"] = {**exported, "file": f"found/{file.name}", "score": score}
    run.save()


def _measure_finals(
    run: Run, networks: tuple[NetSpec, NetSpec, NetSpec], reference: NetSpec, limit_ms: float
) -> None:
    """Seed, found and uniform network interleaved, the found one by the file that is shipped."""
    on, record = run.settings.deployment, run.record
    engine = runtime(on.runtime)
    shipped = engine.read(run.folder.found / f"model{ending(on.precision)}{engine.suffix}")
    candidates = [
        Candidate(spec, model, precision=on.precision, wrapper=run.wrapper)
        for spec, model in zip(networks, (None, shipped, None), strict=True)
    ]
    nominal_ms = float(record["table"]["reference_ms"])
    results = measured(candidates, reference, nominal_ms, on, run.wrapper)
    for key, result in zip(("seed_network", "found", "uniform"), results, strict=True):
        network: dict[str, Any] = record[key]  # type: ignore[literal-required]
        network["measurement"] = result.as_json()
        network["measured_ms"] = result.latency_ms.median
    _, found_ms, uniform_ms = (result.latency_ms.median for result in results)
    record["measured_latency_ms"] = found_ms
    record["estimated_latency_ms"] = record["found"]["estimated_ms"]
    record["meets_target"] = found_ms <= limit_ms
    record["score"] = mean(record["found"]["scores"])
    record["baseline"] = {"latency_ms": uniform_ms, "score": mean(record["uniform"]["scores"])}
    record["device"] = asdict(results[1].device)
    run.save()
