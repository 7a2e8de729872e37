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
from bneck.nets.build import WrappedNet, build
from bneck.nets.shrink import ShrinkError, kept_channels, shrink_into, widths
from bneck.nets.transfer import is_folded, restore_statistics, take_rows, transferred
from bneck.records.files import cache_folder, locked
from bneck.records.progress import Progress, Silent
from bneck.records.run import RunFolder, task_run
from bneck.runs.imports import import_weights
from bneck.runs.load import Trained, task_of, trained, without_weights
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import load, resolve
from bneck.specs.transforms import fix_skips, with_resolution
from bneck.specs.wrapper import PLAIN, Wrapper
from bneck.tasks.contract import Data, Dataset, Task
from bneck.tasks.options import Keep
from bneck.training.processes import ALONE, ProcessGroup
from bneck.training.settings import Settings


@dataclass(frozen=True, slots=True)
class Start:
    """Weights to start from: their folder, and the text that means them also in a year.

    `notes` are sentences for the user of an import that was made or found for this text.
    """

    folder: Path
    text: str
    notes: tuple[str, ...] = ()

    def tell(self, progress: Progress | None) -> None:
        """Say what the user should know of the import; a command says it once, where it begins."""
        for sentence in self.sentences:
            (progress or Silent()).say(sentence)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The notes, each with the weights that it is of."""
        path = Path(self.text)
        name = path.name if path.is_absolute() else self.text
        return tuple(f"{name}: {note}" for note in self.notes)

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
        progress: receives the steps of a download; notes are said by `Start.tell` alone.

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
                f"{without_weights(start)}; pass the folder of a finished run or of bneck import, a file of "
                "published weights, or a name that bneck import --list prints"
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
    return Start(folder, text, tuple(RunFolder(folder).read()["notes"]))


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


def comparable(
    chosen: Task, options: Any, dataset: Dataset, wrapper: Wrapper, resolution: int, start: Path
) -> NetSpec:
    """The network of other weights, to be compared with one in this wrapper at this resolution.

    Raises:
        InputError: the weights are of another task, or the network cannot stand in the wrapper.
    """
    spec, _ = chosen.arrange(str(start), options, dataset)
    spec = fix_skips(with_resolution(compatible(chosen, spec, start), resolution))
    wrapper.network(spec)
    return spec


def fitting(chosen: Task, spec: NetSpec, wrapper: Wrapper, start: Start, *, advice: str) -> NetSpec:
    """The network as the start's weights need it, see `compatible`.

    Raises:
        InputError: the weights are of another task, or of a network that cannot become this one, which
            is said before any image is read; `advice` says what to do then.
    """
    spec = compatible(chosen, spec, start.folder)
    held = load(RunFolder(start.folder).spec)
    if wrapper == PLAIN:
        try:
            transferred(build(held), spec)
        except ShrinkError as error:
            raise InputError(
                f"the weights of {start.text} are of {held.name}, which cannot become {spec.name}: {error}; "
                f"{advice}"
            ) from None
    return spec


@dataclass(frozen=True, slots=True)
class Begun:
    """A net that begins with trained weights; how its channels were chosen, {} where all are kept."""

    net: WrappedNet
    channels: dict[str, Any]


def narrows(source: Path, spec: NetSpec, wrapper: Wrapper) -> bool:
    """Whether the network has fewer channels or rows than the weights of a run's or an import's folder."""
    held = load(RunFolder(source).spec)
    # What stands after the pool takes part in classifiers alone.
    end = None if wrapper == PLAIN else spec.pool_at
    return [*map(widths, held.rows[: end and held.pool_at])] != [*map(widths, spec.rows[:end])]


def started(
    chosen: Task,
    spec: NetSpec,
    wrapper: Wrapper,
    source: Path,
    data: Data,
    *,
    settings: Settings,
    progress: Progress,
    keep: Keep = "fisher",
    group: ProcessGroup = ALONE,
) -> Begun:
    """A net that begins with the weights of `source`; where narrower, with its most important channels.

    Args:
        chosen: the task.
        spec: the network, see `compatible`.
        wrapper: what stands around it; what the start has no weights for is initialised from the
            settings' seed.
        source: a run's or an import's folder (`find_start` makes one of a file or a hub's name).
        data: images, on which importance is measured, and from which folded batch norms get statistics.
        settings: of the training; importance is measured on its batches.
        progress: receives what was taken.
        keep: which channels of a wider start: by importance, or by L2 norm.
        group: where it is measured; every process does all of it.

    Raises:
        InputError: the source is of another network.
    """
    held = trained(source)
    begin: Any = held.net
    if is_folded(begin):
        progress.say(
            "batch norm is folded in the start's weights: its statistics are taken from the images"
        )
        count, batch = chosen.statistics
        probe: Any = chosen.module(spec, wrapper)
        probe.normalisation = begin.normalisation
        restore_statistics(begin, torch.split(data.images(probe, "train", count), batch))
    wide, new_head = _as_wide(held, chosen, spec, wrapper, seed=settings.seed)
    importance, channels = None, dict[str, Any]()
    if narrows(source, spec, wrapper):
        channels["keep"] = keep
        if keep == "fisher":
            importance = data.importance(wide, settings, progress, group=group)
            channels |= {"images": importance.images, "new_head": new_head}
            through = " through a new head" if new_head else ""
            progress.say(
                f"keeping the start's most important channels, measured on {importance.images} training images"
                f"{through}; their weights are recomputed by least squares"
            )
    if wrapper == PLAIN:
        net: Any = transferred(begin, spec, seed=settings.seed, importance=importance)
    else:
        net = shrink_into(wide, chosen.module(spec, wrapper), importance)
    if importance is not None:
        kept = kept_channels(wide, net.wrapped, importance)
        channels["reconstructed_on"] = data.reconstruct(wide, net, kept, settings)
    if wrapper != PLAIN and new_head:  # its weights begin as suits its own widths
        narrow, net = net, chosen.module(spec, wrapper, seed=settings.seed)
        net.normalisation = begin.normalisation
        take_rows(net, narrow.state_dict(), str(source))
        other = "; its head is of other classes" if held.task.name == chosen.name else ""
        progress.say(f"the backbone starts from the weights of {held.spec.name}{other}")
    return Begun(net, channels)


def _as_wide(
    held: Trained, chosen: Task, spec: NetSpec, wrapper: Wrapper, *, seed: int
) -> tuple[Any, bool]:
    """The task's network as wide as a start, with its weights; whether the head has new ones."""
    begin: Any = held.net
    wide = replace(held.spec, classes=spec.classes, resolution=spec.resolution)
    same = held.task.name == chosen.name
    if same and wrapper == PLAIN:
        return transferred(begin, wide, seed=seed), wide.classes != held.spec.classes
    if same and chosen.stored(begin.spec, held.wrapper) == chosen.stored(wide, wrapper):
        return shrink_into(begin, chosen.module(wide, wrapper)), False
    net: Any = chosen.module(wide, wrapper, seed=seed)
    net.normalisation = begin.normalisation
    take_rows(net, begin.state_dict(), str(held.folder))
    return net, True
