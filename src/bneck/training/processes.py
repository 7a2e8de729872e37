"""The processes that train one net together, one per device; a single one is a group too."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bneck.specs.errors import InputError, RefusedElsewhere

CPU = torch.device("cpu")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """`size` processes of which this one is number `rank`, and the device that it computes on."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and talks."""
        return self.rank == 0

    def together(self, net: nn.Module) -> nn.Module:
        """The net, whose gradients are the mean over the group's."""
        return net if self.size == 1 else DistributedDataParallel(net)

    def quiet(self, net: nn.Module) -> Any:
        """While in it, gradients are not exchanged: all pieces of a batch but the last."""
        return net.no_sync() if isinstance(net, DistributedDataParallel) else nullcontext()

    def sum(self, value: Tensor) -> Tensor:
        """The sum of every process's value, on each of them."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def mean(self, value: Tensor) -> Tensor:
        """The mean of every process's value, on each of them."""
        return self.sum(value) / self.size

    def share(self, value: str) -> str:
        """What the first process has; all wait for it. `RefusedElsewhere` where another one refused."""
        return self._exchange(value)[0] if self.size > 1 else value

    def total(self, value: Tensor) -> Tensor:
        """The sum of every process's value, back on the processor."""
        return self.sum(value.to(self.device)).cpu() if self.size > 1 else value

    def wait(self) -> None:
        """Until all processes are here. `RefusedElsewhere` where another one refused."""
        if self.size > 1:
            self._exchange("")

    def first_then_all(self, first: Callable[[], T], others: Callable[[], T]) -> T:
        """What the first process makes by `first`; then the others make theirs by `others`."""
        if self.first:
            made = first()
        self.wait()
        return made if self.first else others()

    def tell(self, refusal: InputError) -> None:
        """Let the others refuse too, where they wait or share next. `RefusedElsewhere` where one was first."""
        if self.size > 1 and not isinstance(refusal, RefusedElsewhere | _Alone):
            with suppress(_Alone):  # nobody is left to be told
                self._exchange("", str(refusal))

    def _exchange(self, value: str, refusal: str | None = None) -> list[str]:
        """What every process has; those that one of them refused end here, but for the first such."""
        found: list[Any] = [None] * self.size
        with partners(self):
            dist.all_gather_object(found, (value, refusal))
        first = next((rank for rank, (_, text) in enumerate(found) if text is not None), self.rank)
        if first != self.rank:
            raise RefusedElsewhere(found[first][1])
        return [value for value, _ in found]


ALONE = ProcessGroup()


class _Alone(InputError):
    """A refusal in the midst of an exchange: the others cannot be told, they see this process leave."""


def device_of(compute: str | None = None) -> torch.device:
    """Where to compute: "cpu", "cuda" or "cuda:1"; None takes the first GPU if there is one.

    Raises:
        InputError: no such device here.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if compute is None:
        return torch.device("cuda" if there else "cpu")
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", compute)
    if found is None:
        raise InputError(f"compute is {compute!r}; write cpu, cuda or cuda:1")
    if compute != "cpu" and int(found[1] or 0) >= there:
        has = f"{there} GPU{'' if there == 1 else 's'}" if there else "no GPU that torch can use"
        raise InputError(f"compute is {compute!r}, and this machine has {has}; write --compute cpu")
    return torch.device(compute)


def join(compute: str | None = None) -> ProcessGroup:
    """The group that a launcher (`accelerate launch`, `torchrun`) made this process a part of.

    Without a launcher a process is alone on the device of `device_of`. A process group that exists is used.

    Raises:
        InputError: there is a launcher, and Accelerate is not installed; or no such device.
    """
    if dist.is_initialized():
        return ProcessGroup(dist.get_rank(), dist.get_world_size(), device_of(compute))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ProcessGroup(device=device_of(compute))
    if compute not in (None, "cpu", "cuda"):
        raise InputError(
            f"compute is {compute!r}, and a launcher gives each process a GPU of its own; write cuda or cpu"
        )
    try:
        from accelerate import PartialState
    except ImportError:
        raise InputError(
            "several processes train together through Accelerate, which is not installed; "
            "run: pip install 'bneck[train]'"
        ) from None
    state = PartialState(cpu=device_of(compute).type == "cpu")
    return ProcessGroup(state.process_index, state.num_processes, state.device)


@contextmanager
def joined(compute: str | None = None) -> Iterator[ProcessGroup]:
    """The group, as long as it works together; what one of it refuses, all refuse.

    Raises:
        InputError: see `join`; or what this process refused.
        RefusedElsewhere: what another one refused, which says so.
    """
    group = join(compute)
    try:
        yield group
    except InputError as error:
        group.tell(error)
        raise
    finally:
        if group.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def partners(
    group: ProcessGroup, done: int | None = None, of_all: type[InputError] | tuple[()] = ()
) -> Iterator[None]:
    """Where all exchange numbers: an `InputError` if another process was lost, after step `done`.

    What this process refuses there cannot be told to the others, unless it is `of_all`, which they
    refuse at the same step.
    """
    try:
        yield
    except InputError as error:
        if group.size == 1 or isinstance(error, of_all):
            raise
        raise _Alone(str(error)) from None
    except RuntimeError as error:
        text = str(error)
        lost = ("peer", "ocket", "imed out", "onnection", "NCCL", "Gloo", "gloo")
        if group.size == 1 or not any(word in text for word in lost):
            raise
        when = "" if done is None else f" after step {done}"
        raise _Alone(
            f"another of the {group.size} processes of this training ended{when}; start them again with "
            "--resume and the run's folder"
        ) from None


class _Sum(torch.autograd.Function):
    """The sum over the group, whose gradient is the sum of the group's gradients."""

    # torch deprecates its own (`torch.distributed.nn`) in favour of a private module.
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


def _summed(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of the whole group, on CPUs too, which torch's own refuses.

    Every process must have as many images. Outside training it is an ordinary batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        n = x.numel() // x.shape[1] * dist.get_world_size()
        values = x.float()
        mean: Tensor = _summed(values.sum((0, 2, 3))) / n
        centred = values - mean[:, None, None]
        variance = _summed(centred.square().sum((0, 2, 3))) / n
        with torch.no_grad():
            share = 0.1 if self.momentum is None else self.momentum
            self.get_buffer("running_mean").lerp_(mean.detach(), share)
            self.get_buffer("running_var").lerp_(variance.detach() * n / (n - 1), share)
            self.get_buffer("num_batches_tracked").add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        scaled: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return scaled.to(x.dtype)


def synchronise(net: nn.Module) -> None:
    """Make a net's batch norms synchronized ones, with the same weights and names."""
    for norm in net.modules():
        if type(norm) is nn.BatchNorm2d:
            norm.__class__ = SyncedBatchNorm2d  # they differ in `forward` alone


def autocast(group: ProcessGroup, precision: str) -> Any:
    """Compute in bfloat16 where that is exact enough, or in float32 throughout."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(group.device.type, dtype=torch.bfloat16)
