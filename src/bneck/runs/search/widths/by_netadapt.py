"""A search by NetAdapt (section 4.2): from the trained seed to what measures within the limit."""

from __future__ import annotations

import time
from typing import Any

from bneck.costs.table import LatencyTable
from bneck.costs.table_file import read_table
from bneck.nas.allocation.uniform import multipliers
from bneck.nas.netadapt import Step, adapt, narrowest
from bneck.records.files import write_text
from bneck.records.run import StepRecord
from bneck.runs.search.finals import Handover, handed_over
from bneck.runs.search.fitting import HIGH, LOW, fit_by_clock
from bneck.runs.search.jobs import Parent
from bneck.runs.search.latency import Latencies, record_table, table_for
from bneck.runs.search.mistakes import compare_mistakes
from bneck.runs.search.run import Run
from bneck.runs.search.ship import Result, measure_finals, ship
from bneck.runs.search.target import check_targets, say_how_long, settle_target
from bneck.runs.search.trials import Judge, job_for, proposal_record, record_outcomes, train_all
from bneck.runs.search.widths.seed import keep_longer_seed, longer_seed, teacher_of, trained_seed
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import to_text
from bneck.specs.transforms import fix_skips, rename

MAX_CORRECTIONS = 5
SURE = 0.99  # measured this far below the target, the final measurement will not undo it


def search_by_netadapt(run: Run, seed: NetSpec) -> None:
    """Narrow a network step by step, train the result and the uniform width, and ship the result."""
    given = handed_over(run)
    # Blocks that are already fast enough leave NetAdapt nothing to do.
    narrows = given is None or given.measured_ms > given.limit_ms * HIGH
    target = run.settings.target
    if given is None:
        with run.stage("target"):
            check_targets(run, seed)
    say_how_long(run, seed, given, {"export and measure": 3})
    with run.stage("latency table"):
        table = _table(run, seed, given, narrows)
    latencies = Latencies(run, given.reference if given else seed, table)
    with run.stage("target"):
        limit_ms = settle_target(run, seed, latencies, target, given)
        uniform = _uniform(run, latencies, limit_ms, given)
    parents: tuple[Parent | None, Parent | None] = None, None
    if narrows:
        whole = trained_seed(run, fix_skips(seed), heldout=True)
        found, last = narrowed(run, seed, latencies, limit_ms)
        if not run.settings.retrain:
            # What was widened after the last step has channels that only the seed network can give.
            inherits = last if last.spec.digest() == found.digest() else whole
            parents = inherits, None if given else whole
    else:
        assert given is not None
        found = as_it_is(run, seed, table, given)
    _train(run, fix_skips(seed), found, uniform, parents)
    if not narrows:  # the seed network is the result
        seed_record, found_record = run.record["seed_network"], run.record["found"]
        seed_record["scores"], seed_record["loss"] = found_record["scores"], found_record["loss"]
    result = Result(
        found=found, weights=run.folder.scratch / "found-0.safetensors", experiment=run.experiment,
        reference=latencies.reference, limit_ms=limit_ms, folder=run.folder.found,
    )  # fmt: skip
    with run.stage("export and measure"):
        ship(run, result)
        measure_finals(run, result)
        compare_mistakes(run, result)


def _table(run: Run, seed: NetSpec, given: Handover | None, narrows: bool) -> LatencyTable:
    """The seed's table; where nothing is to narrow that of the space answers what is left to ask."""
    if given is None:
        return table_for(run, seed)
    if narrows:
        return table_for(run, seed, given.reference, given.reference_ms)
    table = read_table(run.folder.space_table, run.wrapper)
    record_table(run, table)
    return table


def as_it_is(run: Run, seed: NetSpec, table: LatencyTable, given: Handover) -> NetSpec:
    """The network of the block search, which meets the target: NetAdapt has nothing to narrow."""
    run.progress.say(
        f"{seed.name} measures {given.measured_ms:.3f} ms, within the target of {given.limit_ms:.3f} ms: "
        "nothing is left to narrow, NetAdapt is skipped"
    )
    found = rename(fix_skips(seed), f"{seed.name}-as-found")
    return _keep_found(run, found, table, given.heldout_score, steps=[], overhead_seconds=0.0)


def _keep_found(
    run: Run, found: NetSpec, table: LatencyTable, heldout_score: float | None, **known: Any
) -> NetSpec:
    run.record["found"] = run.network_record(found, table)
    if heldout_score is not None:
        run.record["found"]["heldout_score"] = heldout_score
    run.record.update(known)  # type: ignore[typeddict-item]
    run.save()
    write_text(run.folder.spec, to_text(found))
    return found


