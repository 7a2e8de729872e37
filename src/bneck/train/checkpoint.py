"""Checkpoints: one safetensors file with weights, optimiser and average, whole or not there."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from bneck.nets.weights import load_weights, save_weights
from bneck.specs.errors import InputError
from bneck.train.optim import WeightAverage

_OWN = ("net", "average", "steps")  # all other groups are the optimiser's, by its own names


class Checkpoint:
    """State of a training run between steps. Without a path it saves nothing."""

    def __init__(
        self,
        path: Path | None,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage,
    ) -> None:
        self.path = path
        self.net = net
        self.optimizer = optimizer
        self.average = average

    def restore(self) -> int:
        """Load the file if it is there; steps done so far.

        Raises:
            InputError: the file belongs to another network.
        """
        if self.path is None or not self.path.is_file():
            return 0
        tensors = load_weights(self.path)
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            groups.setdefault(part, {})[name] = value
        try:
            self.net.load_state_dict(groups["net"])
            self.average.restore(groups["average"], int(groups["steps"]["average"]))
            for i, parameter in enumerate(self._parameters()):
                self.optimizer.state[parameter] = {
                    key: values[str(i)].contiguous(memory_format=_format(parameter))
                    for key, values in groups.items()
                    if key not in _OWN and str(i) in values  # none before its first gradient
                }
        except (RuntimeError, KeyError):
            raise InputError(f"{self.path} is a checkpoint of another network") from None
        return int(groups["steps"]["done"])

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
        save_weights(tensors, self.path)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _format(parameter: Tensor) -> torch.memory_format:
    return torch.channels_last if parameter.dim() == 4 else torch.contiguous_format
