"""The code blocks of the README and the docs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
LONG = {"docs/first-search.md"}  # pages whose Python takes longer than the default run allows
QUOTING = {"docs/add/task.md"}  # pages that quote files of tests, which run by themselves
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n?(?:\n```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code, and what the page says that it prints, if it says so."""

    page: str
    language: str
    code: str
    output: str | None


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order."""
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(name, found[1], found[2], found[3])
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def commands(block: Block) -> Iterator[list[str]]:
    """Every `bneck ...` of a bash block as words; comments and other programs are left out."""
    for line in block.code.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|\||;|\|", line.partition(" #")[0]):
            words = shlex.split(part.partition(" > ")[0], comments=True)
            if words and words[0].rpartition("/")[2] == "bneck":
                yield words[1:]
