"""Segmentation end to end on drawn scenes: it learns, resumes, judges, paints, and says what is wrong."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import bneck
from annotated import SIZE, draw_scenes
from bneck.devices import protocol
from bneck.devices.runtimes import OnnxRuntime
from bneck.nets.weights import load_weights
from bneck.records.progress import Silent
from bneck.records.run import RunFolder
from bneck.runs.answers import ModuleAnswers
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.transforms import with_expanded
from bneck.tasks.contract import Data
from bneck.tasks.segment.head import Segmenter, segmenter
from bneck.tasks.segment.module import SegmentNet, build_segmenter
from bneck.tasks.segment.options import SegmentOptions
from bneck.tasks.segment.pairs import Scenery, list_pairs
from bneck.tasks.segment.scenes import Scenes
from bneck.tasks.segment.scoring import score
from bneck.tasks.segment.task import Segment
from bneck.training.loop import fit
from bneck.training.optim import learning_rate
from bneck.training.settings import Settings, TrainingError
from commands import Call, refusal

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("sky", "road", "ball")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure of a busy machine is refused: these tests look at none."""
    monkeypatch.setattr(protocol, "_check_spread", lambda *of: None)


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


@pytest.fixture(scope="module")
def data(scenes_folder: Path, tmp_path_factory: pytest.TempPathFactory, tiny: NetSpec) -> Data:
    """The scenes as a training takes them: crops of all that there is."""
    task, options = Segment(), SegmentOptions(crop=SIZE)
    found = task.find(str(scenes_folder), options, seed=0)
    return task.prepare(
        found, *task.arrange(tiny, options, found), options,
        scratch=tmp_path_factory.mktemp("survey"), seed=0, progress=Silent(),
    )  # fmt: skip


SETTINGS = Settings(
    epochs=3, batch=8, lr=0.05, schedule="poly", warmup=0.3, weight_decay=4e-5, average=0.9,
    bn_momentum=0.1, sgd_momentum=0.9,
)  # fmt: skip


def train_segmenter(net: SegmentNet, data: Data, settings: Settings, **how: Any) -> SegmentNet:
    return fit(net, data.problem(net, settings), settings, **how)


def weights(net: torch.nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in net.state_dict().values()]


