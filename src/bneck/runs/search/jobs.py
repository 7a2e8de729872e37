"""What a worker process does: train a network, or evaluate one proposal. Plain values in and out."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from torch import nn

from bneck.nets.importance import Importance
from bneck.nets.shrink import Kept
from bneck.nets.weights import save_weights
from bneck.runs.progress import Courteous, Marker
from bneck.runs.search.experiment import Experiment
from bneck.specs.network import NetSpec
from bneck.training.settings import Diverged, Settings


class Outcome(TypedDict):
    """What scoring gave, the seconds that the job took, and how many of them were not training.

    `failed` is there only where the training diverged, and says why; the scores are 0 then.
    """

    score: float
    loss: float | None
    expected: float
    seconds: float
    setup_seconds: float
    failed: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Parent:
    """A trained network, its weights, and the importance of its channels (a file), None for L2 norms.

    `wider` is what it was narrowed from on the way to a deeper cut.
    """

    spec: NetSpec
    weights: Path
    importance: Path | None
    wider: Parent | None = None

    def measured(self) -> Importance:
        """The importance of its channels."""
        assert self.importance is not None
        return Importance.load(self.importance)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """Train a spec, from random weights or from the most important channels of a `parent`.

    With `heldout` it is scored on the held-out images and not trained on them; else it is trained on all
    train images and scored on val. With a `teacher` it learns that network's outputs too. It writes its
    progress to `mark`, see `runs.progress.Following`.
    """

    spec: NetSpec
    experiment: Experiment
    settings: Settings
    weights: Path
    checkpoint: Path
    mark: Path
    heldout: bool
    parent: Parent | None = None
    teacher: Parent | None = None


def train_job(job: TrainJob) -> Outcome:
    """Train, from the job's checkpoint if there is one; score, and save the averaged weights.

    The checkpoint stays: the process that writes the outcome down deletes it then. Otherwise a kill in
    between would cost the whole training.
    """
    start = time.perf_counter()
    (net, kept), teacher = _begun(job), None
    if job.teacher is not None:
        teacher = job.experiment.load(job.teacher.spec, job.teacher.weights)
    job.experiment.fit(
        net, job.settings, heldout=job.heldout, teacher=teacher, kept=kept,
        checkpoint=job.checkpoint, on_step=Marker(job.mark),
    )  # fmt: skip
    outcome = _scored(net, job.experiment, heldout=job.heldout)
    save_weights(net.state_dict(), job.weights)
    return {**outcome, "seconds": time.perf_counter() - start}


def standing_job(job: TrainJob) -> Outcome:
    """Score the network of a training on the held-out images before its training."""
    net, _ = _begun(job)
    return outcome_of(net, job.experiment)


def _begun(job: TrainJob) -> tuple[nn.Module, Kept | None]:
    """The network before its training, and the channels of the widest parent that it was narrowed to."""
    if job.parent is None:
        return job.experiment.build(job.spec, job.settings.seed), None
    # A checkpoint holds the weights that the training goes on from.
    solve = None if job.checkpoint.is_file() else job.settings
    net, kept = narrowed(job.experiment, job.parent, job.spec, solve, heldout=job.heldout)
    parent = job.parent
    while kept is not None and parent.wider is not None:
        wide = job.experiment.load(parent.wider.spec, parent.wider.weights)
        before = job.experiment.kept(wide, parent.spec, parent.wider.measured())
        assert before is not None
        kept, parent = kept.within(before), parent.wider
    return net, kept


def narrowed(
    experiment: Experiment, parent: Parent, spec: NetSpec, solve: Settings | None, *,
    heldout: bool = False,
) -> tuple[nn.Module, Kept | None]:  # fmt: skip
    """A narrower network with a parent's weights, and its channels that were kept; None if all were.

    With the settings of a training they are solved anew on its images (`nets.reconstruct`).
    """
    wide = experiment.load(parent.spec, parent.weights)
    importance = None if parent.importance is None else parent.measured()
    net = experiment.shrink(wide, spec, importance)
    kept = experiment.kept(wide, spec, importance)
    if kept is not None and solve is not None:
        experiment.data.reconstruct(wide, net, kept, solve, heldout=heldout)
    return net, kept


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJob:
    """Evaluate a proposal: the parent's most important channels, or without an importance those of the
    largest L2 norms, T steps of fine-tuning."""

    spec: NetSpec
    parent_spec: NetSpec
    parent_weights: Path
    importance: Importance | None
    experiment: Experiment
    settings: Settings
    steps: int
    weights: Path


def trial_job(job: TrialJob) -> Outcome:
    """Shrink, fine-tune, save the weights, score on the held-out images.

    Where the fine-tuning diverges, the saved weights are those from before it.
    """
    start = time.perf_counter()
    experiment = job.experiment
    per_epoch = experiment.data.fitted(heldout=True) // job.settings.batch
    # The schedule is a step longer than the tuning: a cosine's last step has learning rate 0.
    schedule = replace(job.settings, epochs=(job.steps + 1) / per_epoch, warmup=0.0)
    parent = _parent(experiment, job.parent_spec, job.parent_weights)
    net = experiment.shrink(parent, job.spec, job.importance)
    tuned = time.perf_counter()
    outcome = outcome_of(net, experiment, schedule, until=job.steps / per_epoch)
    saved = time.perf_counter()
    if "failed" in outcome:
        net = experiment.shrink(parent, job.spec, job.importance)
    save_weights(net.state_dict(), job.weights)
    end = time.perf_counter()
    return {**outcome, "seconds": end - start, "setup_seconds": tuned - start + end - saved}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyJob:
    """Train a spec for its first `until` epochs of `settings` and score it on the held-out images.

    The checkpoint stays, so that a later job takes the same training further.
    """

    spec: NetSpec
    experiment: Experiment
    settings: Settings
    until: int
    checkpoint: Path


def proxy_job(job: ProxyJob) -> Outcome:
    """Train up to `until`, from the checkpoint if there is one, and score."""
    net = job.experiment.build(job.spec, job.settings.seed)
    return outcome_of(net, job.experiment, job.settings, checkpoint=job.checkpoint, until=job.until)


def outcome_of(
    net: nn.Module, experiment: Experiment, settings: Settings | None = None, **how: Any
) -> Outcome:
    """Score a network on the held-out images, after training it with `settings` if there are any.

    A training that diverges, weights and outputs that are not finite score 0. `how` as in
    `training.loop.fit`.
    """
    start = time.perf_counter()
    try:
        if settings is not None:
            experiment.fit(net, settings, heldout=True, on_step=Courteous(), **how)
        check_finite(net)
        outcome = _scored(net, experiment, heldout=True)
        if not all(math.isfinite(outcome[k] or 0.0) for k in ("score", "expected", "loss")):
            raise Diverged("the outputs on the held-out images are not finite")
    except Diverged as error:
        outcome = Outcome(
            score=0.0, loss=None, expected=0.0, seconds=0.0, setup_seconds=0.0, failed=error.what
        )
    return {**outcome, "seconds": time.perf_counter() - start}


def check_finite(net: nn.Module) -> None:
    """Raise Diverged for weights or statistics that are not finite."""
    # The loss of the last step is never looked at, so what that step ruined shows here alone.
    if not all(bool(value.isfinite().all()) for value in net.state_dict().values()):
        raise Diverged("the weights are not finite after the last step")


def _scored(net: nn.Module, experiment: Experiment, *, heldout: bool) -> Outcome:
    scores = experiment.score(net, heldout=heldout)
    return Outcome(
        score=scores.score or 0.0, loss=scores.loss, expected=scores.expected, seconds=0.0,
        setup_seconds=0.0,
    )  # fmt: skip


@lru_cache(maxsize=1)
def _parent(experiment: Any, spec: NetSpec, weights: Path) -> nn.Module:
    loaded: nn.Module = experiment.load(spec, weights)
    return loaded