def narrowed(
    run: Run, seed: NetSpec, latencies: Latencies, limit_ms: float
) -> tuple[NetSpec, Parent]:
    """NetAdapt until a network also measures within the limit; what it cut too much is given back.

    Returns the network and that of the last step, with its weights.
    """
    table, kinds, spec = latencies.table, run.settings.kinds, fix_skips(seed)
    with run.stage("importance"):
        judge = Judge(run, spec)
    accuracy = judge.accuracy
    fastest_ms = table.estimate_ms(narrowest(seed, kinds=kinds))
    # An estimate is off by the table's usual error, so the first aim is that much below the limit.
    aim_ms = max(fastest_ms, limit_ms * (1 - table.error().median))
    seed_ms = table.estimate_ms(spec)
    steps: list[StepRecord] = []
    seconds = 0.0
    with run.stage("adapt"):
        for _ in range(MAX_CORRECTIONS):
            begun = time.perf_counter()
            for step in adapt(
                seed, start=spec, first=len(steps) + 1, accuracy=accuracy, target_ms=aim_ms,
                delta_ms=run.settings.delta * table.estimate_ms(fix_skips(seed)),
                estimate=table.estimate_ms, judge=judge, kinds=kinds, control=judge.control,
            ):  # fmt: skip
                judge.keep(step)
                steps.append(_step_record(step, judge.score))
                spec, accuracy = step.kept.proposal.spec, step.kept.accuracy
                shown = (seed_ms - step.kept.proposal.estimated_ms) / max(1e-9, seed_ms - aim_ms)
                run.course.expect(shown)
            seconds += time.perf_counter() - begun
            measured = latencies.verified_ms(spec)
            if measured <= limit_ms * SURE:
                break
            # The table was too hopeful for this network; go on by what was measured.
            aim_ms = table.estimate_ms(spec) * min(0.995, limit_ms * SURE / measured)
            if aim_ms < fastest_ms:
                break  # the record will say that the target is missed
            where = "above" if measured > limit_ms else "too close to"
            run.progress.say(
                f"measured {measured:.3f} ms, {where} the target of {limit_ms:.3f} ms: narrowing further"
            )
    score: float | None = judge.score
    last = Parent(spec, judge.parent, None)
    if measured < LOW * limit_ms:
        fitted = fit_by_clock(spec, limit_ms, table, latencies.verified_ms, widest=seed)
        if fitted.spec.digest() != spec.digest():
            score = None  # the last step's network had it; this one has no weights yet
            run.progress.say(
                f"widened to use what the steps left: {fitted.measured_ms:.3f} ms of {limit_ms:.3f} ms"
            )
        spec = fitted.spec
    # All that made the run longer and was not training: proposing, estimating and choosing here.
    overhead = seconds - judge.seconds + judge.setup_seconds
    found = rename(spec, f"{seed.name}-adapted")
    _keep_found(run, found, table, score, steps=steps, overhead_seconds=overhead)
    return found, last


def _step_record(step: Step, score: float) -> StepRecord:
    proposal = step.kept.proposal
    return StepRecord(
        number=step.number, proposal=proposal_record(proposal), digest=proposal.spec.digest(),
        estimated_ms=proposal.estimated_ms, accuracy=score, trials=len(step.trials),
    )  # fmt: skip


def _uniform(run: Run, latencies: Latencies, limit_ms: float, given: Handover | None) -> NetSpec:
    """The baseline: the widest uniform-width version of the seed that measures within the limit."""
    if given:  # the block search measured it: another network, in no table of this seed
        return _keep_uniform(run, given.baseline, given.width)
    seed, table = latencies.reference, latencies.table
    within: dict[str, tuple[float, int, NetSpec]] = {}
    for percent, spec, ms in multipliers(seed, table.estimate_ms):
        within.setdefault(spec.digest(), (ms, percent, spec))
    for ms, percent, spec in sorted(within.values(), key=lambda entry: -entry[0]):
        if ms <= limit_ms * 1.05 and latencies.verified_ms(spec) <= limit_ms * SURE:
            spec = rename(spec, f"{seed.name}-{percent / 100:g}")
            return _keep_uniform(run, spec, percent / 100, table)
    raise InputError(
        f"no uniform width of {seed.name} from 0.05 to 0.99 runs in {limit_ms:.3f} ms; choose a higher target"
    )


def _keep_uniform(
    run: Run, spec: NetSpec, width: float, table: LatencyTable | None = None
) -> NetSpec:
    run.record["uniform"] = run.network_record(spec, table)
    run.record["uniform"]["width"] = width
    run.save()
    return spec


def _train(
    run: Run,
    seed: NetSpec,
    found: NetSpec,
    uniform: NetSpec,
    parents: tuple[Parent | None, Parent | None],
) -> None:
    """The result and the uniform width, from their parents' weights or from random ones."""
    fresh = run.settings.training if parents[0] is None else run.settings.whole
    jobs = {
        f"{role}-{n}": job_for(
            run, spec, f"{role}-{n}", n, parent=parent,
            teacher=None if parent is None else teacher_of(run, seed),
            settings=fresh if parent is None else run.settings.recovery,
        )
        for role, spec, parent in (("found", found, parents[0]), ("uniform", uniform, parents[1]))
        for n in range(run.settings.repeats)
    }  # fmt: skip
    with run.stage("train result"):
        if parents[0] is not None:
            keep_longer_seed(run, train_all(run, longer_seed(run, seed)))
        outcomes = train_all(run, jobs)
    for role, record in (("found", run.record["found"]), ("uniform", run.record["uniform"])):
        record_outcomes(record, [outcomes[f"{role}-{n}"] for n in range(run.settings.repeats)])
    run.save()
