"""Trained networks from run folders and imports, whatever their task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bneck.records.imported import normalisation
from bneck.records.run import RunFolder, task_run
from bneck.runs.folder import resumption
from bneck.specs.errors import InputError, few
from bneck.specs.network import NetSpec
from bneck.specs.text import load
from bneck.specs.wrapper import Wrapper
from bneck.tasks.contract import Task
from bneck.tasks.options import stored
from bneck.tasks.registry import DEFAULT, task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """A trained network of a task: its module in evaluation mode, its class names, its record."""

    task: Task
    spec: NetSpec
    wrapper: Wrapper
    net: Any
    labels: tuple[str, ...]
    record: dict[str, Any]
    folder: RunFolder | None

    @property
    def options(self) -> Any:
        """The task's options that it was trained with."""
        return stored(self.task.Options, self.record.get("options", {}).get("task", {}))


def task_of(record: Mapping[str, Any]) -> Task:
    """The task of a record; an import classifies."""
    return task(record.get("task", DEFAULT))


def common_task(networks: Sequence[str]) -> Task:
    """The task of runs that are all of one; else the default."""
    folders = [run_of(network) for network in networks]
    records = [one.read() for one in folders if one is not None and one.run_json.is_file()]
    found = {task_of(record).name for record in records}
    return task(found.pop() if len(found) == 1 and len(records) == len(networks) else DEFAULT)


def of_task(path: str | Path, record: Mapping[str, Any], name: str | None) -> None:
    """Raise InputError where a run is asked for as a network of another task."""
    if name is not None and task_of(record).name != name:
        raise InputError(
            f"{path} is a network of the task {task_of(record).name}, which its run knows; leave --task out"
        )


def wrapper_of(chosen: Task, spec: NetSpec, record: Mapping[str, Any]) -> Wrapper:
    """What surrounds a run's network, from its record; {} is that of a network without a run."""
    classes = len(record.get("classes") or ()) or spec.classes
    return chosen.restored(spec, record.get("wrapper", {}), classes)


def run_of(network: str | Path | NetSpec) -> RunFolder | None:
    """The folder of a run or an import that a network is named by, or None."""
    if isinstance(network, NetSpec):
        return None
    folder = RunFolder(task_run(network))
    return folder if folder.run_json.is_file() or folder.weights.is_file() else None


def trained(
    path: str | Path, *, wanted: Task | None = None, classes: Sequence[str] | None = None
) -> Trained:
    """The trained network of a run or an import.

    Args:
        path: its folder; of a search the network that it found.
        wanted: the task that it must be of.
        classes: class names that it must have, in this order; a network without names needs as many.

    Raises:
        InputError: no trained network, or one of another task or of other classes.
    """
    from bneck.nets.weights import fill

    folder = RunFolder(task_run(path))
    begun = folder.run_json.is_file()
    if not folder.weights.is_file():
        how = resumption(Path(path)) or "pass the folder of a finished run or of bneck import"
        raise InputError(f"{without_weights(path)}; {how}")
    record = folder.read() if begun else {}
    chosen, spec = task_of(record), load(folder.spec)
    if wanted is not None and chosen.name != wanted.name:
        raise InputError(
            f"{path} is a network of the task {chosen.name}, and this one is of the task {wanted.name}; pass a "
            "run of the same task"
        )
    names = tuple(map(str, record.get("classes") or ()))
    labels = names or _numbered(spec.classes)
    if classes is not None and (len(classes) != len(labels) or (names and names != tuple(classes))):
        raise InputError(
            f"{path} knows {len(labels)} classes ({few(labels)}), and the images have {len(classes)} "
            f"({few(classes)}); they must be the same, in the same order"
        )
    wrapper = wrapper_of(chosen, spec, record)
    net: Any = chosen.module(spec, wrapper)
    fill(net, folder.weights, spec.name)
    net.normalisation = normalisation(folder)
    return Trained(
        task=chosen, spec=spec, wrapper=wrapper, net=net.eval(), labels=labels, record=record,
        folder=folder,
    )  # fmt: skip


def without_weights(path: str | Path) -> str:
    """What is wrong with a path that weights were expected at."""
    missing = "" if Path(path).exists() else ": there is no such file or folder"
    return f"{path} has no trained weights{missing}"


def named(network: str | Path | NetSpec, task_name: str | None = None, *, seed: int = 0) -> Trained:
    """A trained network by its folder, or one with random weights by a name, a spec file or a spec.

    Raises:
        InputError: no such network, a run without weights, or one of another task than was asked for.
    """
    if not isinstance(network, NetSpec) and run_of(network) is not None:
        run = trained(network)
        of_task(network, run.record, task_name)
        return run
    chosen = task(task_name or DEFAULT)
    spec, wrapper = chosen.arrange(network, chosen.Options(), None)
    net: Any = chosen.module(spec, wrapper, seed=seed)
    labels = _numbered(getattr(wrapper, "classes", spec.classes))
    return Trained(
        task=chosen,
        spec=spec,
        wrapper=wrapper,
        net=net.eval(),
        labels=labels,
        record={},
        folder=None,
    )


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))
