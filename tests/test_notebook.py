"""The example notebook: valid, small, and every cell runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook" / "first_steps.ipynb"
NO_MORE = 100_000  # bytes of outputs


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    return list(book["cells"])


def test_it_is_a_notebook_with_small_outputs(cells: list[dict[str, Any]]) -> None:
    assert {cell["cell_type"] for cell in cells} == {"markdown", "code"}
    assert len({cell["id"] for cell in cells}) == len(cells)
    outputs = [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]
    assert len(json.dumps(outputs)) < NO_MORE


@pytest.mark.slow
def test_its_cells_run_in_their_order(cells: list[dict[str, Any]], tmp_path: Path) -> None:
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "M multiply-adds" in done.stdout
    assert "labels agree on" in done.stdout
    assert list(tmp_path.iterdir()) == []  # all goes into a folder of its own
