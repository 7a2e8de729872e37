"""A run's images are divided by the run's own seed, whatever is done with the run afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import bneck
from annotated import draw_boxes
from bneck.data.builtin import FASHION
from bneck.data.folders import list_images
from bneck.data.pairs import list_pairs
from bneck.recipes.splits import run_source
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
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
def run(tiny: NetSpec, undivided: Path, tmp_path: Path) -> Path:
    """A classification run of seed 3 on that folder, whose network knows the colours."""
    folder = colour_net(
        tiny, tmp_path / "run", 3, {0: 0, 1: 1, 2: 2},
        settings={"data": str(undivided), "seed": SEED}, data={"classes": list(COLOURS)},
    )  # fmt: skip
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "kind": "classify"}))
    return folder


class TestClassifiers:
    def test_evaluate_judges_on_the_runs_val(self, run: Path, undivided: Path) -> None:
        for data in (None, undivided):
            found = bneck.evaluate(run, data)
            assert (found["n"], found["top1"], found["data"]) == (6, 1.0, str(undivided))
            assert found["notes"] == ["judged on val, 6 images that the run was not trained on"]

    def test_so_does_a_file_beside_the_run(self, run: Path) -> None:
        bneck.export(run)
        assert bneck.evaluate(run / "model.onnx")["top1"] == 1.0

    def test_so_does_quantize(self, run: Path) -> None:
        found = bneck.quantize(run, epochs=0, rounds=1, runtime_name="onnxruntime")
        assert found["images"] == {"train": 24, "val": 6}
        assert found["rows"][0]["top1"] == 1.0

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

    def test_the_built_in_images(self) -> None:
        record: dict[str, Any] = {"kind": "classify", "settings": {"data": None, "seed": SEED}}
        assert len(run_source(record, "train").names) == 5000
        val = run_source(record, "val")
        assert [val.labels.tolist().count(label) for label in range(len(FASHION))] == [100] * 10

    def test_labels_are_for_other_images(self, run: Path, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("\n".join(COLOURS))
        with pytest.raises(InputError, match="leave --labels out"):
            bneck.evaluate(run, labels=tmp_path / "names.txt")

    def test_classes_that_have_changed(self, run: Path, undivided: Path) -> None:
        (undivided / "n03").rename(undivided / "n04")
        with pytest.raises(InputError, match="has the classes n01, n02, n04 now, and the network"):
            bneck.evaluate(run)


def test_detectors_and_other_pictures(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        draw_boxes(tmp_path, split, count, seed=1)
    record = {"kind": "detect", "settings": {"data": str(tmp_path), "images": None}}
    for data in (None, tmp_path):
        names = [Path(name).name for name in run_source(record, "val", data).names]
        assert names == ["val-0.png", "val-1.png"]
    assert len(run_source(record, "val", tmp_path / "images").names) == 5


def test_segmenters(tmp_path: Path) -> None:
    for what in ("images", "masks"):
        (tmp_path / what).mkdir()
        for i in range(10):
            Image.new("L", (8, 8), 0).save(tmp_path / what / f"{i}.png")
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    settings = {"data": str(tmp_path), "classes": None, "ignore": [], "seed": SEED}
    scenery = list_pairs(tmp_path, seed=SEED)
    assert scenery.splits != list_pairs(tmp_path).splits
    for data in (None, tmp_path):
        for split in ("train", "val"):
            found = run_source({"kind": "segment", "settings": settings}, split, data)
            assert found.names == [str(pair.image) for pair in scenery.split(split)]
