"""Write docs/commands.md from the commands themselves; `--check` only compares.

python scripts/write_commands.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer.main

from bneck.cli.main import app

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"


def page() -> str:
    """The page as it should be."""
    group: Any = typer.main.get_command(app)
    lines = [
        "# Commands",
        "",
        "Every command and option, as `bneck COMMAND --help` prints them. `scripts/write_commands.py` "
        "writes this page.",
        "",
    ]
    for name, command in group.commands.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        usage = " ".join([f"bneck {name}", *(_shape(a) for a in arguments), "[OPTIONS]"])
        lines += [f"## bneck {name}", "", f"`{usage}`", "", command.help.strip(), ""]
        lines += ["| argument or option | what |", "|---|---|"]
        lines += [f"| `{_shape(a)}` | {a.help} |" for a in arguments]
        lines += [f"| `{o.opts[0]}` | {o.help}{_default(o)} |" for o in options if o.name != "help"]
        lines.append("")
    return "\n".join(lines)


def _shape(argument: Any) -> str:
    name = argument.name.upper()
    name = f"{name}..." if argument.nargs == -1 else name
    return name if argument.required else f"[{name}]"


def _default(option: Any) -> str:
    if option.default in (None, False):
        return ""
    return f" Default `{' '.join(option.default) if option.multiple else option.default}`."


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
