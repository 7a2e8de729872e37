"""What several commands share: options, and printing for programs and for people."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


class Task(StrEnum):
    """What a network is for."""

    CLASSIFY = "classify"
    DETECT = "detect"


TASKS = "What the network is for; detect puts SSDLite round it."

Json = Annotated[bool, typer.Option("--json", help="Print json for programs.")]


def print_json(value: Any) -> None:
    """Print plain values as json."""
    print(json.dumps(value, indent=1))


def print_table(table: Table) -> None:
    """Print a table; on a narrow terminal, and in a file, lines may get long, but no digit is cut off."""
    console = Console()
    wide = console.options.update(max_width=1_000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)
