"""One classifier trained from a folder: from scratch, from other weights, killed and resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bneck
from bneck.devices.runtimes import OnnxRuntime
from bneck.nets.build import Net, build
from bneck.nets.importance import each_image, measure_importance
from bneck.nets.shrink import strength, strongest
from bneck.nets.transfer import is_folded, restore_statistics, transferred
from bneck.nets.weights import load_weights
from bneck.records.progress import Silent
from bneck.records.run import RunFolder
from bneck.runs.load import trained as load_trained
from bneck.runs.train import resume_training, train
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import to_text
from bneck.specs.transforms import with_classes, with_expanded
from bneck.specs.wrapper import PLAIN
from bneck.tasks.registry import task
from bneck.training.loop import backbone
from commands import Call

QUICK: dict[str, Any] = {"epochs": 2.0, "seed": 3}


@pytest.fixture(scope="module")
def trained(pictures: Path, tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    train(str(tiny_file), pictures, out=path, epochs=6.0, lr=0.004, seed=3)
    return path


def folded(spec: NetSpec) -> Net:
    """A net as `bneck import` makes it of a file without batch norm: norms that only add a bias."""
    net = build(spec, seed=1)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.get_buffer("running_var").fill_(1 - norm.eps)
        nn.init.normal_(norm.bias, std=0.1)
    return net.eval()


def test_the_best_epoch_says_on_what_it_was_chosen(
    pictures: Path, tiny_file: Path, tmp_path: Path, call: Call
) -> None:
    out, options = tmp_path / "run", ("--data", pictures, "--epochs", 1)
    printed = call("train", tiny_file, *options, "--out", out).out
    best = RunFolder(out).read()["best"]
    assert best["chosen_on"] == "val"
    number = f"{100 * best['val_top1']:.1f}"
    said = "chosen on val and measured on val, so it may be too high"
    assert f"with {number}% ({said})" in printed
    report = (out / "report.md").read_text()
    assert f"top-1 {number} % after step {best['step']}, {said}." in report


class TestTransfer:
    def test_the_same_rows_and_classes_take_all_weights(self, tiny: NetSpec) -> None:
        start = build(tiny, seed=1)
        net = transferred(start, tiny, seed=2)
        for name, value in net.state_dict().items():
            assert torch.equal(value, start.state_dict()[name]), name

    def test_other_classes_get_a_new_classifier_and_keep_the_rest(self, tiny: NetSpec) -> None:
        start = build(tiny, seed=1)
        net = transferred(start, with_classes(tiny, 7), seed=2)
        fresh = build(with_classes(tiny, 7), seed=2)
        assert torch.equal(net.classifier.weight, fresh.classifier.weight)
        assert torch.equal(
            net.get_parameter("rows.0.conv.weight"), start.get_parameter("rows.0.conv.weight")
        )

    def test_a_narrower_network_keeps_the_strongest_channels(self, tiny: NetSpec) -> None:
        start = build(tiny, seed=1)
        index = next(i for i in range(len(tiny.rows)) if tiny.expands(i))
        narrow = with_expanded(tiny, index, 8)
        weight = transferred(start, narrow).get_parameter(f"rows.{index}.expand.conv.weight")
        norms = start.get_parameter(f"rows.{index}.expand.conv.weight").flatten(1).norm(dim=1)
        assert weight.shape[0] == 8
        assert torch.allclose(weight.flatten(1).norm(dim=1).sort().values, norms.sort().values[-8:])

    def test_a_wider_network_is_refused(self, tiny: NetSpec) -> None:
        index = next(i for i in range(len(tiny.rows)) if tiny.expands(i))
        wide = with_expanded(tiny, index, 999)
        with pytest.raises(InputError, match="shrinking can only drop channels"):
            transferred(build(tiny), wide)

    def test_restored_statistics_leave_the_function_alone_and_make_training_begin_there(
        self, tiny: NetSpec
    ) -> None:
        net = folded(tiny)
        images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        assert is_folded(net)
        with torch.inference_mode():
            before = net(images)
            restore_statistics(net, images.split(16))
            after = net(images)
            batch = without_dropout(net.train())(images)
        assert not is_folded(net)
        scale = float(before.abs().max())
        assert float((after - before).abs().max()) < 1e-4 * scale
        # The batch that gave the statistics has them (but for n against n - 1).
        assert float((batch - before).abs().max()) < 0.02 * scale

    def test_a_trained_net_is_not_taken_for_folded(self, trained: Path) -> None:
        assert not is_folded(load_trained(trained).net)


STILL: dict[str, Any] = {"epochs": 0.5, "lr": 1e-12}  # what is trained keeps its weights
NAME = "rows.3.expand.conv.weight"


class TestNarrowed:
    """A narrower network than the weights that it starts from: 40 of 192 channels inside row 3."""

    def begun(self, spec: NetSpec, data: Path, start: Path, out: Path, **how: Any) -> Any:
        """Which of the start's channels a training begins with, and what its record says of them."""
        record = train(with_expanded(spec, 3, 40), data, start=start, out=out, **STILL, **how)
        kept, wide = (
            load_trained(out).net.state_dict()[NAME],
            load_weights(start / "weights.safetensors")[NAME],
        )
        apart = (kept[:, None] - wide[None]).flatten(2).abs().amax(2)
        assert bool((apart.amin(1) < 1e-6).all())
        return apart.argmin(1).tolist(), record["channels"]

    def important(self, start: Path, data: Path, scratch: Path) -> list[int]:
        """Measured here, on all batches of nine that a training sees first."""
        classify = task("classify")
        dataset = classify.find(str(data), None, seed=0)
        net = load_trained(start).net
        ready = classify.prepare(
            dataset, net.spec, PLAIN, None, scratch=scratch, seed=0, progress=Silent()
        )
        settings = classify.recipe("finetune", images=96, epochs=0.5, started=True, seed=0)
        problem = ready.problem(net, settings)
        found = measure_importance(net, problem.batches(0, 0), each_image(problem.loss))
        return sorted(np.argsort(-found.groups["rows.3.expanded"])[:40].tolist())

    def test_it_keeps_the_most_important_channels_or_those_of_the_largest_norm(
        self, tiny: NetSpec, trained: Path, pictures: Path, tmp_path: Path
    ) -> None:
        kept, said = self.begun(tiny, pictures, trained, tmp_path / "fisher")
        # Ten batches of nine of the 96 images.
        assert said == {"keep": "fisher", "images": 90, "new_head": False, "reconstructed_on": 90}
        how = "measured on 90 training images, weights recomputed on 90: 0.5 epochs"
        assert how in (tmp_path / "fisher" / "report.md").read_text()
        assert kept == self.important(trained, pictures, tmp_path / "scratch")
        largest, said = self.begun(tiny, pictures, trained, tmp_path / "l2", keep="l2")
        assert said == {"keep": "l2"}
        expand: Any = load_trained(trained).net.get_submodule("rows.3.expand")
        assert largest == strongest(strength(expand), 40).tolist()
        assert largest != kept

    def test_a_resumed_training_measures_nothing_again(
        self, tiny: NetSpec, trained: Path, pictures: Path, tmp_path: Path
    ) -> None:
        class Stages(Silent):
            """Ends a training in its second epoch, and hears what a resumed one does."""

            def __init__(self, kills: bool) -> None:
                self.kills, self.heard, self.steps = kills, list[str](), 0

            def stage(self, name: str, total: int) -> None:
                self.heard.append(name)

            def advance(self, done: int) -> None:
                self.steps += self.heard[-1].startswith("training")
                if self.kills and self.steps == 12:
                    raise KeyboardInterrupt

        given: Any = {"start": trained, "epochs": 2.0, "lr": 1e-4}
        narrow, first, second = with_expanded(tiny, 3, 40), Stages(True), Stages(False)
        train(narrow, pictures, out=tmp_path / "whole", **given)
        with pytest.raises(KeyboardInterrupt) as stopped:
            train(narrow, pictures, out=tmp_path / "run", progress=first, **given)
        resume = f"resume it with: bneck train --resume {tmp_path / 'run'}"
        assert stopped.value.__notes__ == [resume]
        record = resume_training(tmp_path / "run", progress=second)
        measuring = "measuring the importance of channels"
        assert (measuring in first.heard, measuring in second.heard) == (True, False)
        assert record["channels"] == {
            "keep": "fisher",
            "images": 90,
            "new_head": False,
            "reconstructed_on": 90,
        }
        whole, broken = (
            load_weights(tmp_path / n / "weights.safetensors") for n in ("whole", "run")
        )
        assert all(torch.equal(whole[key], broken[key]) for key in whole)

    def test_other_classes_are_learned_through_a_new_head(
        self, tiny: NetSpec, trained: Path, pictures: Path, tmp_path: Path
    ) -> None:
        two = tmp_path / "two"
        for split in ("train", "val"):
            for name in ("circle", "square"):
                shutil.copytree(pictures / split / name, two / split / name)
        kept, said = self.begun(with_classes(tiny, 2), two, trained, tmp_path / "run")
        assert said == {
            "keep": "fisher",
            "images": 60,
            "new_head": True,
            "reconstructed_on": 60,
        }  # ten batches of six
        assert len(set(kept)) == 40

    def test_an_equally_wide_network_has_nothing_to_choose(
        self, tiny: NetSpec, trained: Path, pictures: Path, tmp_path: Path
    ) -> None:
        assert train(tiny, pictures, start=trained, out=tmp_path / "run", **STILL)["channels"] == {}
        with pytest.raises(
            InputError, match=r"--keep l2 chooses among.* tiny is as wide as .*/run;"
        ):
            train(tiny, pictures, start=trained, out=tmp_path / "other", keep="l2", **STILL)
        assert not (tmp_path / "other").exists()


