"""`bneck ship`: every runtime and precision scored and timed, the fastest kept, with a card whose code runs."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bneck
from annotated import draw_boxes, draw_scenes
from bneck.data.batches import eval_batches
from bneck.data.pack import Packed
from bneck.devices.places import place
from bneck.devices.runtimes import MissingRuntime, Runtime, runtime
from bneck.nets.build import Net, build
from bneck.nets.weights import save_weights
from bneck.records.progress import Silent
from bneck.records.run import RunFolder
from bneck.runs.answers import FileAnswers
from bneck.runs.load import trained
from bneck.runs.ship.main import _check_val, _improved, _picked
from bneck.runs.ship.rows import Row, at_hand
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import to_text
from bneck.tasks.contract import Dataset
from bneck.training.settings import Settings
from commands import Call, refusal
from learning import train
from simulated_device import SimulatedDevice

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def net(tiny: NetSpec, image_data: Any, one_thread: None) -> Net:
    settings = Settings(epochs=8, batch=16, lr=0.005, average=0.9, bn_momentum=0.1)
    made: Net = train(build(tiny), image_data, settings)
    return made.eval()


@pytest.fixture
def run(net: Net, pictures: Path, tmp_path: Path) -> Path:
    """The folder of a run that trained the tiny net on the pictures."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.spec.write_text(to_text(net.spec), encoding="utf-8")
    save_weights(net.state_dict(), folder.weights)
    record = {
        "format": 2, "kind": "train", "task": "classify", "state": "finished", "wrapper": {},
        "classes": ["circle", "square", "stripes"], "options": {"seed": 0, "task": {}},
        "data": {"name": "pictures", "path": str(pictures)},
        "source": {"file": "start.safetensors", "license": "Apache-2.0"},
    }  # fmt: skip
    folder.run_json.write_text(json.dumps(record), encoding="utf-8")
    return folder.path


def shipped(run: Path, device: SimulatedDevice, **how: Any) -> dict[str, Any]:
    return bneck.ship(run, device=device.name, rounds=3, **how)


