"""Platform-aware search from scratch (section 4.1): blocks are chosen, then NetAdapt narrows what was found.

Stages: fill the device's latency table for the whole space, settle the target, judge networks by short
trainings with successive halving (those over the latency limit are not trained at all), fit the best to
the limit, train and measure them, hand the winner to `runs.search.pipeline`. Trials stand in an Optuna
ledger; a run that was killed goes on from it.

Batches are judged as one: what is asked for next does not depend on which worker was quicker.
"""

from __future__ import annotations

import math
import random
import shutil
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
from bneck.runs.report import write_report
from bneck.runs.search.cluster import open_pool
from bneck.runs.search.experiment import Experiment, open_experiment
from bneck.runs.search.finals import choose, clocked_ms, finalists, train_finalists
from bneck.runs.search.handover import handed_over
from bneck.runs.search.jobs import Outcome, ProxyJob, proxy_job
from bneck.runs.search.latency import filled_table, table_path
from bneck.runs.search.run import Run
from bneck.runs.search.settings import BlockSettings, target_ms
from bneck.runs.search.supernet import (
    judge_by_shared_weights,
    rank_correlation,
    shared_weights,
    supernet_file,
)
from bneck.runs.search.workers import WorkerPool
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import load, to_text
from bneck.specs.transforms import with_resolution
from bneck.training.settings import Settings

REDUCTION = 3  # successive halving lets a third of the trials go on
# A rung compares nothing while its best network answers hardly better than chance, as after the first
# fifty steps from scratch; halving would then be a lottery.
LEARNED = 1.2
LEAST_MS = 1e-6  # an estimate is a line and may fall below any latency for networks of no size


def search_blocks(run: Run) -> None:
    """Find the blocks; the run's seed network is the one found then.

    With the objective "pareto" the run ends here, with the front in its record and its specs under
    front/.

    Raises:
        InputError: a space or target that cannot be; nothing was trained then.
    """
    settings = run.settings.blocks
    assert settings is not None
    if (found := handed_over(run)) is None:
        with open_pool(run.settings.workers, run.settings.cluster) as pool:
            with run.stage("images"):
                experiment = open_experiment(run)
            base, space = _base(run, experiment), _space(run, settings, experiment)
            with run.stage("latency table of the space"):
                table = _space_table(run, base, space)
            with run.stage("target"):
                limit_ms = _limit_ms(run, base, table)
                aim_ms = limit_ms * (1 + settings.slack) * (1 - table.error().median)
                _check_reach(space, table, aim_ms, settings)
            study = _study(run, settings, space, table, aim_ms)
            if not run.ledger.find(event="blocks begun"):
                run.ledger.append({"event": "blocks begun"})
            shared = _judge_trials(run, pool, experiment, space, study, settings)
            with run.stage("fit the best blocks"):
                best = finalists(run, base, table, study, settings, limit_ms)
            with run.stage("train the best blocks"):
                ranked = train_finalists(run, pool, experiment, best)
        _record(run, space, table, study, ranked, shared)
        study.close()
        if settings.objective == "pareto":
            _end_with_front(run, ranked)
            return
        found = choose(run, space, base, table, ranked, limit_ms)
    write_text(run.seed_file, to_text(found.spec))


def _judge_trials(
    run: Run,
    pool: WorkerPool,
    experiment: Experiment,
    space: BlockSpace,
    study: Study,
    settings: BlockSettings,
) -> dict[str, Any] | None:
    """The search itself; with a supernet, what its judgement is worth."""
    epochs = settings.epochs
    training = replace(run.settings.training, epochs=float(epochs), warmup=min(1.0, epochs / 4))
    if settings.supernet is None:
        with run.stage("block search"):
            judge = partial(_judge_batch, run, pool, experiment, study, training)
            _judge_all(run, study, settings, judge)
        return None
    with run.stage("train the supernet"):
        trained = shared_weights(run, pool, experiment, space, settings.supernet)
    if "failed" in trained:
        run.progress.say(
            f"the supernet failed: {trained['failed']}; every trial is trained by itself instead"
        )
        with run.stage("block search"):
            judge = partial(_judge_batch, run, pool, experiment, study, training)
            _judge_all(run, study, settings, judge)
        return {**trained, "tau": None, "checked": []}
    weights = supernet_file(run)
    with run.stage("block search"):
        inherited = partial(judge_by_shared_weights, run, pool, experiment, study, weights)
        _judge_all(run, study, settings, inherited)
    with run.stage("compare the supernet"):
        return rank_correlation(run, pool, experiment, study, settings, training)


