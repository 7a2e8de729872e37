"""Segmentation end to end on drawn scenes: it learns, resumes, judges, paints, and says what is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bneck
from annotated import SIZE, draw_scenes
from bneck.tasks.segment.pairs import Scenery, list_pairs
from bneck.tasks.segment.scenes import Scenes
from bneck.devices import protocol
from bneck.devices.runtimes import OnnxRuntime
from bneck.tasks.segment.module import build_segmenter, load_segmenter
from bneck.runs.progress import Silent
from bneck.recipes.segment import evaluate_segment, resume_segment, train_segment
from bneck.recipes.segment_export import export_segment
from bneck.recipes.segment_pictures import paint
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.tasks.segment.head import Segmenter, segmenter
from bneck.tasks.segment import evaluate
from bneck.training.loop import TrainingError
from bneck.training.optim import learning_rate
from bneck.training.segment import SegmentSettings, train_segmenter
from commands import Call, refusal

NAMES = ("sky", "road", "ball")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scenes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    draw_scenes(root)
    return root


@pytest.fixture(scope="module")
def scenery(scenes_folder: Path) -> Scenery:
    return list_pairs(scenes_folder)


@pytest.fixture(scope="module")
def seg(tiny: NetSpec) -> Segmenter:
    return segmenter(tiny, classes=3, filters=32)


SETTINGS = SegmentSettings(
    epochs=3, batch=8, lr=0.05, crop=SIZE, warmup=0.3, average=0.9, bn_momentum=0.1
)


def weights(net: torch.nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in net.state_dict().values()]


def size_of(path: str | Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


class Interrupt(Exception):
    pass


class TestTraining:
    def test_it_learns(self, seg: Segmenter, scenery: Scenery) -> None:
        """From near chance to most of what there is, with whole images judged at their own size."""
        scenes = Scenes(scenery.split("train"), scenery.labels)
        judged = Scenes(scenery.split("val"), scenery.labels, whole_masks=True)
        net = build_segmenter(seg, seed=0)
        before = evaluate(net, judged).score.miou
        losses: list[float] = []
        settings = SegmentSettings(
            epochs=15, batch=8, lr=0.1, crop=SIZE, warmup=1, average=0.9, bn_momentum=0.1
        )
        train_segmenter(
            net, scenes, np.arange(24), settings, on_step=lambda done, all_, v: losses.append(v)
        )
        found = evaluate(net, judged)
        assert before < 0.35
        assert found.score.miou > 0.7
        assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
        assert len(losses) == 45
        assert len(found.images) == 6
        windows = evaluate(net, judged, sliding=(32, 40))
        assert windows.score.miou > 0.5

    @pytest.mark.parametrize("head", ["lraspp", "raspp"])
    def test_a_run_that_was_killed_goes_on_as_if_nothing_had_been(
        self, tiny: NetSpec, scenery: Scenery, tmp_path: Path, head: str
    ) -> None:
        """Momentum, averages, dropout and crops included, to the last bit."""
        scenes = Scenes(scenery.split("train"), scenery.labels)
        seg = segmenter(tiny, classes=3, filters=8, head=head)  # type: ignore[arg-type]

        def trained(checkpoint: Path | None, stop: int = 99) -> list[torch.Tensor]:
            def on_step(done: int, total: int, loss: float) -> None:
                if done == stop:
                    raise Interrupt

            net = build_segmenter(seg, seed=1)
            train_segmenter(
                net, scenes, np.arange(24), SETTINGS, checkpoint=checkpoint, on_step=on_step
            )
            return weights(net)

        whole = trained(None)
        path = tmp_path / "checkpoint.safetensors"
        with pytest.raises(Interrupt):
            trained(path, stop=5)  # in the second of three epochs
        assert path.is_file()
        for a, b in zip(whole, trained(path), strict=True):
            assert torch.equal(a, b)

    def test_what_cannot_be_trained(self, tiny: NetSpec, seg: Segmenter, scenery: Scenery) -> None:
        from dataclasses import replace

        scenes = Scenes(scenery.split("train"), scenery.labels)

        def attempt(seg: Segmenter, **change: object) -> None:
            settings = replace(SETTINGS, **change)  # type: ignore[arg-type]
            train_segmenter(build_segmenter(seg), scenes, np.arange(24), settings)

        with pytest.raises(TrainingError, match="the batch of 25 is larger than the 24 training"):
            attempt(seg, batch=25)
        with pytest.raises(TrainingError, match="R-ASPP normalises one pooled pixel an image"):
            attempt(segmenter(tiny, classes=3, head="raspp"), batch=1)
        with pytest.raises(
            TrainingError, match=r"the loss became .* at step .* smaller learning rate"
        ):
            attempt(seg, lr=1e9, warmup=0.0)
        for change, message in (
            ({"epochs": 0}, "epochs is 0"), ({"lr": math.inf}, "lr is inf"), ({"batch": 0}, "batch is 0"),
            ({"seed": -1}, "seed is -1"), ({"crop": (0, 5)}, "crop is 0"),
        ):  # fmt: skip
            with pytest.raises(TrainingError, match=message):
                attempt(seg, **change)

    def test_the_poly_schedule(self) -> None:
        """Half way the rate is 0.5 to the power of 0.9 of the first, at the end 0."""

        def rate(epoch: float) -> float:
            return learning_rate("poly", 0.1, epoch=epoch, epochs=12, warmup=2)

        assert rate(1) == pytest.approx(0.05)
        assert rate(2) == pytest.approx(0.1)
        assert rate(7) == pytest.approx(0.1 * 0.5**0.9)
        assert rate(12) == rate(13) == 0


@pytest.fixture(scope="module")
def run(scenes_folder: Path, tiny: NetSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; rather short, so its score is poor."""
    out = tmp_path_factory.mktemp("runs") / "run"
    record = train_segment(tiny, scenes_folder, filters=16, epochs=2, out=out, seed=3)
    assert record["run"] == str(out)
    return out


