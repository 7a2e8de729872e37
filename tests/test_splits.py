"""A run's images are split by the run's own seed, whatever is done with the run afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import bneck
from annotated import draw_boxes, draw_scenes
from bneck.data.builtin import FASHION
from bneck.data.folders import list_images
from bneck.runs.data import Samples, run_dataset
from bneck.runs.load import trained
from bneck.runs.train import train
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.tasks.segment.pairs import list_pairs
from commands import Call, refusal
from test_evaluate import COLOURS, colour_net

SEED, EACH = 3, 10


@pytest.fixture
def undivided(tmp_path: Path) -> Path:
    """CLASS/*.png: of each class's colour if a run of seed 3 has them in val, else of another's."""
    root = tmp_path / "photos"
    for name in COLOURS:
        (root / name).mkdir(parents=True)
        for i in range(EACH):
            (root / name / f"{i}.png").touch()
    listing, colours = list_images(root, seed=SEED), list(COLOURS.values())
    assert {item.path for item in listing.val} != {item.path for item in list_images(root).val}
    for items, shift in ((listing.val, 0), (listing.train, 1)):
        for item in items:
            Image.new("RGB", (40, 40), colours[(item.label + shift) % 3]).save(item.path)
    return root


@pytest.fixture
def run(tiny: NetSpec, tiny_file: Path, undivided: Path, tmp_path: Path) -> Path:
    """A training of seed 3 on that folder, whose network knows the colours."""
    folder = tmp_path / "run"
    options = {"resolution": 32, "batch": 8, "epochs": 0.5, "seed": SEED}
    train(str(tiny_file), undivided, out=folder, **options)
    net = colour_net(tiny, tmp_path / "colours", 3, {0: 0, 1: 1, 2: 2})
    shutil.copy(net / "weights.safetensors", folder / "weights.safetensors")
    return folder


class TestClassifiers:
    def test_evaluate_scores_the_runs_val(self, run: Path, undivided: Path, call: Call) -> None:
        found = bneck.evaluate(run)
        assert (found["images"], found["score"], found["data"]) == (6, 1.0, str(undivided))
        assert found["notes"] == []
        assert json.loads((run / "run.json").read_text())["scores"]["val"]["score"] == 1.0
        found = bneck.evaluate(run, undivided)
        assert (found["images"], found["score"], found["data"]) == (6, 1.0, str(undivided))
        assert found["notes"] == [
            f"{undivided} is what the run was trained on: scored on its val images alone"
        ]
        assert "scored on its val images alone" in call("evaluate", run, "--data", undivided).out
        assert bneck.evaluate(run, split="train")["score"] == 0
        with pytest.raises(InputError, match="there is no split 'test'"):
            bneck.evaluate(run, split="test")

    def test_so_does_a_file_next_to_the_run(self, run: Path) -> None:
        bneck.export(run)
        assert bneck.evaluate(run / "model.onnx")["score"] == 1.0

    def test_so_does_quantize(self, run: Path, undivided: Path) -> None:
        bneck.quantize(run, epochs=0, rounds=3, runtime_name="onnxruntime")
        found = json.loads((run / "8bit" / "quantize.json").read_text())
        assert found["images"] == {"train": 24, "val": 6}
        assert (found["data"], found["classes"]) == (str(undivided), list(COLOURS))
        assert found["rows"][0]["score"] == 1.0

    @pytest.mark.parametrize("own", [False, True], ids=["by default", "named"])
    def test_files_are_calibrated_on_train_and_checked_on_val(
        self, run: Path, undivided: Path, own: bool
    ) -> None:
        data = undivided if own else None
        listing = list_images(undivided, seed=SEED)
        kept = [item.path.read_bytes() for item in listing.train]
        for item in listing.train:
            item.path.write_bytes(b"")
        bneck.export(run, data=data)
        with pytest.raises(InputError, match=f"the first is {listing.train[0].path} .the file is"):
            bneck.export(run, precision="int8", data=data)
        for item, content in zip(listing.train, kept, strict=True):
            item.path.write_bytes(content)
        for item in listing.val:
            item.path.write_bytes(b"")
        with pytest.raises(InputError, match=f"the first is {listing.val[0].path} .the file is"):
            bneck.export(run, precision="int8", data=data)

    def test_labels_are_for_other_images(self, run: Path, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("\n".join(COLOURS))
        with pytest.raises(InputError, match="leave --labels out"):
            bneck.evaluate(run, labels=tmp_path / "names.txt")

    def test_classes_that_have_changed(self, run: Path, undivided: Path) -> None:
        (undivided / "n03").rename(undivided / "n04")
        with pytest.raises(InputError, match="has the classes n01, n02, n04 now, and the network"):
            bneck.evaluate(run)
        for use in (bneck.export, bneck.quantize):
            with pytest.raises(
                InputError, match=f"the classes of {undivided} are not the network's"
            ):
                use(run)


@pytest.mark.usefixtures("one_thread")
def test_the_built_in_images(tiny_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    record = train(str(tiny_file), out=run, resolution=32, epochs=0.1)
    found = bneck.evaluate(run)
    assert (found["images"], found["data"]) == (1000, "Fashion-MNIST (built in)")
    # What training scored, and not only nearly.
    assert found["score"] == record["scores"]["val"]["score"]
    assert found["loss"] == pytest.approx(record["scores"]["val"]["loss"], rel=1e-4)
    bneck.quantize(run, epochs=0, rounds=3, runtime_name="onnxruntime")
    made = json.loads((run / "8bit" / "quantize.json").read_text())
    assert (made["data"], made["classes"]) == ("Fashion-MNIST (built in)", list(FASHION))


def test_detectors(tiny_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "boxes"
    for split, count in (("train", 8), ("val", 3)):
        draw_boxes(data, split, count, seed=1)
    run = tmp_path / "run"
    train(str(tiny_file), data, task="detect", out=run, resolution=64, epochs=1)
    assert bneck.evaluate(run, data)["images"] == 3
    for file in data.glob("images/val-*"):
        file.write_bytes(b"")
    for named in (None, data):
        assert len(Samples(trained(run), named).of("train", (64, 64), 99)) == 8
        with pytest.raises(InputError, match=r"no image can be read, the first is .*val-0"):
            Samples(trained(run), named).of("val", (64, 64), 99)


def test_segmenters(tiny_file: Path, tmp_path: Path) -> None:
    """Pairs in two folders that the run's seed splits."""
    drawn, data = tmp_path / "drawn", tmp_path / "pairs"
    drawn.mkdir()
    draw_scenes(drawn)
    shutil.copytree(drawn / "train", data / "images")
    shutil.copytree(drawn / "trainannot", data / "masks")
    listed = tmp_path / "list.txt"
    shutil.copy(drawn / "classes.txt", listed)
    run, own = tmp_path / "run", {"classes": listed, "filters": 16}
    train(str(tiny_file), data, task="segment", out=run, seed=SEED, epochs=1, **own)
    scenery = list_pairs(data, classes=listed, seed=SEED)
    assert scenery.splits != list_pairs(data, classes=listed).splits
    assert run_dataset(trained(run)).splits == {k: len(v) for k, v in scenery.splits.items()}
    found = bneck.evaluate(run, data)
    assert found["images"] == len(scenery.split("val"))
    whole = json.loads((run / "run.json").read_text())["scores"]["val"]["score"]
    assert found["score"] == whole
    made = bneck.quantize(run, epochs=0, rounds=3, seed=0, runtime_name="onnxruntime")
    assert made["images"] == {k: len(v) for k, v in scenery.splits.items()}
    # The same file on the same images; its folder has no record that says so.
    shutil.copy(made["rows"][0]["file"], run / "fp32.onnx")
    assert made["rows"][0]["score"] == bneck.evaluate(run / "fp32.onnx")["score"]
    for pair in scenery.split("train")[1:]:
        pair.image.write_bytes(b"")
    for named in (None, data):  # neither masks nor images of val
        assert len(Samples(trained(run), named).of("train", (48, 64), 99)) == 1


def test_a_run_that_has_only_begun(tiny_file: Path, undivided: Path, call: Call) -> None:
    run = undivided.parent / "begun"
    options = ("--resolution", 32, "--epochs", 0.5, "--out", run)
    assert call("train", tiny_file, "--data", undivided, *options).code == 0
    record = json.loads((run / "run.json").read_text())
    record["state"] = "running"
    del record["data"]["prepared"]  # as if it had been killed while it read the images
    (run / "run.json").write_text(json.dumps(record))
    (run / "weights.safetensors").unlink()
    (undivided / "n03").rename(undivided / "n04")
    said = refusal(call("train", "--resume", run))
    assert "n01, n02, n04 instead of n01, n02, n03" in said
