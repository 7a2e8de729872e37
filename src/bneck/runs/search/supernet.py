"""Weight sharing in a block search: trials judged by a supernet's weights, and how far to trust that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor

from bneck.nas.blocks import BlockSpace
from bneck.nas.space import Tokens
from bneck.nas.study import Asked, Study, Trial
from bneck.nets.supernet import Supernet
from bneck.nets.weights import load_weights, save_weights
from bneck.runs.progress import PERCENT, Following
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.jobs import (
    Outcome,
    ProxyJob,
    check_finite,
    marked,
    outcome_of,
    proxy_job,
)
from bneck.runs.search.run import Run
from bneck.runs.search.settings import BlockSettings
from bneck.runs.search.workers import WorkerPool, worker_device
from bneck.tasks.contract import Data
from bneck.training.loop import fit
from bneck.training.processes import ProcessGroup
from bneck.training.settings import Diverged, Settings

CHECKED = 8  # networks that are trained alone, to be compared with
STATISTICS = 1000  # images that a network's batch norms are measured on
BATCH = 250  # of these at a time, or fewer
TRAINED, ALONE = "supernet trained", "trained alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetJob:
    """Train the supernet of a space on the images that judge nothing."""

    space: BlockSpace
    experiment: Experiment
    settings: Settings
    weights: Path
    checkpoint: Path
    mark: Path


def supernet_job(job: SupernetJob) -> str | None:
    """Train, from the job's checkpoint if there is one, and save the averaged weights.

    What went wrong where the training diverged; nothing is saved then.
    """
    experiment, net = job.experiment, Supernet(job.space, seed=job.settings.seed)
    group = ProcessGroup(device=worker_device(experiment.compute))
    problem = experiment.task.supernet_problem(net, experiment.data, job.settings, group)
    try:
        fit(
            net, problem, job.settings, group=group, checkpoint=job.checkpoint,
            on_step=marked(job.mark),
        )  # fmt: skip
        check_finite(net)
    except Diverged as error:
        return error.what
    save_weights(net.state_dict(), job.weights)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class InheritedJob:
    """Judge a network of a space by the supernet's weights."""

    space: BlockSpace
    tokens: Tokens
    experiment: Experiment
    weights: Path


def inherited_job(job: InheritedJob) -> Outcome:
    """Take the network out, measure its batch norms' statistics, judge it on the held-out images."""
    net = _supernet(job.space, job.weights)
    taken = net.network(job.tokens, statistics_batches(net, job.experiment.data))
    return outcome_of(taken, job.experiment)


def statistics_batches(net: Supernet, data: Data) -> Sequence[Tensor]:
    """The images that batch norms are measured on, (N, 3, resolution, resolution) float32.

    Folders are read class by class, so they are drawn evenly over all images, and mixed. All batches
    have the same size, give or take one, because each counts the same in the statistics.
    """
    images = data.images(net, "fit", STATISTICS)
    mixed = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    return torch.tensor_split(mixed, ceil(len(mixed) / BATCH))


@lru_cache(maxsize=1)
def _supernet(space: BlockSpace, weights: Path) -> Supernet:
    net = Supernet(space)
    net.load_state_dict(load_weights(weights))
    return net.eval()


def supernet_file(run: Run) -> Path:
    """Where a run's trained supernet is."""
    return run.folder.scratch / "supernet.safetensors"


