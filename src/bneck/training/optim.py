"""RMSProp as TensorFlow has it, the learning-rate schedules and the weight average of 6.1.1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

Schedule = Literal["exponential", "cosine", "poly"]
Decayed = Literal["full", "convolutions", "all"]
POLY_POWER = 0.9


class RmsPropTF(torch.optim.Optimizer):
    """RMSProp with epsilon inside the root, squares that start at 1, and lr inside the momentum.

    square <- decay square + (1 - decay) g^2; step <- momentum step + lr g / sqrt(square + eps);
    weight <- weight - step. `weight_decay` is L2: it is added to the gradient.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, decay: float = 0.9, momentum: float = 0.9,
        eps: float = 2e-3, weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        named = {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps}
        super().__init__(params, {**named, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p] = {"square": torch.ones_like(p), "step": torch.zeros_like(p)}
            squares, steps = ([self.state[p][name] for p in params] for name in ("square", "step"))
            grads = [p.grad for p in params if p.grad is not None]
            if group["weight_decay"]:
                grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, grads, grads, 1 - group["decay"])
            roots = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(steps, group["momentum"])
            torch._foreach_addcdiv_(steps, grads, roots, group["lr"])
            torch._foreach_sub_(params, steps)


def grouped(net: nn.Module, weight_decay: float, decayed: Decayed = "full") -> list[dict[str, Any]]:
    """Two parameter groups, those that L2 pulls at and those that it leaves alone.

    "full": weights of full convolutions, as the authors' released code has it; "convolutions":
    those of depthwise ones too; "all": batch norm and biases as well. Parameters that need no
    gradient are in neither.
    """
    pulled: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for module in net.modules():
        conv = module if isinstance(module, nn.Conv2d) else None
        wide = conv is not None and (decayed == "convolutions" or conv.groups == 1)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                pull = decayed == "all" or (wide and name == "weight")
                (pulled if pull else free).append(parameter)
    return [{"params": pulled, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def slowed(groups: list[dict[str, Any]], part: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Parameter groups with those of a part of the net in groups of their own, whose `rate` scales the lr."""
    inside = {id(parameter) for parameter in part.parameters()}
    found = []
    for group in groups:
        for own, factor in ((False, 1.0), (True, rate)):
            params = [one for one in group["params"] if (id(one) in inside) == own]
            found.append({**group, "params": params, "rate": factor})
    return [group for group in found if group["params"]]


def learning_rate(
    schedule: Schedule, peak: float, *, epoch: float, epochs: float, warmup: float
) -> float:
    """Learning rate at a fractional epoch: a linear warm-up, then the schedule.

    "exponential" is the paper's: x 0.99 every 3 epochs, in steps. "cosine" falls to 0 at `epochs`,
    and so does "poly", the remaining fraction to the power of 0.9 (the DeepLab line's, 6.4).
    """
    if epoch < warmup:
        return peak * epoch / warmup
    if schedule == "exponential":
        return peak * 0.99 ** int((epoch - warmup) / 3)
    progress = (epoch - warmup) / max(epochs - warmup, 1e-9)
    if schedule == "poly":
        return float(peak * (1 - min(progress, 1.0)) ** POLY_POWER)
    return peak * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class WeightAverage:
    """Exponential moving average of weights and batch norm's statistics.

    The decay at update t is min(decay, (1 + t) / (10 + t)), so that short runs are not held back
    by their random start.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state = {k: v.detach().clone() for k, v in net.state_dict().items()}
        self._net: nn.Module | None = None

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move towards the net's weights."""
        if net is not self._net:
            self._pair(net)
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._mine, self._theirs, share)
        for mine, theirs in self._counters:
            mine.copy_(theirs)

    def restore(self, state: dict[str, Tensor], updates: int) -> None:
        """Continue from a checkpoint."""
        self.updates = updates
        for name, value in state.items():
            self.state[name].copy_(value)

    def _pair(self, net: nn.Module) -> None:
        # Naming a net's tensors takes longer than averaging them; they stay where they are.
        self._net = net
        pairs = [(self.state[name], value) for name, value in net.state_dict().items()]
        floats = [pair for pair in pairs if pair[1].is_floating_point()]
        self._mine, self._theirs = [a for a, _ in floats], [b for _, b in floats]
        self._counters = [pair for pair in pairs if not pair[1].is_floating_point()]
