"""Masks as people and tools write them: which file is whose mask, and which class a value means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bneck.data.folders import DataError
from bneck.tasks.segment.dataset import find
from bneck.tasks.segment.intake.class_list import read_labels
from bneck.tasks.segment.masks import IGNORED, cityscapes_labels, read_mask
from bneck.tasks.segment.options import SegmentOptions
from bneck.tasks.segment.pairs import Scenery, list_pairs
from bneck.tasks.segment.scenes import Scenes
from commands import Call, refusal
from test_data_images import png
from test_segment_data import listed, save

PLAIN, COLOURED = "background\nobject\n", "background 0 0 0\nobject 255 255 255\n"
HALF = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
ROUGH = np.zeros((2, 3, 3), np.uint8)


def stored(root: Path, values: Any, mode: str | None = None, classes: str | None = None) -> Scenery:
    """Ten images whose masks are equal."""
    for i in range(10):
        save(root / f"images/{i}.jpg", ROUGH)
        mask = Image.fromarray(np.asarray(values, np.uint8))
        (root / "masks").mkdir(exist_ok=True)
        (mask.convert(mode) if mode else mask).save(root / f"masks/{i}.png")
    if classes is not None:
        listed(root, classes)
    return list_pairs(root)


def numbers(found: Scenery, index: int = 0) -> list[list[int]]:
    return read_mask(found.split("train")[index].mask, found.labels).tolist()


def test_masks_of_no_image_are_named(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"images/IMG_{i}.jpg", ROUGH)
        save(tmp_path / f"masks/{i:03d}.png", HALF)
    with pytest.raises(DataError, match=r"first image is IMG_0\.jpg, the first mask 000\.png"):
        list_pairs(tmp_path)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{}_image.png", "{}_label.png"), ("IMG_{}.jpg", "MASK_{}.png"), ("{}_sat.jpg", "{}_mask.png"),
        ("images/IMG_{}.jpg", "masks/MASK_{}.png"), ("train/image-{}.png", "train/label-{}.png"),
        ("photo_{}.jpg", "masks/{}.png"), ("images/{}_img.jpg", "masks/{}_seg.png"),
    ],
)  # fmt: skip
def test_images_and_masks_with_a_word_each(tmp_path: Path, image: str, mask: str) -> None:
    for i in range(11):
        save(tmp_path / image.format(i), ROUGH)
        save(tmp_path / mask.format(i), HALF)
    found = list_pairs(tmp_path)
    pairs = {(p.image, p.mask) for own in found.splits.values() for p in own}
    assert pairs == {(tmp_path / image.format(i), tmp_path / mask.format(i)) for i in range(11)}


@pytest.mark.parametrize("other", ["1.jpg", "image_1.jpg", "label_1.png"])
def test_words_that_do_not_tell_one_from_another(tmp_path: Path, other: str) -> None:
    """MASK_1 may be the mask of either image, or 1_image has two masks."""
    for i in range(3):
        save(tmp_path / f"{i}_image.png", ROUGH)
        save(tmp_path / f"{i}_label.png", HALF)
    save(tmp_path / other, HALF if "label" in other else ROUGH)
    with pytest.raises(DataError, match=r"have no mask|has no mask"):
        list_pairs(tmp_path)


def photo(root: Path, name: str, turn: int, size: tuple[int, int], *, suffix: str = ".jpg") -> None:
    """A black photo with a white block in its upper left corner as it is stored."""
    exif = Image.Exif()
    exif[0x0112] = turn
    values = np.zeros((size[1], size[0], 3), np.uint8)
    values[: size[1] // 2, : size[0] // 4] = 255
    (root / "images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(root / f"images/{name}{suffix}", exif=exif, quality=95)
    save(root / f"masks/{name}.png", np.where(values[..., 0] > 127, 255, 0).astype(np.uint8))


def unlike(found: Scenery) -> int:
    """Pixels of all splits where the photo is white and the mask is not the object, or the other way round."""
    total = 0
    for split in found.splits:
        scenes = Scenes(found.split(split), found.labels)
        for i in range(len(scenes)):
            image, mask = scenes.read(i)
            total += int(((image[..., 0] > 127) != (mask == 1)).sum())
    return total


@pytest.mark.parametrize(
    ("turn", "suffix"),
    [(5, ".jpg"), (6, ".jpg"), (7, ".jpg"), (8, ".jpg"), (6, ".png"), (8, ".webp")],
)
def test_masks_of_stored_photos_are_turned_with_them(
    tmp_path: Path, turn: int, suffix: str
) -> None:
    for i in range(4):
        photo(tmp_path, str(i), turn, (32, 16), suffix=suffix)
    found = list_pairs(tmp_path)
    assert Scenes(found.split("train"), found.labels).read(0)[1].shape == (32, 16)
    assert unlike(found) == 0
    assert "masks of 4 photos are turned as EXIF turns the photos" in found.found.notes


def test_masks_of_squares_and_upside_down_photos_follow_the_others(tmp_path: Path) -> None:
    for i, (turn, side) in enumerate(
        ((6, 16), (8, 32), (3, 16), (2, 32), (4, 16), (7, 32), (1, 16))
    ):
        photo(tmp_path, str(i), turn, (32, side))
    found = list_pairs(tmp_path)
    assert unlike(found) == 0
    assert "masks of 6 photos are turned as EXIF turns the photos" in found.found.notes


def test_masks_of_squares_that_nothing_tells(tmp_path: Path) -> None:
    for i, turn in enumerate((6, 3, 1, 1)):
        photo(tmp_path, str(i), turn, (32, 32))
    found = list_pairs(tmp_path)
    assert {pair.turn for pairs in found.splits.values() for pair in pairs} == {1}
    assert found.found.notes[0] == (
        "EXIF turns 2 photos whose masks, taken for the turned ones, may be for those as stored"
    )
    photo(tmp_path, "4", 6, (32, 16))  # whose mask is for the photo as it is shown
    save(tmp_path / "masks/4.png", np.full((32, 16), 255, np.uint8))
    assert not any("EXIF" in note for note in list_pairs(tmp_path).found.notes)


@pytest.mark.parametrize("channels", [2, 3])
def test_masks_in_colors_of_16_bits_are_refused(tmp_path: Path, channels: int) -> None:
    (tmp_path / "a.png").write_bytes(png(np.zeros((2, 3, channels), np.int64), False))
    with pytest.raises(DataError, match="has colors of 16 bits a value, of which the lower 8"):
        read_mask(tmp_path / "a.png", cityscapes_labels())


class TestClassListsWithIds:
    @pytest.mark.parametrize(
        "text",
        [
            "1: thing\n0: ground\n",
            "0 ground\n1 thing\n",
            "1,thing\n0,ground\n",
            "0=ground\n1=thing\n",
        ],
    )
    def test_ids_decide_on_the_order(self, tmp_path: Path, text: str) -> None:
        found = stored(tmp_path, HALF // 255, classes=text)
        assert found.labels.names == ("ground", "thing")
        assert numbers(found) == [[0, 1, 0], [1, 1, 0]]

    def test_numbers_in_names(self, tmp_path: Path) -> None:
        names = ("none", "1 euro", "2 euro")
        found = stored(tmp_path, HALF // 255, classes="\n".join(names))
        assert found.labels.names == names
        assert stored(tmp_path, HALF // 255, classes="1 euro\n2 euro\n").labels.names == names[1:]

    def test_ids_with_gaps(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="has the ids 1, 2; they must be those from 0 on"):
            stored(tmp_path, HALF // 255, classes="1: ground\n2: thing\n")


class TestScoredAlone:
    """Images that are not divided are all scored where they are not the run's own."""

    def test_undivided(self, tmp_path: Path) -> None:
        stored(tmp_path, HALF)
        found = list_pairs(tmp_path, divide=False)
        assert [len(found.split(name)) for name in ("train", "val", "test")] == [10, 10, 10]

    def test_a_test_split_alone(self, tmp_path: Path) -> None:
        stored(tmp_path / "test", HALF)
        found = list_pairs(tmp_path, divide=False)
        assert [len(found.split(name)) for name in ("test", "val")] == [10, 10]

    def test_test_next_to_others(self, tmp_path: Path) -> None:
        for split in ("train", "val", "test"):
            stored(tmp_path / split, HALF)
        (tmp_path / "test/images/0.jpg").unlink()
        found = list_pairs(tmp_path, divide=False)
        assert [len(found.split(name)) for name in ("train", "val", "test")] == [10, 10, 9]


