"""What several commands share: an option, and printing for programs."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print json for programs.")]


def print_json(value: Any) -> None:
    """Print plain values as json."""
    print(json.dumps(value, indent=1))
