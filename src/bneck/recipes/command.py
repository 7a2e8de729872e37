"""How a recipe was started, for its record."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def command_line(function: str) -> str:
    """The shell's command, or `function` where Python called."""
    by_shell = Path(sys.argv[0]).name in ("bneck", "__main__.py")
    return shlex.join(["bneck", *sys.argv[1:]]) if by_shell else function
