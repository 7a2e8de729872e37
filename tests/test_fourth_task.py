"""A task that another package adds is trained, resumed, scored, shipped and searched as those here are.

`gauge/` is that package: it is registered by one line, the entry point below, and nothing else knows it.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bneck
from bneck.costs.count import count_whole
from bneck.costs.table_file import read_table
from bneck.records.progress import Silent
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import load
from bneck.tasks.registry import TASKS, tasks
from commands import Call
from doc_blocks import ROOT, blocks
from gauge.head import GaugeHead
from search_run import Run
from simulated_device import SimulatedDevice

LINE = "gauge = gauge.task:ReadGauge"
LOW, HIGH = 20.0, 80.0  # the numbers are degrees, to see that their unit comes back


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[Path]:
    """What pip would write for a package with the line in its [project.entry-points."bneck.tasks"]."""
    site = tmp_path_factory.mktemp("site")
    (info := site / "gauge-1.0.dist-info").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gauge\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[bneck.tasks]\n{LINE}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield site


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tubes filled to a level: 40 images of 32 x 32 to learn from, 12 to score."""
    root, rng = tmp_path_factory.mktemp("tubes"), np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 12)):
        with (root / f"{split}.csv").open("w", newline="") as lines:
            table = csv.writer(lines)
            table.writerow(("file", "level", "number"))
            for i, level in enumerate(rng.permutation(np.linspace(LOW, HIGH, count))):
                pixels = rng.integers(90, 120, (32, 32, 3), dtype=np.uint8)
                pixels[32 - round(32 * level / 100) :, 8:24] = (230, 40, 40)
                Image.fromarray(pixels).save(root / f"{split}-{i}.png")
                table.writerow((f"{split}-{i}.png", f"{level:.2f}", f"{level / 100:.4f}"))
    return root


@pytest.fixture(scope="module")
def given(readings: Path, tiny_file: Path) -> dict[str, Any]:
    return {
        "network": str(tiny_file), "data": readings, "task": "gauge", "column": "level", "batch": 10,
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "gauge"
    bneck.train(**given, epochs=40, out=out)
    return out


def record_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text()))


def test_it_is_one_of_the_tasks_and_takes_no_name_of_theirs(installed: Path) -> None:
    assert [one.name for one in tasks()] == [*TASKS, "gauge"]
    line = "[bneck.tasks]\ndetect = gauge.task:ReadGauge\n"
    other = installed / "other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text(line)
    assert [one.name for one in tasks()] == [*TASKS, "gauge"]


def test_a_trained_gauge_reads_levels(run: Path, readings: Path, tiny: NetSpec) -> None:
    record = record_of(run)
    assert (record["task"], record["metric"], record["state"]) == ("gauge", "R2", "finished")
    assert record["classes"] == ["level"]
    assert record["wrapper"] == {"low": LOW, "high": HIGH}
    assert record["params"] == count_whole(load(run / "spec.yaml"), GaugeHead()).params
    # 43: what stands after the pool goes, and 48 means give one number with a bias.
    tail = 48 * 256
    assert record["params"] < bneck.count(tiny).params - tail
    score = record["scores"]["val"]
    assert score["images"] == 12
    assert score["score"] > 0.8
    assert score["mean_error"] < 7


