"""Weights to start from, by name, file or folder: whole of the same task, the backbone of a classifier."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bneck.imports.hub import fetch, hub_name
from bneck.imports.match import which_network
from bneck.imports.read import read_source
from bneck.nets.build import WrappedNet
from bneck.nets.shrink import shrink_into
from bneck.nets.transfer import is_folded, restore_statistics, take_rows, transferred
from bneck.records.files import cache_folder, locked
from bneck.records.progress import Progress, Silent
from bneck.records.run import RunFolder, task_run
from bneck.runs.imports import import_weights
from bneck.runs.load import task_of, trained
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import load, resolve
from bneck.specs.wrapper import PLAIN, Wrapper
from bneck.tasks.contract import Data, Task


@dataclass(frozen=True, slots=True)
class Start:
    """Weights to start from: their folder, and the text that means them also in a year."""

    folder: Path
    text: str

    def record(self) -> dict[str, Any] | None:
        """Where they came from: file, sha256, layout, repository, commit, licence; None for a run."""
        held = RunFolder(self.folder)
        return held.read().get("source") if held.run_json.is_file() else None


def find_start(
    start: str, network: str | Path | NetSpec | None = None, progress: Progress | None = None
) -> Start:
    """The weights that a text names; those of a hub's repository or a file are imported into the cache.

    Args:
        start: a run's or an import's folder, a file of published weights, or a name on the hub.
        network: which network a file holds if it is no network of the zoo.
        progress: receives the steps of a download.

    Raises:
        InputError: no such file, folder or repository, or weights that cannot be imported.
    """
    name, options = hub_name(start), dict[str, Any]()
    if name is not None:
        fetched = fetch(name, progress or Silent())
        # A branch moves on: a resumed run takes the commit that it began with.
        file, text = fetched.file, str(fetched.name)
    elif Path(start).is_file():
        file, text = Path(start), str(Path(start).resolve())
        if network is not None and which_network(read_source(file).filters) is None:
            options = {"network": resolve(network)}
    else:
        folder = task_run(start)
        if not RunFolder(folder).weights.is_file():
            raise InputError(
                f"{start} has no trained weights; pass the folder of a finished run or of bneck import, a file "
                "of published weights, or a name that bneck import --list prints"
            )
        return Start(folder, str(Path(start).resolve()))
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()[:16]
    key = "-".join([digest, *(spec.digest()[:8] for spec in options.values())])
    folder = cache_folder("imports") / key
    with locked(folder.with_name(f"{key}.lock"), on_wait=lambda: None):
        if not RunFolder(folder).run_json.is_file():
            shutil.rmtree(folder, ignore_errors=True)  # an import that was killed
            import_weights(text, **options, out=folder, progress=progress)
    for note in RunFolder(folder).read()["notes"]:
        (progress or Silent()).say(f"{start}: {note}")
    return Start(folder, text)


def compatible(chosen: Task, spec: NetSpec, start: Path) -> NetSpec:
    """The network as the start's weights need it: with their padding and batch norm's epsilon.

    Raises:
        InputError: the weights are of another task and cannot begin this one.
    """
    folder = RunFolder(start)
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
    data: Data,
    *,
    seed: int,
    progress: Progress,
) -> WrappedNet:
    """A net that begins with the weights of `source`; where narrower, with its most important channels.

    Args:
        chosen: the task.
        spec: the network, see `compatible`.
        wrapper: what stands around it; its own weights are initialised from `seed`.
        source: a run's or an import's folder (`find_start` makes one of a file or a hub's name).
        data: images, from which folded batch norms get statistics.
        seed: of what the start has no weights for.
        progress: receives what was taken.

    Raises:
        InputError: the source is of another network.
    """
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
