"""A search for another runtime and precision: what is timed, what is shipped, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import bneck
from bneck.costs.count import count
from bneck.costs.table import LatencyTable
from bneck.costs.table_file import read_table
from bneck.devices.deployment import Deployment
from bneck.runs.search.main import search
from bneck.runs.search.latency import table_path
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from commands import Call, refusal
from conftest import measure_quickly

SMALL: dict[str, Any] = {"epochs": 1.0, "steps": 1, "repeats": 1, "delta": 0.08, "workers": 1}
ON = Deployment(runtime="litert", precision="int8")


def test_what_runs_on_the_device_is_what_is_timed_and_shipped(
    tiny: NetSpec, tiny_file: Path, made_up_table: Path, pictures: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("ai_edge_litert")
    asked = []

    def by_table(
        seed: NetSpec,
        specs: Sequence[NetSpec],
        table: LatencyTable | None = None,
        on: Deployment | None = None,
        *wrapper: object,
    ) -> list[float]:
        asked.append(on)
        return [table.estimate_ms(spec) if table else count(spec).madds for spec in specs]

    measure_quickly(monkeypatch)
    for module in ("pipeline", "latency"):
        monkeypatch.setattr(f"bneck.runs.search.{module}.measured_ms", by_table)
    path = table_path(tiny, ON)
    assert path != table_path(tiny)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = made_up_table.read_text().splitlines()
    header = {**json.loads(lines[0]), "runtime": "litert", "precision": "int8"}
    path.write_text("\n".join([json.dumps(header), *lines[1:]]) + "\n")
    assert read_table(path).header["runtime"] == "litert"
    run = tmp_path / "run"
    record = search(
        pictures, "92%", seed_network=str(tiny_file), out=run, runtime="litert", precision="int8", **SMALL
    )  # fmt: skip
    assert set(asked) == {ON}
    assert (record["runtime"], record["precision"]) == ("litert", "int8")
    shipped = record["shipped"]
    assert shipped["file"] == "found/model-int8.tflite"
    assert (run / "found" / "model.onnx").is_file()
    assert bneck.evaluate(run / "found" / "model-int8.tflite", pictures / "val")["images"] == 30
    assert 0 <= shipped["score"] <= 1
    timed = record["found"]["measurement"]
    assert (timed["runtime"], timed["precision"]) == ("litert", "int8")
    assert "found/model-int8.tflite (litert, int8)" in (run / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--runtime", "tensorrt"), "local does not run tensorrt; it runs onnxruntime"),
        (("--runtime", "torch"), "there are no latency tables for the runtime torch; take"),
        (("--precision", "int4"), "onnxruntime does not run precision 'int4'; it runs fp32"),
        (("--device", "browser", "--runtime", "litert"), "browser does not run litert; it runs"),
    ],
)
def test_what_does_not_go_together_is_refused(
    call: Call, tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    assert why in refusal(call("search", "--out", str(tmp_path / "run"), *options))
    assert not (tmp_path / "run").exists()


def test_a_deployment_needs_a_thread() -> None:
    with pytest.raises(InputError, match="threads is 0; it must be at least 1"):
        Deployment.of(threads=0)