def test_scores_are_those_of_the_predictions(
    run: Path, readings: Path, tmp_path: Path, call: Call
) -> None:
    """R2 and the mean error by their definitions, of what a file says of each image."""
    with (readings / "val.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    wanted = np.array([float(row["level"]) for row in rows])
    found = bneck.predict(run, [readings / row["file"] for row in rows])
    said = np.array([one["level"] for one in found])
    assert [one["line"] for one in found] == [f"level {number:.4g}" for number in said]
    errors = said - wanted
    r2 = 1 - (errors**2).sum() / ((wanted - wanted.mean()) ** 2).sum()
    for network in (run, run / "model.onnx"):
        answer = call("evaluate", network, "--json")
        assert answer.code == 0, answer.err
        score = json.loads(answer.out)
        assert score["score"] == pytest.approx(r2, abs=1e-4)
        assert score["mean_error"] == pytest.approx(np.abs(errors).mean(), abs=1e-3)
    assert bneck.evaluate(run, readings, split="train")["images"] == 40
    assert record_of(run)["scores"]["val"]["score"] == pytest.approx(r2, abs=1e-4)


class Stops(Silent):
    """Somebody who presses Ctrl-C at the sixth step of training."""

    steps = 0

    def advance(self, done: int) -> None:
        self.steps += 1
        if self.steps == 6:
            raise KeyboardInterrupt


def test_a_resumed_training_ends_as_the_unbroken_one(
    given: dict[str, Any], tmp_path: Path, call: Call
) -> None:
    given = {**given, "column": "number"}  # the default, as this process has no --column yet
    answer = call(
        "train", given["network"], "--task", "gauge", "--data", given["data"], "--batch", 10,
        "--epochs", 2, "--out", tmp_path / "whole",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "R2 " in answer.out
    with pytest.raises(KeyboardInterrupt):
        bneck.train(**given, epochs=2, out=tmp_path / "broken", progress=Stops())
    assert record_of(tmp_path / "broken")["state"] == "running"
    bneck.resume(tmp_path / "broken")
    assert record_of(tmp_path / "broken")["state"] == "finished"
    whole, broken = (
        (tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "broken")
    )
    assert broken == whole


@pytest.mark.parametrize(
    ("format", "precision"), [("tflite", "fp32"), ("tflite", "int8"), ("onnx", "fp16")]
)
def test_files_read_what_the_module_reads(
    run: Path, readings: Path, tmp_path: Path, call: Call, format: str, precision: str
) -> None:
    file = tmp_path / f"file.{format}"
    answer = call(
        "export", run, "--format", format, "--precision", precision, "--out", file
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "outputs differ by" in answer.out
    images = [readings / f"val-{i}.png" for i in range(3)]
    module = [one["level"] for one in bneck.predict(run, images)]
    found = [one["level"] for one in bneck.predict(file, images)]
    near = {"fp32": 0.01, "fp16": 0.6, "int8": 6.0}[precision]  # degrees of 60
    assert found == pytest.approx(module, abs=near)


def test_int8_is_compared_and_everything_is_measured(run: Path, tmp_path: Path, call: Call) -> None:
    found = bneck.quantize(run, epochs=0.5, rounds=3, out=tmp_path / "8bit")
    assert [row["name"] for row in found["rows"]] == ["fp32", "naive", "ptq", "qat"]
    scores = {row["name"]: row["score"] for row in found["rows"]}
    assert scores["fp32"] == pytest.approx(record_of(run)["scores"]["val"]["score"], abs=1e-4)
    assert scores["ptq"] > scores["fp32"] - 0.15
    answer = call("measure", run, tmp_path / "8bit" / "ptq.tflite", "--rounds", 3, "--json")
    if answer.code:  # a machine too busy to measure on says so
        assert "busy" in answer.err or "spread" in answer.err
    else:
        assert len(json.loads(answer.out)) == 2


def test_commands_show_it(run: Path, tiny_file: Path, call: Call, tmp_path: Path) -> None:
    counted = json.loads(call("count", tiny_file, "--task", "gauge", "--json").out)
    assert counted["params"] == bneck.count(tiny_file, task="gauge").params
    assert counted["params"] == record_of(run)["params"]
    answer = call("compare", run, "--json", "--out", tmp_path / "compare.html")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["subjects"][0]["params"] == counted["params"]
    assert call("report", run).code == 0
    page = (run / "report.md").read_text()
    assert "R2" in page
    assert "top-1" not in page
    wrong = call("zoo", "--task", "gauge")
    assert (wrong.code, "no networks of the task gauge" in wrong.err) == (2, True)


def test_a_new_process_has_its_options(installed: Path) -> None:
    """Options of the command line are made when it is loaded, here before the package was installed."""
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *sys.path]), "COLUMNS": "200",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "bneck", "train", "--help"], env=environment, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    words = " ".join(re.sub("[│|]", " ", done.stdout).split())
    assert "--column" in words
    assert "gauge: one number per image" in words


def test_wrong_input_is_refused(given: dict[str, Any], readings: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a number in 'depth' per line"):
        bneck.train(**{**given, "column": "depth"}, out=tmp_path / "a")
    with pytest.raises(
        InputError, match="--column is an option of the task gauge, and this is detect"
    ):
        bneck.train("v3-small", readings, task="detect", column="level")


def test_a_gauge_is_searched(
    given: dict[str, Any], simulated: SimulatedDevice, tmp_path: Path
) -> None:
    options = {name: value for name, value in given.items() if name not in ("network", "batch")}
    record = bneck.search(
        **options, seed_network=given["network"], device=simulated.name, target="88%", epochs=2,
        repeats=1, workers=1, out=tmp_path / "run",
    )  # fmt: skip
    assert (record["state"], record["metric"]) == ("finished", "R2")
    assert record["data"]["heldout"] == 8  # a fifth of 40
    found, wrapper = record["found"], GaugeHead(LOW, HIGH)
    assert found["params"] == count_whole(load(tmp_path / "run" / "spec.yaml"), wrapper).params
    table = read_table(tmp_path / "run" / "table.jsonl", wrapper)
    assert found["estimated_ms"] == pytest.approx(
        table.estimate_ms(load(tmp_path / "run" / "spec.yaml")), rel=1e-3
    )
    assert found["estimated_ms"] < 0.88 * record["seed_network"]["estimated_ms"]
    run = Run(tmp_path / "run")
    run.assert_nothing_done_twice()
    again = bneck.evaluate(run.path)
    assert (again["task"], again["images"]) == ("gauge", 12)
    assert again["score"] == pytest.approx(found["scores"][0], abs=1e-6)


def test_the_guide_quotes_the_files() -> None:
    """Every block of code is found in one of them, every class is in a block; the folder stays small."""
    files = [file.read_text(encoding="utf-8") for file in (ROOT / "tests" / "gauge").glob("*.py")]
    quoted = [block.code for block in blocks(ROOT / "docs" / "add" / "task.md")]
    assert quoted
    for code in quoted:
        assert any(code in file for file in files), code
    kinds = re.findall(r"^class \w+", "\n".join(files), re.MULTILINE)
    assert len(kinds) == 6
    assert not [kind for kind in kinds if kind not in "\n".join(quoted)]
    assert sum(len(file.splitlines()) for file in files) <= 300
