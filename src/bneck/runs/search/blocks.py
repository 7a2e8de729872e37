"""Platform-aware block search (section 4.1): blocks are chosen, then NetAdapt narrows what was found.

Stages: fill the device's latency table for the whole space, settle the target, evaluate networks by short
trainings with successive halving (those over the latency limit are not trained at all), fit the best to
the limit, train and measure them, hand the winner to `runs.search.pipeline`. Trials are kept in an Optuna
storage; a run that was killed is resumed from it.

Batches are evaluated as one: what is asked for next does not depend on which worker was quicker.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from bneck.costs.table import LatencyTable
from bneck.devices import fill
from bneck.nas.blocks import BlockSpace
from bneck.nas.latency import fastest
from bneck.nas.reward import Reward
from bneck.nas.spaces import space as named_space
from bneck.nas.study import Asked, Study
from bneck.records.files import write_text
from bneck.runs.progress import Replaying
from bneck.runs.search.finals import choose, finalists, handed_over, train_finalists
from bneck.runs.search.jobs import Outcome, ProxyJob, proxy_job
from bneck.runs.search.latency import Latencies, filled_table, table_path
from bneck.runs.search.run import Run
from bneck.runs.search.settings import target_ms
from bneck.runs.search.supernet import judge_by_shared_weights, rank_correlation, shared_weights
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import load, to_text
from bneck.specs.transforms import with_resolution
from bneck.training.settings import Settings

REDUCTION = 3  # successive halving lets a third of the trials go on
# A rung compares nothing while its best network answers hardly better than chance, as after the first
# fifty steps from random weights; halving would then be a lottery.
LEARNED = 1.2
LEAST_MS = 1e-6  # an estimate is a line and may fall below any latency for networks of no size


def search_blocks(run: Run) -> None:
    """Find the blocks; the run's seed network is the one found then.

    With the objective "pareto" the run ends here, with the front in its record and its specs under
    front/.

    Raises:
        InputError: a space or target that cannot be; nothing was trained then.
    """
    if (found := handed_over(run)) is None:
        with run.working():
            base, space = _base(run), _space(run)
            with run.stage("latency table of the space"):
                latencies = Latencies(run, base, _space_table(run, base, space))
            table = latencies.table
            with run.stage("target"):
                limit_ms = _limit_ms(run, latencies)
                aim_ms = limit_ms * (1 + run.blocks.slack) * (1 - table.error().median)
                _check_reach(run, space, table, aim_ms)
            run.say_how_long(base, float(table.header["reference_ms"]), {})
            study = _study(run, space, table, aim_ms)
            if not run.ledger.find(event="blocks begun"):
                run.ledger.append({"event": "blocks begun"})
            shared = _judge_trials(run, space, study)
            with run.stage("fit the best blocks"):
                best = finalists(run, latencies, study, limit_ms)
            with run.stage("train the best blocks"):
                ranked = train_finalists(run, best)
        _record(run, space, table, study, ranked, shared)
        study.close()
        if run.blocks.objective == "pareto":
            for entry in sorted(ranked, key=lambda r: float(r["measured_ms"])):
                name = f"trial-{entry['number']:05d}.yaml"
                write_text(run.folder.path / "front" / name, entry["spec"])
            run.finish()
            return
        found = choose(run, space, latencies, ranked, limit_ms)
    write_text(run.seed_file, to_text(found.spec))


def _base(run: Run) -> NetSpec:
    """The seed network: a target in percent is of its latency, and its widths are the baseline."""
    file = run.folder.scratch / "base.yaml"
    if not file.is_file():
        write_text(file, run.seed_file.read_text(encoding="utf-8"))
    return with_resolution(load(file), run.settings.resolution)


def _space(run: Run) -> BlockSpace:
    """The space for these images; one from a file is copied, so that a resumed run searches the same."""
    path, copy = Path(run.blocks.space), run.folder.path / "space.yaml"
    if path.suffix in (".yaml", ".yml") and not copy.is_file():
        write_text(copy, path.read_text(encoding="utf-8"))
    name = copy if copy.is_file() else run.blocks.space
    return named_space(name, resolution=run.settings.resolution, classes=len(run.record["classes"]))


def _space_table(run: Run, base: NetSpec, space: BlockSpace) -> LatencyTable:
    rng = random.Random(0)
    networks = [space.decode(space.sample(rng)) for _ in range(fill.NETWORKS_IN_ALL)]
    plan = fill.plan_for_all(
        space.covering(), networks, name=space.name, digest=space.digest(), wrapper=run.wrapper
    )
    path = table_path(base, run.settings.deployment, space=space.digest(), wrapper=run.wrapper)
    table = filled_table(run, base, plan, path, run.folder.space_table)
    run.progress.say(f"latency table of the space: {table.error()}")
    return table


def _limit_ms(run: Run, latencies: Latencies) -> float:
    """The target in milliseconds, relative to the reference of the space's table; settled once."""
    known = run.ledger.find(event="blocks target")
    if known is None:
        base_ms = latencies.measured_ms(latencies.reference)
        limit_ms = target_ms(run.settings.target, base_ms)
        known = {"event": "blocks target", "base_ms": base_ms, "limit_ms": limit_ms}
        run.ledger.append(known)
    return float(known["limit_ms"])


