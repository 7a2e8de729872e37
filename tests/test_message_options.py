"""Every option that a message names exists in the command whose message it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from bneck.cli.main import app

PACKAGE = Path(__file__).parents[1] / "src" / "bneck"
# Whose messages a module's are, where that is not every command's: all of these must have the option.
COMMANDS = {
    "data/": ("train", "search", "quantize"),
    "imports/": ("import", "train", "search"),
    "runs/compare.py": ("compare",),
    "runs/demo.py": ("demo",),
    "runs/evaluate.py": ("evaluate",),
    "runs/export.py": ("export",),
    "runs/imports.py": ("import", "train", "search"),
    "runs/measure.py": ("measure",),
    "runs/predict.py": ("predict",),
    "runs/quantize.py": ("quantize",),
    "runs/search/": ("search",),
    "runs/start.py": ("train", "search"),
    "runs/train.py": ("train",),
    "tasks/classify/evaluate.py": ("evaluate",),
}
OPTION = r"(?<![\w-])--[a-z][a-z0-9-]*"
# "bneck import --list", "--bad-share of bneck train or bneck search": the commands are named.
AFTER = re.compile(rf"({OPTION}) of bneck (\w+)(?: or bneck (\w+))?")


def options() -> dict[str, set[str]]:
    """The options of each command."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return {
        name: {"--help", *(o for p in command.params for o in (*p.opts, *p.secondary_opts))}
        for name, command in commands.items()
    }


def messages(source: str) -> Iterator[str]:
    """The text of every error that a module makes; what is filled in is {}."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("Error"):
            for text in node.args:
                if isinstance(text, ast.JoinedStr):
                    parts = (v.value if isinstance(v, ast.Constant) else "{}" for v in text.values)
                    yield "".join(map(str, parts))
                elif isinstance(text, ast.Constant) and isinstance(text.value, str):
                    yield text.value


def lacking(path: str, text: str, known: dict[str, set[str]]) -> list[str]:
    """Options of a message that the commands which it names, or else the module's, do not have."""
    usual = next((c for place, c in COMMANDS.items() if path.startswith(place)), ())
    found = []
    for match in re.finditer(OPTION, text):
        option, start = match[0], match.start()
        if text[:start].endswith("ray start "):
            continue
        after = AFTER.match(text, start)
        before = re.findall(r"bneck (\w+)(?=[^;:,]*$)", text[:start])
        if after:
            commands = [c for c in after.groups()[1:] if c]
        elif before and before[-1] in known:
            commands = [before[-1]]
        else:
            commands = list(usual)
        if not any(option in known[c] for c in known):
            found.append(f"{option} is of no command")
        found += [f"bneck {c} has no {option}" for c in commands if option not in known[c]]
    return found


def test_every_option_that_a_message_names_exists_in_that_command() -> None:
    known, odd = options(), []
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE).as_posix()
        for text in messages(file.read_text(encoding="utf-8")):
            odd += [f"{path}: {one} ({text[:60]})" for one in lacking(path, text, known)]
    assert odd == []


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("data/x.py", "raise --bad-share", ["bneck quantize has no --bad-share"]),
        ("data/x.py", "raise --bad-share of bneck train or bneck search", []),
        ("imports/x.py", "use bneck import --as NAME", []),
        ("imports/x.py", "use --as NAME", ["bneck train has no --as", "bneck search has no --as"]),
        ("nas/x.py", "use --nothing", ["--nothing is of no command"]),
        (
            "runs/train.py",
            "made by bneck show --text; pass --pixels",
            ["bneck train has no --pixels"],
        ),
    ],
)
def test_a_message_is_caught(path: str, text: str, found: list[str]) -> None:
    assert lacking(path, text, options()) == found
