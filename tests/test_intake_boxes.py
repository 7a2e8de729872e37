"""Boxes as people's tools write them: which are read with which values, which are refused and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bneck.data.folders import DataError
from bneck.data.images import read_whole
from bneck.specs.errors import InputError
from bneck.tasks.detect.dataset import find
from bneck.tasks.detect.dataset import objects as find_objects
from bneck.tasks.detect.intake.coco import Annotated, ground_truth, read_coco
from bneck.tasks.detect.intake.find import find_splits
from bneck.tasks.detect.task import DetectOptions
from commands import Call, refusal

SIZE = (40, 20)
BOX = [0.25, 0.25, 0.75, 0.75]  # [10, 5, 20, 10] of an image of that size
Edit = Callable[[dict[str, Any]], Any]


def picture(path: Path, size: tuple[int, int] = SIZE, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "grey").save(path, **how)


def coco(
    root: Path, *edits: Edit, file: str = "train/_annotations.coco.json", count: int = 4
) -> Path:
    """Images with a cup each, and a pen on the first."""
    path = root / file
    names = [f"train{i}.png" for i in range(count)]
    data: dict[str, Any] = {
        "images": [{"id": i, "file_name": n, "width": 40, "height": 20} for i, n in enumerate(names)],
        "annotations": [
            {"id": i + 1, "image_id": i % count, "category_id": 1 + i // count, "bbox": [10, 5, 20, 10]}
            for i in range(count + 1)
        ],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "pen"}],
    }  # fmt: skip
    for name in names:
        picture(path.parent / name)
    for edit in edits:
        edit(data)
    path.write_text(json.dumps(data))
    return path


def each(part: str, **fields: Any) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        for entry in data[part]:
            entry.update({k: v(entry) if callable(v) else v for k, v in fields.items()})

    return edit


def without(part: str, name: str) -> Edit:
    return lambda data: [entry.pop(name) for entry in data[part]]


def seen(found: Annotated) -> list[tuple[str, list[float]]]:
    return [
        (found.classes[label - 1], box)
        for picture in found.pictures
        for label, box in zip(picture.labels, picture.boxes.tolist(), strict=True)
    ]


WHOLE = [("cup", BOX), ("pen", BOX), *[("cup", BOX)] * 3]
POLYGON = [[10, 5, 30, 5, 30, 15, 10, 15]]


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
        for picture in found.pictures:
            pixels = read_whole(picture.path)
            assert not isinstance(pixels, str)
            assert pixels[shown[1], shown[0]].tolist() == [255, 255, 255]
            assert picture.size == (20, 40)
            assert picture.given[0].tolist() == [*box, 48]
            left, top, right, bottom = picture.boxes[0] * [20, 40, 20, 40]
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
            ("a%20{}", "train/a {}"), ("images/{}", "train/deep/er/{}"), ("{}", "images/{}"),
        ],
    )  # fmt: skip
    def test_file_names_of_other_systems(self, tmp_path: Path, name: str, place: str) -> None:
        path = coco(tmp_path, each("images", file_name=lambda e: name.format(e["file_name"])))
        for i in range(4):
            target = tmp_path / place.format(f"train{i}.png")
            target.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / f"train{i}.png").rename(target)
        assert seen(read_coco(path)) == WHOLE

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


XML = """<annotation><filename>{filename}</filename>{size}<object><name>{label}</name>
<difficult>{difficult}</difficult><bndbox><xmin>10</xmin><ymin>5.0</ymin><xmax>30</xmax><ymax>15</ymax></bndbox>
</object></annotation>"""


def voc(
    root: Path, *, count: int = 10, xmls: str = "Annotations", images: str = "JPEGImages",
    stem: str = "im{}", suffix: str = ".png", filename: str = "{}.png",
    size: str = "<size><width>40</width><height>20</height></size>",
    difficult: str = "0", label: str = "cup", head: str = "", encoding: str = "utf-8",
) -> Path:  # fmt: skip
    for i in range(count):
        name = stem.format(i)
        picture(root / images / f"{name}{suffix}")
        text = XML.format(
            filename=filename.format(name), size=size, label=label, difficult=difficult
        )
        (root / xmls).mkdir(parents=True, exist_ok=True)
        (root / xmls / f"{name}.xml").write_bytes((head + text).encode(encoding))
    return root


def lists(root: Path, line: str = "im{}\n", **splits: range) -> Path:
    folder = root / "ImageSets/Main"
    folder.mkdir(parents=True)
    for split, numbers in splits.items():
        (folder / f"{split}.txt").write_bytes(
            "".join(line.format(i) for i in numbers).encode("utf-8-sig")
        )
    return root


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


def yolo(
    root: Path,
    images: str,
    labels: str,
    *,
    line: str = "1 0.5 0.5 0.5 0.5",
    listed: str | None = None,
) -> Path:
    """6 images of train and 3 of val with a box of class 1 each; the last has none."""
    for split, count in (("train", 6), ("val", 3)):
        for i in range(count):
            picture(root / images.format(split=split) / f"{i}.png")
            text = root / labels.format(split=split) / f"{i}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            if i:
                text.write_text(line + "\n")
    if listed is not None:
        (root / "data.yaml").write_bytes(listed.encode("utf-8-sig"))
    return root


NAMES = "names: ['cup', 'pen']\n"


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

    @pytest.mark.parametrize("form", ["namespace", "utf-16", "latin-1"])
    def test_xml_of_other_forms(self, tmp_path: Path, form: str) -> None:
        for file in (voc(tmp_path) / "Annotations").glob("*.xml"):
            text = file.read_text()
            if form == "namespace":
                file.write_text(text.replace("<annotation>", '<annotation xmlns="http://x">'))
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


class TestYolo:
    def test_corners_are_refused(self, tmp_path: Path) -> None:
        root = yolo(
            tmp_path, "images/{split}", "labels/{split}", line="0 0.3 0.4 0.8 0.9", listed=NAMES
        )
        with pytest.raises(DataError, match=r"7 of 7 boxes reach over the edges .* write centres"):
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
            ("names: [cup, cup]\n", "have the name 'cup' twice"),
        ],
    )  # fmt: skip
    def test_a_yaml_that_cannot_be(self, tmp_path: Path, listed: str, said: str) -> None:
        root = yolo(tmp_path, "images/{split}", "labels/{split}", listed=listed)
        with pytest.raises(DataError, match=said):
            find(str(root), DetectOptions(), seed=0)

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