def size_of(path: str | Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


class Interrupt(Exception):
    pass


class TestTraining:
    def test_it_learns(self, seg: Segmenter, scenery: Scenery, data: Data) -> None:
        """From near chance to most of what there is, with whole images judged at their own size."""
        judged = Scenes(scenery.split("val"), scenery.labels, whole_masks=True)
        net = build_segmenter(seg, seed=0)
        answers = ModuleAnswers(Segment(), net)
        before = score(answers, judged, "val", Silent()).score
        losses: list[float] = []
        settings = replace(SETTINGS, epochs=15, lr=0.1, warmup=1)
        train_segmenter(net, data, settings, on_step=lambda done, all_, v: losses.append(v))
        found = score(answers, judged, "val", Silent())
        assert before is not None
        assert found.score is not None
        assert before < 0.35
        assert found.score > 0.7
        assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
        assert len(losses) == 45
        assert found.images == 6
        windows = score(answers, judged, "val", Silent(), sliding=(32, 40))
        assert windows.score is not None
        assert windows.score > 0.5

    @pytest.mark.parametrize("head", ["lraspp", "raspp"])
    def test_a_run_that_was_killed_goes_on_as_if_nothing_had_been(
        self, tiny: NetSpec, data: Data, tmp_path: Path, head: str
    ) -> None:
        """Momentum, averages, dropout and crops included, to the last bit."""
        seg = segmenter(tiny, classes=3, filters=8, head=head)  # type: ignore[arg-type]

        def trained(checkpoint: Path | None, stop: int = 99) -> list[torch.Tensor]:
            def on_step(done: int, total: int, loss: float) -> None:
                if done == stop:
                    raise Interrupt

            net = build_segmenter(seg, seed=1)
            train_segmenter(net, data, SETTINGS, checkpoint=checkpoint, on_step=on_step)
            return weights(net)

        whole = trained(None)
        path = tmp_path / "checkpoint.safetensors"
        with pytest.raises(Interrupt):
            trained(path, stop=5)  # in the second of three epochs
        assert path.is_file()
        for a, b in zip(whole, trained(path), strict=True):
            assert torch.equal(a, b)

    def test_what_cannot_be_trained(
        self, tiny: NetSpec, seg: Segmenter, data: Data, scenes_folder: Path, tmp_path: Path
    ) -> None:
        def attempt(seg: Segmenter, **change: Any) -> None:
            train_segmenter(build_segmenter(seg), data, replace(SETTINGS, **change))

        with pytest.raises(TrainingError, match="the batch of 25 is larger than the 24 training"):
            attempt(seg, batch=25)
        with pytest.raises(TrainingError, match="R-ASPP normalizes one pooled pixel per image"):
            attempt(segmenter(tiny, classes=3, head="raspp"), batch=1)
        with pytest.raises(
            TrainingError, match=r"the loss (became|rose from) .* at step .* smaller learning rate"
        ):
            attempt(seg, lr=1e9, warmup=0.0)
        for change, message in (
            ({"epochs": 0}, "epochs is 0"), ({"lr": math.inf}, "lr is inf"), ({"batch": 0}, "batch is 0"),
            ({"seed": -1}, "seed is -1"), ({"crop": (0, 5)}, r"\(0, 5\) is not a size"),
        ):  # fmt: skip
            out = tmp_path / "refused"
            with pytest.raises(InputError, match=message):
                bneck.train(tiny, scenes_folder, task="segment", out=out, **change)
            assert not out.exists()

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
    assert train(tiny, scenes_folder, out)["run"] == str(out)
    return out


def train(tiny: NetSpec, data: Path, out: Path, **how: Any) -> dict[str, Any]:
    return bneck.train(tiny, data, task="segment", filters=16, epochs=2, seed=3, out=out, **how)


def scores(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = RunFolder(run).read()["scores"]
    return found


class TestRun:
    def test_it_is_counted_with_its_own_classes_and_head(self, run: Path) -> None:
        own = sum(p.numel() for p in bneck.build(run).parameters())
        assert bneck.count(run, task="segment").params == own
        at_512 = bneck.count(run, task="segment", size="512x1024")
        assert at_512.params == own
        assert at_512.madds > bneck.count(run, task="segment").madds
        assert bneck.count(run, task="segment", classes=19).params > own

    def test_its_folder_holds_what_there_is_to_know(self, run: Path) -> None:
        assert {p.name for p in run.iterdir()} >= {
            "run.json", "spec.yaml", "weights.safetensors", "model.onnx", "report.md", "best-1.png",
            "worst-3.png",
        }  # fmt: skip
        record = RunFolder(run).read()
        assert (record["kind"], record["task"], record["state"]) == ("train", "segment", "finished")
        assert record["classes"] == record["data"]["labels"]["names"] == list(NAMES)
        assert record["data"]["splits"] == {"train": 24, "val": 6, "test": 4}
        assert list(record["scores"]) == ["val", "test"]
        val = record["scores"]["val"]
        report = (run / "report.md").read_text()
        assert f"**mIOU {100 * val['score']:.1f} %** on val, 6 images." in report
        assert "| ball |" in report
        best, worst = val["shown"][0], val["shown"][3]
        assert (best["file"], worst["file"]) == ("best-1.png", "worst-1.png")
        assert best["miou"] >= worst["miou"]

    def test_a_narrower_one_keeps_its_most_important_channels(
        self, run: Path, scenes_folder: Path, tiny: NetSpec, tmp_path: Path
    ) -> None:
        narrow, out = with_expanded(tiny, 3, 96), tmp_path / "run"
        record = train(narrow, scenes_folder, out, start=str(run), lr=1e-9)
        said = record["channels"]
        assert (said["keep"], said["new_head"]) == ("fisher", False)
        assert said["images"] == said["reconstructed_on"] > 0
        ours, theirs = (load_weights(one / "weights.safetensors") for one in (out, run))
        name = "rows.3.depthwise.conv.weight"  # not solved anew
        assert ours[name].shape[0] == 96
        apart = (ours[name][:, None] - theirs[name][None]).abs().amax((2, 3, 4))
        assert float(apart.amin(1).max()) < 1e-6
        assert len(set(apart.argmin(1).tolist())) == 96
        other = train(narrow, scenes_folder, tmp_path / "l2", start=str(run), lr=1e-9, keep="l2")
        assert other["channels"] == {"keep": "l2"}

    def test_evaluating_it_gives_the_recorded_score(self, run: Path, scenes_folder: Path) -> None:
        recorded = scores(run)
        again = bneck.evaluate(run)
        assert {k: again[k] for k in recorded["val"]} == recorded["val"]
        other = bneck.evaluate(run, scenes_folder, split="test")
        known = {k: v for k, v in recorded["test"].items() if k != "shown"}  # drawn in runs alone
        assert {k: other[k] for k in known} == known
        assert scores(run) == recorded

    def test_going_on_with_a_finished_run_judges_it_anew(self, run: Path) -> None:
        before = (run / "weights.safetensors").read_bytes()
        recorded = scores(run)
        assert bneck.resume(run)["scores"] == recorded
        assert (run / "weights.safetensors").read_bytes() == before

    def test_a_run_that_was_killed_is_finished_as_if_nothing_had_been(
        self, run: Path, scenes_folder: Path, tiny: NetSpec, tmp_path: Path
    ) -> None:
        """Killed in the second epoch; until then it has no weights, and says how to go on."""

        class Killing(Silent):
            steps = -1

            def stage(self, name: str, total: int) -> None:
                self.steps = 0 if name.startswith("training") else -1

            def advance(self, done: int) -> None:
                if self.steps >= 0:
                    self.steps += done
                if self.steps == 5:
                    raise KeyboardInterrupt

        out = tmp_path / "killed"
        with pytest.raises(KeyboardInterrupt):
            train(tiny, scenes_folder, out, progress=Killing())
        with pytest.raises(InputError, match="has no trained weights; resume it with: bneck train"):
            bneck.evaluate(out)
        found = bneck.resume(out)["scores"]
        recorded = scores(run)
        assert {k: found["val"][k] for k in found["val"]} == recorded["val"]
        assert found["test"] == recorded["test"]
        assert not (out / "scratch").exists()

    def test_pictures_of_any_size_are_painted(self, run: Path, tmp_path: Path) -> None:
        rng = np.random.default_rng(1)
        for i, size in enumerate([(48, 64), (37, 51)]):
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(
                tmp_path / f"{i}.png"
            )
        pictures = [tmp_path / "0.png", tmp_path / "1.png"]
        found = bneck.predict(run, pictures, out=tmp_path / "out", mask=str(tmp_path / "ids"))
        ids = np.asarray(Image.open(tmp_path / "ids/1.png"))
        assert ids.shape == (37, 51)
        assert set(np.unique(ids)) <= {0, 1, 2}
        assert found[1]["shares"]["road"] == pytest.approx((ids == 1).mean())
        width, height = size_of(found[1]["picture"])
        assert width >= 51
        assert height > 37

    def test_its_file_answers_for_any_size_with_classes_or_scores(
        self, run: Path, scenes_folder: Path, tmp_path: Path
    ) -> None:
        """The exported file in its runtime gives the mask that `predict` writes."""
        found = bneck.export(run, out=tmp_path / "m.onnx", argmax=True)
        assert found["size"] == list(SIZE)
        picture = scenes_folder / "val/00.png"
        bneck.predict(run, [picture], mask=str(tmp_path / "m.png"))
        with Image.open(picture) as image, Image.open(tmp_path / "m.png") as mask:
            pixels, ids = np.asarray(image), np.asarray(mask)
        session = OnnxRuntime().load((tmp_path / "m.onnx").read_bytes(), threads=1)
        mean, std = (np.array(json.loads(session.metadata[k]), np.float32) for k in ("mean", "std"))
        x = ((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
        assert (session.run(x)[0] == ids).mean() > 0.99
        other = bneck.export(run, out=tmp_path / "s.onnx", size=(33, 50))
        assert other["largest_difference"] <= 1e-4

    @pytest.mark.usefixtures("hasty")
    def test_files_of_every_kind_are_judged_painted_and_measured(
        self, run: Path, scenes_folder: Path, call: Call, tmp_path: Path
    ) -> None:
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
            assert by_file["score"] == pytest.approx(scored["score"], abs=0.1)
            mask = tmp_path / f"{precision}.png"
            (seen,) = json.loads(call("predict", file, picture, "--mask", mask, "--json").out)
            assert sum(seen["shares"].values()) == pytest.approx(1)
            assert size_of(mask) == size_of(picture)
            files.append(file)
        found = json.loads(call("measure", *files, "--rounds", 3, "--json").out)
        assert [one["precision"] for one in found] == ["fp32", "int8"]
        assert (found[0]["resolution"], found[0]["width"]) == SIZE
        (found,) = json.loads(call("measure", run, "--rounds", 3, "--json").out)
        assert (found["network"], found["runtime"]) == ("tiny", "onnxruntime")
        beside = json.loads(call("evaluate", run / "model.onnx", "--json").out)
        assert beside["score"] == pytest.approx(scored["score"], abs=0.05)

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            (
                ("--format", "pte"),
                "no files of detectors and segmenters for the runtime executorch",
            ),
            (("--precision", "int4"), "there is no precision 'int4'; known are fp32"),
            (("--pixels",), "--pixels is an option of the task classify, and this is segment"),
            (("--size", "4x"), "'4x' is not a size"),
            (("--size", "999999x999"), "999999x999 has more pixels than 8192 x 8192"),
            (("--decode",), "--decode is an option of the task detect, and this is segment"),
            (("--precision", "int8", "--data", "NONE"), "NONE has no pictures; pass a folder"),
        ],
    )
    def test_files_that_segmenters_lack(
        self, run: Path, call: Call, options: tuple[str, ...], why: str
    ) -> None:
        assert why in refusal(call("export", run, *options))

    @pytest.mark.usefixtures("hasty")
    def test_float_and_8_bits_side_by_side(self, run: Path, call: Call, tmp_path: Path) -> None:
        options = ("--runtime", "onnxruntime", "--epochs", 0, "--rounds", 3, "--out", tmp_path)
        answer = call("quantize", run, *options)
        assert "mIOU" in answer.out
        assert "rounding one layer alone changes the scores most in" in answer.out
        found = json.loads((tmp_path / "quantize.json").read_text())
        plain, naive, post = found["rows"]
        assert [row["name"] for row in (plain, naive, post)] == ["fp32", "naive", "ptq"]
        assert post["score"] == pytest.approx(plain["score"], abs=0.05)
        assert post["size_mb"] < 0.5 * plain["size_mb"]
        assert "has no trained weights" in refusal(call("quantize", tmp_path / "ptq.onnx"))

    def test_a_file_has_one_size_and_no_windows(self, run: Path, call: Call) -> None:
        why = refusal(call("evaluate", run, "--sliding", "5"))
        assert "the window is 5 x 5 pixels; it must be at least 32 per side" in why
        why = refusal(call("evaluate", run / "model.onnx", "--sliding", "16x16"))
        assert "is made for one size" in why

    def test_the_run_is_a_function_of_its_seed(
        self, run: Path, scenes_folder: Path, tiny: NetSpec, tmp_path: Path
    ) -> None:
        record = train(tiny, scenes_folder, tmp_path / "again")
        assert record["scores"] == scores(run)
        one, other = (load_weights(p / "weights.safetensors") for p in (run, tmp_path / "again"))
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)


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
        assert record["data"]["crop"] == [24, 32]
        answer = call("evaluate", out, "--split", "test")
        assert answer.code == 0
        assert "all (mIOU)" in answer.out
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
        assert "a network is needed" in said("train", "--task", "segment")
        assert "no built-in images; pass a folder of yours with --data" in said(*segment)
        assert "there is no folder" in said(*segment, "--data", tmp_path / "none")
        data = (*segment, "--data", scenes_folder)
        assert "'4x' is not a size" in said(*data, "--size", "4x")
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
        assert "has no trained weights" in said("predict", tmp_path, picture, "--out", "x.png")

    @pytest.mark.usefixtures("hasty")
    def test_a_run_is_counted_and_measured_as_the_segmenter_that_it_is(
        self, call: Call, run: Path
    ) -> None:
        found = json.loads(call("count", run, "--task", "segment", "--size", "48x64", "--json").out)
        assert (found["classes"], found["filters"]) == (3, 16)
        how = ("--runtime", "litert", "--precision", "int8", "--rounds", 3)
        (found,) = json.loads(call("measure", run, *how, "--json").out)
        assert (found["network"], found["precision"]) == ("tiny", "int8")
        assert (found["resolution"], found["width"]) == SIZE

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
        said = refusal(call("count", "v2", "--size", "64"))
        assert "--size is an option of the task segment, and this is classify" in said