def without_dropout(net: Net) -> Net:
    net.dropout.p = 0.0
    return net


class TestRun:
    def test_it_learns_and_says_what_came_of_it(self, trained: Path) -> None:
        record = json.loads((trained / "run.json").read_text())
        assert record["state"] == "finished"
        assert (record["kind"], record["task"]) == ("train", "classify")
        assert record["scores"]["val"]["score"] > 0.6  # of three classes; guessing gives 0.33
        assert record["files"]["model.onnx"]["label_agreement"] == 1.0
        assert record["classes"] == ["circle", "square", "stripes"]
        assert (trained / "model.onnx").is_file()
        assert not (trained / "scratch").exists()

    def test_the_folder_works_wherever_a_network_is_named(
        self, trained: Path, pictures: Path
    ) -> None:
        assert bneck.count(trained).params == bneck.count(bneck.network(trained)).params
        found = bneck.evaluate(trained, pictures / "val", crop="resize")
        assert found["images"] == 30
        image = next((pictures / "val" / "circle").iterdir())
        assert len(bneck.predict(trained, [image], top=3)[0]["classes"]) == 3

    def test_from_weights_it_begins_where_they_were(
        self, trained: Path, pictures: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        record = train(
            str(trained), pictures, start=trained, out=out, epochs=0.5, lr=1e-9, frozen=True
        )
        before = json.loads((trained / "run.json").read_text())
        assert record["scores"]["val"]["score"] == pytest.approx(before["scores"]["val"]["score"])
        old, new = (
            load_weights(trained / "weights.safetensors"),
            load_weights(out / "weights.safetensors"),
        )
        frozen = [n for n in old if n.startswith(tuple(f"rows.{i}." for i in range(4)))]
        assert frozen
        assert all(torch.equal(old[name], new[name]) for name in frozen)

    def test_the_exported_file_has_the_start_s_normalisation(
        self, trained: Path, pictures: Path, tmp_path: Path
    ) -> None:
        """What the net was trained with stands in the file that ships."""
        begin = Path(shutil.copytree(trained, tmp_path / "begin"))
        said = json.loads((begin / "run.json").read_text())
        said["normalisation"] = {"mean": [0.5, 0.25, 0.75], "std": [0.5, 0.5, 0.5]}
        (begin / "run.json").write_text(json.dumps(said))
        out = tmp_path / "run"
        train(str(begin), pictures, start=begin, out=out, epochs=0.5, frozen=True)
        engine = OnnxRuntime()
        metadata = engine.load(engine.read(out / "model.onnx"), threads=1).metadata
        assert json.loads(metadata["mean"]) == [0.5, 0.25, 0.75]

    def test_frozen_rows_learn_nothing(self, trained: Path, pictures: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        train(str(trained), pictures, start=trained, out=out, epochs=1.0, lr=0.01, frozen=True)
        old, new = (load_trained(path).net for path in (trained, out))
        for a, b in zip(
            backbone(old).state_dict().values(), backbone(new).state_dict().values(), strict=True
        ):
            assert torch.equal(a, b)
        assert not torch.equal(old.classifier.weight, new.classifier.weight)

    def test_rows_at_a_rate_of_nothing_keep_their_weights(
        self, trained: Path, pictures: Path, tmp_path: Path
    ) -> None:
        """Their batch norm still learns from the images, as those of frozen rows does not."""
        out = tmp_path / "run"
        train(
            str(trained),
            pictures,
            start=trained,
            out=out,
            epochs=1.0,
            lr=0.01,
            changes=("backbone_rate=0",),
        )
        old, new = (load_trained(path).net for path in (trained, out))
        before, after = (dict(backbone(net).named_parameters()) for net in (old, new))
        assert all(torch.equal(before[name], after[name]) for name in before)
        moved = [
            name for name, value in backbone(old).named_buffers()
            if not torch.equal(value, dict(backbone(new).named_buffers())[name])
        ]  # fmt: skip
        assert any(name.endswith("running_mean") for name in moved)
        assert not torch.equal(old.classifier.weight, new.classifier.weight)

    def test_killed_after_an_epoch_it_ends_with_the_same_weights(
        self, pictures: Path, tiny_file: Path, tmp_path: Path
    ) -> None:
        whole = tmp_path / "whole"
        train(str(tiny_file), pictures, out=whole, **QUICK)

        class Killed(BaseException):
            pass

        class Watching(Silent):
            """Pulls the plug in the second of two epochs: the bar has come to its last third."""

            steps = 0

            def advance(self, done: int) -> None:
                self.steps += done if self.training else 0
                if self.steps > 12:
                    raise Killed

            def stage(self, name: str, total: int) -> None:
                self.training = name.startswith("training")

        broken = tmp_path / "broken"
        with pytest.raises(Killed):
            train(str(tiny_file), pictures, out=broken, progress=Watching(), **QUICK)
        resume_training(broken)
        assert (broken / "weights.safetensors").read_bytes() == (
            whole / "weights.safetensors"
        ).read_bytes()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"recipe": "best"},
            "there is no recipe 'best'; known are small-data, paper, imagenet, finetune",
        ),
        ({"keep": "l2"}, "--keep says which channels of trained weights stay; add --from PATH"),
        ({"keep": "L1", "start": "x"}, "keep is 'L1'; it must be fisher or l2"),
        ({"frozen": True}, "--frozen needs trained weights; add --from PATH or remove --frozen"),
        ({"epochs": 0.0}, "epochs is 0.0; it must be a number above 0"),
        ({"batch": 1}, "the batch is 1; batch norm needs at least 2 images"),
        ({"batch": 1000}, "the batch of 1000 is larger than the 96 training images"),
        ({"lr": -1.0}, "lr is -1.0; it must be a number above 0"),
        ({"lr": 1e30}, "the loss became"),
        ({"resolution": 8}, "resolution is 8; it must be at least 32"),
        ({"start": "nowhere"}, "nowhere has no trained weights"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    options: dict[str, Any], sentence: str, pictures: Path, tiny_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(InputError, match=sentence):
        train(str(tiny_file), pictures, out=out, **{"epochs": 1.0, **options})
    assert not out.exists()


def test_another_networks_weights_are_refused(
    trained: Path, pictures: Path, tiny: NetSpec, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="shrinking can only drop channels"):
        train("v3-small@32", pictures, start=trained, out=tmp_path / "run")


def test_a_folder_in_use_is_left_alone(pictures: Path, tiny_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="is not an empty folder"):
        train(str(tiny_file), pictures, out=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_only_a_training_is_resumed(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    record = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**record, "kind": "search"}))
    with pytest.raises(InputError, match="is a run of kind 'search'"):
        resume_training(other)


def test_the_spec_file_of_a_run_reads_like_any_other(trained: Path, tiny: NetSpec) -> None:
    assert to_text(bneck.network(trained)) == (trained / "spec.yaml").read_text()
