"""Networks by name: their specs, costs and modules; the Python equivalents of the small commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.costs.count import Count, count_whole
from bneck.runs.load import named, run_of, task_of, wrapper_of
from bneck.specs.network import NetSpec
from bneck.specs.text import load, resolve
from bneck.tasks.options import of_command, parted
from bneck.tasks.registry import DEFAULT, tasks
from bneck.tasks.registry import task as task_named

Network = str | Path | NetSpec


def network(name: Network) -> NetSpec:
    """The spec behind a zoo name (`v3-small-0.75@192`), a spec file or a run's folder.

    Raises:
        InputError: it is none of them; the nearest names are offered.
    """
    return resolve(name)


def count(name: Network, *, task: str = DEFAULT, **options: Any) -> Count:
    """Parameters, multiply-adds and activation memory of a network, in total and by row.

    Args:
        name: a zoo name, a spec file, a run's folder or a spec.
        task: what it is for; what stands around it is counted too.
        **options: options of the task that count takes (docs/commands.md). A run of this task is
            counted as it was trained, except for what is given here.

    Raises:
        InputError: no such network.
    """
    chosen = task_named(task)
    said = {name: value for name, value in options.items() if value is not None}
    folder = run_of(name)
    record = folder.read() if folder is not None and folder.run_json.is_file() else {}
    if folder is not None and record and task_of(record).name == chosen.name:
        spec = load(folder.spec)
        if not said:
            return count_whole(spec, wrapper_of(chosen, spec, record))
        trained = {**record.get("wrapper", {}), "classes": len(record.get("classes") or ()) or None}
        taken = {one.name for one in of_command(chosen.Options, "count")}
        said = {key: value for key, value in trained.items() if key in taken} | said
    _, own = parted(chosen, "count", said, tasks())
    return count_whole(*chosen.arrange(name, own, None))


def zoo(
    pattern: str = "*", *, task: str = DEFAULT, published: bool = False
) -> list[dict[str, Any]]:
    """The known networks of a task: exact counts and what was printed about each.

    Args:
        pattern: shell-style, as "v3-small*"; a name without wildcards stands for what begins with it.
        task: its name.
        published: list every published score instead, with its source and the weights that have it.

    Raises:
        InputError: nothing has such a name.
    """
    chosen = task_named(task)
    table = chosen.published(pattern) if published else chosen.zoo(pattern)
    return [dict(values) for values in table.values]


def build(name: Network, *, task: str | None = None, seed: int = 0) -> Any:
    """The torch module of a network; a finished run's folder gives its trained weights.

    `normalisation` of the module says what input they were made for, `wrapper` what stands around
    its backbone.

    Raises:
        InputError: no such network.
    """
    return named(name, task, seed=seed).net