class TestShip:
    def test_every_runtime_and_precision_and_the_fastest_kept(
        self, run: Path, simulated: SimulatedDevice
    ) -> None:
        found = shipped(run, simulated)
        rows = {(row["runtime"], row["precision"]): row for row in found["rows"]}
        engines, kinds = ("onnxruntime", "litert", "openvino"), ("fp32", "fp16", "int8")
        assert list(rows) == [(engine, kind) for engine in engines for kind in kinds]
        picked = found["rows"][found["picked"]]
        near = [row for row in rows.values() if row["loss"] <= 1]
        assert picked["latency_ms"]["median"] == min(row["latency_ms"]["median"] for row in near)
        assert all(row["memory_mb"] is None or row["memory_mb"] >= 0 for row in rows.values())
        assert rows["litert", "fp32"]["score"] == found["float"]
        assert rows["litert", "int8"]["size_mb"] < rows["litert", "fp32"]["size_mb"]
        assert rows["litert", "fp32"]["ratio"] == 1
        folder = run / "ship"
        kept = {path.name for path in folder.iterdir()} - {".lock"}
        assert kept == {Path(found["file"]).name, "ship.json", "model-card.md"}
        assert json.loads((folder / "ship.json").read_text()) == found
        for name in found["files"]:  # next to the run's record, which says what its val images are
            shutil.copy(folder / name, run / name)
        assert bneck.evaluate(run / picked["file"])["score"] == picked["score"]
        assert found["calibration"]["classes"] == {"circle": 32, "square": 32, "stripes": 32}

    @pytest.mark.parametrize(
        "engine",
        ["onnxruntime", "litert", "openvino", pytest.param("executorch", marks=pytest.mark.slow)],
    )
    def test_the_code_of_the_card_runs(
        self, run: Path, engine: str, pictures: Path, packed: Packed, tmp_path: Path
    ) -> None:
        """Of a picture of the network's own size it gives what the file gives."""
        from PIL import Image

        found = bneck.ship(run, runtime=[engine], precision=["fp32"], rounds=3)
        card = (run / "ship" / "model-card.md").read_text()
        (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        lines = [one for one in code.splitlines() if not one.startswith(("import", "from"))]
        assert len(lines) <= 5
        images = next(iter(eval_batches(packed.val, np.arange(1), resolution=32, batch=1)))[0]
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(run / "ship" / "photo.jpg", quality=95)
        ask = code + "print([float(v) for v in np.ravel(np.asarray(outputs[0]))])\n"
        done = subprocess.run(
            [sys.executable, "-c", ask],
            cwd=run / "ship",
            capture_output=True,
            text=True,
            check=True,
        )
        read = np.asarray(Image.open(run / "ship" / "photo.jpg"), np.float32) / 255
        mean, std = (np.array(v) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        image = ((read - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
        wanted = FileAnswers(Path(found["file"]), engine)(image)[0][0]
        assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(wanted.tolist(), abs=1e-5)
        assert images.shape == image.shape

    def test_what_the_card_says(self, run: Path, simulated: SimulatedDevice) -> None:
        shipped(run, simulated, runtime=["onnxruntime"], precision=["fp32"])
        card = (run / "ship" / "model-card.md").read_text()
        for said in (
            "# model.onnx", "3, in the order of the outputs: circle, square, stripes", "32 x 32 pixels",
            "mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]", "start.safetensors; license Apache-2.0",
            f"on {simulated.name}: simulated, none", "`scores` (1, 3) for one image", "top-1 |",
            "tiny (one class per image), fp32", " val images of pictures",
        ):  # fmt: skip
            assert said in card
        assert str(run.parent) not in card  # it goes to other people: no folders of this machine

    def test_an_interrupted_one_takes_what_is_done(
        self, run: Path, simulated: SimulatedDevice, tmp_path: Path
    ) -> None:
        """Files that were written before are taken; one that somebody changed is written again."""
        two = {"runtime": ["onnxruntime", "litert"], "precision": ["fp32"]}
        first = shipped(run, simulated, **two, out=tmp_path / "first")
        rows = {row["runtime"]: row for row in first["rows"]}
        folder = tmp_path / "again"

        class Stopping:
            """Stops when the files are timed, as Ctrl-C does."""

            def stage(self, name: str, total: int) -> None:
                if name == "timing":
                    raise KeyboardInterrupt

            def advance(self, done: int) -> None: ...
            def note(self, text: str) -> None: ...
            def say(self, sentence: str) -> None: ...

        with pytest.raises(KeyboardInterrupt):
            shipped(run, simulated, **two, out=folder, progress=Stopping())
        held = json.loads((folder / "files" / "rows.json").read_text())
        assert len(held["rows"]) == 2
        for row in held["rows"].values():
            row["score"] = 0.5  # so that it shows which are taken
        (folder / "files" / "rows.json").write_text(json.dumps(held))
        (folder / "files" / "model.onnx").write_bytes(b"of another network")
        again = shipped(run, simulated, **two, out=folder)
        scores = {row["runtime"]: row["score"] for row in again["rows"]}
        assert scores == {"onnxruntime": rows["onnxruntime"]["score"], "litert": 0.5}

    def test_files_of_another_network_next_to_the_run_are_left_alone(
        self, run: Path, simulated: SimulatedDevice
    ) -> None:
        (run / "model.onnx").write_bytes(b"of another network")
        (run / "model-int8.onnx").write_bytes(b"of another network")
        found = shipped(run, simulated, runtime=["onnxruntime"], precision=["fp32"])
        assert found["rows"][0]["score"] == found["float"]
        assert (run / "model.onnx").read_bytes() == b"of another network"
        assert Path(found["file"]) == run / "ship" / "model.onnx"

    def test_a_file_of_another_network_in_the_runs_folder_is_not_scored_as_the_runs(
        self, call: Call, run: Path, tmp_path: Path, pictures: Path
    ) -> None:
        """By position it would score something; with images named it is a file as any other."""
        other = tmp_path / "other"
        shutil.copytree(run, other)
        record = json.loads((other / "run.json").read_text())
        record |= {"classes": ["stripes", "square", "circle"], "data": None}
        (other / "run.json").write_text(json.dumps(record))
        file = run / "foreign.onnx"
        bneck.export(other, "onnx", out=file, data=pictures)
        said = refusal(call("evaluate", file))
        assert "foreign.onnx lies in the folder of a run" in said
        assert "but is a file of another network, tiny with 3 classes; pass the images" in said
        by_name = bneck.evaluate(file, pictures)["score"]
        assert by_name == bneck.evaluate(other, pictures)["score"]
        own = bneck.export(run, "onnx")["file"]
        assert bneck.evaluate(own)["images"] == 30

    def test_again_it_replaces_its_own_files(self, run: Path, simulated: SimulatedDevice) -> None:
        how: dict[str, Any] = {"precision": ["fp32"]}
        shipped(run, simulated, runtime=["openvino"], **how)
        assert (run / "ship" / "model.bin").is_file()
        shipped(run, simulated, runtime=["onnxruntime"], **how)
        names = {path.name for path in (run / "ship").iterdir()} - {".lock"}
        assert names == {"model.onnx", "ship.json", "model-card.md"}

    @pytest.mark.parametrize(
        ("task", "options", "output"),
        [
            ("detect", {"resolution": 64}, "`offsets` (1, "),
            ("segment", {"filters": 16}, "`scores` (1, "),
        ],
    )
    def test_of_the_other_tasks(
        self, tmp_path: Path, tiny_file: Path, simulated: SimulatedDevice, task: str,
        options: dict[str, Any], output: str,
    ) -> None:  # fmt: skip
        data, run = tmp_path / "data", tmp_path / "run"
        data.mkdir()
        if task == "detect":
            for split in ("train", "val"):
                draw_boxes(data, split, 9, seed=1)
        else:
            draw_scenes(data)
        bneck.train(str(tiny_file), data, task=task, out=run, epochs=1, **options)
        found = shipped(run, simulated, runtime=["onnxruntime"], lose=100)
        assert [row["precision"] for row in found["rows"]] == ["fp32", "fp16", "int8"]
        assert found["task"] == task
        assert output in (run / "ship" / "model-card.md").read_text()

    def test_a_fine_tuned_file_next_to_each_calibrated_one(
        self, run: Path, simulated: SimulatedDevice, tmp_path: Path
    ) -> None:
        """One fine-tuning for each form of h-swish; a second call takes up their checkpoints."""

        class Stages(Silent):
            """Stops at the fine-tuned file of LiteRT, the second runtime, if it is to."""

            def __init__(self, *, stops: bool) -> None:
                self.stops, self.names = stops, list[str]()

            def stage(self, name: str, total: int) -> None:
                self.names.append(name)
                if self.stops and self.names.count("int8 in litert") == 2:
                    raise KeyboardInterrupt

        first, again = Stages(stops=True), Stages(stops=False)
        how: dict[str, Any] = {
            "runtime": ["onnxruntime", "litert"],
            "precision": ["int8"],
            "epochs": 1.0,
        }
        with pytest.raises(KeyboardInterrupt):
            shipped(run, simulated, **how, progress=first)
        assert first.names.count("QAT fine-tuning") == 2
        found = shipped(run, simulated, **how, progress=again)
        assert again.names.count("int8 in litert") == 1
        assert "QAT fine-tuning" not in again.names
        rows = [(row["runtime"], row["epochs"], Path(row["file"]).name) for row in found["rows"]]
        assert rows == [
            ("onnxruntime", 0.0, "model-int8.onnx"), ("onnxruntime", 1.0, "model-int8-qat.onnx"),
            ("litert", 0.0, "model-int8.tflite"), ("litert", 1.0, "model-int8-qat.tflite"),
        ]  # fmt: skip
        assert not (run / "ship" / "files").exists()
        card = (run / "ship" / "model-card.md").read_text()
        assert "| litert | int8 QAT |" in card

    def test_on_the_command_line(self, call: Call, run: Path, simulated: SimulatedDevice) -> None:
        options = ("--device", simulated.name, "--rounds", 3, "--runtime", "onnxruntime")
        done = call("ship", run, *options, "--precision", "fp32", "--precision", "int8")
        assert done.code == 0, done.err
        assert "points lost" in done.out
        assert "model-card.md" in done.out
        assert "int8 is calibrated on all 96 train images" in done.err
        done = call("ship", run, *options, "--precision", "fp32", "--json")
        assert json.loads(done.out)["rows"][0]["runtime"] == "onnxruntime"


def row(name: str, score: float | None, ms: float | None, size: float = 1.0) -> Row:
    times = None if ms is None else {"median": ms, "p10": ms, "p90": ms}
    return Row(
        runtime=name, runtime_version="1", precision="fp32", file=name, size_mb=size, score=score,
        memory_mb=None, sha256="", latency_ms=times,
    )  # fmt: skip


class TestPicked:
    def test_the_fastest_within_the_bound(self) -> None:
        rows = [row("a", 0.80, 3.0), row("b", 0.79, 2.0), row("c", 0.789, 1.0)]
        notes: list[str] = []
        assert _picked(rows, 0.80, 1.0, notes) is rows[1]
        assert _picked(rows, 0.80, 0.0, notes) is rows[0]
        assert _picked(rows, 0.80, 2.0, notes) is rows[2]
        assert notes == []

    def test_without_times_the_smallest(self) -> None:
        rows = [row("a", 0.8, None, 3.0), row("b", 0.8, None, 1.0), row("c", 0.1, None, 0.1)]
        assert _picked(rows, 0.8, 1.0, []) is rows[1]

    def test_of_a_network_calibrated_and_fine_tuned_the_better(self) -> None:
        """They are computed in the same time, whatever the clock says."""
        calibrated, fine_tuned = row("a", 0.80, 1.0), row("a", 0.81, 1.1)
        assert _picked([calibrated, fine_tuned, row("b", 0.9, 2.0)], 0.8, 1.0, []) is fine_tuned
        assert _picked([calibrated, row("b", 0.9, 2.0)], 0.8, 1.0, []) is calibrated

    def test_what_improves_int8(self) -> None:
        def int8(name: str, score: float, epochs: float = 0.0) -> Row:
            return replace(row(name, score, 1.0), precision="int8", epochs=epochs)

        rows = [row("a", 0.80, 1.0), int8("a", 0.78), int8("b", 0.79), int8("c", 0.70)]
        assert _improved(rows, 0.80, 1.0, "my run") == [
            "int8 loses 2.0 in a and 10.0 in c, of 1 points allowed; fine-tune it with: bneck ship 'my run' "
            "--epochs 2"
        ]
        more = [*rows, int8("a", 0.795, 2.0), int8("c", 0.75, 2.0)]
        assert _improved(more, 0.80, 1.0, "run") == [
            "int8 loses 5.0 in c after 2 epochs of fine-tuning, of 1 points allowed; fine-tune it with: bneck "
            "ship run --epochs 4"
        ]
        assert _improved(rows, 0.80, 10.0, "run") == []
        assert _improved(rows, None, 1.0, "run") == []

    def test_none(self) -> None:
        notes: list[str] = []
        assert _picked([row("a", 0.7, 1.0)], 0.8, 1.0, notes) is None
        assert notes[0].startswith(
            "no file is within 1 points of float: the best loses 10.0; raise"
        )
        assert _picked([row("a", None, 1.0)], None, 1.0, notes) is None
        assert notes[1] == "the score on val is undefined, so no file is picked"


class TestRefused:
    def test_no_runtime_at_hand(self, run: Path) -> None:
        def none(name: str) -> Runtime:
            raise MissingRuntime(name, name, name)

        with pytest.raises(InputError, match=r"^no runtime is at hand for local; install one.*pip"):
            at_hand(trained(run), "local", make=none)

    def test_those_that_are_missing_are_skipped_with_the_reason(self, run: Path) -> None:
        def some(name: str) -> Runtime:
            if name != "onnxruntime":
                raise MissingRuntime(name, name, name)
            return runtime(name)

        found = at_hand(trained(run), "local", precisions=("int8",), make=some)
        assert [(engine.name, kind) for engine, kind in found.pairs] == [("onnxruntime", "int8")]
        assert {name for name, _, _ in found.skipped} == {"litert", "openvino", "executorch"}
        assert "is not installed; install it with: pip" in found.skipped[0][2]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (
                ("--runtime", "torch"),
                "bneck ship writes no files for the runtime 'torch'; it writes",
            ),
            (("--precision", "int4"), "there is no precision 'int4'; known are fp32, fp16, int8"),
            (("--lose", "-1"), "lose is -1.0; it must be from 0 to 100 points"),
            (("--rounds", "2"), "rounds 2; they must be at least 1 and 3"),
            (("--device", "moon"), "there is no device 'moon'"),
        ],
    )
    def test_options(self, call: Call, run: Path, options: tuple[str, ...], said: str) -> None:
        assert said in refusal(call("ship", run, *options))
        assert not (run / "ship").exists()

    def test_the_untrained(self, call: Call, tiny_file: Path) -> None:
        assert "has no trained weights; pass the folder" in refusal(call("ship", tiny_file))

    def test_no_images(self, call: Call, run: Path, tmp_path: Path) -> None:
        record = json.loads((run / "run.json").read_text())
        del record["data"]
        (run / "run.json").write_text(json.dumps(record))
        assert "knows no dataset; pass one with --data" in refusal(call("ship", run))

    def test_images_without_val(self) -> None:
        data = Dataset(name="x", place="x", classes=("a", "b"), splits={"train": 9, "val": 0})
        with pytest.raises(InputError, match="x has no val images, so no file can be judged; add"):
            _check_val(data, "x")

    def test_a_folder_with_other_files(self, call: Call, run: Path) -> None:
        (run / "ship").mkdir()
        (run / "ship" / "model.onnx").write_bytes(b"mine")
        said = refusal(call("ship", run))
        assert "is not a folder that bneck ship has written; move it away" in said
        assert (run / "ship" / "model.onnx").read_bytes() == b"mine"

    def test_the_folder_of_another_network(
        self, call: Call, run: Path, tmp_path: Path, simulated: SimulatedDevice
    ) -> None:
        shipped(run, simulated, runtime=["onnxruntime"], precision=["fp32"])
        record = json.loads((run / "ship" / "ship.json").read_text())
        record |= {"digest": "other", "weights": hashlib.sha256(b"").hexdigest(), "network": "v2"}
        (run / "ship" / "ship.json").write_text(json.dumps(record))
        said = refusal(call("ship", run))
        assert "holds the file of v2, another network; choose another --out" in said

    def test_the_busy_machine_costs_the_times_alone(self, run: Path) -> None:
        """A device that is disturbed all the time: the smallest file is picked, and it is said why."""
        from simulated_device import plugged_in

        with plugged_in(noise=3.0, seed=1) as busy:
            found = bneck.ship(
                run, device=busy.name, rounds=3, runtime=["onnxruntime"], precision=["fp32", "fp16"]
            )
        assert place("local").name == "local"
        assert found["rows"][found["picked"]]["precision"] == "fp16"
        assert found["notes"][0].startswith("not timed, so the smallest file is picked: ")
        shutil.rmtree(run / "ship")
