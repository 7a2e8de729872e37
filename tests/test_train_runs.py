"""Whole trainings with what may be added to them: a teacher, streams, other settings, processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import bneck
from annotated import draw_boxes
from bneck.nets.build import build
from bneck.nets.weights import load_weights, save_weights
from bneck.runs.train import resume_training, train
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.tasks.classify.dataset import ImageData
from bneck.tasks.classify.recipes import RECIPES, paper
from bneck.training.settings import Settings, changed
from commands import Call, refusal
from learning import train as train_net

QUICK: dict[str, Any] = {"epochs": 2.0, "seed": 3}


@pytest.fixture(scope="module")
def shard(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards") / "pictures.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(pictures, ".")
    return path


@pytest.fixture(scope="module")
def whole(shard: Path, tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A streamed training with everything written down."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(str(tiny_file), shard, stream=True, out=out, **QUICK)
    return out


class TestPaper:
    def test_the_recipe_is_that_of_the_paper(self) -> None:
        """Section 6.1.1, and the authors' released code where the paper is silent."""
        recipe = paper(images=1_281_167)
        assert recipe.lr == pytest.approx(0.1 * recipe.batch / 4096)
        assert (recipe.schedule, recipe.warmup, recipe.weight_decay) == ("exponential", 5.0, 1e-5)
        assert (recipe.decayed, recipe.average, recipe.sgd_momentum) == ("full", 0.9999, None)
        assert recipe.bn_momentum is None  # the spec's: 1 - 0.99
        augment = recipe.augment
        assert (augment.area, augment.aspect, augment.flip) == ((0.05, 1.0), (3 / 4, 4 / 3), True)
        assert (augment.distort, augment.colour) == ("fast", 0.0)
        for name in ("v3-large", "v3-small"):
            net = build(bneck.network(name))
            assert net.dropout.p == 0.2
            norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
            assert all(norm.momentum == pytest.approx(0.01) for norm in norms)

    @pytest.mark.parametrize("name", RECIPES)
    def test_the_rate_follows_the_batch(self, name: str) -> None:
        small, large = RECIPES[name](images=80), RECIPES[name](images=100_000)
        assert small.lr / small.batch == pytest.approx(large.lr / large.batch)


