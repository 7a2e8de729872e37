"""The package's types as a user's type checker sees them: a script that uses every function of the facade."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bneck

SCRIPT = """\
from pathlib import Path
from typing import Any

import bneck


def networks() -> bneck.NetSpec:
    spec = bneck.network("v3-small")
    narrow: bneck.NetSpec = bneck.scale_width(spec, 0.75)
    cost: bneck.Count = bneck.count(narrow)
    params: int = cost.params
    known: list[dict[str, Any]] = bneck.zoo("v3-*")
    net = bneck.build(narrow, seed=0)
    print(params, known, sum(p.numel() for p in net.parameters()))
    return bneck.from_text(bneck.to_text(narrow))


def main_job(photos: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = bneck.search(photos, "5ms", start="timm/mobilenetv3_small_100.lamb_in1k")
    except bneck.InputError as error:
        raise SystemExit(str(error)) from None
    chosen: dict[str, Any] = bneck.choose(photos, "5ms")
    trained: dict[str, Any] = bneck.train("v3-small", photos, task="classify", epochs=2.0)
    resumed: dict[str, Any] = bneck.resume(trained["run"])
    imported: dict[str, Any] = bneck.import_weights("timm/mobilenetv3_small_100.lamb_in1k")
    table: dict[str, Any] = bneck.latency_table("v3-small", device="local")
    print(chosen, resumed, imported, table)
    return found


def ship(run: Path, photos: Path) -> None:
    exported: dict[str, Any] = bneck.export(run, "tflite", precision="int8")
    quantized: dict[str, Any] = bneck.quantize(run, runtime_name="litert")
    scored: dict[str, Any] = bneck.evaluate(run, photos, split="val")
    for one in bneck.measure(run, exported["file"], rounds=5):
        median: float = one.latency_ms.median
        print(one.network, median)
    best: dict[str, Any] = bneck.ship(run, lose=0.5, precision=["fp32", "int8"])
    said: list[dict[str, Any]] = bneck.predict(run, [photos / "a.jpg"])
    files: list[Path] = bneck.write_report(run)
    print(quantized, scored, best, said, files)


def pages(run: Path) -> None:
    page = bneck.compare(run, "v3-small")
    paper = bneck.reproduce("table1", measure=False)
    print(page.page, paper.files)
    with bneck.demo(run) as server:
        print(server.address)


def around(data: Path) -> None:
    annotations, left_out = bneck.convert(data)
    machine: dict[str, Any] = bneck.doctor()
    runs: list[dict[str, Any]] = bneck.list_runs()
    print(annotations, left_out, machine, runs)
"""


def checked(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(script, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "script.py"],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip


def test_the_script_uses_every_name() -> None:
    assert [name for name in bneck.__all__ if f"bneck.{name}" not in SCRIPT] == []


@pytest.mark.slow
def test_a_users_script_is_strictly_typed(tmp_path: Path) -> None:
    done = checked(tmp_path, SCRIPT)
    assert done.stdout == "Success: no issues found in 1 source file\n"
    wrong = (
        "import bneck\n\ntext: str = bneck.count('v3-small').params\nbneck.search(epochs='many')\n"
    )
    done = checked(tmp_path, wrong)
    assert 'expression has type "int", variable has type "str"' in done.stdout
    assert 'Argument "epochs" to "search" has incompatible type "str"' in done.stdout
