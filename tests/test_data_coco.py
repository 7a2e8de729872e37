"""COCO json and VOC xml: what is read, what is dropped and reported, what is refused."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bneck.data.folders import DataError
from bneck.data.images import image_size
from bneck.tasks.detect.intake.coco import Annotated, ground_truth, read_coco
from bneck.tasks.detect.intake.find import find_annotations, find_splits
from bneck.tasks.detect.intake.voc import convert_voc
from commands import Call, refusal

BCCD = Path(__file__).parents[2] / "shared/data/bccd/bccd.tar"


def box(key: int, image: int = 7, category: int = 5, **more: Any) -> dict[str, Any]:
    return {
        "id": key, "image_id": image, "category_id": category, "bbox": [10, 5, 20, 10], **more,
    }  # fmt: skip


def coco(**parts: Any) -> dict[str, Any]:
    """One image of 40 x 20 pixels with one box; categories 5 and 9."""
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 20}],
        "annotations": [box(1)],
        "categories": [{"id": 9, "name": "dog"}, {"id": 5, "name": "cat"}],
        **parts,
    }


def write(folder: Path, data: Any, size: tuple[int, int] = (40, 20)) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", size, "grey").save(folder / "images" / "a.png")
    path = folder / "instances_train.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def read(folder: Path, **parts: Any) -> Annotated:
    return read_coco(write(folder, coco(**parts)))


class TestReading:
    def test_a_box_is_corners_in_shares_of_the_image(self, tmp_path: Path) -> None:
        found = read(tmp_path)
        assert found.classes == ("cat", "dog")  # in the order of their ids, gaps closed
        assert found.ids == (5, 9)
        (picture,) = found.pictures
        assert picture.boxes == pytest.approx(np.array([[0.25, 0.25, 0.75, 0.75]]))
        assert picture.labels.tolist() == [1]
        assert (picture.id, picture.size) == (7, (40, 20))
        assert found.dropped == ()

    def test_crowds_are_marked(self, tmp_path: Path) -> None:
        entries = [box(1, iscrowd=1), box(2, category=9)]
        (picture,) = read(tmp_path, annotations=entries).pictures
        assert picture.crowd.tolist() == [True, False]
        assert picture.labels.tolist() == [1, 2]

    def test_an_image_without_boxes_stays(self, tmp_path: Path) -> None:
        (picture,) = read(tmp_path, annotations=[]).pictures
        assert picture.boxes.shape == (0, 4)

    @pytest.mark.parametrize(
        ("bbox", "reason"),
        [
            ([10, 5, 0, 10], "has no area"),
            ([10, 5, 10, 0], "has no area"),
            ([10, 5, -4, 10], "has no area"),
            ([40, 5, 10, 10], "lies outside the image of 40x20 pixels"),
            ([-30, 5, 20, 10], "lies outside the image"),
            ([10, 5, float("nan"), 10], "must be four finite numbers"),
            ([10, 5, "wide", 10], "must be four finite numbers"),
            ([10, 5, 20], "must be [x, y, width, height]"),
            (None, "must be [x, y, width, height]"),
            ([0.5, 5, 1e-9, 10], "lies outside the image"),
        ],
    )
    def test_what_is_no_box_is_dropped_and_named(
        self, tmp_path: Path, bbox: Any, reason: str
    ) -> None:
        found = read(tmp_path, annotations=[box(1), box(2) | {"bbox": bbox}])
        assert len(found.pictures[0].boxes) == 1
        (dropped,) = found.dropped
        assert dropped.what == "annotation 2 of a.png"
        assert reason in dropped.reason

    def test_what_reaches_over_an_edge_is_cut(self, tmp_path: Path) -> None:
        found = read(tmp_path, annotations=[box(1) | {"bbox": [-10, -5, 30, 100]}])
        assert found.pictures[0].boxes.tolist() == [[0, 0, 0.5, 1]]
        assert found.dropped == ()

    def test_an_image_of_one_pixel(self, tmp_path: Path) -> None:
        image = {"id": 7, "file_name": "a.png", "width": 1, "height": 1}
        entries = [box(1) | {"bbox": [0, 0, 1, 1]}]
        path = write(tmp_path, coco(images=[image], annotations=entries), size=(1, 1))
        assert read_coco(path).pictures[0].boxes.tolist() == [[0, 0, 1, 1]]

    def test_a_turned_photo_has_the_size_that_people_see(self, tmp_path: Path) -> None:
        path = write(tmp_path, coco(images=[{"id": 7, "file_name": "a.jpg"}]))
        exif = Image.Exif()
        exif[0x0112] = 6  # lies on its side
        Image.new("RGB", (40, 20)).save(tmp_path / "images" / "a.jpg", exif=exif)
        (picture,) = read_coco(path).pictures
        assert picture.size == (20, 40)
        assert picture.boxes.tolist() == [[0.5, 0.125, 1.0, 0.375]]  # 10 to 30 of 20, 5 to 15 of 40

    def test_ground_truth_is_the_file_s_without_what_was_dropped(self, tmp_path: Path) -> None:
        entries = [
            box(1) | {"bbox": [-10, 5, 30, 10]},  # kept as it stands: COCO's server has it so
            box(2, area=77.0, iscrowd=1),
            box(3) | {"bbox": [1, 1, 0, 5]},
            box(4, area="big"),
        ]
        truth = ground_truth(read(tmp_path, annotations=entries))
        found = [(a["id"], a["bbox"], a["area"], a["iscrowd"]) for a in truth["annotations"]]
        assert found == [
            (1, [-10, 5, 30, 10], 300.0, 0),
            (2, [10, 5, 20, 10], 77.0, 1),
            (4, [10, 5, 20, 10], 200.0, 0),
        ]

    def test_ground_truth_does_not_need_the_file_again(self, tmp_path: Path) -> None:
        found = read(tmp_path)
        before = ground_truth(found)
        found.file.unlink()
        assert ground_truth(found) == before
        assert before["images"] == [{"id": 7, "file_name": "a.png", "width": 40, "height": 20}]
        assert before["categories"] == [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog"}]

    def test_all_who_read_it_share_one_reading_until_something_changes(
        self, tmp_path: Path
    ) -> None:
        opened: list[Path] = []

        def measure(path: Path) -> tuple[int, int] | str:
            opened.append(path)
            return image_size(path)

        path = write(tmp_path, coco())
        found = read_coco(path, measure=measure)
        assert read_coco(path, measure=measure) is found
        assert opened == [tmp_path / "images" / "a.png"]
        (tmp_path / "images" / "b.png").touch()  # as when a missing image was brought
        read_coco(path, measure=measure)
        assert len(opened) == 2
        path.write_text(json.dumps(coco(annotations=[])))
        assert not len(read_coco(path, measure=measure).pictures[0].boxes)
        assert len(opened) == 3

    def test_the_file_says_its_size_where_the_json_does_not(self, tmp_path: Path) -> None:
        found = read(tmp_path, images=[{"id": 7, "file_name": "a.png"}])
        assert found.pictures[0].size == (40, 20)


class TestRefusals:
    @pytest.mark.parametrize(
        ("parts", "said"),
        [
            ({"images": [{"id": 7, "file_name": "a.png"}] * 2}, "the id 7 occurs twice among the images"),
            ({"annotations": [box(1), box(1)]}, "the id 1 occurs twice among the annotations"),
            ({"categories": [{"id": 5, "name": "x"}] * 2}, "the id 5 occurs twice among the categories"),
            (
                {"categories": [{"id": 5, "name": "x"}, {"id": 6, "name": "x"}]},
                "two categories are called 'x'",
            ),
            ({"annotations": [box(1, image=8)]}, "annotation 1 is of image 8, which the file does not"),
            ({"annotations": [box(1, category=6)]}, "annotation 1 is of category 6"),
            ({"annotations": [box(1) | {"image_id": [7]}]}, r"annotation 1 is of image \[7\]"),
            ({"images": [{"id": 7.5, "file_name": "a.png"}]}, "one of the images has the id 7.5"),
            ({"images": [{"id": 7}]}, "image 7 has no file_name"),
            ({"images": [], "annotations": []}, "names no images"),
            ({"categories": [], "annotations": []}, "has no categories"),
            ({"images": None}, "is not in COCO's format: images is not a list"),
        ],
    )  # fmt: skip
    def test_a_file_that_cannot_be(self, tmp_path: Path, parts: dict[str, Any], said: str) -> None:
        with pytest.raises(DataError, match=said):
            read(tmp_path, **parts)

    def test_missing_images_are_named(self, tmp_path: Path) -> None:
        images = [{"id": i, "file_name": f"{i}.png"} for i in range(5)]
        with pytest.raises(DataError) as error:
            read(tmp_path, images=images, annotations=[])
        assert "names 5 of 5 images that cannot be used" in str(error.value)
        assert "0.png (there is no such file)" in str(error.value)
        assert "and 2 more" in str(error.value)

    def test_an_image_of_another_size(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="it is 40x20 pixels, the annotations say 20x40"):
            read(tmp_path, images=[{"id": 7, "file_name": "a.png", "width": 20, "height": 40}])

    def test_one_missing_image_in_a_hundred_is_reported(self, tmp_path: Path) -> None:
        images = [{"id": i, "file_name": "a.png"} for i in range(100)]
        images[3]["file_name"] = "gone.png"
        found = read(tmp_path, images=images, annotations=[])
        assert len(found.pictures) == 99
        assert [entry.what for entry in found.dropped] == ["gone.png"]

    def test_no_json(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="is not json"):
            read_coco(write(tmp_path, "{"))
        with pytest.raises(DataError, match="is not in COCO's format"):
            read_coco(write(tmp_path, "[]"))
        with pytest.raises(DataError, match="no folder of images"):
            read_coco(write(tmp_path, coco()), images=tmp_path / "none")


class TestFinding:
    @pytest.mark.parametrize(
        "names",
        [
            ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
            ("coco_train.json", "coco_val.json"),
            ("train/_annotations.coco.json", "valid/_annotations.coco.json"),
            ("train.json", "test.json"),
        ],
    )
    def test_usual_places(self, tmp_path: Path, names: tuple[str, str]) -> None:
        for name in (*names, "coco_trainval.json", "annotations/captions.json"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        found = find_annotations(tmp_path)
        second = "test" if names[1].startswith("test") else "val"
        assert found == {"train": tmp_path / names[0], second: tmp_path / names[1]}

    def test_instances_go_first_and_two_of_a_kind_are_refused(self, tmp_path: Path) -> None:
        for name in ("instances_train.json", "person_train.json", "a_val.json"):
            (tmp_path / name).touch()
        assert find_annotations(tmp_path)["train"].name == "instances_train.json"
        (tmp_path / "b_val.json").touch()
        with pytest.raises(DataError, match=r"2 json files for val: a_val\.json, b_val"):
            find_annotations(tmp_path)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="has no annotations: no json file in COCO's format"):
            find_splits(tmp_path)
        (tmp_path / "val.json").touch()
        with pytest.raises(DataError, match="has val and no train split to learn from"):
            find_splits(tmp_path)
        with pytest.raises(DataError, match="there is no folder"):
            find_splits(tmp_path / "none")


OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>
<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


def voc(
    root: Path, name: str, *objects: tuple[object, ...], size: tuple[int, int] = (40, 20)
) -> None:
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir(exist_ok=True)
    Image.new("RGB", (40, 20), "grey").save(root / "JPEGImages" / f"{name}.jpg")
    inside = "".join(OBJECT.format(*values) for values in objects)
    (root / "Annotations" / f"{name}.xml").write_text(
        f"<annotation><filename>{name}.jpg</filename><size><width>{size[0]}</width>"
        f"<height>{size[1]}</height></size>{inside}</annotation>"
    )


class TestVoc:
    def test_lists_become_splits(self, tmp_path: Path, call: Call) -> None:
        voc(tmp_path, "a", ("dog", 0, 10, 5, 30, 15), ("cat", 1, 0, 0, 40, 20))
        voc(tmp_path, "b", ("cat", 0, 4, 4, 4, 4), size=(0, 0))
        voc(tmp_path, "c")
        sets = tmp_path / "ImageSets" / "Main"
        sets.mkdir(parents=True)
        (sets / "train.txt").write_text("a\nc 1\n\n")
        (sets / "val.txt").write_text("a\n")
        answer = json.loads(call("convert", tmp_path, "--json").out)
        assert set(answer["files"]) == {"train", "val"}
        found = read_coco(find_annotations(tmp_path)["train"])
        assert found.classes == ("cat", "dog")
        assert [len(p.boxes) for p in found.pictures] == [2, 0]
        assert found.pictures[0].boxes[0].tolist() == [0.25, 0.25, 0.75, 0.75]
        assert found.pictures[0].labels.tolist() == [2, 1]
        assert found.pictures[0].crowd.tolist() == [False, True]

    def test_without_lists_all_is_train_and_degenerate_boxes_are_named(
        self, tmp_path: Path
    ) -> None:
        voc(tmp_path, "a", ("dog", 0, 10, 5, 30, 15), ("dog", 0, 4, 4, 4, 4))
        files, dropped = convert_voc(tmp_path, tmp_path / "out")
        assert list(files) == ["train"]
        assert [entry.what for entry in dropped] == ["dog of a.xml"]
        assert len(json.loads(files["train"].read_text())["annotations"]) == 1

    def test_images_that_are_not_there_are_left_out_and_counted(
        self, tmp_path: Path, call: Call
    ) -> None:
        for name in "abc":
            voc(tmp_path, name, ("dog", 0, 10, 5, 30, 15))
        for name in "ac":
            (tmp_path / "JPEGImages" / f"{name}.jpg").unlink()
        answer = call("convert", tmp_path)
        (told,) = [line for line in answer.out.splitlines() if line.startswith("- ")]
        assert told == ("- left out: 2 of 3 images, there are no such files, the first is a.jpg")
        found = read_coco(find_annotations(tmp_path)["train"])
        assert [picture.path.name for picture in found.pictures] == ["b.jpg"]

    def test_a_split_without_its_images_is_refused(self, tmp_path: Path, call: Call) -> None:
        voc(tmp_path, "a", ("dog", 0, 10, 5, 30, 15))
        (tmp_path / "JPEGImages" / "a.jpg").unlink()
        said = refusal(call("convert", tmp_path))
        assert "none of the 1 images of train is there, the first is a.jpg; put them into" in said
        assert not (tmp_path / "annotations").exists()

    def test_refusals(self, tmp_path: Path, call: Call) -> None:
        assert "has no xml files" in refusal(call("convert", tmp_path))
        voc(tmp_path, "a")
        assert "holds an object" in refusal(call("convert", tmp_path))
        (tmp_path / "Annotations" / "b.xml").write_text("<annotation>")
        assert "b.xml is not a VOC xml file" in refusal(call("convert", tmp_path))
        voc(tmp_path, "b", ("dog", 0, 1, 1, "x", 2))
        assert "could not convert" in refusal(call("convert", tmp_path))
        sets = tmp_path / "ImageSets" / "Main"
        sets.mkdir(parents=True)
        (sets / "train.txt").write_text("zzz\n")
        assert "names 1 files that" in refusal(call("convert", tmp_path))

    @pytest.mark.data
    @pytest.mark.skipif(not BCCD.is_file(), reason=f"{BCCD} is absent")
    def test_bccd_equals_its_own_json(self, tmp_path: Path) -> None:
        """The set's json files were made from its xml elsewhere."""
        with tarfile.open(BCCD) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # not in 3.11.2
            tar.extractall(tmp_path)
        root = tmp_path / "bccd"
        files, dropped = convert_voc(root, root / "made")
        assert sorted(entry.what for entry in dropped) == [
            "RBC of BloodImage_00338.xml",
            "RBC of BloodImage_00343.xml",
        ]
        for split in ("train", "val", "test"):
            ours, theirs = (
                json.loads(path.read_text()) for path in (files[split], root / f"coco_{split}.json")
            )
            names = [{c["id"]: c["name"] for c in one["categories"]} for one in (ours, theirs)]
            images = [{i["id"]: i["file_name"] for i in one["images"]} for one in (ours, theirs)]
            found = [
                sorted(
                    (images[k][a["image_id"]], names[k][a["category_id"]], *a["bbox"])
                    for a in one["annotations"]
                )
                for k, one in enumerate((ours, theirs))
            ]
            assert found[0] == found[1]
