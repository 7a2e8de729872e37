"""The main job for detectors and segmenters: in small, to its end, resumed, used, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bneck
from annotated import draw_boxes, draw_scenes
from bneck.costs.count import count_whole
from bneck.costs.table_file import read_table
from bneck.data.held_out import held_out
from bneck.specs.errors import InputError
from bneck.specs.text import load
from bneck.specs.wrapper import Wrapper
from bneck.tasks.detect.head import Ssdlite
from bneck.tasks.segment.head import Aspp
from commands import Call
from search_run import Run
from simulated_device import SimulatedDevice, plugged_in

IN_SMALL: dict[str, Any] = {
    "target": "88%", "epochs": 2, "steps": 2, "delta": 0.05, "repeats": 1, "workers": 1,
    "method": "netadapt",
}  # fmt: skip
SSD = Ssdlite(classes=2)
LR = Aspp(shape=(48, 64), classes=3, filters=16, stride=8)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("boxes")
    draw_boxes(root, "train", 24, 0)
    draw_boxes(root, "val", 9, 1)
    return root


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    draw_scenes(root)
    return root


@pytest.fixture(scope="module", params=["detect", "segment"])
def run(
    request: pytest.FixtureRequest,
    simulated: SimulatedDevice,
    boxes: Path,
    scenes: Path,
    tiny_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    path = tmp_path_factory.mktemp("runs") / request.param

    own: dict[str, Any] = {"data": boxes, "resolution": 64}
    if request.param == "segment":
        own = {"data": scenes, "filters": 16, "size": (48, 64)}
    bneck.search(
        **own, **IN_SMALL, task=request.param, device=simulated.name, seed_network=str(tiny_file),
        out=path,
    )  # fmt: skip
    return Run(path)


class TestFinished:
    def test_the_record_says_the_task_and_its_metric(self, run: Run) -> None:
        record = run.record
        metrics = {"detect": "mAP", "segment": "mIOU"}
        assert record["metric"] == metrics[record["task"]]
        assert record["state"] == "finished"
        assert record["steps"]
        # A fifth of the 24 train images.
        assert (record["data"]["splits"]["train"], record["data"]["heldout"]) == (24, 5)
        for role in ("seed_network", "found", "uniform"):
            assert 0 <= record[role]["scores"][0] <= 1
            assert record[role]["measured_ms"] > 0
        run.assert_nothing_done_twice()

    def test_counts_and_estimates_are_those_of_the_whole(self, run: Run) -> None:
        record = run.record
        wrapper: Wrapper = SSD if record["task"] == "detect" else LR
        spec = load(run.path / "spec.yaml")
        assert record["found"]["params"] == count_whole(spec, wrapper).params
        table = read_table(run.path / "table.jsonl", wrapper)
        assert record["found"]["estimated_ms"] == pytest.approx(table.estimate_ms(spec), rel=1e-3)
        seed = record["seed_network"]["estimated_ms"]
        assert record["found"]["estimated_ms"] < 0.88 * seed

    def test_what_was_found_is_a_run_of_its_task(self, run: Run) -> None:
        found = json.loads((run.path / "found" / "run.json").read_text())
        assert (found["kind"], found["task"]) == ("train", run.record["task"])
        assert found["state"] == "finished"
        kept = load(run.path / "found" / "spec.yaml")
        assert kept.rows == load(run.path / "spec.yaml").rows or run.record["task"] == "segment"
        assert (run.path / "found" / "model.onnx").is_file()
        assert (run.path / "found" / "report.md").is_file()
        assert not (run.path / "scratch").exists()

    def test_judged_again_by_its_own_run_it_has_the_same_score(self, run: Run) -> None:
        score = run.record["found"]["scores"][0]
        assert bneck.evaluate(run.path)["score"] == pytest.approx(score, abs=1e-6)

    def test_the_report_speaks_of_the_metric(self, run: Run) -> None:
        page = (run.path / "report.md").read_text()
        assert f"{run.record['metric']} per training (%)" in page
        assert "found/report.md" in page
        assert "top-1" not in page
        assert "Top-1" not in page

    def test_commands_take_the_searchs_folder(self, run: Run, call: Call, tmp_path: Path) -> None:
        picture = tmp_path / "one.png"
        Image.fromarray(np.full((48, 64, 3), 120, np.uint8)).save(picture)
        drawn = tmp_path / "drawn.png"
        assert call("predict", run.path, picture, "--out", drawn).code == 0
        assert drawn.is_file()
        answer = call("report", run.path, "--json")
        assert answer.code == 0, answer.err
        kept = [Path(file).name for file in json.loads(answer.out)["files"]]
        assert kept == ["report.html", "report.md", "report.md"]
        answer = call("compare", run.path, "--json", "--out", tmp_path / "compare.html")
        assert answer.code == 0, answer.err
        assert run.record["found"]["params"] in {
            one["params"] for one in json.loads(answer.out)["subjects"]
        }
        answer = call("export", run.path, "--out", tmp_path / "file.onnx")
        assert answer.code == 0, answer.err
        assert (tmp_path / "file.onnx").is_file()

    def test_a_finished_run_resumes_to_the_same(self, run: Run) -> None:
        before = run.record
        bneck.resume(run.path)
        assert run.record == before


def test_a_run_broken_off_before_its_last_stage_ends_the_same(
    scenes: Path, tiny_file: Path, tmp_path: Path
) -> None:
    """What was found is adopted once: what the first try wrote is gone on with."""
    written = tmp_path / "run" / "found" / "weights.safetensors"
    with plugged_in() as device:
        device.lost = lambda request: written.exists()  # what is left then is the last measurement
        with pytest.raises(InputError, match=r"cannot be used: it broke off: pulled"):
            bneck.search(
                **IN_SMALL | {"target": "95%", "epochs": 1}, task="segment", data=scenes, filters=16,
                size=(48, 64), device=device.name, seed_network=str(tiny_file), out=tmp_path / "run",
            )  # fmt: skip
        weights = written.read_bytes()
        device.lost = lambda request: False
        record = bneck.resume(tmp_path / "run")
    assert record["state"] == "finished"
    assert written.read_bytes() == weights


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_a_head_keeps_what_importance_leaves_it(
    task: str,
    simulated: SimulatedDevice,
    boxes: Path,
    scenes: Path,
    tiny_file: Path,
    tmp_path: Path,
) -> None:
    own: dict[str, Any] = {"data": boxes, "resolution": 64}
    if task == "segment":
        own = {"data": scenes, "filters": 16, "size": (48, 64)}
    record = bneck.search(
        **own, task=task, target="80%", epochs=1, repeats=1, workers=1, device=simulated.name,
        seed_network=str(tiny_file), out=tmp_path / "run",
    )  # fmt: skip
    assert record["measured_latency_ms"] <= record["target_ms"]
    assert record["allocation"]["cuts"]
    everyone = [record["found"], record["uniform"], *record["others"].values()]
    assert record["score"] == max(one["scores"][0] for one in everyone)
    # A segmenter's input size is its own, not its network's.
    roles = {record["allocation"]["shipped"], *record["others"]}
    assert ("resolution" in roles) == (task == "detect")


SPACE = """
space: 1
name: toy
stem: {op: conv, kernel: 3, out: 16, act: hswish, stride: 2}
blocks:
- {stride: 2, op: dconv, kernel: [3, 5], se: 0, out: 24, layers: 1}
- {stride: 2, op: [mbconv2, mbconv4], kernel: 3, out: [32, 48], layers: 1}
- {stride: 2, op: mbconv2, kernel: 3, out: [32, 48], layers: 1}
tail: [{op: conv, kernel: 1, out: [64, 128], act: hswish}, {op: pool}]
"""


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detect", "segment"])
def test_blocks_are_searched_for_the_whole(
    task: str, simulated: SimulatedDevice, boxes: Path, scenes: Path, tmp_path: Path
) -> None:
    (tmp_path / "toy.yaml").write_text(SPACE, encoding="utf-8")
    own: dict[str, Any] = {"data": boxes, "resolution": 64, "seed_network": "v3-small-0.5+dagger"}
    if task == "segment":
        own = {"data": scenes, "size": (48, 64), "seed_network": "v3-small-0.5+rf2"}
    record = bneck.search(
        **{**IN_SMALL, **own, "target": "70%", "delta": 0.2}, task=task, from_scratch=True,
        device=simulated.name, space=str(tmp_path / "toy.yaml"), trials=6,
        proxy_epochs=2, top=2, out=tmp_path / "run",
    )  # fmt: skip
    assert record["state"] == "finished"
    assert len(record["blocks"]["trials"]) == 6
    assert record["blocks"]["aim_ms"] > 0
    found = json.loads((tmp_path / "run" / "found" / "run.json").read_text())
    assert (found["kind"], found["task"], found["state"]) == ("train", task, "finished")


class TestWrongInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"task": "track"}, "there is no task 'track'; known are classify, detect, segment"),
            ({"task": "detect"}, "has no built-in images; pass a folder of yours with --data"),
            ({"loss": "focal"}, "--loss is an option of the task detect, and this is classify"),
            (
                {"task": "detect", "size": (8, 8), "data": "."},
                "--size is an option of the task segment, and this is detect",
            ),
            (
                {"task": "segment", "resolution": 96, "data": "."},
                "--resolution is an option of the task classify or detect, and this is segment",
            ),
            ({"colour": 1}, "bneck search has no option 'colour' for the task classify"),
        ],
    )
    def test_options_of_another_task(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message.replace("(", r"\(")):
            bneck.search(**options)

    def test_a_detector_needs_boxes_and_a_known_loss(
        self, boxes: Path, tiny_file: Path, tmp_path: Path
    ) -> None:
        given: dict[str, Any] = {"task": "detect", "resolution": 64, "seed_network": str(tiny_file)}
        with pytest.raises(InputError, match="no detection loss 'hinge'; known are focal, mining"):
            bneck.search(boxes, **given, loss="hinge", out=tmp_path / "a")
        bare = Path(shutil.copytree(boxes, tmp_path / "bare"))
        for file in bare.glob("*.json"):
            file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
        with pytest.raises(InputError, match="no boxes"):
            bneck.search(bare, **given, out=tmp_path / "b")
        assert not (tmp_path / "a").exists()
        assert not (tmp_path / "b").exists()

    def test_a_supernet_is_for_classifiers(self, boxes: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="a supernet scores classifiers only"):
            bneck.search(
                boxes, task="detect", from_scratch=True, supernet=1.0, out=tmp_path / "run"
            )


def test_held_out_is_a_share_with_an_end() -> None:
    fitted, held = held_out(np.arange(10), 0.2, 0)
    assert (len(fitted), len(held)) == (8, 2)
    assert sorted([*fitted, *held]) == list(range(10))
    assert len(held_out(np.arange(9_000), 0.2, 0)[1]) == 1000
    with pytest.raises(InputError, match="1 images to train on"):
        held_out(np.arange(1), 0.2, 0)