class TestRun:
    def test_its_folder_holds_what_there_is_to_know(self, run: Path) -> None:
        assert {p.name for p in run.iterdir()} >= {
            "run.json", "spec.yaml", "weights.safetensors", "model.onnx", "report.md", "best-1.png",
            "worst-3.png",
        }  # fmt: skip
        record = json.loads((run / "run.json").read_text())
        assert (record["kind"], record["state"]) == ("segment", "finished")
        assert record["labels"]["names"] == list(NAMES)
        assert record["images"] == {"train": 24, "val": 6, "test": 4}
        assert [score["split"] for score in record["scores"]] == ["val", "test"]
        report = (run / "report.md").read_text()
        assert f"**mIOU {record['scores'][0]['miou']:.1%}** on val (6 images)" in report
        assert "| ball |" in report
        best, worst = record["shown"][0]["miou"], record["shown"][3]["miou"]
        assert best >= worst

    def test_evaluating_it_gives_the_recorded_score(self, run: Path, scenes_folder: Path) -> None:
        recorded = json.loads((run / "run.json").read_text())["scores"]
        assert evaluate_segment(run) == recorded[0]
        assert evaluate_segment(run, scenes_folder, split="test") == recorded[1]

    def test_going_on_with_a_finished_run_judges_it_anew(self, run: Path) -> None:
        before = (run / "weights.safetensors").read_bytes()
        scores = json.loads((run / "run.json").read_text())["scores"]
        assert resume_segment(run)["scores"] == scores
        assert (run / "weights.safetensors").read_bytes() == before

    def test_a_run_that_was_killed_is_finished_as_if_nothing_had_been(
        self, run: Path, scenes_folder: Path, tiny: NetSpec, tmp_path: Path
    ) -> None:
        """Killed in the second epoch; until then it has no weights, and says how to go on."""

        class Killing(Silent):
            steps = -1

            def stage(self, name: str, total: int) -> None:
                self.steps = 0 if name == "train" else -1

            def advance(self, done: int) -> None:
                if self.steps >= 0:
                    self.steps += done
                if self.steps == 5:
                    raise KeyboardInterrupt

        out = tmp_path / "killed"
        with pytest.raises(KeyboardInterrupt):
            train_segment(
                tiny, scenes_folder, filters=16, epochs=2, out=out, seed=3, progress=Killing()
            )
        with pytest.raises(InputError, match="is not finished; go on with: bneck train --resume"):
            evaluate_segment(out)
        scores = resume_segment(out)["scores"]
        assert scores == json.loads((run / "run.json").read_text())["scores"]
        assert not (out / "scratch").exists()

    def test_pictures_of_any_size_are_painted(self, run: Path, tmp_path: Path) -> None:
        rng = np.random.default_rng(1)
        for i, size in enumerate([(48, 64), (37, 51)]):
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(
                tmp_path / f"{i}.png"
            )
        pictures = [tmp_path / "0.png", tmp_path / "1.png"]
        found = paint(run, pictures, out=tmp_path / "out", mask=tmp_path / "ids")
        ids = np.asarray(Image.open(tmp_path / "ids/1.png"))
        assert ids.shape == (37, 51)
        assert set(np.unique(ids)) <= {0, 1, 2}
        assert found[1]["shares"]["road"] == pytest.approx((ids == 1).mean())
        width, height = size_of(found[1]["overlay"])
        assert width >= 51
        assert height > 37

    def test_its_file_answers_for_any_size_with_classes_or_scores(
        self, run: Path, scenes_folder: Path, tmp_path: Path
    ) -> None:
        """The exported file in its runtime gives the mask that `paint` writes."""
        found = export_segment(run, tmp_path / "m.onnx", argmax=True)
        assert found["size"] == list(SIZE)
        picture = scenes_folder / "val/00.png"
        paint(run, [picture], mask=tmp_path / "m.png")
        with Image.open(picture) as image, Image.open(tmp_path / "m.png") as mask:
            pixels, ids = np.asarray(image), np.asarray(mask)
        session = OnnxRuntime().load((tmp_path / "m.onnx").read_bytes(), threads=1)
        mean, std = (np.array(json.loads(session.metadata[k]), np.float32) for k in ("mean", "std"))
        x = ((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
        assert (session.run(x)[0] == ids).mean() > 0.99
        other = export_segment(run, tmp_path / "s.onnx", size=(33, 50))
        assert other["largest_difference"] <= 1e-4

    def test_files_of_every_kind_are_judged_painted_and_measured(
        self, run: Path, scenes_folder: Path, call: Call, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        pytest.importorskip("ai_edge_litert")
        scored = json.loads(call("evaluate", run, "--json").out)
        picture = scenes_folder / "val/00.png"
        files = []
        for precision, more in (("fp32", ()), ("int8", ("--argmax",))):
            file = tmp_path / f"{precision}.tflite"
            answer = call(
                "export", run, "--format", "tflite", "--precision", precision, *more, "--out", file,
                "--json",
            )  # fmt: skip
            assert json.loads(answer.out)["equal_pixels"] > 0.9
            by_file = json.loads(call("evaluate", file, "--data", scenes_folder, "--json").out)
            assert by_file["miou"] == pytest.approx(scored["miou"], abs=0.1)
            mask = tmp_path / f"{precision}.png"
            (seen,) = json.loads(call("predict", file, picture, "--mask", mask, "--json").out)
            assert sum(seen["shares"].values()) == pytest.approx(1)
            assert size_of(mask) == size_of(picture)
            files.append(file)
        quick = partial(protocol.Protocol, burst_ms=1.0, max_repeats=1, max_spread=1e9)
        monkeypatch.setattr(protocol, "Protocol", quick)
        found = json.loads(call("measure", *files, "--rounds", 3, "--json").out)
        assert [one["precision"] for one in found] == ["fp32", "int8"]
        assert (found[0]["resolution"], found[0]["width"]) == SIZE
        (found,) = json.loads(call("measure", run, "--rounds", 3, "--json").out)
        assert (found["network"], found["runtime"]) == ("tiny", "onnxruntime")
        with pytest.raises(InputError, match=r"model\.onnx is a segmenter; use bneck\.paint"):
            bneck.predict(run, [picture])
        with pytest.raises(
            InputError, match=r"is made to segment; judge it with bneck\.evaluate_seg"
        ):
            bneck.evaluate(run / "model.onnx", scenes_folder)
        beside = json.loads(call("evaluate", run / "model.onnx", "--json").out)
        assert beside["miou"] == pytest.approx(scored["miou"], abs=0.05)

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            (
                ("--format", "pte"),
                "a segmenter has no file of format pte in fp32; formats are onnx",
            ),
            (("--precision", "int4"), "a segmenter has no file of format onnx in int4"),
            (("--pixels",), "--pixels goes with classifiers"),
            (("--size", "4x"), "'4x' is no size"),
            (("--decode",), "--decode goes with a detector's run"),
            (("--precision", "int8", "--data", "NONE"), "NONE has no pictures; give a folder"),
        ],
    )
    def test_files_that_segmenters_lack(
        self, run: Path, call: Call, options: tuple[str, ...], why: str
    ) -> None:
        assert why in refusal(call("export", run, *options))

    def test_float_and_8_bits_side_by_side(
        self, run: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(protocol, "_check_spread", lambda *of: None)
        options = ("--runtime", "onnxruntime", "--rounds", 3, "--out", tmp_path)
        answer = call("quantize", run, *options)
        assert "mIOU" in answer.out
        assert "rounding one layer alone changes the scores most in" in answer.out
        found = json.loads((tmp_path / "quantize.json").read_text())
        plain, post = found["rows"]
        assert post["miou"] == pytest.approx(plain["miou"], abs=0.05)
        assert post["size_mb"] < 0.5 * plain["size_mb"]
        assert "is a file already" in refusal(call("quantize", tmp_path / "ptq.onnx"))

    def test_a_file_has_one_size_and_no_windows(self, run: Path, call: Call) -> None:
        why = refusal(call("evaluate", run, "--sliding", "5"))
        assert "the window is 5 x 5 pixels; it must be at least 32 a side" in why
        why = refusal(call("evaluate", run / "model.onnx", "--sliding", "16x16"))
        assert "is made for one size" in why

    def test_the_run_is_a_function_of_its_seed(
        self, run: Path, scenes_folder: Path, tiny: NetSpec, tmp_path: Path
    ) -> None:
        record = train_segment(
            tiny, scenes_folder, filters=16, epochs=2, out=tmp_path / "again", seed=3
        )
        assert record["scores"] == json.loads((run / "run.json").read_text())["scores"]
        one, other = (p / "weights.safetensors" for p in (run, tmp_path / "again"))
        seg = segmenter(tiny, classes=3, filters=16)
        for a, b in zip(
            weights(load_segmenter(seg, one)), weights(load_segmenter(seg, other)), strict=True
        ):
            assert torch.equal(a, b)


class TestCommands:
    def test_train_evaluate_predict(
        self, call: Call, scenes_folder: Path, tiny_file: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        answer = call(
            "train", tiny_file, "--task", "segment", "--data", scenes_folder, "--size", "24x32",
            "--epochs", 0.5, "--filters", 8, "--balance", "--out", out, "--json",
        )  # fmt: skip
        assert answer.code == 0, answer.err
        record = json.loads(answer.out)
        assert record["settings"]["crop"] == [24, 32]
        answer = call("evaluate", out, "--split", "test")
        assert answer.code == 0
        assert "mean (mIOU)" in answer.out
        picture, painted = scenes_folder / "val/00.png", tmp_path / "overlay.png"
        answer = call("predict", out, picture, "--out", painted, "--mask", tmp_path / "ids.png")
        assert answer.code == 0
        assert str(painted) in answer.out
        assert size_of(painted)[0] >= SIZE[1]
        assert size_of(tmp_path / "ids.png") == (SIZE[1], SIZE[0])
        assert call("report", out).out.strip() == str(out / "report.md")

    def test_refusals(
        self, call: Call, scenes_folder: Path, tiny_file: Path, run: Path, tmp_path: Path
    ) -> None:
        def said(*arguments: object, after: int = 0) -> str:
            return refusal(call(*arguments), after=after)

        segment = ("train", tiny_file, "--task", "segment")
        assert "a network and --data are needed" in said("train", "--task", "segment")
        assert "there is no folder" in said(*segment, "--data", tmp_path / "none")
        data = (*segment, "--data", scenes_folder)
        assert "'4x' is no size" in said(*data, "--size", "4x")
        assert "epochs is 0" in said(*data, "--epochs", 0)
        assert "holds a run already" in said(*data, "--out", run)
        assert "cannot become 32" in said(*data, "--output-stride", 32)
        listed = tmp_path / "two.txt"
        listed.write_text("sky\nroad\n", encoding="utf-8")
        out = tmp_path / "refused"
        message = said(*data, "--classes", listed, "--out", out)
        assert "holds id 3, and the class list has ids 0 to 1" in message
        assert not out.exists()
        assert "there is no split 'dev'" in said("evaluate", run, "--split", "dev")
        message = said("evaluate", run, "--data", scenes_folder, "--classes", listed)
        assert "they must be the same, in the same order" in message
        assert "has no trained weights" in said("evaluate", tmp_path)
        picture = scenes_folder / "val/00.png"
        assert "cannot be read" in said("predict", run, tmp_path / "no.png", "--out", "x.png")
        assert "name a folder" in said("predict", run, picture, picture, "--out", "x.png")
        assert "name a .png file" in said("predict", run, picture, "--out", tmp_path / "x.jpg")
        assert "two options would both write" in said(
            "predict", run, picture, "--out", tmp_path / "x", "--mask", tmp_path / "x"
        )
        assert "go with a detector's or segmenter's run" in said(
            "predict", tmp_path, picture, "--out", "x.png"
        )

    def test_a_run_is_counted_and_measured_as_the_segmenter_that_it_is(
        self, call: Call, run: Path
    ) -> None:
        found = json.loads(call("count", run, "--task", "segment", "--size", "48x64", "--json").out)
        assert (found["classes"], found["filters"]) == (3, 16)
        why = refusal(call("measure", run, "--runtime", "litert", "--precision", "int8"))
        assert f"there is no {run}/model-int8.tflite to measure" in why
        assert "by --task segment" in why

    def test_count_and_zoo(self, call: Call) -> None:
        """Figures as in tests/test_segmenter.py, here by way of names and options."""
        answer = call("count", "v3-large+rf2", "--task", "segment", "--json")
        found = json.loads(answer.out)
        assert (found["params"], found["output_stride"]) == (1_507_198, 16)
        assert found["madds_table7"] == pytest.approx(9.74e9, abs=2e7)
        answer = call(
            "count", "v3-large+rf2+os32", "--task", "segment", "--size", "512x1024", "--json"
        )
        found = json.loads(answer.out)
        assert found["output_stride"] == 32
        assert found["madds_table7"] == pytest.approx(1.98e9, abs=1e7)
        assert len(json.loads(call("zoo", "--task", "segment", "--json").out)) == 15
        assert "9.74" in call("zoo", "v3-large", "--task", "segment").out
        assert "have no network 'v1'" in refusal(call("zoo", "v1", "--task", "segment"))
        assert "go with another --task" in refusal(call("count", "v2", "--size", "64"))
