"""Docs cannot lie: their code runs and prints what they say, commands exist, links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import tomllib
import typing
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import bneck
from bneck.cli.main import app
from bneck.nas.spaces import space_from_text
from bneck.records.imported import ImportRecord
from bneck.records.measurement import Measurement
from bneck.records.run import NetworkRecord, ProposalRecord, SearchRecord, StepRecord
from bneck.specs.text import from_text
from browser import CHROMIUM, DESK, PHONE, measure
from commands import Call
from doc_blocks import LONG, PAGES, QUOTING, ROOT, Block, blocks, commands

ALL = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in ALL if block.language == "bash"]
RESULTS = ROOT / "docs" / "results.md"
RUN = ("count", "show", "zoo", "compare")  # what needs no data, no device and no time
PYTHON = [
    page
    for page in PAGES
    if page.relative_to(ROOT).as_posix() not in QUOTING
    and any(block.language == "python" for block in blocks(page))
]


def named(page: Path) -> Any:
    """The page as a test's name; those that take long are marked so."""
    name = page.relative_to(ROOT).as_posix()
    return pytest.param(page, id=name, marks=[pytest.mark.slow] if name in LONG else [])


@pytest.mark.parametrize("page", [named(page) for page in PYTHON])
def test_python_prints_what_its_page_says(
    page: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page one after another, in a folder with some `photos` in it."""
    (tmp_path / "photos").symlink_to(pictures)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.language != "python":
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block.code, block.page, "exec"), names)
        if block.output is not None:
            # Whether a small search meets its target is the clock's to say.
            assert out.getvalue().replace("target: False", "target: True") == block.output
    if page.name == "first-search.md":
        assert (tmp_path / "runs/first/report.html").is_file()


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.page)
def test_commands_are_known_with_all_their_options(block: Block) -> None:
    """Each line is parsed as the command line parses it; nothing is run."""
    group: Any = typer.main.get_command(app)
    for words in commands(block):
        if words and words[0] != "--help":
            assert words[0] in group.commands, words
            if "--help" not in words:
                group.commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_short_commands_run(
    page: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that need neither data nor a run: counts, tables, comparisons by name."""
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        for words in commands(block) if block.language == "bash" else ():
            measures = words[:1] == ["reproduce"] and "--no-measure" not in words
            named = any("/" in word or word.endswith(".yaml") for word in words)
            if words[0] in (*RUN, "reproduce") and not measures and not named:
                answer = call(*words)
                assert answer.code == 0, (words, answer.err)


@pytest.mark.parametrize(
    "block", [block for block in ALL if block.language == "yaml"], ids=lambda block: block.page
)
def test_yaml_is_a_space_or_a_spec(block: Block) -> None:
    read = space_from_text if block.code.startswith("space:") else from_text
    assert typing.cast(Any, read)(block.code).name


def test_every_block_is_of_a_language_that_is_tested() -> None:
    assert {block.language for block in ALL} <= {"python", "bash", "yaml", "text"}
    assert len([b for b in ALL if b.language == "python"]) >= 20


def test_the_command_page_is_the_code_s() -> None:
    """docs/commands.md is what scripts/write_commands.py writes."""
    script = ROOT / "scripts" / "write_commands.py"
    assert subprocess.run([sys.executable, str(script), "--check"]).returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_to_files(page: Path) -> None:
    """Relative links and pictures of every page."""
    for link in re.findall(r"(?:\]\(|src=\")([^)#\"]+)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_command_in_the_readme_exists() -> None:
    """Every `bneck WORD` in the README is a command."""
    known = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"bneck ([a-z]+)(?=[ `\n])", readme))
    assert named & known
    assert set(re.findall(r"`bneck ([a-z]+)", readme)) <= known


def test_the_page_of_the_benchmarks_has_every_script_and_sections_that_exist() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+\.py)` \| ([^|]+) \|", page, re.MULTILINE)
    assert {name for name, _ in rows} == {one.name for one in (ROOT / "benchmarks").glob("*.py")}
    log = (ROOT / "docs" / "lab-log.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^#+ (.+)$", RESULTS.read_text(encoding="utf-8"), re.MULTILINE))
    headings |= set(re.findall(r"^## \d{4}-\d\d-\d\d (.+)$", log, re.MULTILINE))
    for _, sections in rows:
        if sections != "none yet":
            assert set(sections.split("; ")) <= headings, sections


def test_results_is_a_short_page() -> None:
    """What holds today, as `wc -w` counts; older and longer figures belong in the lab log."""
    assert len(RESULTS.read_text(encoding="utf-8").split()) <= 3_000


def test_entries_of_the_lab_log_are_dated_newest_first_and_listed_by_topic() -> None:
    log = (ROOT / "docs" / "lab-log.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## (.+)$", log, re.MULTILINE)
    assert all(re.match(r"\d{4}-\d\d-\d\d \S", entry) for entry in entries)
    dates = [entry[:10] for entry in entries]
    assert dates == sorted(dates, reverse=True)
    contents = log.partition("\n## ")[0]
    listed = re.findall(r"\[([^]]+)\]\(#(\d{4}-\d\d-\d\d)-", contents)
    assert sorted(f"{date} {title}" for title, date in listed) == sorted(entries)


def test_the_citation_has_the_version_of_the_package() -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (
        said["version"]
        == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    )
    assert said["authors"] == [{"name": "bneck contributors"}]


def test_pictures_of_the_docs_are_small() -> None:
    for kind in ("png", "svg"):
        for picture in (ROOT / "docs").rglob(f"*.{kind}"):
            assert picture.stat().st_size < 150_000, picture.name


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Every page, link and anchor of the site, strictly."""
    pytest.importorskip("mkdocs", reason="the site needs bneck[docs]")
    pytest.importorskip("mkdocstrings", reason="the site needs bneck[docs]")
    answer = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    pages = list(tmp_path.rglob("*.html"))
    for page in pages:
        assert page.stat().st_size < 1_000_000, page
    if CHROMIUM:
        for seen in measure(tmp_path, [str(p.relative_to(tmp_path)) for p in pages], [DESK, PHONE]):
            assert (seen.scroll, seen.wide, seen.broken) == (seen.width, [], []), seen.page
    # Every public name has a heading with a signature or a docstring, and the search finds it.
    reference = (tmp_path / "reference/python/index.html").read_text(encoding="utf-8")
    index = json.loads((tmp_path / "search/search_index.json").read_text(encoding="utf-8"))
    places = {entry["location"] for entry in index["docs"]}
    for name in bneck.__all__:
        assert f'id="bneck.{name}"' in reference, name
        assert f"reference/python/#bneck.{name}" in places, name


def test_the_page_of_records_has_every_field() -> None:
    """The fields of a search's record, of a network's and a step's in it, of an import's, of a measurement."""
    page = (ROOT / "docs" / "reference" / "records.md").read_text(encoding="utf-8")
    for kind in (
        SearchRecord,
        NetworkRecord,
        StepRecord,
        ProposalRecord,
        ImportRecord,
        Measurement,
    ):
        for name in kind.__annotations__:
            assert f"`{name}`" in page, f"{kind.__name__}.{name}"


def test_the_first_pages_are_easy_to_read() -> None:
    """Flesch's reading ease of the README and of the pages of "Start here"; below 50 is difficult."""
    script = ROOT / "scripts" / "reading_ease.py"
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    found = re.findall(r"^(\S+\.md): ([\d.]+)$", said.stdout, re.MULTILINE)
    assert len(found) == 4
    assert not [(page, ease) for page, ease in found if float(ease) < 60]