def _check_reach(run: Run, space: BlockSpace, table: LatencyTable, aim_ms: float) -> None:
    tokens, ms = fastest(space, _estimate(table))
    if ms > aim_ms and run.blocks.objective == "reward":
        quick = space.decode(tokens)
        raise InputError(
            f"no network of the space {space.name} at {space.resolution} px is estimated within "
            f"{aim_ms:.3f} ms; its fastest, {quick.name}, takes {ms:.3f} ms: choose a higher target, a smaller "
            "--resolution or a space of smaller networks"
        )


def _estimate(table: LatencyTable) -> Any:
    return lambda spec: max(LEAST_MS, table.estimate_ms(spec))


def _study(run: Run, space: BlockSpace, table: LatencyTable, aim_ms: float) -> Study:
    settings = run.blocks
    limit_ms = None if settings.objective == "pareto" else aim_ms
    own_name = f"{run.folder.path.resolve().name} {run.record['started']}"
    return Study(
        space,
        reward=Reward(
            kind=settings.reward, target_ms=aim_ms, exponent=settings.exponent, limit_ms=limit_ms
        ),
        estimate=_estimate(table), searcher=settings.searcher, objective=settings.objective,
        ledger=settings.ledger or run.folder.path / "blocks.log", name=settings.study or own_name,
        run=own_name if settings.study else None, seed=run.settings.seed,
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=1, reduction_factor=REDUCTION, min_early_stopping_rate=0
        ),
        on_replay=Replaying(run.progress),
    )  # fmt: skip


def _judge_trials(run: Run, space: BlockSpace, study: Study) -> dict[str, Any] | None:
    """The search itself; with a supernet, how well its ranking agrees with real trainings."""
    epochs, supernet = run.blocks.epochs, run.blocks.supernet
    training = replace(run.settings.training, epochs=float(epochs), warmup=min(1.0, epochs / 4))
    judge = partial(_judge_batch, run, study, training)
    shared: dict[str, Any] | None = None
    if supernet is not None:
        with run.stage("train the supernet"):
            shared = shared_weights(run, space, supernet)
        if "failed" in shared:
            run.progress.say(
                f"the supernet failed: {shared['failed']}; every trial is trained by itself instead"
            )
            shared |= {"tau": None, "checked": []}
        else:
            judge = partial(judge_by_shared_weights, run, study)
    with run.stage("block search"):
        _judge_all(run, study, judge)
    if shared is None or "failed" in shared:
        return shared
    with run.stage("compare the supernet"):
        return rank_correlation(run, study, training)


