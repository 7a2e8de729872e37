"""The training loop: epochs of batches, a weight average, checkpoints that lose nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor, nn

from bneck.data.batches import Images, train_batches
from bneck.data.vary import Augment
from bneck.nets.build import Net
from bneck.nets.quantize import QuantizedNet
from bneck.specs.errors import InputError
from bneck.tasks import classify
from bneck.tasks.classify import Taught
from bneck.train.checkpoint import Checkpoint
from bneck.train.health import Health
from bneck.train.journal import Journal
from bneck.train.memory import keep_freed_memory
from bneck.train.optim import (
    Decayed,
    RmsPropTF,
    Schedule,
    WeightAverage,
    grouped,
    learning_rate,
)
from bneck.train.team import ALONE, Team, autocast, partners, synchronise

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
SAVE_S = 60.0  # a checkpoint in the middle of an epoch, so often
LOOK = 10  # steps between looks at the loss on a GPU, which would wait for each


class TrainingError(InputError):
    """Training that cannot go on; the message gives the step, the rate and what to change."""


class Diverged(TrainingError):
    """A loss that is NaN, infinite or ran away. `what` is the message without its advice."""

    def __init__(self, what: str, advice: str | None = None) -> None:
        super().__init__(what if advice is None else f"{what}; {advice}")
        self.what = what


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train. `batch` is that of all processes, `lr` the peak for it; epochs may be fractional.

    `frozen` trains the convs behind the pool and the classifier only; the rows before keep weights
    and statistics. `sgd_momentum` trains by SGD with that momentum in place of RMSProp. `decayed` is
    what L2 pulls at, see `train.optim.grouped`.

    A batch is worked on in `accumulate` pieces, whose gradients are added up; batch norm sees a
    piece, or that piece of all processes with `sync_bn`. `precision` "bf16" computes in bfloat16
    where that is exact enough. `teach` is the share of a teacher's answers, softened by
    `temperature`, in the loss; without a teacher neither means anything.
    """

    epochs: float
    batch: int
    lr: float
    schedule: Schedule = "cosine"
    warmup: float = 1.0
    weight_decay: float = 1e-5
    decayed: Decayed = "full"
    smoothing: float = 0.1
    average: float = 0.9999
    bn_momentum: float | None = None
    augment: Augment = field(default_factory=Augment)
    seed: int = 0
    frozen: bool = False
    sgd_momentum: float | None = None
    accumulate: int = 1
    precision: Precision = "fp32"
    compile: bool = False
    sync_bn: bool = False
    teach: float = 0.7
    temperature: float = 2.0

    def check(self, team: Team) -> None:
        """Raise TrainingError for a batch that a team cannot share out evenly."""
        parts = self.accumulate * team.size
        if self.accumulate < 1:
            raise TrainingError(f"accumulate is {self.accumulate}; it must be at least 1")
        if parts > 1 and (self.batch % parts or self.batch < 2 * parts):
            raise TrainingError(
                f"the batch of {self.batch} is not {parts} equal pieces of two or more images "
                f"({team.size} processes, {self.accumulate} pieces each); choose a multiple of {parts}"
            )


@dataclass(frozen=True, slots=True)
class Data:
    """Training images: a split, which of its images to use, and the input side in pixels."""

    split: Images
    indices: np.ndarray
    resolution: int


