"""NetAdapt's stage of a run (section 4.2): from the trained seed to what measures within the limit."""

from __future__ import annotations

from bneck.costs.count import count_whole
from bneck.costs.table import LatencyTable
from bneck.nas.netadapt import Step, adapt, narrowest
from bneck.records.files import write_text
from bneck.records.run import NetworkRecord, StepRecord
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.fitting import LOW, fit_by_clock
from bneck.runs.search.handover import Handover
from bneck.runs.search.latency import verified_ms
from bneck.runs.search.run import Run
from bneck.runs.search.trials import Judge, proposal_record
from bneck.runs.search.workers import WorkerPool
from bneck.specs.network import NetSpec
from bneck.specs.text import to_text
from bneck.specs.transforms import fix_skips, rename

MAX_CORRECTIONS = 5
SURE = 0.99  # measured this far below the target, the final measurement will not undo it


def as_it_is(run: Run, seed: NetSpec, table: LatencyTable, given: Handover) -> NetSpec:
    """The network of the block search, which meets the target: NetAdapt has nothing to narrow."""
    run.progress.say(
        f"{seed.name} measures {given.measured_ms:.3f} ms, within the target of {given.limit_ms:.3f} ms: "
        "nothing is left to narrow, NetAdapt is skipped"
    )
    found = rename(fix_skips(seed), f"{seed.name}-as-found")
    return _keep_found(run, found, table, heldout_score=given.heldout_score, steps=[], seconds=0.0)


def _keep_found(
    run: Run,
    found: NetSpec,
    table: LatencyTable,
    *,
    heldout_score: float | None,
    steps: list[StepRecord],
    seconds: float,
) -> NetSpec:
    run.record["found"] = network_record(found, table)
    if heldout_score is not None:
        run.record["found"]["heldout_score"] = heldout_score
    run.record["steps"] = steps
    run.record["overhead_seconds"] = seconds
    run.save()
    write_text(run.folder.spec, to_text(found))
    return found


def narrowed(
    run: Run,
    pool: WorkerPool,
    experiment: Experiment,
    seed: NetSpec,
    reference: NetSpec,
    table: LatencyTable,
    limit_ms: float,
) -> NetSpec:
    """NetAdapt until a network also measures within the limit; what it cut too much is given back."""
    judge = Judge(run, pool, experiment)
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
                steps.append(_step_record(step, judge.score))
                spec, accuracy = step.kept.proposal.spec, step.kept.accuracy
            judge.clock.stop()
            measured = verified_ms(run, reference, spec, table)
            if measured <= limit_ms * SURE:
                break
            # The table was too hopeful for this network; go on by what the clock said.
            aim_ms = table.estimate_ms(spec) * min(0.995, limit_ms * SURE / measured)
            if aim_ms < fastest_ms:
                break  # the record will say that the target is missed
            where = "above" if measured > limit_ms else "too close to"
            run.progress.say(
                f"measured {measured:.3f} ms, {where} the target of {limit_ms:.3f} ms: narrowing further"
            )
    score: float | None = judge.score
    if measured < LOW * limit_ms:
        widened = _given_back(run, spec, seed, reference, table, limit_ms)
        if widened.digest() != spec.digest():
            score = None  # the last step's network had it; this one has no weights yet
        spec = widened
    found = rename(spec, f"{seed.name}-adapted")
    return _keep_found(
        run, found, table, heldout_score=score, steps=steps, seconds=judge.overhead_seconds
    )


def _given_back(
    run: Run,
    spec: NetSpec,
    seed: NetSpec,
    reference: NetSpec,
    table: LatencyTable,
    limit_ms: float,
) -> NetSpec:
    """A network that came out too fast, widened to just below the limit; never above the seed's widths."""
    fitted = fit_by_clock(
        spec, limit_ms, table, lambda s: verified_ms(run, reference, s, table), widest=seed
    )
    if fitted.spec.digest() != spec.digest():
        run.progress.say(
            f"widened to use what the steps left: {fitted.measured_ms:.3f} ms of {limit_ms:.3f} ms"
        )
    return fitted.spec


def _aim_ms(limit_ms: float, table: LatencyTable) -> float:
    """The estimate at which to stop: below the limit by the table's usual error."""
    return limit_ms * (1 - table.error().median)


def network_record(spec: NetSpec, table: LatencyTable) -> NetworkRecord:
    """A network as `run.json` holds it."""
    costs = count_whole(spec, table.wrapper)
    return NetworkRecord(
        name=spec.name,
        digest=spec.digest(),
        spec=to_text(spec),
        params=costs.params,
        madds=costs.madds,
        estimated_ms=table.estimate_ms(spec),
    )


def _step_record(step: Step, score: float) -> StepRecord:
    kept = step.kept
    return StepRecord(
        number=step.number,
        proposal=proposal_record(kept.proposal),
        digest=kept.proposal.spec.digest(),
        estimated_ms=kept.proposal.estimated_ms,
        accuracy=score,
        trials=len(step.trials),
    )