def rungs(epochs: int) -> list[int]:
    """Epochs after which trials are compared: 1, 3, 9, ... and the last."""
    steps = [REDUCTION**k for k in range(epochs) if REDUCTION**k < epochs]
    return [*steps, epochs]


def _judge_all(run: Run, study: Study, judge: Callable[[Sequence[Asked]], None]) -> None:
    trials, size = run.blocks.trials, run.blocks.batch
    run.progress.stage("block search, networks", trials)
    batch, best, shown = study.under_way(), -math.inf, 0
    while True:
        study.refresh()
        run.progress.advance(len(study.trials) - shown)
        shown = len(study.trials)
        if shown >= trials:
            break
        known = shown + len(batch)
        # Batches begin where they would in a search that was never broken off.
        wanted = min(trials, (known // size + 1) * size) - known
        if not batch or known % size:
            while wanted > 0 and (asked := study.ask()) is not None:
                batch.append(asked)
                wanted -= 1
        if not batch:
            run.progress.say("the searcher has nothing new any more")
            break
        shown += len(batch)  # the others that are read by then are of other runs
        judge(batch)
        batch = []
        if (now := study.best(1)) and now[0].reward > best:
            best = now[0].reward
            run.progress.say(
                f"trial {now[0].number}: {now[0].latency_ms:.3f} ms estimated, accuracy "
                f"{now[0].accuracy:.3f}, reward {best:.4f}"
            )


def _judge_batch(run: Run, study: Study, training: Settings, batch: Sequence[Asked]) -> None:
    """Train a batch from rung to rung; what lags is stopped there, unless all still answer by chance."""
    going, chance = list(batch), run.experiment.data.chance
    steps = rungs(round(training.epochs))
    for rung in steps:
        _train_to(run, study, training, rung, [one for one in going if rung not in one.rungs])
        learned = max(asked.rungs[rung] for asked in going) >= LEARNED * chance
        stays = []
        for asked in going:
            failed = asked.failures.get(rung)
            goes_on = rung != steps[-1] and failed is None
            stops = goes_on and learned and study.report(asked, asked.rungs[rung], rung)
            if stops or not goes_on:
                study.tell(asked, asked.rungs[rung], stopped=stops, failed=failed)
                _checkpoint(run, asked).unlink(missing_ok=True)
                run.progress.advance(1)
            else:
                stays.append(asked)
        going = stays
        if not going:
            return


def _train_to(
    run: Run, study: Study, training: Settings, rung: int, trials: Sequence[Asked]
) -> None:
    def done(index: int, outcome: Outcome) -> None:
        asked, failed = trials[index], outcome.get("failed")
        study.note(asked, outcome["expected"], rung, failed=failed)
        if failed is not None:
            run.progress.say(f"trial {asked.number} failed: {failed}")

    jobs = [
        ProxyJob(
            spec=asked.spec, experiment=run.experiment, settings=training, until=rung,
            checkpoint=_checkpoint(run, asked),
        )
        for asked in trials
    ]  # fmt: skip
    run.pool.run(proxy_job, [(job,) for job in jobs], done)


def _checkpoint(run: Run, asked: Asked) -> Path:
    return run.folder.scratch / f"trial-{asked.number:05d}.checkpoint"


def _record(
    run: Run, space: BlockSpace, table: LatencyTable, study: Study, ranked: list[dict[str, Any]],
    shared: dict[str, Any] | None,
) -> None:  # fmt: skip
    kept = ("number", "accuracy", "latency_ms", "reward", "stopped", "failed")
    run.record["blocks"] = {
        "space": space.name,
        "networks": str(space.size),
        "aim_ms": study.reward.target_ms,
        "table": asdict(table.error()),
        "trials": [{name: getattr(trial, name) for name in kept} for trial in study.trials],
        "front": [trial.number for trial in study.front()],
        "finalists": ranked,
        "supernet": shared,
    }
    run.save()
