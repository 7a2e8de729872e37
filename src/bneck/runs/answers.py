"""Trained networks that answer alike: a module on any device, or an exported file in its runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bneck.devices.runtimes import file_runtimes, runtime
from bneck.records.run import RunFolder, task_run
from bneck.specs.errors import InputError
from bneck.specs.normalisation import Normalisation
from bneck.specs.text import from_text, load
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
            self.size: Size | None = image_size(told)
        except (KeyError, ValueError, TypeError):
            raise InputError(
                f"{path} was not exported by this version of bneck: its metadata lacks something; export it "
                "again with bneck export"
            ) from None

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


def image_size(metadata: Mapping[str, str]) -> Size:
    """(height, width) in pixels of the image that an exported file takes.

    Raises:
        KeyError, ValueError: the metadata lacks it.
    """
    if "size" in metadata:
        height, width = json.loads(metadata["size"])
        return int(height), int(width)
    return int(metadata["resolution"]), int(metadata["resolution"])


def answering(
    path: str | Path, compute: str | None = None
) -> tuple[ModuleAnswers | FileAnswers, dict[str, Any], RunFolder | None]:
    """What answers for a path, the record of its run, and the run's folder; a file has none.

    An exported file's record is that of the run in whose folder it lies, see `record_next_to`. `compute` is
    where a module computes, see `training.processes.device_of`.

    Raises:
        InputError: neither an exported file nor the trained network of a run or an import.
    """
    place = task_run(path)
    if place.is_file():
        if compute not in (None, "cpu"):
            raise InputError(
                f"--compute {compute} is for a run's folder, and {path} is a file, which runs on the "
                "processor; leave it out"
            )
        answers = FileAnswers(place)
        return answers, record_next_to(answers), None
    from bneck.runs.load import trained
    from bneck.training.processes import device_of

    run = trained(place)
    return (
        ModuleAnswers(run.task, run.net.to(device_of(compute)), run.labels),
        run.record,
        run.folder,
    )


def record_next_to(answers: FileAnswers) -> dict[str, Any]:
    """The record of the run in whose folder a file lies.

    {} where there is none, or where the file is of another network or of other classes.
    """
    folder = RunFolder(answers.path.parent)
    if not (folder.run_json.is_file() and folder.spec.is_file()):
        return {}
    record = folder.read()
    classes = tuple(map(str, record.get("classes") or answers.labels))
    own = answers.labels == classes and answers.spec.digest() == load(folder.spec).digest()
    return record if own else {}
