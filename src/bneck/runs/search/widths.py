"""NetAdapt's stage of a run (section 4.2): from the trained seed to what measures within the limit."""

from __future__ import annotations

import time
from typing import Any

from bneck.costs.table import LatencyTable
from bneck.nas.netadapt import Step, adapt, narrowest
from bneck.records.files import write_text
from bneck.records.run import StepRecord
from bneck.runs.search.finals import Handover
from bneck.runs.search.fitting import LOW, fit_by_clock
from bneck.runs.search.latency import Latencies
from bneck.runs.search.run import Run
from bneck.runs.search.trials import Judge, proposal_record
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


def narrowed(run: Run, seed: NetSpec, latencies: Latencies, limit_ms: float) -> NetSpec:
    """NetAdapt until a network also measures within the limit; what it cut too much is given back."""
    table, kinds, spec = latencies.table, run.settings.kinds, fix_skips(seed)
    with run.stage("importance"):
        judge = Judge(run, spec)
    accuracy = judge.accuracy
    fastest_ms = table.estimate_ms(narrowest(seed, kinds=kinds))
    # An estimate is off by the table's usual error, so the first aim is that much below the limit.
    aim_ms = max(fastest_ms, limit_ms * (1 - table.error().median))
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
    return _keep_found(run, found, table, score, steps=steps, overhead_seconds=overhead)


def _step_record(step: Step, score: float) -> StepRecord:
    proposal = step.kept.proposal
    return StepRecord(
        number=step.number, proposal=proposal_record(proposal), digest=proposal.spec.digest(),
        estimated_ms=proposal.estimated_ms, accuracy=score, trials=len(step.trials),
    )  # fmt: skip
