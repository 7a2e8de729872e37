"""What several commands share: options, and printing for programs and for people."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any

from rich import box
from rich.console import Console
from rich.markup import escape
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
Json = Annotated[bool, Option("--json", help="Print json for programs.")]
Device = Annotated[str, Option(help=WHERE)]
Threads = Annotated[int, Option(help="Threads of the runtime.")]


def print_json(value: Any) -> None:
    """Print plain values as json."""
    print(json.dumps(value, indent=1))


def print_table(table: Table) -> None:
    """Print a table; on a narrow terminal, and in a file, lines may get long, but no digit is cut off."""
    console = Console()
    wide = console.options.update(max_width=1_000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)


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
