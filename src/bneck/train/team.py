"""The processes that train one net together, one a device; a single one is a team too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bneck.specs.errors import InputError

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Team:
    """`size` processes of which this one is number `rank`, and the device that it computes on."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and talks."""
        return self.rank == 0

    def together(self, net: nn.Module) -> nn.Module:
        """The net, whose gradients are the mean over the team's."""
        if self.size == 1:
            return net
        return DistributedDataParallel(net)

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
        """What the first process has; the others' values are not looked at. All wait for it."""
        if self.size == 1:
            return value
        sent = torch.zeros(4096, dtype=torch.uint8, device=self.device)
        if self.first:
            data = os.fsencode(value)
            sent[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        dist.broadcast(sent, 0)
        return os.fsdecode(bytes(sent.cpu().numpy()).rstrip(b"\0"))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


ALONE = Team()


def join() -> Team:
    """The team that a launcher (`accelerate launch`, `torchrun`) made this process a part of.

    Without a launcher a process is alone, on the first GPU or else on the processor.

    Raises:
        InputError: there is a launcher, and Accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Team(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        from accelerate import PartialState
    except ImportError:
        raise InputError(
            "several processes train together through Accelerate, which is not installed; "
            "run: pip install 'bneck[train]'"
        ) from None
    state = PartialState(cpu=not torch.cuda.is_available())
    return Team(state.process_index, state.num_processes, state.device)


def leave(team: Team) -> None:
    """End the exchange with the others."""
    if team.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def partners(team: Team, done: int) -> Iterator[None]:
    """Say in one sentence that another process of the team was lost.

    Raises:
        InputError: in place of what the exchange raises.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        lost = ("peer", "ocket", "imed out", "onnection", "NCCL", "Gloo", "gloo")
        if team.size == 1 or not any(word in text for word in lost):
            raise
        raise InputError(
            f"another of the {team.size} processes of this training ended behind step {done}; start "
            "them again with --resume and the run's folder"
        ) from None


class _Sum(torch.autograd.Function):
    """The sum over the team, whose gradient is the sum of the team's gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _summed(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of the whole team, on processors too, which torch's own is not.

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
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            share = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach(), share)
            self.running_var.lerp_(variance.detach() * n / (n - 1), share)
            self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        scaled: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return scaled.to(x.dtype)


def synchronise(net: nn.Module) -> None:
    """Put synchronised batch norms in place of a net's own, with the same weights and names."""
    for parent in list(net.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm) is nn.BatchNorm2d:
                synced = SyncedBatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum)
                synced.weight, synced.bias = norm.weight, norm.bias
                synced.running_mean, synced.running_var = norm.running_mean, norm.running_var
                synced.num_batches_tracked = norm.num_batches_tracked
                setattr(parent, name, synced)


def autocast(team: Team, precision: str) -> Any:
    """Compute in bfloat16 where that is exact enough, or in float32 throughout."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(team.device.type, dtype=torch.bfloat16)
