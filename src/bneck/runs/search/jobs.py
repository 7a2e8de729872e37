"""What a worker process does: train a network, or judge one proposal. Plain values in and out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

from torch import nn

from bneck.nets.weights import save_weights
from bneck.runs.progress import POLL_S, write_mark
from bneck.runs.search.experiment import Experiment
from bneck.specs.network import NetSpec
from bneck.tasks.contract import Scores
from bneck.training.settings import Settings


class Outcome(TypedDict):
    """What scoring gave, the seconds that the job took, and how many of them were no training."""

    score: float
    loss: float | None
    expected: float
    seconds: float
    setup_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """Train a spec from scratch.

    With `heldout` the held-out images judge it and are not trained on; else all train images are
    used and the val images judge it. `mark` is where it says how far it is, see
    `runs.progress.Following`.
    """

    spec: NetSpec
    experiment: Experiment
    settings: Settings
    weights: Path
    checkpoint: Path
    mark: Path
    heldout: bool


def train_job(job: TrainJob) -> Outcome:
    """Train, save the averaged weights, judge. Goes on from the job's checkpoint if there is one."""
    start = time.perf_counter()
    experiment = job.experiment
    net = experiment.build(job.spec, job.settings.seed)
    experiment.fit(
        net,
        job.settings,
        heldout=job.heldout,
        checkpoint=job.checkpoint,
        on_step=marked(job.mark),
    )
    judged = experiment.score(net, heldout=job.heldout)
    save_weights(net.state_dict(), job.weights)
    job.checkpoint.unlink(missing_ok=True)
    return _outcome(judged, start)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJob:
    """Judge a proposal: the parent's weights shrunk into it, T steps of fine-tuning."""

    spec: NetSpec
    parent_spec: NetSpec
    parent_weights: Path
    experiment: Experiment
    settings: Settings
    steps: int
    weights: Path


def trial_job(job: TrialJob) -> Outcome:
    """Shrink, fine-tune, save the weights, judge on the held-out images."""
    start = time.perf_counter()
    experiment = job.experiment
    epochs = job.steps / (experiment.data.fitted(heldout=True) // job.settings.batch)
    net = experiment.shrink(_parent(experiment, job.parent_spec, job.parent_weights), job.spec)
    setup = time.perf_counter() - start
    experiment.fit(net, replace(job.settings, epochs=epochs, warmup=0.0), heldout=True)
    judged = experiment.score(net, heldout=True)
    done = time.perf_counter()
    save_weights(net.state_dict(), job.weights)
    setup += time.perf_counter() - done
    return _outcome(judged, start, setup_seconds=setup)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyJob:
    """Train a spec for its first `until` epochs of `settings` and judge it on the held-out images.

    The checkpoint stays, so that a later job takes the same training further.
    """

    spec: NetSpec
    experiment: Experiment
    settings: Settings
    until: int
    checkpoint: Path


def proxy_job(job: ProxyJob) -> Outcome:
    """Train up to `until`, from the checkpoint if there is one, and judge."""
    start = time.perf_counter()
    net = job.experiment.build(job.spec, job.settings.seed)
    job.experiment.fit(net, job.settings, heldout=True, checkpoint=job.checkpoint, until=job.until)
    return _outcome(job.experiment.score(net, heldout=True), start)


def marked(mark: Path) -> Callable[[int, int, float], None]:
    """What a training calls at every step to leave a mark of how far it is."""
    return _Marker(mark)


def outcome_of(net: nn.Module, experiment: Experiment) -> Outcome:
    """A trained network judged on the held-out images."""
    start = time.perf_counter()
    return _outcome(experiment.score(net, heldout=True), start)


class _Marker:
    """Writes a job's mark now and then."""

    def __init__(self, mark: Path) -> None:
        self.mark, self.last = mark, 0.0

    def __call__(self, done: int, total: int, loss: float) -> None:
        now = time.perf_counter()
        if done == total or now - self.last > POLL_S:
            write_mark(self.mark, done / total)
            self.last = now


def _outcome(judged: Scores, start: float, *, setup_seconds: float = 0.0) -> Outcome:
    return Outcome(
        score=judged.score or 0.0,
        loss=judged.loss,
        expected=judged.expected,
        seconds=time.perf_counter() - start,
        setup_seconds=setup_seconds,
    )


@lru_cache(maxsize=1)
def _parent(experiment: Any, spec: NetSpec, weights: Path) -> nn.Module:
    loaded: nn.Module = experiment.load(spec, weights)
    return loaded
