"""Checkpoints: one safetensors file with weights, optimizer and average, whole or not there."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from bneck.nets.weights import load_weights, save_weights
from bneck.specs.errors import InputError
from bneck.training.health import Health
from bneck.training.optim import WeightAverage

_OWN = ("net", "average", "steps", "loss")  # all other groups are the optimizer's, by its names


@dataclass(slots=True)
class Checkpoint:
    """State of a training run between two steps. Without a path it saves nothing.

    The next file replaces the last one at once when it is whole, so the newest good one is always there.
    """

    path: Path | None
    net: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage
    health: Health
    step: int | None = field(default=None, init=False)  # of the file, once this process knows it
    _saved_at: float = field(default_factory=time.monotonic, init=False)

    def restore(self) -> int:
        """Load the file if it is there; steps done so far.

        Raises:
            InputError: the file belongs to another network.
        """
        if self.path is None or not self.path.is_file():
            return 0
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in load_weights(self.path).items():
            part, _, name = key.partition("/")
            groups.setdefault(part, {})[name] = value
        try:
            self.net.load_state_dict(groups["net"])
            self.average.restore(groups["average"], int(groups["steps"]["average"]))
            for i, parameter in enumerate(self._parameters()):
                self.optimizer.state[parameter] = {
                    key: values[str(i)].to(parameter.device, memory_format=_format(parameter))
                    for key, values in groups.items()
                    if key not in _OWN and str(i) in values  # none before its first gradient
                }
            loss = groups["loss"]
            self.health.steps = int(loss["steps"])
            self.health.first, self.health.running = float(loss["first"]), float(loss["running"])
        except (RuntimeError, KeyError):
            raise InputError(f"{self.path} is a checkpoint of another network") from None
        self.step = int(groups["steps"]["done"])
        return self.step

    def save(self, done: int) -> None:
        """Write the state after `done` steps."""
        if self.path is None:
            return
        tensors = {f"net/{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"average/{k}": v for k, v in self.average.state.items()}
        for i, parameter in enumerate(self._parameters()):
            state = self.optimizer.state[parameter]
            tensors |= {f"{k}/{i}": v for k, v in state.items() if isinstance(v, Tensor)}
        tensors["steps/done"] = torch.tensor(done)
        tensors["steps/average"] = torch.tensor(self.average.updates)
        tensors["loss/steps"] = torch.tensor(self.health.steps)
        tensors["loss/first"] = torch.tensor(self.health.first, dtype=torch.float64)
        tensors["loss/running"] = torch.tensor(self.health.running, dtype=torch.float64)
        save_weights(tensors, self.path)
        self.step, self._saved_at = done, time.monotonic()

    def due(self, every_s: float) -> bool:
        """Whether the last save is longer ago than `every_s` seconds."""
        return self.path is not None and time.monotonic() - self._saved_at >= every_s

    def __str__(self) -> str:
        if self.step is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self.path}, of step {self.step}"

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _format(parameter: Tensor) -> torch.memory_format:
    return torch.channels_last if parameter.dim() == 4 else torch.contiguous_format
