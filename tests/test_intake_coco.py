"""COCO's json as people's tools write it: which is read with which values, which is refused and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bneck.data.folders import DataError
from bneck.data.images import read_whole
from bneck.specs.errors import InputError
from bneck.tasks.detect.dataset import find
from bneck.tasks.detect.intake.coco import ground_truth, read_coco
from bneck.tasks.detect.intake.find import find_splits
from bneck.tasks.detect.task import DetectOptions
from commands import Call, refusal
from foreign_boxes import BOX, POLYGON, SIZE, WHOLE, Edit, coco, each, picture, seen, without


class TestCoco:
    @pytest.mark.parametrize(
        "edits",
        [
            [each("images", id=lambda e: str(e["id"])),
             each("annotations", image_id=lambda e: str(e["image_id"]))],
            [each("images", id=lambda e: f"im-{e['id']}"),
             each("annotations", image_id=lambda e: f"im-{e['image_id']}")],
            [each("annotations", category_id=lambda e: float(e["category_id"]))],
            [each("images", width="40", height="20.0")], [each("images", width=None, height=None)],
            [each("images", width=0, height=0)], [each("images", width=40.0)],
            [each("annotations", iscrowd="0")], [each("annotations", iscrowd=None)],
            [each("annotations", bbox=lambda e: [str(v) for v in e["bbox"]])],
            [each("annotations", bbox=None, segmentation=POLYGON)],
            [without("annotations", "bbox"), each("annotations", segmentation=POLYGON)],
            [each("annotations", id=lambda e: 10**30 + e["id"])],
            [each("images", id=lambda e: 2.0**80 if e["id"] == 0 else e["id"]),
             each("annotations", image_id=lambda e: 2**80 if e["image_id"] == 0 else e["image_id"])],
            [without("annotations", "id")], [each("annotations", id=None)],
            [lambda d: d["categories"].insert(0, {"id": 0, "name": "__background__"})],
            [each("categories", supercategory="things"),
             lambda d: d["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})],
        ],
    )  # fmt: skip
    def test_fields_of_other_kinds_mean_what_they_say(
        self, tmp_path: Path, edits: list[Edit]
    ) -> None:
        found = read_coco(coco(tmp_path, *edits))
        assert found.classes == ("cup", "pen")
        assert seen(found) == WHOLE
        assert not any(picture.crowd.any() for picture in found.pictures)
        assert found.dropped == ()
        assert len(ground_truth(found)["annotations"]) == 5

    def test_numbers_beyond_all_floats_are_no_box(self, tmp_path: Path) -> None:
        found = read_coco(
            coco(tmp_path, lambda d: d["annotations"][0].update(bbox=[0, 0, 10**400, 5]))
        )
        assert [one.what for one in found.dropped] == ["annotation 1 of train0.png"]

    def test_categories_without_a_name_are_called_by_their_ids(self, tmp_path: Path) -> None:
        for name in (None, " "):
            found = read_coco(coco(tmp_path, lambda d, n=name: d["categories"][0].update(name=n)))
            assert found.classes == ("1", "pen")

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_byte_order_marks(self, tmp_path: Path, encoding: str) -> None:
        path = coco(tmp_path)
        path.write_bytes(path.read_text().encode(encoding))
        assert seen(read_coco(path)) == WHOLE

    @pytest.mark.parametrize(
        ("edit", "said"),
        [
            (each("annotations", bbox=[15, 3, 38, 18]), "write widths and heights, not corners"),
            (each("annotations", bbox=BOX), "all numbers of all boxes are at most 1, as fractions"),
            (lambda d: d.update(categories=d["categories"][0]), "categories is not a list"),
            (lambda d: d.pop("annotations"), "it has no list of annotations"),
            (
                each("annotations", image_id="x"),
                "annotation 1 is of image 'x', which the file does not have",
            ),
        ],
    )
    def test_what_would_be_read_wrong_is_refused(
        self, tmp_path: Path, edit: Edit, said: str
    ) -> None:
        with pytest.raises(DataError, match=said):
            read_coco(coco(tmp_path, edit))

    @pytest.mark.parametrize(
        ("turn", "box", "shown"),
        [
            # [4, 2, 8, 6] of 40 x 20 pixels as stored; its corner at 4, 2 is where the upright image has it.
            (5, [2, 4, 6, 8], (2, 4)), (6, [12, 4, 6, 8], (17, 4)), (7, [12, 28, 6, 8], (17, 35)),
            (8, [2, 28, 6, 8], (2, 35)),
        ],
    )  # fmt: skip
    def test_boxes_of_stored_photos_are_turned_with_them(
        self, tmp_path: Path, turn: int, box: list[int], shown: tuple[int, int]
    ) -> None:
        """A white pixel in a corner of the box must be in that corner of the turned box."""
        path = coco(tmp_path, each("annotations", bbox=[4, 2, 8, 6]))
        exif = Image.Exif()
        exif[0x0112] = turn
        for i in range(4):
            image = Image.new("RGB", SIZE)
            image.putpixel((4, 2), (255, 255, 255))
            image.save(path.parent / f"train{i}.png", exif=exif)
        found = read_coco(path)
        assert found.notes == ("boxes of 4 photos are turned as EXIF turns the photos",)
        for one in found.pictures:
            pixels = read_whole(one.path)
            assert not isinstance(pixels, str)
            assert pixels[shown[1], shown[0]].tolist() == [255, 255, 255]
            assert one.size == (20, 40)
            assert one.given[0].tolist() == [*box, 48]
            left, top, right, bottom = one.boxes[0] * [20, 40, 20, 40]
            assert (left, top, right - left, bottom - top) == pytest.approx(box)

    @pytest.mark.parametrize(
        ("turns", "boxes"),
        [
            ((6, 3, 2, 4), ([12, 4, 6, 8], [28, 12, 8, 6], [28, 2, 8, 6], [4, 12, 8, 6])),
            ((1, 3, 2, 4), ([4, 2, 8, 6],) * 4),  # nothing says which image is meant
        ],
    )  # fmt: skip
    def test_photos_upside_down_are_like_those_on_their_side(
        self, tmp_path: Path, turns: tuple[int, ...], boxes: tuple[list[int], ...]
    ) -> None:
        path = coco(tmp_path, each("annotations", bbox=[4, 2, 8, 6]))
        for i, turn in enumerate(turns):
            exif = Image.Exif()
            exif[0x0112] = turn
            picture(path.parent / f"train{i}.png", exif=exif)
        found = [picture.given[0, :4].tolist() for picture in read_coco(path).pictures]
        assert found == list(boxes)

    @pytest.mark.parametrize("turn", [3, 6])
    def test_boxes_of_squares_that_nothing_tells(self, tmp_path: Path, turn: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = turn
        path = coco(
            tmp_path, each("images", width=40, height=40, file_name=lambda one: f"{one['id']}.jpg")
        )
        for i in range(4):
            picture(path.parent / f"{i}.jpg", (40, 40), **({"exif": exif} if i < 3 else {}))
        found = read_coco(path)
        note = (
            "EXIF turns 3 photos whose boxes, taken for the turned ones, may be for those as stored"
        )
        assert found.notes == (note,)
        assert {tuple(p.given[0, :4]) for p in found.pictures} == {(10, 5, 20, 10)}

    def test_boxes_in_fractions_of_photos_that_are_turned(self, tmp_path: Path) -> None:
        """YOLO's files tell no size."""
        exif = Image.Exif()
        exif[0x0112] = 6
        for i in range(4):
            picture(tmp_path / f"{i}.jpg", **({"exif": exif} if i < 2 else {}))
            (tmp_path / f"{i}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        notes = find_splits(tmp_path, divide=False).read("val", tmp_path).notes
        assert notes == (
            "EXIF turns 2 photos whose boxes, taken for the turned ones, may be for those as stored",
        )

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("..\\train\\{}", "train/{}"), ("images\\1/{}", "train/{}"), ("/home/me/set/{}", "train/{}"),
            ("a%20{}", "train/a {}"),
            ("E\u0301 {}", "train/\u00c9 {}"), ("T{}", "train/t{}"),
            ("images/{}", "train/deep/er/{}"), ("{}", "images/{}"),
        ],
    )  # fmt: skip
    def test_file_names_of_other_systems(self, tmp_path: Path, name: str, place: str) -> None:
        path = coco(tmp_path, each("images", file_name=lambda e: name.format(e["file_name"])))
        for i in range(4):
            target = tmp_path / place.format(f"train{i}.png")
            target.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / f"train{i}.png").rename(target)
        assert seen(read_coco(path)) == WHOLE

    def test_names_that_differ_in_capitals_alone_are_two(self, tmp_path: Path) -> None:
        path = coco(tmp_path, each("images", file_name=lambda e: e["file_name"].upper()))
        assert seen(read_coco(path)) == WHOLE
        picture(tmp_path / "train/Train0.png")
        with pytest.raises(
            DataError, match=r"names 1 of 4 .* TRAIN0\.PNG \(there is no such file\)"
        ):
            read_coco(path)

    def test_val_may_have_classes_without_boxes(self, tmp_path: Path) -> None:
        """As the group that an export puts before the classes."""
        coco(tmp_path)
        more = {"id": 0, "name": "things"}
        coco(tmp_path, lambda d: d["categories"].append(more), file="val/_annotations.coco.json")
        found = find(str(tmp_path), DetectOptions(), seed=0)
        assert found.val.classes == ("cup", "pen")
        assert seen(found.val) == WHOLE

    def test_val_is_numbered_by_the_names_of_train(self, tmp_path: Path) -> None:
        coco(tmp_path)

        def other(data: dict[str, Any]) -> None:
            each("annotations", category_id=lambda e: 3 - e["category_id"])(data)
            each("categories", id=lambda e: 3 - e["id"])(data)

        coco(tmp_path, other, file="val/_annotations.coco.json")
        found = find(str(tmp_path), DetectOptions(), seed=0)
        assert found.classes == found.val.classes == ("cup", "pen")
        assert seen(found.val) == WHOLE

        def fewer(data: dict[str, Any]) -> None:
            data["categories"], data["annotations"] = (
                data["categories"][1:],
                data["annotations"][4:],
            )

        coco(tmp_path, fewer, file="val/_annotations.coco.json")
        found = find(str(tmp_path), DetectOptions(), seed=0)
        assert seen(found.val) == [("pen", BOX)]

        def odd(data: dict[str, Any]) -> None:
            data["categories"] = [{"id": 1, "name": "odd"}, {"id": 2, "name": "pen"}]

        coco(tmp_path, odd, file="val/_annotations.coco.json")
        with pytest.raises(InputError, match=r"has the classes odd, and .* has cup, pen"):
            find(str(tmp_path), DetectOptions(), seed=0)

    @pytest.mark.parametrize(
        "file",
        ["result.json", "annotations/instances_default.json", "annotations/instances_train.json"],
    )
    def test_one_json_is_split_the_same_everywhere(self, tmp_path: Path, file: str) -> None:
        parts = []
        for place in ("here", "there"):
            coco(tmp_path / place, file=file, count=10)
            found = find(str(tmp_path / place), DetectOptions(), seed=3)
            assert found.found.val == "split off by seed 3"
            parts.append([p.path.name for p in found.val.pictures])
            assert (len(found.train.pictures), len(found.val.pictures)) == (8, 2)
            assert not {p.id for p in found.train.pictures} & {p.id for p in found.val.pictures}
        assert parts[0] == parts[1]
        alone = find(str(tmp_path / "here" / file), DetectOptions(), seed=3)
        assert [p.path.name for p in alone.val.pictures] == parts[0]

    def test_json_files_some_folders_deeper(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            coco(tmp_path, file=f"archive/data/{split}/_annotations.coco.json")
        assert seen(find(str(tmp_path), DetectOptions(), seed=0).val) == WHOLE

    def test_test_is_left_alone_and_other_json_is_no_annotation(self, tmp_path: Path) -> None:
        for split in ("train", "valid", "test"):
            coco(tmp_path, file=f"{split}/_annotations.coco.json")
        (tmp_path / "package.json").write_text("{}")
        splits = find_splits(tmp_path)
        assert set(splits.readers) == {"train", "val", "test"}
        assert splits.read("val", tmp_path).pictures[0].path.parent.name == "valid"
        assert "test is left alone" in find(str(tmp_path), DetectOptions(), seed=0).found.notes

    def test_crowds_alone_are_nothing_to_learn_from(self, tmp_path: Path, call: Call) -> None:
        for split in ("train", "val"):
            coco(
                tmp_path / "data",
                each("annotations", iscrowd=1),
                file=f"{split}/_annotations.coco.json",
            )
        command = (
            "train",
            "v3-small-0.35",
            "--task",
            "detect",
            "--data",
            tmp_path / "data",
            "--out",
            tmp_path / "run",
        )
        assert "nothing to learn from: its 5 boxes are all crowds" in refusal(call(*command))
        assert not (tmp_path / "run").exists()


class TestScoredAlone:
    """Images that are not divided are all scored where they are not the run's own."""

    def test_a_folder_without_splits(self, tmp_path: Path) -> None:
        coco(tmp_path, file="set/boxes.json", count=10)
        splits = find_splits(tmp_path / "set", divide=False)
        assert [len(splits.read(name, tmp_path).pictures) for name in ("val", "mine")] == [10, 10]
        assert len(find_splits(tmp_path / "set").read("val", tmp_path).pictures) == 2

    @pytest.mark.parametrize("split", ["test", "val"])
    def test_a_single_split(self, tmp_path: Path, split: str) -> None:
        coco(tmp_path, file=f"{split}/_annotations.coco.json")
        splits = find_splits(tmp_path, divide=False)
        assert [len(splits.read(name, tmp_path).pictures) for name in (split, "val")] == [4, 4]
        with pytest.raises(DataError, match="there is no split 'train' of"):
            splits.read("train", tmp_path)

    def test_test_is_its_own_split_next_to_val(self, tmp_path: Path) -> None:
        for split, count in (("train", 5), ("test", 3)):
            coco(tmp_path, file=f"{split}/_annotations.coco.json", count=count)
        names = ("train", "val", "test")
        for divide in (True, False):
            splits = find_splits(tmp_path, divide=divide)
            counts = [len(splits.read(name, tmp_path).pictures) for name in names]
            assert counts == [5, 3, 3]  # val is test where there is no other
        coco(tmp_path, file="val/_annotations.coco.json", count=2)
        splits = find_splits(tmp_path, divide=False)
        assert [len(splits.read(name, tmp_path).pictures) for name in names] == [5, 2, 3]
