"""The training loop: epochs of batches, a weight average, checkpoints that lose nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from bneck.training.checkpoint import Checkpoint
from bneck.training.health import Health
from bneck.training.log import TrainingLog
from bneck.training.memory import keep_freed_memory
from bneck.training.optim import RmsPropTF, WeightAverage, grouped, learning_rate, slowed
from bneck.training.processes import ALONE, ProcessGroup, autocast, partners, synchronise
from bneck.training.settings import Diverged, Settings, TrainingError

SAVE_S = 60.0  # a checkpoint in the middle of an epoch, so often
LOOK = 10  # steps between looks at the loss on a GPU, which would wait for each

OnStep = Callable[[int, int, float], None]
OnEpoch = Callable[[int, dict[str, Tensor]], None]
B = TypeVar("B")  # a batch
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProblem(Generic[B]):
    """What a net learns from, whatever its task.

    `images` is how many there are. `batches` gives those of an epoch by its number, from one of its
    batches on, without an incomplete last one; `loss` is that of a net on one batch; `pieces` cuts a
    batch into equal ones. `backbone` is the part of the net that `Settings.frozen` leaves alone and
    `Settings.backbone_rate` slows down.
    """

    images: int
    batches: Callable[[int, int], Iterable[B]]
    loss: Callable[[nn.Module, B], Tensor]
    pieces: Callable[[B], Sequence[B]] = lambda batch: (batch,)
    backbone: nn.Module | None = None


def in_pieces(settings: Settings, group: ProcessGroup) -> Callable[[B], Sequence[B]]:
    """How batches that are tuples of one entry per image are cut into `accumulate` equal pieces."""
    size = settings.batch // (settings.accumulate * group.size)

    def pieces(batch: Any) -> Sequence[Any]:
        starts = range(0, len(batch[0]), size)
        return [tuple(part[first : first + size] for part in batch) for first in starts]

    return pieces


def fit(
    net: N, problem: TrainingProblem[B], settings: Settings, *, checkpoint: Path | None = None,
    on_step: OnStep | None = None, on_epoch: OnEpoch | None = None, until: float | None = None,
    group: ProcessGroup = ALONE, log: TrainingLog | None = None, save_s: float = SAVE_S,
) -> N:  # fmt: skip
    """Train a net in place; what comes back holds the averaged weights, in evaluation mode.

    Args:
        net: what to train.
        problem: images and loss.
        settings: how. Everything random follows from `settings.seed`.
        checkpoint: a file to save to after every epoch, and every `save_s` seconds in between, and
            to resume from if it is there.
        on_step: called with (steps done, all steps, loss).
        on_epoch: called after every epoch with (steps done, the averaged weights as they are).
        until: stop after so many epochs of the schedule, to the nearest step; training goes on from the
            checkpoint later. None trains to the end.
        group: the processes that train together. The first one saves, logs and reports.

    Raises:
        TrainingError: fewer images than one batch.
        Diverged: a loss that is no longer finite or ran away.
    """
    steps_per_epoch = problem.images // settings.batch
    if steps_per_epoch == 0:
        raise TrainingError(
            f"the batch of {settings.batch} is larger than the {problem.images} training images; "
            "choose a smaller batch or add images"
        )
    total = max(1, round(settings.epochs * steps_per_epoch))
    end = total if until is None else min(total, round(until * steps_per_epoch))
    course = _Course(net, problem, settings, group, checkpoint, save_s)
    course.on_step, course.log = on_step, log
    done = course.saved.restore()
    if log is not None:
        log.begin(done)
    while done < end:
        stop = min(end, (done // steps_per_epoch + 1) * steps_per_epoch)
        with partners(group, done, TrainingError):
            done = course.epoch(done, stop, total)
            if on_epoch is not None:
                on_epoch(done, course.average.state)
            if group.first:
                course.saved.save(done)
        if log is not None:
            log.restart()
    if log is not None:
        log.close()
    net.load_state_dict(course.average.state)
    return net.requires_grad_(True).eval()


class _Course(Generic[B]):
    """One training under way: the net with all that changes next to it."""

    on_step: OnStep | None = None
    log: TrainingLog | None = None
    waited_s = 0.0  # for images, since the loss was last looked at

    def __init__(
        self, net: nn.Module, problem: TrainingProblem[B], settings: Settings, group: ProcessGroup,
        checkpoint: Path | None, save_s: float,
    ) -> None:  # fmt: skip
        self.net, self.problem, self.settings = net, problem, settings
        self.group, self.save_s = group, save_s
        if group.device.type == "cpu":
            keep_freed_memory()
        net.to(group.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d) and settings.bn_momentum is not None:
                module.momentum = settings.bn_momentum
        if settings.sync_bn and group.size > 1:
            synchronise(net)
        self.frozen = problem.backbone if settings.frozen else None
        if self.frozen is not None:
            self.frozen.requires_grad_(False)
        groups = grouped(net, settings.weight_decay, settings.decayed)
        if problem.backbone is not None and settings.backbone_rate != 1:
            groups = slowed(groups, problem.backbone, settings.backbone_rate)
        self.optimizer: torch.optim.Optimizer = RmsPropTF(groups, lr=settings.lr)
        if (momentum := settings.sgd_momentum) is not None:
            self.optimizer = torch.optim.SGD(groups, lr=settings.lr, momentum=momentum)
        self.average = WeightAverage(net, settings.average)
        self.health = Health()
        self.saved = Checkpoint(checkpoint, net, self.optimizer, self.average, self.health)
        self.model = group.together(net)
        if settings.compile:
            self.model = torch.compile(self.model)  # type: ignore[assignment]

    def epoch(self, done: int, stop: int, total: int) -> int:
        """Train from step `done` of an epoch to step `stop` of the same; steps done."""
        self.net.train()
        if self.frozen is not None:
            self.frozen.eval()
        steps_per_epoch = self.problem.images // self.settings.batch
        number, first = divmod(done, steps_per_epoch)
        batches = iter(self.problem.batches(number, first))
        while done < stop:
            asked = time.perf_counter()
            batch = next(batches)
            self.waited_s += time.perf_counter() - asked
            lr = self._rate((done + 1) / steps_per_epoch)
            loss = self._gradients(batch, done)
            done += 1
            looked = self.group.device.type == "cpu" or done % LOOK == 0 or done == stop
            value = self._checked(loss, done, lr) if looked else None
            self.optimizer.step()
            self.average.update(self.net)
            if value is not None:
                self._tell(done, total, value, lr)
            # Only what was looked at is known to be worth saving.
            if looked and done < stop and self.group.first and self.saved.due(self.save_s):
                self.saved.save(done)
        if self.log is not None:
            self.log.flush()
        return done

    def _rate(self, epoch: float) -> float:
        how = self.settings
        lr = learning_rate(how.schedule, how.lr, epoch=epoch, epochs=how.epochs, warmup=how.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("rate", 1.0)
        return lr

    def _gradients(self, batch: B, done: int) -> Tensor:
        """The mean loss of all pieces, with its gradients added up in the net."""
        # Dropout's numbers follow from the step, so that they are the same after a resume.
        torch.manual_seed((self.settings.seed * 100_003 + done) * 1_009 + self.group.rank)
        self.optimizer.zero_grad(set_to_none=True)
        pieces = self.problem.pieces(batch)
        total = torch.zeros((), device=self.group.device)
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            with nullcontext() if last else self.group.quiet(self.model):
                with autocast(self.group, self.settings.precision):
                    loss = self.problem.loss(self.model, piece) / len(pieces)
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _checked(self, loss: Tensor, done: int, lr: float) -> float:
        """The group's mean loss, before anything is changed by it."""
        value = float(self.group.mean(loss))
        if (wrong := self.health.look(value)) is not None:
            raise Diverged(
                f"{wrong} at step {done} with learning rate {lr:.3g}",
                f"train with a smaller learning rate ({self.saved})",
            )
        return value

    def _tell(self, done: int, total: int, value: float, lr: float) -> None:
        if self.log is not None:
            self.log.step(done, value, lr, self.waited_s)
            self.waited_s = 0.0
        if self.on_step is not None:
            self.on_step(done, total, value)


def backbone(net: Any) -> nn.Module:
    """The rows of a net before the pool."""
    return nn.ModuleList(list(net.rows)[: net.spec.pool_at])
