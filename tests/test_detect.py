"""Detection from a folder to a report: the whole way in small, resumed, judged, drawn, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import bneck
from annotated import IDS, draw_boxes
from bneck.devices import protocol
from bneck.devices.runtimes import OnnxRuntime
from bneck.nets.build import build
from bneck.nets.weights import load_weights, save_weights
from bneck.records.progress import Silent
from bneck.records.run import RunFolder
from bneck.runs.answers import FileAnswers, answering
from bneck.runs.load import trained
from bneck.specs.network import NetSpec
from bneck.specs.text import load, to_text
from bneck.specs.transforms import with_expanded
from bneck.tasks.detect.intake.coco import read_coco
from bneck.tasks.detect.scoring import score
from commands import Call, refusal

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure of a busy machine is refused: these tests look at none."""
    monkeypatch.setattr(protocol, "_check_spread", lambda *of: None)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scene")
    draw_boxes(root, "train", 24, 0)
    draw_boxes(root, "val", 9, 1)
    return root


@pytest.fixture(scope="module")
def run(scene: Path, tiny: NetSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train(tiny, scene, out, epochs=40, lr=0.004)
    return out


def train(network: str | NetSpec, data: Path, out: Path, **how: Any) -> dict[str, Any]:
    how = {"resolution": 48, "batch": 8, **how}
    return bneck.train(network, data, task="detect", out=out, **how)


def val_scores(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = RunFolder(run).read()["scores"]["val"]
    return found


@pytest.fixture
def spoilt(scene: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scene, tmp_path / "scene"))


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


class TestRun:
    def test_it_learns(self, run: Path) -> None:
        record = RunFolder(run).read()
        assert (record["kind"], record["task"], record["state"]) == ("train", "detect", "finished")
        found = record["scores"]["val"]
        assert found["AP50"] > 0.5
        assert (found["images"], found["objects"]) == (9, 9)
        assert set(found["classes"]) == {"light", "dark"}
        assert not (run / "scratch").exists()

    def test_results_are_what_coco_s_server_takes(self, run: Path, scene: Path) -> None:
        entries = json.loads((run / "detections-val.json").read_text())
        assert {e["category_id"] for e in entries} <= set(IDS)
        assert {e["image_id"] for e in entries} <= {10 * i for i in range(9)}
        for entry in entries:
            x, y, width, height = entry["bbox"]
            assert -1e-3 <= x <= x + width <= 48.001
            assert -1e-3 <= y <= y + height <= 36.001
        best = max(entries, key=lambda e: e["score"])
        pictures = {p.id: p for p in read_coco(scene / "instances_val.json").pictures}
        box = np.array([*best["bbox"][:2], best["bbox"][0] + best["bbox"][2]]) / (48, 36, 48)
        truth = pictures[best["image_id"]].boxes[:, :3]
        assert np.abs(truth - box).max(1).min() < 0.15

    def test_evaluating_again_gives_the_same(self, run: Path, call: Call) -> None:
        before = val_scores(run)
        after = json.loads(call("evaluate", run, "--json").out)
        assert {k: after[k] for k in before} == before
        assert "all (mAP)" in call("evaluate", run).out

    def test_a_threshold_says_on_what_it_was_chosen(self, run: Path, call: Call) -> None:
        assert val_scores(run)["threshold"]["chosen_on"] == "val"
        said = "chosen on val and measured on val, so it may be too high"
        lines = call("evaluate", run).out.splitlines()
        assert any(line.startswith("- a score of") and said in line for line in lines)
        assert said in (run / "report.md").read_text()

    def test_a_tflite_file_in_half_precision_finds_the_same(
        self, run: Path, scene: Path, call: Call, tmp_path: Path
    ) -> None:
        pytest.importorskip("ai_edge_litert")
        file = tmp_path / "small.tflite"
        options = ("--format", "tflite", "--precision", "fp16", "--out", file)
        answer = call("export", run, *options)
        assert f"files: {file}\n" in answer.out
        assert "fp16" in answer.out
        pictures = sorted((scene / "images").glob("val-*.png"))[:2]
        pictures = pictures or sorted((scene / "images").iterdir())[:2]
        # Boxes of lower scores tie, and rounding decides which of them NMS keeps.
        ours, theirs = (bneck.predict(what, pictures, score=0.5) for what in (run, file))
        assert any(one["objects"] for one in ours)
        for one, other in zip(ours, theirs, strict=True):
            assert len(one["objects"]) == len(other["objects"])
            for a, b in zip(one["objects"], other["objects"], strict=True):
                assert a["label"] == b["label"]
                assert a["box"] == pytest.approx(b["box"], abs=1.0)

    @pytest.mark.usefixtures("hasty")
    def test_8_bit_files_are_judged_predicted_with_and_measured(
        self, run: Path, scene: Path, call: Call, tmp_path: Path
    ) -> None:
        pytest.importorskip("ai_edge_litert")
        file = tmp_path / "small.tflite"
        answer = call(
            "export", run, "--format", "tflite", "--precision", "int8", "--out", file, "--json"
        )
        exported = json.loads(answer.out)
        assert (exported["precision"], exported["runtime"]) == ("int8", "litert")
        assert exported["alike"] > 0.8
        float_ap, ap = (
            json.loads(call("evaluate", one, *more, "--json").out)["score"]
            for one, more in ((run, ()), (file, ("--data", scene)))
        )
        assert ap == pytest.approx(float_ap, abs=0.1)
        assert "this file is not in a run folder" in refusal(call("evaluate", file))
        picture = next((scene / "images").glob("val-*.png"))
        assert json.loads(call("predict", file, picture, "--json").out)[0]["width"] == 48
        (found,) = json.loads(call("measure", file, "--rounds", 3, "--json").out)
        assert (found["runtime"], found["precision"]) == ("litert", "int8")
        assert (found["resolution"], found["width"]) == (48, 48)

    @pytest.mark.usefixtures("hasty")
    def test_float_and_8_bits_side_by_side(self, run: Path, call: Call, tmp_path: Path) -> None:
        options = ("--runtime", "onnxruntime", "--epochs", 1, "--rounds", 3, "--out", tmp_path)
        answer = call("quantize", run, *options, "--json")
        found = json.loads(answer.out)
        assert [row["name"] for row in found["rows"]] == ["fp32", "naive", "ptq", "qat"]
        plain, _, post, tuned = found["rows"]
        assert plain["score"] == val_scores(run)["score"]
        for row in (post, tuned):
            # Of a few small images the stricter overlaps move by a tenth with a pixel.
            assert row["AP50"] == pytest.approx(plain["AP50"], abs=0.1)
            assert row["size_mb"] < 0.5 * plain["size_mb"]
            assert row["ratio"]["median"] > 0
        assert found["layers"][0]["alone"] > 0
        assert found.pop("json_version") == 1
        assert json.loads((tmp_path / "quantize.json").read_text()) == found

    def test_an_8_bit_file_may_decode_inside(self, run: Path, call: Call, tmp_path: Path) -> None:
        out = tmp_path / "boxes.onnx"
        answer = call("export", run, "--decode", "--precision", "int8", "--out", out, "--json")
        assert json.loads(answer.out)["precision"] == "int8"
        session = OnnxRuntime().load(out.read_bytes(), threads=1)
        assert json.loads(session.metadata["decoded"]) is True
        boxes, scores, labels = session.run_all(np.zeros((1, 3, 48, 48), np.float32))
        assert boxes.shape == (len(scores), 4)
        assert set(labels.tolist()) <= {1, 2}

    def test_a_file_that_decodes_does_not_replace_the_one_that_does_not(
        self, run: Path, call: Call
    ) -> None:
        before = (run / "model.onnx").read_bytes()
        found = json.loads(call("export", run, "--decode", "--json").out)
        assert found["file"] == str(run / "model-boxes.onnx")
        assert (run / "model.onnx").read_bytes() == before

    def test_a_file_beside_its_run_knows_its_data(self, run: Path, call: Call) -> None:
        before = (run / "run.json").read_bytes()
        by_file = json.loads(call("evaluate", run / "model.onnx", "--json").out)
        assert by_file["score"] == val_scores(run)["score"]
        assert (run / "run.json").read_bytes() == before
        assert "decodes by itself" in refusal(call("evaluate", run / "model-boxes.onnx"))

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            (
                ("--format", "pte"),
                "no files of detectors and segmenters for the runtime executorch",
            ),
            (("--precision", "int4"), "there is no precision 'int4'; known are fp32"),
            (("--pixels",), "--pixels is an option of the task classify, and this is detect"),
            (("--decode", "--format", "tflite"), "decoding inside the file is for the format onnx"),
            (("--size", "64"), "--size is an option of the task segment, and this is detect"),
            (("--precision", "int8", "--data", "NONE"), "NONE has no pictures; pass a folder of"),
        ],
    )
    def test_files_that_detectors_lack(
        self, run: Path, call: Call, options: tuple[str, ...], why: str
    ) -> None:
        assert why in refusal(call("export", run, *options))

    def test_other_data_is_judged(self, run: Path, scene: Path, call: Call, tmp_path: Path) -> None:
        """A json file whose images lie elsewhere; classes are found by name, ids are the file's."""

        def renumber(data: dict[str, Any]) -> None:
            for entry in data["categories"]:
                entry["id"] += 100
            for entry in data["annotations"]:
                entry["category_id"] += 100

        shutil.copy(scene / "instances_val.json", tmp_path / "mine.json")
        edit(tmp_path / "mine.json", renumber)
        mine, before = tmp_path / "mine.json", (run / "run.json").read_bytes()
        found = bneck.evaluate(run, mine, split="mine", images=scene / "images")
        assert (found["split"], found["score"]) == ("mine", val_scores(run)["score"])
        assert (run / "run.json").read_bytes() == before
        annotated = read_coco(mine, images=scene / "images")
        drawn = score(answering(run)[0], annotated, "mine", Silent(), out=tmp_path)
        assert drawn.score == found["score"]
        entries = json.loads((tmp_path / "detections-mine.json").read_text())
        assert {e["category_id"] for e in entries} <= {102, 109}
        assert "cannot be used" in refusal(call("evaluate", run, "--data", mine, "--split", "mine"))

    def test_its_images_are_gone(self, run: Path, call: Call, tmp_path: Path) -> None:
        moved = Path(shutil.copytree(run, tmp_path / "moved"))
        edit(moved / "run.json", lambda record: record["data"].update(path=str(tmp_path / "gone")))
        said = refusal(call("export", moved, "--precision", "int8", "--out", tmp_path / "a.onnx"))
        assert said.endswith(f"no longer at {tmp_path / 'gone'}; pass images with --data")

    def test_the_test_split_of_other_data(self, run: Path, spoilt: Path, call: Call) -> None:
        def first(count: int) -> Callable[[dict[str, Any]], None]:
            def shorten(data: dict[str, Any]) -> None:
                data["images"] = data["images"][:count]
                kept = {one["id"] for one in data["images"]}
                data["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]

            return shorten

        shutil.copy(spoilt / "instances_val.json", spoilt / "instances_test.json")
        edit(spoilt / "instances_test.json", first(3))
        for split, count in (("test", 3), ("val", 9)):
            answer = call("evaluate", run, "--data", spoilt, "--split", split, "--json")
            assert json.loads(answer.out)["images"] == count

    def test_data_that_changed_is_noticed(self, run: Path, spoilt: Path, tmp_path: Path) -> None:
        other = Path(shutil.copytree(run, tmp_path / "run"))

        def move(record: dict[str, Any]) -> None:
            record["state"] = "running"
            record["data"]["path"] = str(spoilt)
            del record["data"]["prepared"]  # broken off before the images were read

        edit(other / "run.json", move)
        for split in ("train", "val"):
            edit(
                spoilt / f"instances_{split}.json",
                lambda data: data["categories"][0].update(name="odd"),
            )
        with pytest.raises(
            bneck.InputError, match="are not the network's: odd, dark instead of light, dark"
        ):
            bneck.resume(other)

    def test_other_images_than_the_run_began_with_are_refused(
        self, run: Path, spoilt: Path, tmp_path: Path
    ) -> None:
        """Where they must be read again, as what was decoded is gone."""
        other = Path(shutil.copytree(run, tmp_path / "run"))
        edit(other / "run.json", lambda record: record.update(state="running"))
        edit(other / "run.json", lambda record: record["data"].update(path=str(spoilt)))

        def shorten(data: dict[str, Any]) -> None:
            gone = data["images"].pop()["id"]
            data["annotations"] = [one for one in data["annotations"] if one["image_id"] != gone]

        edit(spoilt / "instances_train.json", shorten)
        with pytest.raises(bneck.InputError, match="has changed since the run was begun; start a"):
            bneck.resume(other)

    def test_the_exported_files_were_compared(self, run: Path) -> None:
        files = RunFolder(run).read()["files"]
        assert set(files) == {"model.onnx", "model-boxes.onnx"}
        for check in files.values():
            assert check["images"] == 8
            assert check["largest_difference"] < 1e-3

    def test_the_report_shows_it(self, run: Path, call: Call) -> None:
        assert json.loads(call("report", run, "--json").out)["files"] == [str(run / "report.md")]
        text = (run / "report.md").read_text()
        assert "**mAP " in text
        assert "| light |" in text
        assert "![true positives, misses and false positives on val](sheet-val.png)" in text
        with Image.open(run / "sheet-val.png") as page:
            assert page.width > 1000

    def test_a_run_measures_and_counts_as_a_network(self, run: Path) -> None:
        assert bneck.network(run).resolution == 48
        record = RunFolder(run).read()
        counted = bneck.count(run, task="detect", classes=2, resolution=48)
        assert (counted.params, counted.madds) == (record["params"], record["madds"])
        assert counted == bneck.count(
            load(run / "spec.yaml"), task="detect", classes=2, resolution=48
        )

    @pytest.mark.usefixtures("hasty")
    def test_latency_is_measured(self, run: Path, call: Call) -> None:
        answer = call("measure", "v3-small-0.35@96", "--task", "detect", "--rounds", 3, "--json")
        (found,) = json.loads(answer.out)
        assert found["network"] == "ssdlite v3-small-0.35@96"
        assert found["resolution"] == 96
        both = ("--runtime", "litert", "--precision", "fp32", "--precision", "int8")
        answer = call(
            "measure", "v3-small-0.35@64", "--task", "detect", *both, "--rounds", 3, "--json"
        )
        assert [one["precision"] for one in json.loads(answer.out)] == ["fp32", "int8"]
        (trained,) = json.loads(call("measure", run, "--rounds", 3, "--json").out)
        assert trained["resolution"] == 48
        assert found["latency_ms"]["median"] > 0

    @pytest.mark.parametrize("deleted", [False, True])
    def test_resumed_it_ends_the_same(
        self, scene: Path, tiny: NetSpec, tmp_path: Path, deleted: bool
    ) -> None:
        """Also without the folder of decoded images and checkpoints, which somebody may delete."""

        class Killing(Silent):
            steps = -1

            def stage(self, name: str, total: int) -> None:
                self.steps = 0 if name.startswith("training") else -1

            def advance(self, done: int) -> None:
                if self.steps >= 0:
                    self.steps += done
                if self.steps == 5:  # in the second epoch of three steps
                    raise KeyboardInterrupt

        train(tiny, scene, tmp_path / "whole", epochs=3)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, scene, tmp_path / "broken", epochs=3, progress=Killing())
        if deleted:
            shutil.rmtree(tmp_path / "broken/scratch")
        bneck.resume(tmp_path / "broken")
        ours, theirs = (
            load_weights(tmp_path / name / "weights.safetensors") for name in ("whole", "broken")
        )
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
        assert val_scores(tmp_path / "broken") == val_scores(tmp_path / "whole")
        assert RunFolder(tmp_path / "broken").read()["state"] == "finished"

    def test_a_backbone_can_be_given(self, scene: Path, tiny: NetSpec, tmp_path: Path) -> None:
        """Of a wider network, with other padding and other normalisation."""
        wide = replace(tiny, name="wide", padding="same", classes=5)
        begin, out = tmp_path / "begin", tmp_path / "run"
        begin.mkdir()
        (begin / "spec.yaml").write_text(to_text(wide))
        save_weights(build(wide, seed=5).state_dict(), begin / "weights.safetensors")
        said = {"format": 1, "normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3}}
        (begin / "run.json").write_text(json.dumps(said))
        narrow = with_expanded(tiny, 2, 64)
        record = train(narrow, scene, out, epochs=1, lr=1e-9, start=begin)
        assert record["options"]["start"] == str(begin)
        assert record["channels"] == {
            "keep": "fisher",
            "images": 24,
            "new_head": True,
            "reconstructed_on": 24,
        }
        assert record["normalisation"]["mean"] == [0.5] * 3
        assert f"From the weights of {begin}" in (out / "report.md").read_text()
        net = trained(out).net
        assert net.detector.network.padding == "same"
        assert net.normalisation.mean == (0.5, 0.5, 0.5)
        # Hardly trained: the first row is still the start's.
        stem = load_weights(begin / "weights.safetensors")["rows.0.conv.weight"]
        assert np.allclose(net.state_dict()["rows.0.conv.weight"], stem, atol=1e-4)
        file = FileAnswers(out / "model.onnx")
        assert list(file.normalisation.mean) == [0.5] * 3
        assert json.loads(file.metadata["decoded"]) is False

    def test_a_whole_detector_can_be_narrowed(
        self, run: Path, scene: Path, tiny: NetSpec, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        record = train(with_expanded(tiny, 3, 96), scene, out, epochs=1, lr=1e-9, start=run)
        assert record["channels"] == {
            "keep": "fisher",
            "images": 24,
            "new_head": False,
            "reconstructed_on": 24,
        }
        ours, theirs = (load_weights(one / "weights.safetensors") for one in (out, run))
        name = "rows.3.expand.conv.weight"
        apart = (ours[name][:, None] - theirs[name][None]).abs().amax((2, 3, 4))
        assert float(apart.amin(1).max()) < 1e-6
        assert len(set(apart.argmin(1).tolist())) == 96
        # The head is the start's.
        head = next(
            n for n in theirs if n.startswith("boxes.1") and n.endswith("predict.conv.bias")
        )
        assert torch.allclose(ours[head], theirs[head], atol=1e-6)

    def test_another_network_is_no_start(self, scene: Path, tiny: NetSpec, tmp_path: Path) -> None:
        (tmp_path / "spec.yaml").write_text(to_text(tiny))
        with pytest.raises(bneck.InputError, match="has no trained weights"):
            train(tiny, scene, tmp_path / "out", start=tmp_path)
        save_weights(build(tiny).state_dict(), tmp_path / "weights.safetensors")
        with pytest.raises(bneck.InputError, match="shrinking can only drop channels"):
            train("v3-small", scene, tmp_path / "out", start=tmp_path)
        assert not (tmp_path / "out").exists()


class TestPredict:
    def test_boxes_are_printed_and_drawn(
        self, run: Path, scene: Path, call: Call, tmp_path: Path
    ) -> None:
        image, out = scene / "images" / "val-2.png", tmp_path / "picture.png"
        found = json.loads(call("predict", run, image, "--out", out, "--score", 0.2, "--json").out)
        (one,) = found
        assert (one["width"], one["height"], one["picture"]) == (48, 36, str(out))
        assert {entry["label"] for entry in one["objects"]} <= set(IDS.values())
        assert len(one["objects"]) >= 1
        with Image.open(out) as drawn, Image.open(image) as plain:
            assert drawn.size == plain.size
            assert drawn.tobytes() != plain.tobytes()
        assert "-> " in call("predict", run, image, "--out", out).out

    def test_an_exported_file_is_known_for_what_it_is(
        self, run: Path, scene: Path, call: Call
    ) -> None:
        image = scene / "images" / "val-2.png"
        by_file, by_run = (
            json.loads(call("predict", one, image, "--score", 0.2, "--json").out)
            for one in (run / "model.onnx", run)
        )
        assert by_file == by_run

    def test_a_folder_for_several_and_one_pixel(
        self, run: Path, scene: Path, tmp_path: Path
    ) -> None:
        Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
        images = [scene / "images" / "val-1.png", tmp_path / "dot.png"]
        found = bneck.predict(run, images, out=tmp_path / "drawn", score=0.0)
        assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
            "dot.png",
            "val-1.png",
        ]
        assert all(np.isfinite(entry["box"]).all() for one in found for entry in one["objects"])

    def test_refusals(self, run: Path, scene: Path, call: Call, tmp_path: Path) -> None:
        image = scene / "images" / "val-1.png"
        assert "score is 2" in refusal(call("predict", run, image, "--score", 2))
        assert "name a folder" in refusal(call("predict", run, image, image, "--out", "a.png"))
        (tmp_path / "text.png").write_text("no")
        assert "text.png cannot be used" in refusal(call("predict", run, tmp_path / "text.png"))
        with pytest.raises(bneck.InputError, match="decodes by itself"):
            bneck.predict(run / "model-boxes.onnx", [image])
        with pytest.raises(bneck.InputError, match="has no trained weights"):
            bneck.predict(tmp_path, [image])


class TestRefusals:
    def train(self, call: Call, data: Path, *more: object) -> str:
        options = ("--task", "detect", "--resolution", 48, "--out", data.parent / "out")
        return refusal(call("train", "v3-small-0.35", "--data", data, *options, *more))

    def test_no_boxes_at_all(self, call: Call, spoilt: Path) -> None:
        edit(spoilt / "instances_train.json", lambda d: d.update(annotations=[]))
        options = ("--task", "detect", "--resolution", 48, "--out", spoilt.parent / "out")
        said = refusal(call("train", "v3-small-0.35", "--data", spoilt, *options))
        assert "has nothing to learn from: it has no boxes" in said
        assert not (spoilt.parent / "out").exists()

    def test_other_classes_in_val(self, call: Call, spoilt: Path) -> None:
        edit(spoilt / "instances_val.json", lambda d: d["categories"][0].update(name="odd"))
        assert "has the classes odd, and" in self.train(call, spoilt)

    def test_missing_images(self, call: Call, spoilt: Path) -> None:
        (spoilt / "images" / "train-3.png").unlink()
        assert "names 1 of 24 images that cannot be used" in self.train(call, spoilt)

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (("--loss", "l2"), "there is no detection loss 'l2'; known are focal, mining"),
            (("--epochs", 0), "epochs is 0"),
            (("--lr", -1), "lr is -1"),
            (("--seed", -1), "seed is -1"),
            (("--images", "nowhere"), "there is no folder of images nowhere"),
            (("--from", "nowhere"), "nowhere has no trained weights"),
            (("--resolution", 8), "resolution is 8; it must be a whole number of at least 32"),
        ],
    )
    def test_settings(self, call: Call, scene: Path, more: tuple[object, ...], said: str) -> None:
        assert said in self.train(call, scene, *more)
        assert not (scene.parent / "out").exists()

    def test_a_batch_larger_than_the_data(self, call: Call, scene: Path, tmp_path: Path) -> None:
        options = ("--task", "detect", "--resolution", 48, "--batch", 99, "--out", tmp_path / "out")
        said = refusal(call("train", "v3-small-0.35", "--data", scene, *options), after=1)
        assert said.startswith("the batch of 99 is larger than the 24 training images")

    def test_what_is_no_run(self, call: Call, scene: Path, run: Path, tmp_path: Path) -> None:
        with pytest.raises(bneck.InputError, match="has no trained weights"):
            bneck.evaluate(tmp_path)
        assert "there is no split 'test'" in refusal(call("evaluate", run, "--split", "test"))
        said = refusal(call("train", "v3-small", "--task", "detect", "--data", scene, "--out", run))
        assert "holds a run already" in said
        assert "a network is needed" in refusal(call("train", "--task", "detect"))
        said = refusal(call("train", "v3-small", "--task", "detect"))
        assert "no built-in images; pass a folder of yours with --data" in said
