"""What several commands share: options, and printing for programs and for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer import Option

from bneck.tasks.contract import Table as PlainTable
from bneck.tasks.registry import DEFAULT, tasks


def _tasks() -> str:
    words = "; ".join(f"{task.name}: {task.summary}" for task in tasks())
    return f"What the network is for. {words}. Default {DEFAULT}."


TaskName = Annotated[str | None, Option("--task", help=_tasks())]
DataFolder = Annotated[
    str | None,
    Option(
        "--data",
        help="Your images, as the task reads them (docs/reference/data.md); default the built-in images, "
        "which only classification has.",
    ),
]
NAMES = "A network (v3-large, v3-small-0.75+relu@192), a spec file or a run's folder."
WHERE = "Where: local, ssh:[USER@]HOST[:PORT], adb:SERIAL or browser[:PORT]."
RUNTIMES = "onnxruntime, litert, openvino, executorch, torch or torch-compiled"
RUNTIME = f"Runtime of the classifiers: {RUNTIMES}; default the device's."
JSON_VERSION = (
    1  # goes up when a field that docs/json.md names is renamed, removed or means something else
)
Json = Annotated[bool, Option("--json", help="Print json for programs.")]
Device = Annotated[str, Option(help=WHERE)]
Threads = Annotated[int, Option(help="Threads of the runtime.")]


def print_json(value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Print an object or a list of objects as json, each with the version of its fields (docs/json.md)."""
    version = {"json_version": JSON_VERSION}
    versioned: Any = (
        {**version, **value}
        if isinstance(value, Mapping)
        else [{**version, **one} for one in value]
    )
    print(json.dumps(versioned, indent=1))


def print_line(line: str, *, stderr: bool = False) -> None:
    """Print a line; on a terminal it is broken between words."""
    console = Console(stderr=stderr)
    if console.is_terminal:
        console.print(line, markup=False, highlight=False, emoji=False)
    else:
        print(line, file=sys.stderr if stderr else sys.stdout)


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table; one that is wider than the terminal has a paragraph for each row, and nothing is cut off.

    In a file lines may get long.
    """
    console = console or Console()
    wide = console.options.update(max_width=1_000)
    needed = console.measure(table, options=wide).maximum
    if console.is_terminal and needed > console.width:
        _print_rows(console, table)
        return
    console.width = max(console.width, needed)
    console.print(table)


def _print_rows(console: Console, table: Table) -> None:
    """A paragraph per row: its first words, then every other cell with the name of its column.

    What a row lacks ("-") is left out. Lines end between cells, so that a command can be copied.
    """
    if table.title:
        console.print()
        console.print(table.title)
    titles = [str(column.header) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        named = [
            (title, str(cell))
            for title, cell in zip(titles, cells, strict=True)
            if str(cell) not in ("", "-")
        ]
        (_, head), *others = named or [("", "")]
        if others and not any(map(str.isalnum, head)):  # a mark, which says nothing by itself
            head = f"{head} {others.pop(0)[1]}"
        lines = [""]
        for title, cell in others:
            said = f"{title} {cell}".strip()
            longer = f"{lines[-1]}, {said}" if lines[-1] else said
            if len(longer) + 3 <= console.width:  # two spaces before it, a comma after it
                lines[-1] = longer
                continue
            lines[-1] += "," if lines[-1] else ""
            lines += [said] if len(said) + 3 <= console.width else [title, cell]
        console.print(Text(head, style="bold"))
        for line in filter(None, lines):
            console.print(Padding(Text(line), (0, 0, 0, 2), expand=False))


def new_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)
) -> Table:
    """A table for a terminal; `left` are the columns that are set flush left."""
    made = Table(
        title=escape(title) or None, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0)
    )
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i in left else "right", no_wrap=True)
    for row in rows:
        made.add_row(*map(Text, row))  # plain: in a string [litert] would be markup
    return made


def print_plain(table: PlainTable) -> None:
    """Print a task's table."""
    print_table(new_table(table.title, table.columns, table.rows, left=table.left))