class TestWhoseMask:
    @pytest.mark.parametrize(
        ("image", "mask"),
        [
            ("images/{}.jpg", "masks/{}.png"), ("images/{}.jpg", "masks/{}_mask.png"),
            ("img/{}.jpg", "labels/{}_segmentation.png"), ("images/{}.jpg", "masks/mask_{}.png"),
            ("images/{}.jpg", "masks/{}.jpg.png"), ("{}.jpg", "{}.png"), ("{}.jpg", "{}_mask.png"),
            ("a/{}.jpg", "a/{}_seg.png"), ("MT_Blowhole/Imgs/{}.jpg", "MT_Blowhole/Imgs/{}.png"),
            ("{}.tif", "{}.png"), ("images/{}.png", "labels/{}_P.png"),
            ("Set-2017_Training_Data/{}.jpg", "Set-2017_Training_GroundTruth/{}_segmentation.png"),
            ("CXR_png/{}.png", "masks/{}_mask.png"), ("original_images/{}.jpg", "label_images_semantic/{}.png"),
            ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"), ("data/images/{}.JPG", "data/masks/{}.PNG"),
            ("img_dir/{}.jpg", "ann_dir/{}.png"),
            ("cups/images/{}.jpg", "cups/masks/{}.png"), ("images/cups/{}.jpg", "masks/cups/{}.png"),
        ],
    )  # fmt: skip
    def test_by_the_names_of_files_and_folders(self, tmp_path: Path, image: str, mask: str) -> None:
        for i in range(5):
            save(tmp_path / image.format(i), ROUGH)
            save(tmp_path / mask.format(i), HALF)
        found = list_pairs(tmp_path)
        pairs = [*found.split("train"), *found.split("val")]
        assert {(str(p.image), str(p.mask)) for p in pairs} == {
            (str(tmp_path / image.format(i)), str(tmp_path / mask.format(i))) for i in range(5)
        }
        assert found.labels.names == ("background", "object")
        assert numbers(found) == [[0, 1, 0], [1, 1, 0]]

    @pytest.mark.parametrize(
        ("image", "mask"),
        [
            ("{split}/{i}.jpg", "{split}/{i}_mask.png"), ("{split}/{i}.jpg", "{split}_masks/{i}_mask.gif"),
            ("set/{split}_set/images/{i}.jpg", "set/{split}_set/masks/{i}.png"),
            ("{split}/{i}.jpg", "masks/{i}.png"),
            ("images/{split}2017/{i}.jpg", "annotations/{split}2017/{i}.png"),
        ],
    )  # fmt: skip
    def test_in_splits(self, tmp_path: Path, image: str, mask: str) -> None:
        names = {"train": ("a", "b", "c"), "val": ("d",), "test": ("e", "f")}
        for split, own in names.items():
            for i in own:
                save(tmp_path / image.format(split=split, i=i), ROUGH)
                save(tmp_path / mask.format(split=split, i=i), HALF)
        found = list_pairs(tmp_path).splits
        assert {k: tuple(p.image.stem for p in v) for k, v in found.items()} == names

    def test_one_folder_a_class_with_photos_and_pngs(self, tmp_path: Path) -> None:
        for place in ("MT_Blowhole", "MT_Crack"):
            for i in range(5):
                save(tmp_path / place / f"Imgs/{place}_{i}.jpg", ROUGH)
                save(tmp_path / place / f"Imgs/{place}_{i}.png", HALF)
        found = list_pairs(tmp_path)
        assert {name: len(pairs) for name, pairs in found.splits.items()} == {"train": 8, "val": 2}
        assert "no class list: 0 is background, the other value object" in found.found.notes

    def test_links_are_followed(self, tmp_path: Path) -> None:
        stored(tmp_path / "store", HALF)
        (tmp_path / "set").mkdir()
        for name in ("images", "masks"):
            (tmp_path / "set" / name).symlink_to(tmp_path / "store" / name)
        assert len(list_pairs(tmp_path / "set").split("train")) == 8

    def test_what_is_not_used_is_said(self, tmp_path: Path) -> None:
        stored(tmp_path, HALF)
        save(tmp_path / "previews/1.png", ROUGH)
        save(tmp_path / "masks/20.png", HALF)
        save(tmp_path / "masks/.3.png", HALF)
        save(tmp_path / "images/@eaDir/0.jpg", ROUGH)
        found = list_pairs(tmp_path)
        assert len(found.split("train")) == 8
        assert found.found.notes[:2] == (
            "not used: 1 images in other folders",
            "1 masks have no image",
        )

    def test_several_masks_of_one_image(self, tmp_path: Path) -> None:
        for i in range(5):
            save(tmp_path / f"{i}.png", ROUGH)
            save(tmp_path / f"{i}_mask.png", HALF)
        save(tmp_path / "0_seg.png", HALF)
        found = list_pairs(tmp_path)
        assert sum(map(len, found.splits.values())) == 4
        assert found.found.notes[0] == "left out: 1 images with several masks, first 0.png"
        for i in range(5):
            save(tmp_path / f"{i}_seg.png", HALF)
        with pytest.raises(DataError, match=r"has 2 masks: .*; move all but one of each image"):
            list_pairs(tmp_path)