class TestChanged:
    def test_values_of_every_kind(self) -> None:
        base = RECIPES["small-data"](images=1000)
        found = changed(
            base,
            ["precision=bf16", "accumulate=4", "sync_bn=true", "area=0.1,0.9", "sgd_momentum=0.9",
             "decayed=all", "distort=full", "bn_momentum=none", "average=0"],
        )  # fmt: skip
        assert (found.precision, found.accumulate, found.sync_bn) == ("bf16", 4, True)
        assert (found.augment.area, found.augment.distort) == ((0.1, 0.9), "full")
        assert (found.sgd_momentum, found.decayed, found.bn_momentum) == (0.9, "all", None)
        assert (found.average, found.lr) == (0.0, base.lr)

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ("lr=1", "'lr=1' cannot be set; give FIELD=VALUE with one of schedule, warmup"),
            ("speed", "'speed' cannot be set"),
            ("accumulate=two", "accumulate is 'two'; it must be a whole number"),
            ("accumulate=0", "temperature and accumulate must be above 0"),
            ("sync_bn=yes", "sync_bn is 'yes'; it must be true or false"),
            ("precision=fp8", "precision is 'fp8'; it must be one of fp32, bf16"),
            ("decayed=some", "decayed is 'some'; it must be one of full, convolutions, all"),
            ("smoothing=2", "smoothing is 2.0; it must be from 0 to 0.99"),
            ("average=nan", "average is nan; it must be from 0 to 1"),
            ("area=0.5", r"area is '0\.5'; it must be two numbers"),
            ("area=0.9,0.5", r"area is \(0\.9, 0\.5\); it must be two shares"),
        ],
    )
    def test_what_cannot_be_is_refused(self, change: str, sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            changed(RECIPES["paper"](images=1000), [change])


class TestRun:
    def test_it_writes_down_what_happened(self, whole: Path) -> None:
        record = json.loads((whole / "run.json").read_text())
        assert (record["state"], record["data"]["kind"]) == ("finished", "shards")
        assert record["data"]["splits"]["train"] == 96
        assert record["speed"]["images_per_s"] > 0
        lines = [json.loads(line) for line in (whole / "training.jsonl").read_text().splitlines()]
        judged = [line for line in lines if "val_top1" in line]
        per_epoch = 96 // record["training"]["batch"]
        assert [line["step"] for line in judged] == [per_epoch, 2 * per_epoch]
        assert judged[-1]["val_top1"] == record["scores"]["val"]["score"]
        assert len(list((whole / "tensorboard").iterdir())) == 1

    def test_best_last_and_averaged_weights(self, whole: Path) -> None:
        shipped, last, best = (
            load_weights(whole / f"weights{name}.safetensors") for name in ("", "-last", "-best")
        )
        assert shipped.keys() == last.keys() == best.keys()
        assert not torch.equal(shipped["classifier.weight"], last["classifier.weight"])

    def test_a_folder_that_was_killed_before_its_record_is_begun_anew(
        self, tiny_file: Path, pictures: Path, tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        (run / "scratch").mkdir(parents=True)
        (run / "scratch" / "spec.yaml").write_text("half a sp")
        (run / ".lock").touch()
        record = train(str(tiny_file), pictures, out=run, epochs=0.5)
        assert record["state"] == "finished"
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "spec.yaml").write_text("mine")
        with pytest.raises(InputError, match="is not an empty folder"):
            train(str(tiny_file), pictures, out=tmp_path / "other", epochs=0.5)

    def test_killed_in_the_middle_of_an_epoch_it_ends_with_the_same_files(
        self, shard: Path, tiny_file: Path, whole: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        from bneck.runs import progress
        from bneck.training import loop

        class Killed(BaseException):
            pass

        broken, real = tmp_path / "broken", progress.Steps.__call__

        def stop(self: Any, done: int, total: int, loss: float) -> None:
            real(self, done, total, loss)
            if done == total // 2 + 3:
                raise Killed

        monkeypatch.setattr(loop.fit, "__kwdefaults__", {**loop.fit.__kwdefaults__, "save_s": 0.0})
        monkeypatch.setattr(progress.Steps, "__call__", stop)
        with pytest.raises(Killed):
            train(str(tiny_file), shard, stream=True, out=broken, **QUICK)
        monkeypatch.setattr(progress.Steps, "__call__", real)
        resume_training(broken)
        for name in ("weights", "weights-last", "weights-best"):
            file = f"{name}.safetensors"
            assert (broken / file).read_bytes() == (whole / file).read_bytes(), name
        steps = [
            json.loads(x)["step"] for x in (broken / "training.jsonl").read_text().splitlines()
        ]
        assert steps == sorted(steps)

    def test_streamed_data_that_changed_is_not_gone_on_with(
        self, shard: Path, whole: Path, tmp_path: Path
    ) -> None:
        run, moved = tmp_path / "run", tmp_path / "moved.tar"
        shutil.copytree(whole, run)
        shutil.copy(shard, moved)
        record = json.loads((run / "run.json").read_text())
        record["state"] = "running"
        record["data"]["path"] = str(moved)
        record["data"]["prepared"]["streamed"] = str(moved)
        (run / "run.json").write_text(json.dumps(record))
        with pytest.raises(InputError, match=r"has changed since .* was begun; start a new run"):
            resume_training(run)


class TestStart:
    def test_a_teacher_is_asked(
        self, whole: Path, pictures: Path, tiny_file: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        how = {"changes": ["teach=1.0"], "epochs": 1.0, "seed": 9}
        record = train(str(tiny_file), pictures, teacher=whole, out=out, **how)
        assert record["options"]["teacher"] == str(whole)
        plain = tmp_path / "plain"
        train(str(tiny_file), pictures, out=plain, **how)
        one, other = (load_weights(p / "weights.safetensors") for p in (out, plain))
        assert not torch.equal(one["classifier.weight"], other["classifier.weight"])

    def test_a_teacher_of_other_classes_is_refused(
        self, whole: Path, tiny_file: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(
            InputError, match=r"knows 3 classes .*, and the images have 10 .*; they must"
        ):
            train(str(tiny_file), teacher=whole, out=tmp_path / "run", epochs=0.1)
        assert not (tmp_path / "run").exists()

    def test_from_a_file_of_weights(
        self, whole: Path, pictures: Path, tiny_file: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        record = train(
            str(tiny_file), pictures, start=whole / "weights.safetensors", epochs=0.5, lr=1e-9,
            out=out, changes=["average=0"],
        )  # fmt: skip
        before = json.loads((whole / "run.json").read_text())
        assert record["scores"]["val"]["score"] == pytest.approx(
            before["scores"]["val"]["score"], abs=0.07
        )
        old, new = (load_weights(p / "weights.safetensors") for p in (whole, out))
        assert torch.allclose(old["rows.0.conv.weight"], new["rows.0.conv.weight"], atol=1e-5)

    def test_a_file_of_another_network_is_refused(
        self, pictures: Path, tiny_file: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "other.safetensors"
        save_weights({"x": torch.zeros(3)}, other)
        with pytest.raises(InputError):
            train(str(tiny_file), pictures, start=other, out=tmp_path / "run", epochs=0.5)
        assert not (tmp_path / "run").exists()

    def test_a_network_wider_than_its_start_is_refused_before_a_folder_is_made(
        self, whole: Path, pictures: Path, tiny_file: Path, tmp_path: Path
    ) -> None:
        wider = tmp_path / "wider.yaml"
        wider.write_text(tiny_file.read_text().replace("expanded: 128,", "expanded: 136,"))
        with pytest.raises(
            InputError, match=r"row 2 of .* is not a narrower row 2.*; leave --from out, or"
        ):
            train(str(wider), pictures, start=whole, out=tmp_path / "run", epochs=0.5)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (["--stream"], "the built-in images are always cached"),
            (["--bad-share", "2"], "bad_share is 2.0; it must be a fraction from 0 to 1"),
            (["--set", "lr=2"], "'lr=2' cannot be set"),
            (
                ["--from", "nowhere"],
                "nowhere has no trained weights: there is no such file or folder;",
            ),
            (
                ["--teacher", "nowhere"],
                "nowhere has no trained weights: there is no such file or folder;",
            ),
            (["--data", "no.tar"], "/no.tar; check the path"),
            (["--recipe", "imagnet"], "known are small-data, paper, imagenet, finetune"),
        ],
    )
    def test_the_command_line_refuses_in_a_sentence(
        self, options: list[str], sentence: str, call: Call, tmp_path: Path
    ) -> None:
        answer = call("train", "v3-small", "--out", tmp_path / "run", *options)
        assert sentence in refusal(answer)
        assert not (tmp_path / "run").exists()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "bneck.cli", "train", *map(str, arguments)]


@pytest.mark.slow
class TestProcesses:
    def test_two_processes_of_torchrun(
        self, tiny_file: Path, pictures: Path, tmp_path: Path
    ) -> None:
        """By the launcher's own command; the same run as one process gives."""
        pytest.importorskip("accelerate")
        spec = tiny_file.read_text().replace("dropout: 0.2", "dropout: 0.0")
        (tmp_path / "still.yaml").write_text(spec)
        records, said = [], []
        for name, launch in (
            ("one", [sys.executable]),
            ("two", [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]),
        ):  # fmt: skip
            out = tmp_path / name
            done = subprocess.run(
                [*launch, "-m", "bneck.cli", "train", str(tmp_path / "still.yaml"), "--data", str(pictures),
                 "--epochs", "4", "--batch", "16", "--set", "sync_bn=true", "--out", str(out)],
                check=True, capture_output=True, text=True, timeout=300,
            )  # fmt: skip
            records.append(json.loads((out / "run.json").read_text()))
            said.append(done.stderr)
        assert ["in batches of 16 in 2 processes, then" in one for one in said] == [False, True]
        assert [r["scores"]["val"]["images"] for r in records] == [30, 30]
        assert records[1]["scores"]["val"]["loss"] == pytest.approx(
            records[0]["scores"]["val"]["loss"], abs=0.03
        )

    def test_after_ctrl_c_nothing_is_left(
        self, tiny_file: Path, shard: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        process = subprocess.Popen(
            command(tiny_file, "--data", shard, "--stream", "--epochs", 500, "--out", out),
            start_new_session=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        journal = out / "training.jsonl"
        begun = time.monotonic()
        while not (journal.is_file() and journal.read_text().count("\n") > 3):
            assert time.monotonic() - begun < 120
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
        assert (out / "scratch" / "checkpoint").is_file()

    def test_memory_is_flat_over_fifty_epochs(self, tiny: NetSpec, image_data: ImageData) -> None:
        def resident_mb() -> float:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

        seen: list[float] = []
        settings = Settings(epochs=50, batch=16, lr=1e-3)
        train_net(build(tiny), image_data, settings, on_epoch=lambda *_: seen.append(resident_mb()))
        assert len(seen) == 50
        assert max(seen[10:]) - seen[9] < 5


def test_images_of_another_task_are_known_by_it(call: Call, tmp_path: Path) -> None:
    """The usual task refuses images with boxes, and says which task reads them; one that was named is alone."""
    for split in ("train", "val"):
        draw_boxes(tmp_path, split, 4, seed=0)
    said = refusal(call("train", "v3-small", "--data", tmp_path))
    assert said.startswith(f"{tmp_path} has one class, 'images'")
    assert said.endswith("; --task detect can read it as it is")
    assert "--task" not in refusal(
        call("train", "v3-small+rf2", "--task", "segment", "--data", tmp_path)
    )
