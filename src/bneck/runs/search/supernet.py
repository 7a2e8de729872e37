"""Weight sharing in a block search: trials scored with a supernet's weights, and how far to trust that."""

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
from bneck.runs.progress import Following, Marker
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.jobs import Outcome, ProxyJob, check_finite, outcome_of, proxy_job
from bneck.runs.search.run import Run
from bneck.runs.search.workers import worker_device
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
    """Train the supernet of a space on the images that are not held out."""

    space: BlockSpace
    experiment: Experiment
    settings: Settings
    weights: Path
    checkpoint: Path
    mark: Path


def supernet_job(job: SupernetJob) -> str | None:
    """Train, from the job's checkpoint if there is one, and save the averaged weights.

    Returns what went wrong where the training diverged; nothing is saved then.
    """
    experiment, net = job.experiment, Supernet(job.space, seed=job.settings.seed)
    group = ProcessGroup(device=worker_device(experiment.compute))
    problem = experiment.task.supernet_problem(net, experiment.data, job.settings, group)
    try:
        fit(
            net, problem, job.settings, group=group, checkpoint=job.checkpoint,
            on_step=Marker(job.mark),
        )  # fmt: skip
        check_finite(net)
    except Diverged as error:
        return error.what
    save_weights(net.state_dict(), job.weights)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class InheritedJob:
    """Score a network of a space with the supernet's weights."""

    space: BlockSpace
    tokens: Tokens
    experiment: Experiment
    weights: Path


def inherited_job(job: InheritedJob) -> Outcome:
    """Take the network out, measure its batch norms' statistics, score it on the held-out images."""
    net = _supernet(job.space, job.weights)
    taken = net.network(job.tokens, statistics_batches(net, job.experiment.data))
    return outcome_of(taken, job.experiment)


def statistics_batches(net: Supernet, data: Data) -> Sequence[Tensor]:
    """The images that batch norms are measured on, (N, 3, resolution, resolution) float32.

    All batches have the same size, give or take one, because each counts the same in the statistics.
    """
    images = data.images(net, "fit", STATISTICS)
    # Folders are read class by class, so images are drawn evenly over all of them, and mixed.
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


def shared_weights(run: Run, space: BlockSpace, epochs: float) -> dict[str, Any]:
    """The supernet, trained once per run: its epochs, and why it failed, if it did."""
    known = run.ledger.find(event=TRAINED)
    if known is not None:
        return {key: value for key, value in known.items() if key != "event"}
    job = SupernetJob(
        space=space, experiment=run.experiment, weights=supernet_file(run),
        settings=replace(run.settings.training, epochs=epochs, warmup=min(1.0, epochs / 4)),
        checkpoint=run.folder.scratch / "supernet.checkpoint",
        mark=run.folder.scratch / "supernet.mark",
    )  # fmt: skip
    run.progress.stage("training the supernet", 1)
    trained: dict[str, Any] = {"epochs": epochs}

    def done(index: int, failed: str | None) -> None:
        if failed is not None:
            trained["failed"] = failed
        run.ledger.append({"event": TRAINED, **trained})
        job.checkpoint.unlink(missing_ok=True)  # not before the ledger has the line

    with Following(run.progress, [job.mark]):
        run.pool.run(supernet_job, [(job,)], done)
    return trained


def judge_by_shared_weights(run: Run, study: Study, batch: Sequence[Asked]) -> None:
    """Tell the accuracies that the networks of a batch have with the supernet's weights."""
    space, weights = study.space, supernet_file(run)
    assert isinstance(space, BlockSpace)
    jobs = [
        InheritedJob(space=space, tokens=asked.tokens, experiment=run.experiment, weights=weights)
        for asked in batch
    ]
    outcomes: dict[int, Outcome] = {}
    run.pool.run(inherited_job, [(job,) for job in jobs], outcomes.__setitem__)
    for n, asked in enumerate(batch):
        study.tell(asked, outcomes[n]["expected"], failed=outcomes[n].get("failed"))
        run.progress.advance(1)


def rank_correlation(run: Run, study: Study, training: Settings) -> dict[str, Any]:
    """How the supernet's ranking agrees with that of networks trained alone, as Kendall's tau.

    Networks from the best to the worst by their shared weights are trained alone as trials without a
    supernet are.
    """
    chosen = spread([trial for trial in study.trials if trial.failed is None], CHECKED)
    missing = [t for t in chosen if not run.ledger.find(event=ALONE, number=t.number)]
    run.progress.stage("training networks alone, to compare", len(missing))
    jobs = [
        ProxyJob(
            spec=study.space.decode(trial.tokens), experiment=run.experiment, settings=training,
            until=run.blocks.epochs,
            checkpoint=run.folder.scratch / f"alone-{trial.number:05d}.checkpoint",
        )
        for trial in missing
    ]  # fmt: skip

    def done(index: int, outcome: Outcome) -> None:
        told: dict[str, Any] = {k: v for k, v in outcome.items() if k in ("expected", "failed")}
        run.ledger.append({"event": ALONE, "number": missing[index].number, **told})
        jobs[index].checkpoint.unlink(missing_ok=True)
        run.progress.advance(1)

    run.pool.run(proxy_job, [(job,) for job in jobs], done)
    alone = {entry["number"]: entry for entry in run.ledger.all(event=ALONE)}
    pairs = [
        [t.number, t.accuracy, float(alone[t.number]["expected"])]
        for t in chosen
        if "failed" not in alone[t.number]
    ]
    tau = float(kendalltau([p[1] for p in pairs], [p[2] for p in pairs]).statistic)
    run.progress.say(
        f"supernet: Kendall tau {tau:.2f} between its ranking and that of {len(pairs)} networks trained alone"
    )
    return {
        "epochs": run.blocks.supernet, "tau": tau if np.isfinite(tau) else None, "checked": pairs,
    }  # fmt: skip


def spread(trials: Sequence[Trial], count: int) -> list[Trial]:
    """So many trials from the best to the worst accuracy, evenly by rank."""
    ranked = sorted(trials, key=lambda trial: (-trial.accuracy, trial.number))
    if len(ranked) <= count:
        return ranked
    return [ranked[round(i * (len(ranked) - 1) / (count - 1))] for i in range(count)]
