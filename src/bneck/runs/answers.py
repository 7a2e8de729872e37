"""Trained networks that answer alike: a module on any device, or an exported file in its runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bneck.devices.runtimes import file_runtimes, runtime
from bneck.specs.errors import InputError
from bneck.specs.normalisation import Normalisation
from bneck.specs.text import from_text
from bneck.tasks.contract import Array, Size, Task
from bneck.tasks.registry import DEFAULT, task

if TYPE_CHECKING:
    from torch import nn


class ModuleAnswers:
    """A module, put into evaluation mode; it computes where its parameters are."""

    def __init__(self, chosen: Task, net: Any, labels: tuple[str, ...] = ()) -> None:
        self.task = chosen
        self.net: nn.Module | None = net.eval()
        self.wrapped, self.spec = net.wrapped, net.spec
        self.normalisation: Normalisation = net.normalisation
        self.labels = labels
        self.size: Size | None = None
        self.metadata: Mapping[str, str] = {}
        self.device = next(net.parameters()).device

    def __call__(self, images: Any) -> tuple[Array, ...]:
        """See `tasks.contract.Answers`."""
        import torch

        with torch.inference_mode():
            batch = torch.as_tensor(images).to(self.device)
            assert self.net is not None
            found = self.task.outputs(self.net, batch.contiguous(memory_format=torch.channels_last))
        return tuple(one.float().cpu().numpy() for one in found)


class FileAnswers:
    """An exported file on one thread of its runtime. Needs no torch.

    Raises:
        InputError: not a file that bneck exported, or one that its runtime cannot load.
    """

    def __init__(self, path: Path, runtime_name: str | None = None) -> None:
        fitting = file_runtimes(path) if path.is_file() else ()
        if not fitting:
            raise InputError(
                f"{path} is not an exported file; pass a run's folder or a file that bneck export wrote"
            )
        self.path = path
        self.net: nn.Module | None = None
        self.engine = runtime(runtime_name or fitting[0])
        self.session = self.engine.load(self.engine.read(path), threads=1)
        self.metadata: Mapping[str, str] = self.session.metadata
        told = self.metadata
        self.task = task(told.get("task", DEFAULT))
        try:
            self.spec = from_text(told["spec"])
            self.labels: tuple[str, ...] = tuple(map(str, json.loads(told["classes"])))
            self.normalisation = Normalisation(
                tuple(json.loads(told["mean"])), tuple(json.loads(told["std"]))
            )
            wrapper = self.task.restored(self.spec, self.task.told(told), len(self.labels))
            self.wrapped = wrapper.around(self.spec)
            self.size: Size | None = self._size(told)
        except (KeyError, ValueError, TypeError):
            raise InputError(
                f"{path} was not exported by this version of bneck: its metadata lacks something; export it "
                "again with bneck export"
            ) from None

    @staticmethod
    def _size(told: Mapping[str, str]) -> Size:
        if "size" in told:
            height, width = json.loads(told["size"])
            return int(height), int(width)
        return int(told["resolution"]), int(told["resolution"])

    def __call__(self, images: Any) -> tuple[Array, ...]:
        """See `tasks.contract.Answers`; image by image, as a device would."""
        batch = np.ascontiguousarray(np.asarray(images))
        if self.metadata.get("input") == "pixels":
            batch = self._as_pixels(batch)
        each = [self.session.run_all(one[None]) for one in batch]
        return tuple(np.concatenate(part) for part in zip(*each, strict=True))

    def _as_pixels(self, images: Array) -> Array:
        """Normalised (N, 3, H, W) back to uint8 (N, H, W, 3), for files that normalise by themselves."""
        mean, std = (
            np.array(v, np.float32)[:, None, None]
            for v in (self.normalisation.mean, self.normalisation.std)
        )
        pixels = np.rint((images * std + mean) * 255).clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def answering(path: str | Path) -> ModuleAnswers | FileAnswers:
    """What answers behind a path: an exported file, or the trained network of a run or an import.

    Raises:
        InputError: neither.
    """
    from bneck.runs.load import trained

    place = Path(path)
    if place.is_file():
        return FileAnswers(place)
    run = trained(place)
    return ModuleAnswers(run.task, run.net, run.labels)