class TestExports:
    def voc(self, root: Path, stems: Sequence[str], *, masks: Sequence[str]) -> Path:
        for stem in stems:
            save(root / f"JPEGImages/{stem}.jpg", ROUGH)
        for stem in masks:
            mask = Image.fromarray(np.array([[0, 1, 255], [2, 1, 0]], np.uint8), "P")
            mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 756 + [224, 224, 192])
            for folder in ("SegmentationClass", "SegmentationObject"):
                (root / folder).mkdir(parents=True, exist_ok=True)
                mask.save(root / folder / f"{stem}.png")
        (root / "ImageSets/Segmentation").mkdir(parents=True)
        return root

    def test_voc_as_it_comes(self, tmp_path: Path) -> None:
        stems = [f"2007_{i:06}" for i in range(12)]
        root = self.voc(tmp_path / "VOCdevkit/VOC2012", stems, masks=stems[:8])
        lists = root / "ImageSets/Segmentation"
        (lists / "train.txt").write_text("\n".join(stems[:5]))
        (lists / "val.txt").write_bytes("\r\n".join(stems[5:7]).encode("utf-8-sig"))
        (lists / "trainval.txt").write_text("\n".join(stems[:7]))
        found = list_pairs(tmp_path)
        assert {k: [p.image.stem for p in v] for k, v in found.splits.items()} == {
            "train": stems[:5], "val": stems[5:7],
        }  # fmt: skip
        assert found.labels.names[:3] == ("background", "aeroplane", "bicycle")
        assert len(found.labels.names) == 21
        assert numbers(found) == [[0, 1, IGNORED], [2, 1, 0]]
        assert "5 images are on no list" in found.found.notes
        (lists / "val.txt").write_text(stems[9])
        with pytest.raises(
            DataError, match="names 1 that have no image or no mask, first '2007_000009'"
        ):
            list_pairs(tmp_path)

    def test_cvat(self, tmp_path: Path) -> None:
        """Colours in its labelmap, names with blanks in its list, which names no split."""
        root = self.voc(tmp_path, [f"shot {i}" for i in range(6)], masks=[])
        for i in range(6):
            save(
                root / f"SegmentationClass/shot {i}.png",
                [[[48, 112, 32], [0, 0, 0], [176, 112, 32]]] * 2,
            )
        (root / "ImageSets/Segmentation/default.txt").write_text(
            "".join(f"shot {i}\n" for i in range(5))
        )
        (root / "labelmap.txt").write_text(
            "# label:color_rgb:parts:actions\ncat:48,112,32::\nbackground:0,0,0::\ndog:176,112,32::\n"
        )
        found = list_pairs(root)
        assert found.labels.names == ("cat", "background", "dog")
        assert numbers(found) == [[0, 1, 2]] * 2
        assert {k: len(v) for k, v in found.splits.items()} == {"train": 4, "val": 1}

    def test_roboflow(self, tmp_path: Path) -> None:
        for split in ("train", "valid"):
            for i in range(3):
                save(tmp_path / split / f"a_jpg.rf.{i}f.jpg", ROUGH)
                save(tmp_path / split / f"a_jpg.rf.{i}f_mask.png", [[0, 1, 2]] * 2)
            (tmp_path / split / "_classes.csv").write_text(
                "Pixel Value, Class\n0, background\n1, big cat\n2, dog\n"
            )
        found = list_pairs(tmp_path)
        assert found.labels.names == ("background", "big cat", "dog")
        assert {k: len(v) for k, v in found.splits.items()} == {"train": 3, "val": 3}
        assert numbers(found) == [[0, 1, 2]] * 2

    def test_cityscapes_as_unzipped(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            name = f"{split}/ulm/ulm_000001_000019"
            save(tmp_path / f"leftImg8bit_trainvaltest/leftImg8bit/{name}_leftImg8bit.png", ROUGH)
            save(
                tmp_path / f"gtFine_trainvaltest/gtFine/{name}_gtFine_labelIds.png",
                [[7, 255, 0]] * 2,
            )
        found = list_pairs(tmp_path)
        assert (found.layout, len(found.labels.names)) == ("cityscapes", 19)
        assert numbers(found) == [[0, IGNORED, IGNORED]] * 2


class TestWhatAValueMeans:
    @pytest.mark.parametrize("classes", [PLAIN, COLOURED, None])
    @pytest.mark.parametrize("mode", [None, "RGB", "RGBA", "LA", "1"])
    def test_0_and_255(self, tmp_path: Path, mode: str | None, classes: str | None) -> None:
        found = stored(tmp_path, HALF, mode, classes)
        assert found.labels.names == ("background", "object")
        assert numbers(found) == [[0, 1, 0], [1, 1, 0]]

    @pytest.mark.parametrize("classes", [PLAIN, COLOURED, None])
    def test_palettes_of_black_and_white_in_any_order(
        self, tmp_path: Path, classes: str | None
    ) -> None:
        stored(tmp_path, HALF, None, classes)
        for i in range(10):
            white = i % 2
            mask = Image.fromarray((HALF > 0).astype(np.uint8) ^ (1 - white), "P")
            mask.putpalette([0, 0, 0, 255, 255, 255] if white else [255, 255, 255, 0, 0, 0])
            mask.save(tmp_path / f"masks/{i}.png")
        found = list_pairs(tmp_path)
        for index in range(8):
            assert numbers(found, index) == [[0, 1, 0], [1, 1, 0]]

    def test_palettes_that_differ_need_colours(self, tmp_path: Path) -> None:
        stored(tmp_path, HALF, None, "ground\ncup\npen\n")
        colours = [[0, 0, 0], [200, 0, 0], [0, 0, 200]]
        for i in range(10):
            order = np.roll([0, 1, 2], i)
            mask = Image.fromarray(np.argsort(order)[[[0, 1, 2]] * 2].astype(np.uint8), "P")
            mask.putpalette([value for k in order for value in colours[k]])
            mask.save(tmp_path / f"masks/{i}.png")
        with pytest.raises(DataError, match="has another palette than the masks before it"):
            list_pairs(tmp_path)
        listed(tmp_path, "ground 0 0 0\ncup 200 0 0\npen 0 0 200\n")
        found = list_pairs(tmp_path)
        for index in range(8):
            assert numbers(found, index) == [[0, 1, 2]] * 2

    @pytest.mark.parametrize("mode", ["L", "P"])
    def test_colours_decide_wherever_the_list_has_them(self, tmp_path: Path, mode: str) -> None:
        values = np.array([[0, 128, 255]] * 2, np.uint8)
        found = stored(tmp_path, values, mode, "ground 0 0 0\nthing 128 128 128\n")
        assert numbers(found) == [[0, 1, IGNORED]] * 2
        found = stored(
            tmp_path, values, mode, "white 255 255 255\nthing 128 128 128\nground 0 0 0\n"
        )
        assert numbers(found) == [[2, 1, 0]] * 2

    def test_ids_next_to_a_list_with_colours_stay_ids(self, tmp_path: Path) -> None:
        found = stored(tmp_path, [[0, 1, 2]] * 2, None, "cup 9 0 0\npen 0 9 0\nground 0 0 0\n")
        assert numbers(found) == [[0, 1, 2]] * 2

    def test_255_is_ignored_where_it_is_not_the_object(self, tmp_path: Path) -> None:
        assert numbers(stored(tmp_path, [[0, 1, 255]] * 2, None, PLAIN)) == [[0, 1, IGNORED]] * 2
        stored(tmp_path, HALF)
        found = list_pairs(tmp_path, ignore=[255])
        assert numbers(found) == [[0, IGNORED, 0], [IGNORED, IGNORED, 0]]

    @pytest.mark.parametrize(
        ("values", "classes", "said"),
        [
            ([[0, 255, 0]] * 2, "object\n", "hold 0 and 255, and the class list has 'object' alone"),
            ([[0, 127, 255]] * 2, PLAIN, "holds id 127, and the class list has ids 0 to 1"),
            ([[0, 254, 0]] * 2, PLAIN, "holds id 254"),
            ([[0, 90, 0]] * 2, COLOURED, "has the color 90 90 90, which no class of the list has"),
        ],
    )  # fmt: skip
    def test_what_is_unclear_is_refused(
        self, tmp_path: Path, values: Any, classes: str, said: str
    ) -> None:
        with pytest.raises(DataError, match=said):
            numbers(stored(tmp_path, values, None, classes))

    def test_objects_are_never_all_ignored(
        self, tmp_path: Path, tiny_file: Path, call: Call
    ) -> None:
        """Three classes and masks of 0 and 255: mIOU would be 100 %."""
        stored(tmp_path / "data", HALF, None, "background\ncup\npen\n")
        places = ("--data", tmp_path / "data", "--out", tmp_path / "run", "--size", 32)
        said = call("train", tiny_file, "--task", "segment", *places)
        assert said.code == 2
        assert "are ignored or of the class 'background', so there is nothing to learn" in said.err

    @pytest.mark.parametrize("form", ["alpha", "no object"])
    def test_masks_of_one_class_are_nothing_to_learn_from(self, tmp_path: Path, form: str) -> None:
        """An object that its transparency alone shows would be background."""
        found = stored(tmp_path, HALF * 0, None, PLAIN)
        if form == "alpha":
            for i in range(10):
                save(tmp_path / f"masks/{i}.png", np.dstack((ROUGH, HALF)))
        with pytest.raises(
            DataError, match="all 8 masks are of the class 'background', so there is"
        ):
            Scenes(found.split("train"), found.labels).survey()

    @pytest.mark.parametrize(
        ("val", "said"),
        [(HALF, "the masks of val hold 0 and 255 alone, .* would be ignored"), (HALF // 51, "holds id 5")],
    )  # fmt: skip
    def test_masks_of_val_mean_what_those_of_train_do(
        self, tmp_path: Path, val: Any, said: str
    ) -> None:
        for split, values in (("train", HALF // 255), ("val", val)):
            for i in range(4):
                save(tmp_path / f"images/{split}/{i}.jpg", ROUGH)
                save(tmp_path / f"masks/{split}/{i}.png", values)
        listed(tmp_path, PLAIN)
        with pytest.raises(DataError, match=said):
            find(str(tmp_path), SegmentOptions(), seed=0)

    def test_a_spreadsheets_list(self, tmp_path: Path) -> None:
        listed(tmp_path, 'name,r,g,b\n"ground, wet",0,0,0\n"cup",9,0,0\n')
        found = read_labels(tmp_path / "classes.txt")
        assert (found.names, found.colours) == (("ground, wet", "cup"), ((0, 0, 0), (9, 0, 0)))

    def test_negative_ids_to_ignore(self, tmp_path: Path, tiny_file: Path, call: Call) -> None:
        stored(tmp_path, HALF)
        command = ("train", tiny_file, "--task", "segment", "--data", tmp_path, "--ignore=-1")
        assert "--ignore is -1; ids in masks are from 0" in refusal(call(*command))
