"""What a worker process does: train a network, or judge one proposal. Plain values in and out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

import numpy as np

from bneck.data.batches import eval_batches, holdout
from bneck.data.pack import Packed, open_pack
from bneck.nets.build import Net, build
from bneck.nets.shrink import shrink
from bneck.nets.weights import load_net, save_weights
from bneck.recipes.progress import POLL_S, write_mark
from bneck.specs.network import NetSpec
from bneck.tasks.classify import Accuracy, evaluate
from bneck.train.loop import Data, Settings, train

EVAL_BATCH = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Which images: a pack's folder, and the share of its train split that is held out."""

    pack: Path
    heldout_share: float
    seed: int

    def open(self) -> tuple[Packed, np.ndarray, np.ndarray]:
        """The pack, and the indices to fit on and those held out."""
        return _open(self.pack, self.heldout_share, self.seed)


@lru_cache(maxsize=1)
def _open(folder: Path, share: float, seed: int) -> tuple[Packed, np.ndarray, np.ndarray]:
    packed = open_pack(folder)
    return packed, *holdout(packed.train.labels, share, seed)


class Outcome(TypedDict):
    """Accuracy of a trained network, the seconds it took, and how many of them were no training."""

    top1: float
    loss: float
    expected: float
    seconds: float
    setup_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """Train a spec from scratch.

    With `heldout` the held-out images judge it and are not trained on; else all train images are
    used and the val images judge it. `mark` is where it says how far it is, see
    `recipes.progress.Following`.
    """

    spec: NetSpec
    images: Images
    settings: Settings
    weights: Path
    checkpoint: Path
    mark: Path
    heldout: bool


def train_job(job: TrainJob) -> Outcome:
    """Train, save the averaged weights, judge. Goes on from the job's checkpoint if there is one."""
    start = time.perf_counter()
    packed, fit, heldout = job.images.open()
    indices = fit if job.heldout else np.arange(len(packed.train.labels))
    net = build(job.spec, seed=job.settings.seed)
    train(
        net,
        Data(packed.train, indices, job.spec.resolution),
        job.settings,
        checkpoint=job.checkpoint,
        on_step=_Marker(job.mark),
    )
    accuracy = _judge(net, packed, heldout if job.heldout else None)
    save_weights(net.state_dict(), job.weights)
    job.checkpoint.unlink(missing_ok=True)
    return _outcome(accuracy, start, setup_seconds=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJob:
    """Judge a proposal: the parent's weights shrunk into it, T steps of fine-tuning."""

    spec: NetSpec
    parent_spec: NetSpec
    parent_weights: Path
    images: Images
    settings: Settings
    steps: int
    weights: Path


def trial_job(job: TrialJob) -> Outcome:
    """Shrink, fine-tune, save the weights, judge on the held-out images."""
    start = time.perf_counter()
    packed, fit, heldout = job.images.open()
    parent = _parent(job.parent_spec, job.parent_weights)
    net = shrink(parent, job.spec)
    setup = time.perf_counter() - start
    epochs = job.steps / (len(fit) // job.settings.batch)
    data = Data(packed.train, fit, net.spec.resolution)
    train(net, data, replace(job.settings, epochs=epochs, warmup=0.0))
    accuracy = _judge(net, packed, heldout)
    judged = time.perf_counter()
    save_weights(net.state_dict(), job.weights)
    setup += time.perf_counter() - judged
    return _outcome(accuracy, start, setup_seconds=setup)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyJob:
    """Train a spec for its first `until` epochs of `settings` and judge it on the held-out images.

    The checkpoint stays, so that a later job takes the same training further.
    """

    spec: NetSpec
    images: Images
    settings: Settings
    until: int
    checkpoint: Path


def proxy_job(job: ProxyJob) -> Outcome:
    """Train up to `until`, from the checkpoint if there is one, and judge."""
    start = time.perf_counter()
    packed, fit, heldout = job.images.open()
    net = build(job.spec, seed=job.settings.seed)
    data = Data(packed.train, fit, job.spec.resolution)
    train(net, data, job.settings, checkpoint=job.checkpoint, until=job.until)
    return _outcome(_judge(net, packed, heldout), start, setup_seconds=0.0)


def marked(mark: Path) -> Callable[[int, int, float], None]:
    """What a training calls at every step to leave a mark of how far it is."""
    return _Marker(mark)


def outcome_of(net: Net, packed: Packed, heldout: np.ndarray) -> Outcome:
    """A trained network judged on the held-out images."""
    start = time.perf_counter()
    return _outcome(_judge(net, packed, heldout), start, setup_seconds=0.0)


class _Marker:
    """Writes a job's mark now and then."""

    def __init__(self, mark: Path) -> None:
        self.mark, self.last = mark, 0.0

    def __call__(self, done: int, total: int, loss: float) -> None:
        now = time.perf_counter()
        if done == total or now - self.last > POLL_S:
            write_mark(self.mark, done / total)
            self.last = now


def _outcome(accuracy: Accuracy, start: float, *, setup_seconds: float) -> Outcome:
    return Outcome(
        top1=accuracy.top1,
        loss=accuracy.loss,
        expected=accuracy.expected,
        seconds=time.perf_counter() - start,
        setup_seconds=setup_seconds,
    )


@lru_cache(maxsize=1)
def _parent(spec: NetSpec, weights: Path) -> Net:
    return load_net(spec, weights)


def _judge(net: Net, packed: Packed, heldout: np.ndarray | None) -> Accuracy:
    split = packed.val if heldout is None else packed.train
    indices = np.arange(len(split.labels)) if heldout is None else heldout
    batches = eval_batches(
        split,
        indices,
        resolution=net.spec.resolution,
        batch=EVAL_BATCH,
        normalisation=net.normalisation,
    )
    return evaluate(net, batches)
