"""Beginning a training from weights: of the same task whole, of a classifier its backbone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bneck.nets.build import WrappedNet
from bneck.nets.shrink import shrink_into
from bneck.nets.transfer import is_folded, restore_statistics, take_rows, transferred
from bneck.records.progress import Progress
from bneck.records.run import RunFolder, task_run
from bneck.runs.imports import import_weights
from bneck.runs.load import task_of, trained
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import load
from bneck.specs.wrapper import PLAIN, Wrapper
from bneck.tasks.contract import Data, Task
from bneck.training.processes import ProcessGroup


def compatible(chosen: Task, spec: NetSpec, start: Path) -> NetSpec:
    """The network as the start's weights need it: with their padding and batch norm's epsilon.

    Raises:
        InputError: no trained weights there, or those of another task that cannot begin this one.
    """
    if start.is_file():
        return spec  # a file of published weights says what it needs when it is imported
    folder = RunFolder(task_run(start))
    if not folder.weights.is_file():
        raise InputError(
            f"{start} has no trained weights; pass the folder of a finished run or of bneck import, or a "
            "file of published weights"
        )
    record = folder.read() if folder.run_json.is_file() else {}
    other = task_of(record)
    if other.name != chosen.name and record.get("wrapper"):
        raise InputError(
            f"{start} is a network of the task {other.name}, whose backbone lacks the last layers of a "
            f"network of the task {chosen.name}; start from a classifier or from a run of the same task"
        )
    held = load(folder.spec)
    return replace(spec, padding=held.padding, bn_eps=held.bn_eps)


def started(
    chosen: Task,
    spec: NetSpec,
    wrapper: Wrapper,
    source: Path,
    place: Path,
    data: Data,
    *,
    seed: int,
    group: ProcessGroup,
    progress: Progress,
) -> WrappedNet:
    """A net that begins with the weights of `source`; where narrower, with its most important channels.

    Args:
        chosen: the task.
        spec: the network, see `compatible`.
        wrapper: what stands around it; its own weights are initialised from `seed`.
        source: a run's or an import's folder, or a file of published weights.
        place: where a file is imported to.
        data: images, from which folded batch norms get statistics.
        seed: of what the start has no weights for.
        group: the processes that train together; the first one imports.
        progress: receives what was taken.

    Raises:
        InputError: the source is of another network.
    """
    if source.is_file():
        if group.first and not RunFolder(place).run_json.is_file():
            shutil.rmtree(place, ignore_errors=True)
            import_weights(source, spec, out=place)
        group.wait()
        source = place
        spec = compatible(chosen, spec, place)
    held = trained(source)
    begin: Any = held.net
    if held.task.name == chosen.name and wrapper != PLAIN:
        # The whole network where its head fits, else the backbone alone.
        if chosen.stored(begin.spec, held.wrapper) == chosen.stored(spec, wrapper):
            return shrink_into(begin, chosen.module(spec, wrapper))
        net = chosen.module(spec, wrapper, seed=seed)
        taken, other = (
            shrink_into(begin, chosen.module(spec, held.wrapper)),
            "; its head is of other classes",
        )
    else:
        if is_folded(begin):
            progress.say(
                "batch norm is folded in the start's weights: its statistics are taken from the images"
            )
            count, batch = chosen.statistics
            probe: Any = chosen.module(spec, wrapper, seed=seed)
            probe.normalisation = begin.normalisation
            restore_statistics(begin, torch.split(data.images(probe, "train", count), batch))
        if wrapper == PLAIN:
            return transferred(begin, spec, seed=seed)
        net = chosen.module(spec, wrapper, seed=seed)
        taken, other = transferred(begin, net.spec), ""
    net.normalisation = begin.normalisation
    take_rows(net, taken.state_dict(), str(source))
    progress.say(f"the backbone starts from the weights of {source}{other}")
    return net
