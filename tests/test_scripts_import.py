"""Every script can be imported: no import in it is gone, and none works before it is run."""

from __future__ import annotations

import ast
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path
    for folder in ("benchmarks", "examples", "scripts")
    for path in (ROOT / folder).glob("*.py")
)


def gone(source: str) -> list[str]:
    """The imports from bneck that fail, those inside functions included."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=[ast.alias(name=name), *_]) | ast.ImportFrom(module=str(name)):
                if name.split(".")[0] == "bneck":
                    try:
                        exec(ast.unparse(node), {})
                    except ImportError as error:
                        found.append(str(error))
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_script_imports(
    script: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = spec_from_file_location(f"script_{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])  # as Python runs a script
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look themselves up
    spec.loader.exec_module(module)
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.iterdir())
    assert not gone(script.read_text(encoding="utf-8"))


def test_gone_imports_are_found() -> None:
    source = """
from bneck.runs import train
from bneck.runs.train import train
def later():
    from bneck.runs.train import Images
    import bneck.runs.nowhere
"""
    name, module = gone(source)
    assert "'Images'" in name
    assert "bneck.runs.nowhere" in module
