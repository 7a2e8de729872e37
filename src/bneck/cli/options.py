"""What several commands share: options, and printing for programs and for people."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from bneck.tasks.contract import Table as PlainTable
from bneck.tasks.registry import DEFAULT, tasks


def _tasks() -> str:
    words = "; ".join(f"{task.name}: {task.summary}" for task in tasks())
    return f"What the network is for. {words}. Default {DEFAULT}."


TaskName = Annotated[str | None, typer.Option("--task", help=_tasks())]
DataFolder = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Your images, as the task reads them (docs/training.md); default the built-in images, which only "
        "classification has.",
    ),
]

NAMES = "A network (v3-large, v3-small-0.75+relu@192), a spec file or a run's folder."
Json = Annotated[bool, typer.Option("--json", help="Print json for programs.")]


Device = Annotated[
    str,
    typer.Option(help="Where: local, ssh:[USER@]HOST[:PORT], adb:SERIAL or browser[:PORT]."),
]
BenchmarkModel = Annotated[
    Path | None,
    typer.Option(
        help="For adb: TensorFlow Lite's benchmark_model for the phone; or BNECK_BENCHMARK_MODEL."
    ),
]
OnnxRuntimeWeb = Annotated[
    Path | None,
    typer.Option(
        help="For browser: the folder of the npm package; or BNECK_ONNXRUNTIME_WEB.",
    ),
]


def use_tools(benchmark_model: Path | None, onnxruntime_web: Path | None) -> None:
    """Let this process find what the user supplies for devices, where the environment says it."""
    for name, path in (
        ("BNECK_BENCHMARK_MODEL", benchmark_model),
        ("BNECK_ONNXRUNTIME_WEB", onnxruntime_web),
    ):
        if path is not None:
            os.environ[name] = str(path)


def print_json(value: Any) -> None:
    """Print plain values as json."""
    print(json.dumps(value, indent=1))


def print_table(table: Table) -> None:
    """Print a table; on a narrow terminal, and in a file, lines may get long, but no digit is cut off."""
    console = Console()
    wide = console.options.update(max_width=1_000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)


def new_table(title: str, columns: Sequence[str], *, left: Sequence[int]) -> Table:
    """An empty table; `left` are the columns that are set flush left."""
    made = Table(
        title=title or None, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0)
    )
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i in left else "right", no_wrap=True)
    return made


def rich_table(plain: PlainTable) -> Table:
    """A task's table for a terminal."""
    made = new_table(plain.title, plain.columns, left=plain.left)
    for row in plain.rows:
        made.add_row(*row)
    return made
