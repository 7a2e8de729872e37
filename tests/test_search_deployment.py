"""A search for another runtime and precision: what is timed, what is shipped, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bneck
from bneck.costs.table_file import read_table
from bneck.devices.deployment import Deployment
from bneck.records.progress import Silent
from bneck.runs.search.latency import latency_table, table_path
from bneck.runs.search.main import search
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from commands import Call, refusal
from simulated_device import SimulatedDevice

SMALL: dict[str, Any] = {
    "epochs": 1.0,
    "steps": 1,
    "repeats": 1,
    "method": "netadapt",
    "delta": 0.08,
    "workers": 1,
}


def test_what_runs_on_the_device_is_what_is_timed_and_shipped(
    simulated: SimulatedDevice, tiny: NetSpec, tiny_file: Path, pictures: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert")
    on = {"device": simulated.name, "runtime": "litert", "precision": "int8"}
    run = tmp_path / "run"
    record = search(pictures, "92%", seed_network=str(tiny_file), out=run, **on, **SMALL)
    header = read_table(table_path(tiny, Deployment(**on))).header
    assert (header["runtime"], header["precision"]) == ("litert", "int8")
    # TFLite files begin with an offset, then their kind.
    assert {model[4:8] for model in simulated.loaded} == {b"TFL3"}
    assert (record["runtime"], record["precision"]) == ("litert", "int8")
    shipped = record["shipped"]
    assert shipped["file"] == "found/model-int8.tflite"
    assert (run / "found" / "model-int8.tflite").read_bytes() in simulated.loaded
    assert (run / "found" / "model.onnx").is_file()
    assert bneck.evaluate(run / "found" / "model-int8.tflite", pictures / "val")["images"] == 30
    assert shipped["score"] == max(shipped["ptq"], shipped["qat"])
    timed = record["found"]["measurement"]
    assert (timed["runtime"], timed["precision"]) == ("litert", "int8")
    assert "found/model-int8.tflite (litert, int8)" in (run / "report.md").read_text()


class Stopped(Exception):
    pass


class UntilTraining(Silent):
    """Stops a search when it begins to train."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str, total: int) -> None:
        self.stages.append(name)
        if name.startswith("training"):
            raise Stopped


def test_a_search_reads_the_table_of_as_many_threads(
    simulated: SimulatedDevice, tiny: NetSpec, tiny_file: Path, pictures: Path, tmp_path: Path
) -> None:
    simulated.threads.clear()
    found = latency_table(tiny, device=simulated.name, threads=4)
    assert (found["threads"], simulated.threads) == (4, {4})
    for threads, reads in ((4, True), (1, False)):
        simulated.threads.clear()
        heard = UntilTraining()
        with pytest.raises(Stopped):
            search(
                pictures, "85%", device=simulated.name, threads=threads, seed_network=str(tiny_file),
                out=tmp_path / f"run-{threads}", progress=heard, **SMALL,
            )  # fmt: skip
        assert ("measuring rows" not in heard.stages) is reads
        assert simulated.threads == {threads}, "measured with as many"
        table = read_table(tmp_path / f"run-{threads}" / "table.jsonl")
        assert table.header["threads"] == threads


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--threads", "0"), "threads is 0; it must be at least 1"),
        (("--device", "browser", "--threads", "2"), "browser runs on one thread, not 2; leave"),
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
