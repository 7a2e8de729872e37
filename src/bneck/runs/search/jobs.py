"""What a worker process does: train a network, or judge one proposal. Plain values in and out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from torch import nn

from bneck.nets.weights import save_weights
from bneck.runs.progress import POLL_S, write_mark
from bneck.runs.search.experiment import Experiment
from bneck.specs.network import NetSpec
from bneck.tasks.contract import Scores
from bneck.training.settings import Diverged, Settings


class Outcome(TypedDict):
    """What scoring gave, the seconds that the job took, and how many of them were no training.

    `failed` is there only where the training diverged, and says why; it scores 0 then.
    """

    score: float
    loss: float | None
    expected: float
    seconds: float
    setup_seconds: float
    failed: NotRequired[str]


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
    """Train, save the averaged weights, judge. Goes on from the job's checkpoint if there is one.

    The checkpoint stays: who writes the outcome down deletes it then, or a kill in between would cost
    the whole training.
    """
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
    """Shrink, fine-tune, save the weights, judge on the held-out images.

    A tuning that diverges scores 0 and leaves the weights as they were before it.
    """
    start = time.perf_counter()
    experiment = job.experiment
    per_epoch = experiment.data.fitted(heldout=True) // job.settings.batch
    # The schedule is a step longer than the tuning: a cosine's last step has learning rate 0.
    schedule = replace(job.settings, epochs=(job.steps + 1) / per_epoch, warmup=0.0)
    parent = _parent(experiment, job.parent_spec, job.parent_weights)
    net = experiment.shrink(parent, job.spec)
    setup = time.perf_counter() - start
    outcome: Outcome
    try:
        experiment.fit(net, schedule, heldout=True, until=job.steps / per_epoch)
        outcome = _outcome(_scored(net, experiment), start)
    except Diverged as error:
        net, outcome = experiment.shrink(parent, job.spec), _failed(error, start)
    done = time.perf_counter()
    save_weights(net.state_dict(), job.weights)
    setup += time.perf_counter() - done
    outcome["seconds"], outcome["setup_seconds"] = time.perf_counter() - start, setup
    return outcome


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
    """Train up to `until`, from the checkpoint if there is one, and judge; diverged, it scores 0."""
    start = time.perf_counter()
    net = job.experiment.build(job.spec, job.settings.seed)
    try:
        job.experiment.fit(
            net, job.settings, heldout=True, checkpoint=job.checkpoint, until=job.until
        )
        return _outcome(_scored(net, job.experiment), start)
    except Diverged as error:
        return _failed(error, start)


def marked(mark: Path) -> Callable[[int, int, float], None]:
    """What a training calls at every step to leave a mark of how far it is."""
    return _Marker(mark)


def outcome_of(net: nn.Module, experiment: Experiment) -> Outcome:
    """A trained network judged on the held-out images; 0 where its outputs are not finite."""
    start = time.perf_counter()
    try:
        return _outcome(_scored(net, experiment), start)
    except Diverged as error:
        return _failed(error, start)


def check_finite(net: nn.Module) -> None:
    """Raise Diverged for weights or statistics that the last step, whose loss nobody sees, ruined."""
    if not all(bool(value.isfinite().all()) for value in net.state_dict().values()):
        raise Diverged("the weights are not finite after the last step")


class _Marker:
    """Writes a job's mark now and then."""

    def __init__(self, mark: Path) -> None:
        self.mark, self.last = mark, 0.0

    def __call__(self, done: int, total: int, loss: float) -> None:
        now = time.perf_counter()
        if done == total or now - self.last > POLL_S:
            write_mark(self.mark, done / total)
            self.last = now


def _scored(net: nn.Module, experiment: Experiment) -> Scores:
    """The scores on the held-out images.

    Raises:
        Diverged: weights or scores that are not finite.
    """
    check_finite(net)
    scores = experiment.score(net, heldout=True)
    if not all(map(math.isfinite, (scores.score or 0.0, scores.expected, scores.loss or 0.0))):
        raise Diverged("the outputs on the held-out images are not finite")
    return scores


def _failed(error: Diverged, start: float) -> Outcome:
    return Outcome(
        score=0.0,
        loss=None,
        expected=0.0,
        seconds=time.perf_counter() - start,
        setup_seconds=0.0,
        failed=error.what,
    )


def _outcome(judged: Scores, start: float) -> Outcome:
    return Outcome(
        score=judged.score or 0.0,
        loss=judged.loss,
        expected=judged.expected,
        seconds=time.perf_counter() - start,
        setup_seconds=0.0,
    )


@lru_cache(maxsize=1)
def _parent(experiment: Any, spec: NetSpec, weights: Path) -> nn.Module:
    loaded: nn.Module = experiment.load(spec, weights)
    return loaded