def _base(run: Run, experiment: Experiment) -> NetSpec:
    """The seed network: a target in percent speaks of it, it gives the pace, its widths are the baseline."""
    file = run.folder.scratch / "base.yaml"
    if not file.is_file():
        write_text(file, run.seed_file.read_text(encoding="utf-8"))
    return with_resolution(load(file), run.settings.resolution)


def _space(run: Run, settings: BlockSettings, experiment: Experiment) -> BlockSpace:
    """The space for these images; one from a file is copied, so that a resumed run searches the same."""
    path, copy = Path(settings.space), run.folder.path / "space.yaml"
    if path.suffix in (".yaml", ".yml") and not copy.is_file():
        write_text(copy, path.read_text(encoding="utf-8"))
    name = copy if copy.is_file() else settings.space
    return named_space(name, resolution=run.settings.resolution, classes=len(run.record["classes"]))


def _space_table(run: Run, base: NetSpec, space: BlockSpace) -> LatencyTable:
    rng = random.Random(0)
    networks = [space.decode(space.sample(rng)) for _ in range(fill.CALIBRATING + fill.HELD_OUT)]
    plan = fill.plan_for_all(
        space.covering(),
        networks,
        name=space.name,
        digest=space.digest(),
        wrapper=run.wrapper,
    )
    path = table_path(base, run.settings.deployment, space=space.digest(), wrapper=run.wrapper)
    table = filled_table(run, base, plan, path, run.folder.space_table)
    run.progress.say(f"latency table of the space: {table.error()}")
    return table


def _limit_ms(run: Run, base: NetSpec, table: LatencyTable) -> float:
    """The target in milliseconds, at the pace of the space's table; settled once."""
    known = run.ledger.find(event="blocks target")
    if known is None:
        base_ms = clocked_ms(run, base, base, table)
        limit_ms = target_ms(run.settings.target, base_ms)
        known = {"event": "blocks target", "base_ms": base_ms, "limit_ms": limit_ms}
        run.ledger.append(known)
    return float(known["limit_ms"])


def _check_reach(
    space: BlockSpace, table: LatencyTable, aim_ms: float, settings: BlockSettings
) -> None:
    tokens, ms = fastest(space, _estimate(table))
    if ms > aim_ms and settings.objective == "reward":
        quick = space.decode(tokens)
        raise InputError(
            f"no network of the space {space.name} at {space.resolution} px is estimated within "
            f"{aim_ms:.3f} ms; its fastest, {quick.name}, takes {ms:.3f} ms: choose a higher target, a smaller "
            "--resolution or a space of smaller networks"
        )


def _estimate(table: LatencyTable) -> Any:
    return lambda spec: max(LEAST_MS, table.estimate_ms(spec))


def _study(
    run: Run, settings: BlockSettings, space: BlockSpace, table: LatencyTable, aim_ms: float
) -> Study:
    pareto = settings.objective == "pareto"
    reward = Reward(
        kind=settings.reward,
        target_ms=aim_ms,
        exponent=settings.exponent,
        limit_ms=None if pareto else aim_ms,
    )
    return Study(
        space,
        reward=reward,
        estimate=_estimate(table),
        searcher=settings.searcher,
        objective=settings.objective,
        ledger=settings.ledger or run.folder.path / "blocks.log",
        name=settings.study or _own_name(run),
        run=_own_name(run) if settings.study else None,
        seed=run.settings.seed,
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=1, reduction_factor=REDUCTION, min_early_stopping_rate=0
        ),
        on_replay=Replaying(run.progress),
    )