OnStep = Callable[[int, int, float], None]
OnEpoch = Callable[[int, dict[str, Tensor]], None]
B = TypeVar("B")  # a batch
N = TypeVar("N", bound=nn.Module)
AnyNet = TypeVar("AnyNet", Net, QuantizedNet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons(Generic[B]):
    """What a net learns from, whatever its task.

    `images` is how many there are. `batches` gives those of an epoch by its number, from one of its
    batches on, without an incomplete last one; `loss` is that of a net on one batch; `pieces` cuts a
    batch into equal ones. `frozen` is the part of the net that keeps its weights and statistics.
    """

    images: int
    batches: Callable[[int, int], Iterable[B]]
    loss: Callable[[nn.Module, B], Tensor]
    pieces: Callable[[B], Sequence[B]] = lambda batch: (batch,)
    frozen: nn.Module | None = None


def train(
    net: AnyNet,
    data: Data,
    settings: Settings,
    *,
    teacher: Net | None = None,
    team: Team = ALONE,
    **how: Any,
) -> AnyNet:
    """Train a net to classify; `how` as in `fit`. The last, incomplete batch of an epoch is dropped.

    With a `teacher`, which answers the same images, its answers are learnt too (Hinton et al. 2015).
    """
    settings.check(team)

    def batches(epoch: int, first: int) -> Iterable[tuple[Tensor, Tensor]]:
        return train_batches(
            data.split,
            data.indices,
            resolution=data.resolution,
            batch=settings.batch,
            augment=settings.augment,
            seed=settings.seed,
            epoch=epoch,
            first=first,
            share=(team.rank, team.size),
            device=team.device,
            normalisation=net.normalisation,
        )

    def pieces(batch: tuple[Tensor, Tensor]) -> Sequence[tuple[Tensor, Tensor]]:
        size = settings.batch // (settings.accumulate * team.size)
        parts = range(0, len(batch[1]), size)
        return [(batch[0][i : i + size], batch[1][i : i + size]) for i in parts]

    taught = None
    if teacher is not None:
        taught = Taught(
            teacher.to(team.device), net.normalisation, settings.teach, settings.temperature
        )

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        images = images.contiguous(memory_format=torch.channels_last)
        scores = net(images).float()
        own = classify.loss(scores, labels, smoothing=settings.smoothing)
        return own if taught is None else taught.mixed(own, scores, images)

    frozen = features(net) if settings.frozen else None
    lessons = Lessons(
        images=len(data.indices), batches=batches, loss=loss, pieces=pieces, frozen=frozen
    )
    return fit(net, lessons, settings, team=team, **how)


def fit(
    net: N,
    lessons: Lessons[B],
    settings: Settings,
    *,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    until: float | None = None,
    team: Team = ALONE,
    journal: Journal | None = None,
    save_s: float = SAVE_S,
) -> N:
    """Train a net in place; what comes back holds the averaged weights, in evaluation mode.

    Args:
        net: what to train.
        lessons: images and loss.
        settings: how. Everything random follows from `settings.seed`.
        checkpoint: a file to save to after every epoch, and every `save_s` seconds in between, and
            to go on from if it is there.
        on_step: called with (steps done, all steps, loss).
        on_epoch: called behind every epoch with (steps done, the averaged weights as they are).
        until: stop after so many epochs of the schedule, to the nearest step; training goes on from the
            checkpoint later. None trains to the end.
        team: the processes that train together. The first one saves and tells.
        journal: what is written down on the way; the first process's.
        save_s: see `checkpoint`.

    Raises:
        TrainingError: fewer images than one batch.
        Diverged: a loss that is no longer finite or ran away.
    """
    steps_per_epoch = lessons.images // settings.batch
    if steps_per_epoch == 0:
        raise TrainingError(
            f"the batch of {settings.batch} is larger than the {lessons.images} training images; "
            "choose a smaller batch"
        )
    total = max(1, round(settings.epochs * steps_per_epoch))
    end = total if until is None else min(total, round(until * steps_per_epoch))
    course = _Course(net, lessons, settings, team, checkpoint, save_s)
    course.on_step, course.journal = on_step, journal
    done = course.saved.restore()
    if journal is not None:
        journal.begin(done)
    while done < end:
        stop = min(end, (done // steps_per_epoch + 1) * steps_per_epoch)
        with partners(team, done):
            done = course.epoch(done, stop, total)
            if on_epoch is not None:
                on_epoch(done, course.average.state)
        if team.first:
            course.saved.save(done)
        if journal is not None:
            journal.restart()
    net.load_state_dict(course.average.state)
    return net.requires_grad_(True).eval()


class _Course(Generic[B]):
    """One training under way: the net with all that changes beside it."""

    on_step: OnStep | None = None
    journal: Journal | None = None
    waited_s = 0.0  # for images, since the loss was last looked at

    def __init__(
        self,
        net: nn.Module,
        lessons: Lessons[B],
        settings: Settings,
        team: Team,
        checkpoint: Path | None,
        save_s: float,
    ) -> None:
        self.net, self.lessons, self.settings = net, lessons, settings
        self.team, self.save_s = team, save_s
        if team.device.type == "cpu":
            keep_freed_memory()
        net.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if settings.bn_momentum is not None:
            set_bn_momentum(net, settings.bn_momentum)
        if settings.sync_bn and team.size > 1:
            synchronise(net)
        if lessons.frozen is not None:
            lessons.frozen.requires_grad_(False)
        self.optimizer = _optimizer(net, settings)
        self.average = WeightAverage(net, settings.average)
        self.health = Health()
        self.saved = Checkpoint(checkpoint, net, self.optimizer, self.average, self.health)
        self.model = team.together(net)
        if settings.compile:
            self.model = torch.compile(self.model)  # type: ignore[assignment]

    def epoch(self, done: int, stop: int, total: int) -> int:
        """Train from step `done` of an epoch to step `stop` of the same; steps done."""
        self.net.train()
        if self.lessons.frozen is not None:
            self.lessons.frozen.eval()
        steps_per_epoch = self.lessons.images // self.settings.batch
        number, first = divmod(done, steps_per_epoch)
        batches = iter(self.lessons.batches(number, first))
        while done < stop:
            asked = time.perf_counter()
            batch = next(batches)
            self.waited_s += time.perf_counter() - asked
            lr = self._rate((done + 1) / steps_per_epoch)
            loss = self._gradients(batch, done)
            done += 1
            looked = self.team.device.type == "cpu" or done % LOOK == 0 or done == stop
            value = self._checked(loss, done, lr) if looked else None
            self.optimizer.step()
            self.average.update(self.net)
            if value is not None:
                self._tell(done, total, value, lr)
            # Only what was looked at is known to be worth saving.
            if looked and done < stop and self.team.first and self.saved.due(self.save_s):
                self.saved.save(done)
        if self.journal is not None:
            self.journal.flush()
        return done

    def _rate(self, epoch: float) -> float:
        settings = self.settings
        lr = learning_rate(
            settings.schedule,
            settings.lr,
            epoch=epoch,
            epochs=settings.epochs,
            warmup=settings.warmup,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _gradients(self, batch: B, done: int) -> Tensor:
        """The mean loss of all pieces, with its gradients added up in the net."""
        # Dropout's numbers follow from the step, so that they are the same after a resume.
        torch.manual_seed((self.settings.seed * 100_003 + done) * 1_009 + self.team.rank)
        self.optimizer.zero_grad(set_to_none=True)
        pieces = self.lessons.pieces(batch)
        total = torch.zeros((), device=self.team.device)
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            with nullcontext() if last else self.team.quiet(self.model):
                with autocast(self.team, self.settings.precision):
                    loss = self.lessons.loss(self.model, piece) / len(pieces)
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _checked(self, loss: Tensor, done: int, lr: float) -> float:
        """The team's mean loss, before anything is changed by it."""
        value = float(self.team.mean(loss))
        wrong = self.health.look(value)
        if wrong is not None:
            raise Diverged(
                f"{wrong} at step {done} with learning rate {lr:.3g}",
                f"train with a smaller learning rate ({self.saved})",
            )
        return value

    def _tell(self, done: int, total: int, value: float, lr: float) -> None:
        if self.journal is not None:
            self.journal.step(done, value, lr, self.waited_s)
            self.waited_s = 0.0
        if self.on_step is not None:
            self.on_step(done, total, value)


def _optimizer(net: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    groups = grouped(net, settings.weight_decay, settings.decayed)
    if settings.sgd_momentum is None:
        return RmsPropTF(groups, lr=settings.lr)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.sgd_momentum)


def features(net: Net | QuantizedNet) -> nn.Module:
    """The rows before the pool, which `Settings.frozen` leaves alone; 8-bit fine-tuning has no such."""
    assert isinstance(net, Net)
    return nn.ModuleList(list(net.rows)[: net.spec.pool_at])


def set_bn_momentum(net: nn.Module, momentum: float) -> None:
    """Let batch norm's statistics follow faster or slower than the spec says."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
