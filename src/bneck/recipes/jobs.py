"""What a worker process does: train a network, or judge one proposal. Plain values in and out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from bneck.nets.weights import save_weights
from bneck.recipes.progress import POLL_S, write_mark
from bneck.recipes.trainer import Judged, Outcome, Trainer
from bneck.specs.network import NetSpec
from bneck.train.loop import Diverged, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """Train a spec from scratch.

    With `heldout` the held-out images judge it and are not trained on; else all train images are
    used and the val images judge it. `mark` is where it says how far it is, see
    `recipes.progress.Following`.
    """

    spec: NetSpec
    trainer: Trainer
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
    trainer = job.trainer
    net = trainer.build(job.spec, job.settings.seed)
    trainer.fit(
        net,
        job.settings,
        heldout=job.heldout,
        checkpoint=job.checkpoint,
        on_step=marked(job.mark),
    )
    judged = trainer.judge(net, heldout=job.heldout)
    save_weights(net.state_dict(), job.weights)
    return _outcome(judged, start)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJob:
    """Judge a proposal: the parent's weights shrunk into it, T steps of fine-tuning."""

    spec: NetSpec
    parent_spec: NetSpec
    parent_weights: Path
    trainer: Trainer
    settings: Settings
    steps: int
    weights: Path


def trial_job(job: TrialJob) -> Outcome:
    """Shrink, fine-tune, save the weights, judge on the held-out images.

    A tuning that diverges scores 0 and leaves the weights as they were before it.
    """
    start = time.perf_counter()
    trainer = job.trainer
    per_epoch = trainer.fitted() // job.settings.batch
    # The schedule is a step longer than the tuning: a cosine's last step has learning rate 0.
    schedule = replace(job.settings, epochs=(job.steps + 1) / per_epoch, warmup=0.0)
    parent = _parent(trainer, job.parent_spec, job.parent_weights)
    net = trainer.shrink(parent, job.spec)
    setup = time.perf_counter() - start
    try:
        trainer.fit(net, schedule, heldout=True, until=job.steps / per_epoch)
        judged = _judged(net, trainer)
    except Diverged as error:
        net, judged = trainer.shrink(parent, job.spec), _failed(error)
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
    trainer: Trainer
    settings: Settings
    until: int
    checkpoint: Path


def proxy_job(job: ProxyJob) -> Outcome:
    """Train up to `until`, from the checkpoint if there is one, and judge; diverged, it scores 0."""
    start = time.perf_counter()
    net = job.trainer.build(job.spec, job.settings.seed)
    try:
        job.trainer.fit(net, job.settings, heldout=True, checkpoint=job.checkpoint, until=job.until)
        return _outcome(_judged(net, job.trainer), start)
    except Diverged as error:
        return _outcome(_failed(error), start)


def marked(mark: Path) -> Callable[[int, int, float], None]:
    """What a training calls at every step to leave a mark of how far it is."""
    return _Marker(mark)


def outcome_of(net: nn.Module, trainer: Trainer) -> Outcome:
    """A trained network judged on the held-out images; 0 where its outputs are not finite."""
    start = time.perf_counter()
    try:
        return _outcome(_judged(net, trainer), start)
    except Diverged as error:
        return _outcome(_failed(error), start)


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


def _judged(net: nn.Module, trainer: Trainer) -> Judged:
    """Judged on the held-out images.

    Raises:
        Diverged: weights or scores that are not finite.
    """
    check_finite(net)
    judged = trainer.judge(net, heldout=True)
    if not all(map(math.isfinite, (judged.score, judged.expected, judged.loss or 0.0))):
        raise Diverged("the outputs on the held-out images are not finite")
    return judged


def _failed(error: Diverged) -> Judged:
    return Judged(score=0.0, expected=0.0, failed=error.what)


def _outcome(judged: Judged, start: float, *, setup_seconds: float = 0.0) -> Outcome:
    outcome = Outcome(
        score=judged.score,
        loss=judged.loss,
        expected=judged.expected,
        seconds=time.perf_counter() - start,
        setup_seconds=setup_seconds,
    )
    if judged.failed is not None:
        outcome["failed"] = judged.failed
    return outcome


@lru_cache(maxsize=1)
def _parent(trainer: Any, spec: NetSpec, weights: Path) -> nn.Module:
    loaded: nn.Module = trainer.load(spec, weights)
    return loaded