def _own_name(run: Run) -> str:
    return f"{run.folder.path.resolve().name} {run.record['started']}"


def rungs(epochs: int) -> list[int]:
    """Epochs after which trials are compared: 1, 3, 9, ... and the last."""
    steps = [REDUCTION**k for k in range(epochs) if REDUCTION**k < epochs]
    return [*steps, epochs]


def _judge_all(
    run: Run, study: Study, settings: BlockSettings, judge: Callable[[Sequence[Asked]], None]
) -> None:
    run.progress.stage(f"block search, {settings.trials} networks", settings.trials)
    batch, best, shown = study.under_way(), -math.inf, 0
    while True:
        study.refresh()
        run.progress.advance(len(study.trials) - shown)
        shown = len(study.trials)
        if shown >= settings.trials:
            break
        known = shown + len(batch)
        # Batches begin where they would in a search that was never broken off.
        wanted = min(settings.trials, (known // settings.batch + 1) * settings.batch) - known
        if not batch or known % settings.batch:
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


def _judge_batch(
    run: Run,
    pool: WorkerPool,
    experiment: Experiment,
    study: Study,
    training: Settings,
    batch: Sequence[Asked],
) -> None:
    """Train a batch from rung to rung; what lags is stopped there, unless all still answer by chance."""
    going, epochs = list(batch), round(training.epochs)
    last = rungs(epochs)[-1]
    for rung in rungs(epochs):
        jobs = {
            asked.number: ProxyJob(
                spec=asked.spec,
                experiment=experiment,
                settings=training,
                until=rung,
                checkpoint=_checkpoint(run, asked),
            )
            for asked in going
            if rung not in asked.rungs
        }
        by_number = {asked.number: asked for asked in going}
        numbers = list(jobs)

        def done(index: int, outcome: Outcome, rung: int = rung, numbers: Any = numbers,
                 by_number: Any = by_number) -> None:  # fmt: skip
            asked, failed = by_number[numbers[index]], outcome.get("failed")
            study.note(asked, outcome["expected"], rung, failed=failed)
            if failed is not None:
                run.progress.say(f"trial {asked.number} failed: {failed}")

        pool.run(proxy_job, [(job,) for job in jobs.values()], done)
        learned = max(asked.rungs[rung] for asked in going) >= LEARNED * experiment.data.chance
        stays = []
        for asked in going:
            failed = asked.failures.get(rung)
            goes_on = rung != last and failed is None
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


def _checkpoint(run: Run, asked: Asked) -> Path:
    return run.folder.scratch / f"trial-{asked.number:05d}.checkpoint"


def _record(
    run: Run,
    space: BlockSpace,
    table: LatencyTable,
    study: Study,
    ranked: list[dict[str, Any]],
    shared: dict[str, Any] | None,
) -> None:
    error = table.error()
    run.record["blocks"] = {
        "space": space.name,
        "networks": str(space.size),
        "aim_ms": study.reward.target_ms,
        "table": asdict(error),
        "trials": [
            {
                "number": trial.number,
                "accuracy": trial.accuracy,
                "latency_ms": trial.latency_ms,
                "reward": trial.reward,
                "stopped": trial.stopped,
                "failed": trial.failed,
            }
            for trial in study.trials
        ],
        "front": [trial.number for trial in study.front()],
        "finalists": ranked,
        "supernet": shared,
    }
    run.save()


def _end_with_front(run: Run, ranked: list[dict[str, Any]]) -> None:
    for entry in sorted(ranked, key=lambda r: float(r["measured_ms"])):
        name = f"trial-{entry['number']:05d}.yaml"
        write_text(run.folder.path / "front" / name, entry["spec"])
    run.finish()
    write_report(run.folder.path)
    shutil.rmtree(run.folder.scratch, ignore_errors=True)