def shared_weights(
    run: Run, pool: WorkerPool, experiment: Experiment, space: BlockSpace, epochs: float
) -> dict[str, Any]:
    """The supernet, trained once a run: its epochs, and why it failed, if it did."""
    known = run.ledger.find(event=TRAINED)
    if known is not None:
        return {key: value for key, value in known.items() if key != "event"}
    job = SupernetJob(
        space=space,
        experiment=experiment,
        settings=replace(run.settings.training, epochs=epochs, warmup=min(1.0, epochs / 4)),
        weights=supernet_file(run),
        checkpoint=run.folder.scratch / "supernet.checkpoint",
        mark=run.folder.scratch / "supernet.mark",
    )
    run.progress.stage("training the supernet, percent", PERCENT)
    trained: dict[str, Any] = {"epochs": epochs}

    def done(index: int, failed: str | None) -> None:
        if failed is not None:
            trained["failed"] = failed
        run.ledger.append({"event": TRAINED, **trained})
        job.checkpoint.unlink(missing_ok=True)  # not before the ledger has the line

    with Following(run.progress, [job.mark]):
        pool.run(supernet_job, [(job,)], done)
    return trained


def judge_by_shared_weights(
    run: Run,
    pool: WorkerPool,
    experiment: Experiment,
    study: Study,
    weights: Path,
    batch: Sequence[Asked],
) -> None:
    """Tell the accuracies of a batch that its networks have with the supernet's weights."""
    space = study.space
    assert isinstance(space, BlockSpace)
    jobs = [
        InheritedJob(space=space, tokens=asked.tokens, experiment=experiment, weights=weights)
        for asked in batch
    ]
    outcomes: dict[int, Outcome] = {}
    pool.run(inherited_job, [(job,) for job in jobs], outcomes.__setitem__)
    for n, asked in enumerate(batch):
        study.tell(asked, outcomes[n]["expected"], failed=outcomes[n].get("failed"))
        run.progress.advance(1)


def rank_correlation(
    run: Run,
    pool: WorkerPool,
    experiment: Experiment,
    study: Study,
    settings: BlockSettings,
    training: Settings,
) -> dict[str, Any]:
    """How the supernet's ranking agrees with that of networks trained alone, as Kendall's tau.

    Networks from the best to the worst by their shared weights are trained alone as trials without a
    supernet are.
    """
    chosen = spread([trial for trial in study.trials if trial.failed is None], CHECKED)
    open_ = [t for t in chosen if not run.ledger.find(event=ALONE, number=t.number)]
    run.progress.stage(f"training {len(open_)} networks alone, to compare", len(open_))
    jobs = [
        ProxyJob(
            spec=study.space.decode(trial.tokens),
            experiment=experiment,
            settings=training,
            until=settings.epochs,
            checkpoint=run.folder.scratch / f"alone-{trial.number:05d}.checkpoint",
        )
        for trial in open_
    ]

    def done(index: int, outcome: Outcome) -> None:
        entry = {"event": ALONE, "number": open_[index].number, "expected": outcome["expected"]}
        if "failed" in outcome:
            entry["failed"] = outcome["failed"]
        run.ledger.append(entry)
        jobs[index].checkpoint.unlink(missing_ok=True)
        run.progress.advance(1)

    pool.run(proxy_job, [(job,) for job in jobs], done)
    alone = [run.ledger.find(event=ALONE, number=trial.number) for trial in chosen]
    pairs = [
        (trial.number, trial.accuracy, float(entry["expected"]))
        for trial, entry in zip(chosen, alone, strict=True)
        if entry is not None and "failed" not in entry
    ]
    tau = float(kendalltau([p[1] for p in pairs], [p[2] for p in pairs]).statistic)
    run.progress.say(
        f"supernet: Kendall tau {tau:.2f} between its ranking and that of {len(pairs)} networks trained alone"
    )
    return {
        "epochs": settings.supernet,
        "tau": tau if np.isfinite(tau) else None,
        "checked": [list(pair) for pair in pairs],
    }


def spread(trials: Sequence[Trial], count: int) -> list[Trial]:
    """So many trials from the best to the worst accuracy, evenly by rank."""
    ranked = sorted(trials, key=lambda trial: (-trial.accuracy, trial.number))
    if len(ranked) <= count:
        return ranked
    return [ranked[round(i * (len(ranked) - 1) / (count - 1))] for i in range(count)]
