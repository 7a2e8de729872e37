"""Docs cannot lie: the README's example is run, the command page is generated, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


def test_the_readme_example_prints_what_the_readme_says(tmp_path: Path) -> None:
    """The first example, the small search included, in an empty folder.

    Whether its target is met is the clock's to say, and other tests run beside this one.
    """
    answer = subprocess.run(
        [sys.executable, "-c", _block("python")], cwd=tmp_path, capture_output=True, text=True
    )
    said = answer.stdout.replace("target: False", "target: True")
    assert said == _block("text"), answer.stderr
    assert (tmp_path / "runs/first/report.html").is_file()


def test_the_command_page_is_the_code_s() -> None:
    """docs/commands.md is what scripts/write_commands.py writes."""
    script = ROOT / "scripts" / "write_commands.py"
    assert subprocess.run([sys.executable, str(script), "--check"]).returncode == 0


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_links_between_pages_lead_to_files(page: Path) -> None:
    """Relative links of every page."""
    for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_command_in_the_readme_exists() -> None:
    """Every `bneck WORD` in the README is a command."""
    from bneck.cli.main import app

    known = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    named = set(re.findall(r"bneck ([a-z]+)(?=[ `\n])", README))
    assert named & known
    assert set(re.findall(r"`bneck ([a-z]+)", README)) <= known
