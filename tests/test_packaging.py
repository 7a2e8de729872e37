"""What pyproject.toml promises to pip, pipx and uv."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_command_has_the_name_of_the_package_so_that_pipx_runs_it() -> None:
    assert PROJECT["scripts"] == {PROJECT["name"]: "bneck.cli.main:run"}


def test_every_dependency_of_users_has_a_lower_bound() -> None:
    groups = {k: v for k, v in PROJECT["optional-dependencies"].items() if k != "dev"}
    for one in [*PROJECT["dependencies"], *(one for group in groups.values() for one in group)]:
        own = one.startswith(f"{PROJECT['name']}[")
        assert own or re.fullmatch(r"[\w.-]+(\[[\w,]+\])?>=[\d.]+(,<[\d.]+)?", one), one


def test_types_are_part_of_the_package() -> None:
    assert (ROOT / "src" / "bneck" / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]
