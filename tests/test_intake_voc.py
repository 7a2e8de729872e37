"""VOC's xml as people's tools write it, and several formats side by side: what is read, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bneck.data.folders import DataError
from bneck.specs.errors import InputError
from bneck.tasks.detect.dataset import find
from bneck.tasks.detect.dataset import objects as find_objects
from bneck.tasks.detect.intake.coco import read_coco
from bneck.tasks.detect.intake.find import find_splits
from bneck.tasks.detect.task import DetectOptions
from commands import Call, refusal
from foreign_boxes import BOX, coco, lists, picture, seen, voc, yolo


class TestVoc:
    @pytest.mark.parametrize(
        "how",
        [
            {}, {"xmls": "annots", "images": "images"}, {"xmls": "annotations", "images": "images"},
            {"xmls": "all", "images": "all"}, {"size": ""},
            {"size": "<size><width>40.0</width><height>20.0</height></size>"},
            {"size": "<size><width>0</width><height>0</height></size>"}, {"filename": "{}"},
            {"filename": "IMG_2044.JPG"}, {"filename": "C:\\data\\{}.png"}, {"filename": "", "suffix": ".jpg"},
            {"filename": "{}.JPG", "suffix": ".jpg"}, {"stem": "photo of {}"}, {"difficult": "false"},
            {"head": '<?xml version="1.0"?><!DOCTYPE annotation SYSTEM "http://127.0.0.1:9/voc.dtd">\n'},
            {"head": '<?xml version="1.0" encoding="gbk"?>\n', "encoding": "gbk", "label": "\u676f\u5b50"},
        ],
    )  # fmt: skip
    def test_is_read_wherever_it_lies(self, tmp_path: Path, how: dict[str, str]) -> None:
        found = find(str(voc(tmp_path, **how)), DetectOptions(), seed=0)  # type: ignore[arg-type]
        label = how.get("label", "cup")
        assert found.classes == (label,)
        assert seen(found.train) == [(label, BOX)] * 8
        assert seen(found.val) == [(label, BOX)] * 2
        assert {p.path.stem for p in (*found.train.pictures, *found.val.pictures)} == {
            how.get("stem", "im{}").format(i) for i in range(10)
        }

    @pytest.mark.parametrize(
        "line", ["im{}\n", "im{}.png\n", "im{}  1\n", "JPEGImages/im{}.png\r\n"]
    )
    def test_lists_are_heeded(self, tmp_path: Path, line: str) -> None:
        voc(tmp_path / "VOCdevkit/VOC2007", count=10)
        lists(
            tmp_path / "VOCdevkit/VOC2007",
            line,
            train=range(5),
            val=range(5, 8),
            trainval=range(8),
            cup_train=range(2),
        )
        found = find(str(tmp_path), DetectOptions(), seed=0)
        assert {p.path.stem for p in found.train.pictures} == {f"im{i}" for i in range(5)}
        assert {p.path.stem for p in found.val.pictures} == {f"im{i}" for i in range(5, 8)}

    def test_names_with_blanks_in_lists(self, tmp_path: Path) -> None:
        lists(voc(tmp_path, stem="photo of {}"), "photo of {}\n", train=range(8), val=range(8, 10))
        assert len(find(str(tmp_path), DetectOptions(), seed=0).train.pictures) == 8

    def test_splits_as_folders_with_the_same_names(self, tmp_path: Path) -> None:
        for split, count in (("train", 6), ("valid", 3)):
            voc(tmp_path, count=count, xmls=split, images=split)
        found = find(str(tmp_path), DetectOptions(), seed=0)
        assert [len(part.pictures) for part in (found.train, found.val)] == [6, 3]
        assert {p.path.parent.name for p in found.val.pictures} == {"valid"}

    @pytest.mark.parametrize("difficult", ["1", "true"])
    def test_difficult_objects_alone_are_nothing_to_learn_from(
        self, tmp_path: Path, difficult: str
    ) -> None:
        with pytest.raises(InputError, match="its 8 boxes are all crowds or difficult ones"):
            find(str(voc(tmp_path, difficult=difficult)), DetectOptions(), seed=0)

    def test_missing_images_are_refused(self, tmp_path: Path) -> None:
        for i in range(3):
            (voc(tmp_path) / f"JPEGImages/im{i}.png").unlink()
        with pytest.raises(
            DataError, match=r"names 1 of 10 images that cannot be used.*there is no such file"
        ):
            find(str(tmp_path), DetectOptions(), seed=0)

    def test_boxes_without_an_area_are_reported(self, tmp_path: Path) -> None:
        for file in (voc(tmp_path) / "Annotations").glob("im[0-4].xml"):
            file.write_text(file.read_text().replace("<xmax>", "<xmax>-"))
        found = find(str(tmp_path), DetectOptions(), seed=0)
        assert sum(find_objects(part) for part in (found.train, found.val)) == 5
        assert [left.why.endswith("has no area") for left in found.left_out] == [True] * 5
        assert found.found.left == {"boxes or images, listed in run.json": 5}

    def test_convert_writes_over_nothing(self, tmp_path: Path, call: Call) -> None:
        mine = voc(tmp_path) / "annotations/instances_train.json"
        mine.parent.mkdir(exist_ok=True)
        mine.write_text('{"mine": 1}')
        assert "is there already and would be written over" in refusal(call("convert", tmp_path))
        assert mine.read_text() == '{"mine": 1}'


class TestReported:
    """What is read, and would be wrong in silence."""

    def test_images_and_boxes_that_stand_twice(self, tmp_path: Path) -> None:
        def again(data: dict[str, Any]) -> None:
            data["images"] += [{**one, "id": 100 + one["id"]} for one in data["images"][:2]]
            data["annotations"] += [
                {**one, "id": 100 + one["id"]} for one in data["annotations"][:3]
            ]

        assert read_coco(coco(tmp_path, again)).notes == (
            "2 images are entered more than once", "3 boxes are given more than once",
        )  # fmt: skip

    @pytest.mark.parametrize("labels", ["labels", "JPEGImages"])
    def test_voc_next_to_yolo(self, tmp_path: Path, labels: str) -> None:
        voc(tmp_path)
        for i in range(10):
            place = tmp_path / labels / f"im{i}.txt"
            place.parent.mkdir(exist_ok=True)
            place.write_text("0 0.5 0.5 0.5 0.5\n")
        found = find(str(tmp_path), DetectOptions(), seed=0)
        assert (found.classes, len(found.train.pictures)) == (("cup",), 8)
        assert found.found.notes == ("boxes of VOC's xml; YOLO's txt files are left alone",)
        (tmp_path / labels / "im3.txt").write_text("0 0.5 0.5 0.5 0.5\n0 0.3 0.3 0.5 0.5\n")
        with pytest.raises(DataError, match=r"on 1 of 10 images \(im3\.png: 1 and 2\); move those"):
            find_splits(tmp_path)
        (tmp_path / labels / "im3.txt").write_text("0 0.5 0.5\n")
        assert "txt files cannot be read: line 1 of" in find_splits(tmp_path).notes[0]

    def test_images_with_yolo_alone_next_to_voc(self, tmp_path: Path) -> None:
        lists(voc(tmp_path), train=range(6), val=range(6, 8))
        for i in range(10):
            (tmp_path / f"JPEGImages/im{i}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        assert find_splits(tmp_path).notes == (
            "boxes of VOC's xml; YOLO's txt files are left alone, also of 2 images that it does not list",
        )

    def test_coco_next_to_others(self, tmp_path: Path) -> None:
        voc(coco(tmp_path).parent)
        (tmp_path / "train/train0.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        found = find(str(tmp_path), DetectOptions(), seed=0)
        assert found.classes == ("cup", "pen")
        assert (
            "boxes of COCO's json; VOC's xml and YOLO's txt files are left alone"
            in found.found.notes
        )

    def test_images_without_a_label_file(self, tmp_path: Path) -> None:
        found = find(
            str(yolo(tmp_path, "images/{split}", "labels/{split}")), DetectOptions(), seed=0
        )
        assert found.found.notes == (
            "train: 1 images have no label file", "val: 1 images have no label file",
        )  # fmt: skip

    def test_names_in_json_have_no_blanks_around(self, tmp_path: Path) -> None:
        path = coco(tmp_path, lambda data: data["categories"][0].update(name=" cup\n"))
        assert read_coco(path).classes == ("cup", "pen")
        path = coco(tmp_path, lambda data: data["categories"][0].update(name="c\nup"))
        with pytest.raises(DataError, match="line break or control character"):
            read_coco(path)

    def test_json_that_is_none_says_where(self, tmp_path: Path) -> None:
        path = coco(tmp_path)
        path.write_text(path.read_text()[:-1] + ",}")
        with pytest.raises(DataError, match=r"is not json \(.*line 1 column"):
            read_coco(path)

    @pytest.mark.parametrize("name", ["via.json", "boxes.csv", "x.record"])
    def test_annotations_of_other_formats(self, tmp_path: Path, name: str) -> None:
        picture(tmp_path / "0.png")
        (tmp_path / name).write_text("{}")
        with pytest.raises(
            DataError, match=rf"can be read \({name} is in another format\).* export"
        ):
            find_splits(tmp_path)

    @pytest.mark.parametrize("form", ["namespace", "utf-16", "latin-1", "capitals"])
    def test_xml_of_other_forms(self, tmp_path: Path, form: str) -> None:
        for file in (voc(tmp_path) / "Annotations").glob("*.xml"):
            text = file.read_text()
            if form == "namespace":
                file.write_text(text.replace("<annotation>", '<annotation xmlns="http://x">'))
            elif form == "capitals":
                file.write_text(
                    text.replace("annotation>", "Annotation>").replace("bndbox", "BndBox")
                )
            elif form == "utf-16":
                file.write_bytes(text.encode("utf-16"))
            else:
                file.write_bytes(text.replace("<name>", "<name>\u00e9").encode("latin-1"))
        if form == "latin-1":
            with pytest.raises(DataError, match="'utf-8' codec can't decode byte 0xe9"):
                find(str(tmp_path), DetectOptions(), seed=0)
        else:
            found = find(str(tmp_path), DetectOptions(), seed=0)
            assert find_objects(found.train) + find_objects(found.val) == 10
