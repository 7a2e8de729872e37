"""What several commands share: an option, and printing for programs."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

NAMES = "A network (v3-large, v3-small-0.75+relu@192), a spec file or a run's folder."
Json = Annotated[bool, typer.Option("--json", help="Print json for programs.")]


def print_json(value: Any) -> None:
    """Print plain values as json."""
    print(json.dumps(value, indent=1))


def print_table(table: Table) -> None:
    """Print a table as wide as it is."""
    console = Console()
    # On a narrow terminal, and in a file, lines may get long, but no digit is cut off.
    wide = console.options.update(max_width=1_000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)
