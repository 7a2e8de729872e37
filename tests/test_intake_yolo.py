"""YOLO's text files as people's tools write them: which are read, which are refused and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bneck.data.folders import DataError
from bneck.specs.errors import InputError
from bneck.tasks.detect.dataset import find
from bneck.tasks.detect.task import DetectOptions
from commands import Call
from foreign_boxes import BOX, NAMES, seen, yolo


class TestYolo:
    def test_corners_are_refused(self, tmp_path: Path) -> None:
        root = yolo(
            tmp_path, "images/{split}", "labels/{split}", line="0 0.3 0.4 0.8 0.9", listed=NAMES
        )
        with pytest.raises(DataError, match=r"7 of 7 boxes reach over the edges .* write centers"):
            find(str(root), DetectOptions(), seed=0)

    @pytest.mark.parametrize("line", ["0 0.5 0.5 -0.4 0.4", "0 nan 0.5 0.4 0.4", "0 3e-9 .5 0 .4"])
    def test_boxes_that_are_none_are_named(self, tmp_path: Path, line: str) -> None:
        root = yolo(tmp_path, "images/{split}", "labels/{split}", line=line, listed=NAMES)
        with pytest.raises(InputError, match=r"all its boxes are left out, the first \(annotation"):
            find(str(root), DetectOptions(), seed=0)

    @pytest.mark.parametrize(
        ("images", "labels", "listed"),
        [
            ("images/{split}", "labels/{split}", "train: images/train\nval: images/val\nnc: 2\n" + NAMES),
            ("{split}/images", "{split}/labels", "train: ../train/images\nval: ../val/images\n" + NAMES),
            ("{split}/images", "{split}/labels", "train: images/train\nval: images/val\n" + NAMES),
            ("{split}", "{split}", "path: .\ntrain: train\nval: val\nnames:\n  0: cup\n  1: pen\n"),
            ("first/{split}_a", "first/{split}_a", "train: first/train_a\nval: [first/val_a]\n" + NAMES),
        ],
    )  # fmt: skip
    def test_layouts(self, tmp_path: Path, images: str, labels: str, listed: str) -> None:
        yolo(tmp_path, images, labels, listed=listed)
        for place in (tmp_path, tmp_path / "data.yaml"):
            found = find(str(place), DetectOptions(), seed=0)
            assert found.classes == ("cup", "pen")
            assert seen(found.train) == [("pen", BOX)] * 5
            assert seen(found.val) == [("pen", BOX)] * 2
            assert [len(part.pictures) for part in (found.train, found.val)] == [6, 3]

    def test_without_a_yaml(self, tmp_path: Path) -> None:
        yolo(tmp_path, "obj_{split}_data", "obj_{split}_data")
        assert find(str(tmp_path), DetectOptions(), seed=0).classes == ("0", "1")
        (tmp_path / "classes.txt").write_text("cup\npen\n")
        assert find(str(tmp_path), DetectOptions(), seed=0).classes == ("cup", "pen")

    @pytest.mark.parametrize(
        ("listed", "said"),
        [
            ("names: [cup\n", "data.yaml is not yaml"),
            ("names: cup\n", "is 'cup'; it must be a list of names"),
            ("names: {a: cup, b: pen}\n", "are numbered a, b; number them from 0"),
            ("names: {0: cup, 2: pen}\n", "are numbered 0, 2; number them from 0"),
            ("nc: 3\nnames: [cup, pen]\n", "has nc: 3 and 2 names; correct one"),
            ("names: [cup, cup]\n", "have the name 'cup' twice"),
        ],
    )  # fmt: skip
    def test_a_yaml_that_cannot_be(self, tmp_path: Path, listed: str, said: str) -> None:
        root = yolo(tmp_path, "images/{split}", "labels/{split}", listed=listed)
        with pytest.raises(DataError, match=said):
            find(str(root), DetectOptions(), seed=0)

    def test_names_that_yaml_takes_for_others(self, tmp_path: Path) -> None:
        root = yolo(tmp_path, "images/{split}", "labels/{split}", listed="names: [yes, 1.10]\n")
        assert find(str(root), DetectOptions(), seed=0).classes == ("yes", "1.10")

    def test_images_that_the_yaml_does_not_name_are_reported(self, tmp_path: Path) -> None:
        listed = f"path: {tmp_path}\ntrain: images/../images/train\n{NAMES}"
        root = yolo(tmp_path, "images/{split}", "labels/{split}", listed=listed)
        notes = find(str(root), DetectOptions(), seed=0).found.notes
        assert "train: not used: 3 images that data.yaml does not name" in notes

    def test_key_points_after_a_box_are_passed_over(self, tmp_path: Path) -> None:
        line = "1 0.5 0.5 0.5 0.5 0.1 0.1 2 0.9 0.9 2"
        listed = NAMES + "kpt_shape: [2, 3]\n"
        root = yolo(tmp_path, "images/{split}", "labels/{split}", line=line, listed=listed)
        (root / "notes.json").write_text('{"categories": [{"id": 0, "name": "cup"}]}')
        assert seen(find(str(root), DetectOptions(), seed=0).val) == [("pen", BOX)] * 2

    def test_lists_of_images(self, tmp_path: Path) -> None:
        listed = "train: train.txt\nval: val.txt\n" + NAMES
        root = yolo(tmp_path, "images/{split}", "labels/{split}", listed=listed)
        (root / "train.txt").write_text("./images/train/1.png\n./images/train/2.png\n")
        (root / "val.txt").write_text("images/train/3.png\n")
        found = find(str(root), DetectOptions(), seed=0)
        assert [p.path.stem for p in found.train.pictures] == ["1", "2"]
        assert [p.path.stem for p in found.val.pictures] == ["3"]
        (root / "val.txt").write_text("images/train/9.png\n")
        with pytest.raises(
            DataError, match="names 1 images that are not there or not one file alone"
        ):
            find(str(root), DetectOptions(), seed=0)

    def test_a_folder_of_images_is_for_coco(self, tmp_path: Path) -> None:
        root = yolo(tmp_path, "images/{split}", "labels/{split}", listed=NAMES)
        with pytest.raises(DataError, match=r"--images is for COCO json files, and .* has none"):
            find(str(root), DetectOptions(images=str(root)), seed=0)

    def test_polygons_are_boxed(self, tmp_path: Path) -> None:
        line = "0 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75"
        found = find(
            str(yolo(tmp_path, "images/{split}", "labels/{split}", line=line, listed=NAMES)),
            DetectOptions(),
            seed=0,
        )
        assert seen(found.val) == [("cup", BOX)] * 2

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("1 20 10 20 10", "has the number 20, as if in pixels"),
            ("2 .5 .5 .5 .5", "the class 2, and there are 2"),
            ("1 .5 .5 .5 .5 .9", "it must be 'class cx cy width height'"),
            ("cup .5 .5 .5 .5", "it must be 'class cx"),
            ("0 .5 .5 .4 .4 .3 .3 2 .6 .6 2", "has 10 numbers, .* write kpt_shape into the yaml file"),
        ],
    )  # fmt: skip
    def test_lines_that_are_no_box(self, tmp_path: Path, line: str, said: str) -> None:
        with pytest.raises(DataError, match=said):
            find(
                str(yolo(tmp_path, "images/{split}", "labels/{split}", line=line, listed=NAMES)),
                DetectOptions(),
                seed=0,
            )


def test_training_and_evaluating_on_yolo(tmp_path: Path, tiny_file: Path, call: Call) -> None:
    data = yolo(tmp_path / "data", "{split}/images", "{split}/labels", listed=NAMES)
    run = tmp_path / "run"
    given = ("--task", "detect", "--resolution", 64, "--epochs", 1, "--batch", 2, "--out", run)
    answer = call("train", tiny_file, "--data", data / "data.yaml", *given)
    assert answer.code == 0, answer.err
    assert "2 classes (cup, pen); 6 train, 3 val (given)" in answer.err
    record = json.loads((run / "run.json").read_text())
    assert record["data"]["objects"] == {"train": 5, "val": 2}
    score = record["scores"]["val"]["score"]
    for place in ((), ("--data", data)):
        again = json.loads(call("evaluate", run, *place, "--json").out)
        assert (again["images"], again["score"]) == (3, score)
