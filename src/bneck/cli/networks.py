"""The commands about networks by name: show, count, zoo."""

from __future__ import annotations

from typing import Annotated, Any

from typer import Argument, Option

from bneck.cli.generated import with_options
from bneck.cli.options import NAMES, Json, TaskName, print_json, print_plain, print_table
from bneck.cli.tables import spec_table
from bneck.tasks.registry import DEFAULT, tasks
from bneck.tasks.registry import task as task_named


def show(
    network: Annotated[str, Argument(help=NAMES)],
    text: Annotated[bool, Option("--text", help="Print the spec as yaml.")] = False,
    as_json: Json = False,
) -> None:
    """Print a network's table with the cost of every row. Python: bneck.count(network).rows"""
    from bneck.costs.count import count
    from bneck.specs.text import resolve, to_text

    spec = resolve(network)
    if as_json:
        table = task_named(DEFAULT).count([network], task_named(DEFAULT).Options())
        print_json({**table.values[0], "spec": to_text(spec)})
    elif text:
        print(to_text(spec), end="")
    else:
        print_table(spec_table(spec, count(spec)))


@with_options("count")
def count(
    networks: Annotated[list[str], Argument(help=NAMES)],
    task: TaskName = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Count parameters, multiply-adds and activation memory. Python: bneck.count(network, task=...)"""
    from bneck.runs.load import common_task
    from bneck.tasks.options import parted

    chosen = common_task(networks) if task is None else task_named(task)
    _, own = parted(chosen, "count", given, tasks())
    table = chosen.count(networks, own)
    if as_json:
        values = [dict(one) for one in table.values]
        print_json(values[0] if len(values) == 1 else values)
        return
    print_plain(table)


def zoo(
    pattern: Annotated[str, Argument(help="Beginning of a name, or v3-*@96.")] = "*",
    published: Annotated[
        bool, Option("--published", help="List published scores, their sources, and the weights.")
    ] = False,
    task: TaskName = None,
    as_json: Json = False,
) -> None:
    """List networks by name, their counts next to the printed ones. Python: bneck.zoo()"""
    chosen = task_named(task or DEFAULT)
    table = chosen.published(pattern) if published else chosen.zoo(pattern)
    if as_json:
        print_json([dict(one) for one in table.values])
        return
    print_plain(table)
