"""Batches of one image and splits of one: refused in a sentence, or they work, whatever the task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import bneck
from annotated import draw_boxes
from bneck.specs.network import NetSpec
from commands import Call, refusal

pytestmark = pytest.mark.usefixtures("one_thread")


def draw_classes(root: Path, train: int, val: int = 1) -> Path:
    """Two classes of grey pictures, so many of each."""
    for split, count in (("train", train), ("val", val)):
        for grey, name in ((50, "dark"), (200, "light")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                picture = Image.new("RGB", (40, 36), (grey + i, grey, grey))
                picture.save(root / split / name / f"{i}.png")
    return root


def draw_masks(root: Path, train: int, val: int = 1) -> Path:
    """Pictures and masks of two halves."""
    for split, count in (("train", train), ("val", val)):
        for what, mode in ((split, "RGB"), (f"{split}annot", "L")):
            (root / what).mkdir(parents=True)
            for i in range(count):
                picture = Image.new(mode, (64, 48))
                picture.paste(Image.new(mode, (32, 48), (200, 9, i) if mode == "RGB" else 1))
                picture.save(root / what / f"{i}.png")
    (root / "classes.txt").write_text("left\nright\n", encoding="utf-8")
    return root


class TestTraining:
    @pytest.mark.parametrize("task", ["classify", "detect"])
    @pytest.mark.parametrize(
        ("batch", "sentence"),
        [
            (1, "the batch is 1; batch norm needs at least 2 images"),
            (0, "batch is 0; it must be at least 1"),
        ],
    )
    def test_a_batch_below_two_is_refused(
        self, call: Call, tiny_file: Path, tmp_path: Path, task: str, batch: int, sentence: str
    ) -> None:
        draw_classes(tmp_path / "data", 4)
        for split in ("train", "val"):
            draw_boxes(tmp_path / "data", split, 4, 0)
        options = ("--task", task, "--data", tmp_path / "data", "--batch", batch)
        said = refusal(call("train", tiny_file, *options, "--out", tmp_path / "run"), after=batch)
        assert said == sentence
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(("count", "batch"), [(2, 2), (3, 2), (7, 2), (9, 4)])
    def test_a_detector_of_few_images(
        self, tiny: NetSpec, tmp_path: Path, count: int, batch: int
    ) -> None:
        """An odd one at the end of an epoch is left out; val is one picture."""
        draw_boxes(tmp_path, "train", count, 0)
        draw_boxes(tmp_path, "val", 1, 1)
        how: dict[str, Any] = {} if count == 7 else {"batch": batch}
        record = bneck.train(
            tiny, tmp_path, task="detect", resolution=48, epochs=1, out=tmp_path / "run", **how
        )
        assert record["training"]["batch"] == batch
        assert record["scores"]["val"]["images"] == 1
        assert bneck.evaluate(tmp_path / "run")["images"] == 1
        (found,) = bneck.predict(tmp_path / "run", [tmp_path / "images" / "val-0.png"])
        assert (found["width"], found["height"]) == (48, 36)

    def test_a_detector_of_one_image_is_refused(
        self, call: Call, tiny_file: Path, tmp_path: Path
    ) -> None:
        for split, count in (("train", 2), ("val", 1)):
            draw_boxes(tmp_path, split, count, 0)
        data = json.loads((tmp_path / "instances_train.json").read_text())
        data["images"] = data["images"][1:]  # the one with a box
        (tmp_path / "instances_train.json").write_text(json.dumps(data))
        options = ("--task", "detect", "--data", tmp_path, "--resolution", 48)
        said = refusal(call("train", tiny_file, *options, "--out", tmp_path / "run"))
        assert said.endswith("has 1 image; batch norm needs at least 2, add images")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(("count", "batch"), [(1, 2), (2, 3)])
    def test_a_classifier_whose_last_batch_is_one_image(
        self, tiny_file: Path, tmp_path: Path, count: int, batch: int
    ) -> None:
        draw_classes(tmp_path / "data", count)
        out = tmp_path / "run"
        record = bneck.train(str(tiny_file), tmp_path / "data", epochs=1, batch=batch, out=out)
        assert record["data"]["splits"]["train"] % batch < 2
        assert record["scores"]["val"]["images"] == 2
        assert len(bneck.predict(out, [tmp_path / "data/val/dark/0.png"])[0]["classes"]) == 2

    @pytest.mark.parametrize(("count", "batch"), [(1, 1), (3, 2)])
    def test_a_segmenter_whose_last_batch_is_one_image(
        self, tiny: NetSpec, tmp_path: Path, count: int, batch: int
    ) -> None:
        """One image a batch is enough where its last map has several pixels."""
        data, out = draw_masks(tmp_path / "data", count), tmp_path / "run"
        record = bneck.train(tiny, data, task="segment", epochs=1, batch=batch, filters=32, out=out)
        assert record["scores"]["val"]["images"] == 1
        assert bneck.evaluate(out)["images"] == 1
        assert len(bneck.predict(out, [data / "val" / "0.png"])) == 1

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (("--head", "raspp"), "R-ASPP normalizes one pooled pixel per image over the batch"),
            (("--crop", "8x8"), "the batch is 1, and the last map of a crop of 8 x 8 is one pixel"),
        ],
    )  # fmt: skip
    def test_a_segmenter_of_one_pixel_a_batch_is_refused(
        self, call: Call, tiny_file: Path, tmp_path: Path, options: tuple[str, ...], sentence: str
    ) -> None:
        data = draw_masks(tmp_path / "data", 2)
        given = ("--task", "segment", "--data", data, "--batch", 1, "--epochs", 1, *options)
        said = refusal(call("train", tiny_file, *given, "--out", tmp_path / "run"), after=1)
        assert sentence in said
        assert not (tmp_path / "run").exists()
