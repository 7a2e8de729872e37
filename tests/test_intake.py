"""What is found in folders, shards and tables as people keep them, and what is said of it."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bneck.data.find import find_images
from bneck.data.folders import DataError, Found, list_images
from bneck.data.intake.sentence import Repeated, repeated, sentence
from bneck.data.intake.splits import only_a_split, split_of
from bneck.data.intake.walk import HEIF_READ, images_below
from bneck.data.labels import labelled_images
from bneck.data.pack import decode
from bneck.data.sources import file_source
from bneck.runs.answers import answering
from bneck.tasks.data import known_bits
from commands import Call, refusal
from test_data_folders import lay, many

ABC = ("a", "b", "c")
NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


def classes(split: str, count: int, names: tuple[str, ...] = ABC) -> list[str]:
    return [file for name in names for file in many(f"{split}/{name}", count)]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"), ("Training", "train"), ("train_set", "train"), ("trainval", "train"),
        ("seg_train", "train"), ("train2017", "train"), ("TrainSet", "train"), ("trainset", "train"),
        ("train_val", "train"), ("val", "val"), ("valid", "val"), ("Validation", "val"), ("dev", "val"),
        ("eval", "val"), ("test", "test"), ("Testing", "test"), ("test-0", "test"),
        ("latest", None), ("festival", None), ("strain", None), ("contest", None), ("valley", None),
        ("train_test_split", None), ("photos", None), ("device", None),
    ],
)  # fmt: skip
def test_splits_are_named_by_whole_words(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_name_may_say_more_than_a_split() -> None:
    assert all(map(only_a_split, ("train", "test_set", "val2017", "train images")))
    assert not any(map(only_a_split, ("train station", "test tube", "bus")))


class TestFolders:
    @pytest.mark.parametrize(
        ("train", "val"),
        [
            ("Training", "Testing"), ("training_set/training_set", "test_set/test_set"),
            ("seg_train/seg_train", "seg_test/seg_test"), ("train", "dev"), ("train", "eval"),
            ("trainval", "test"), ("archive/Train", "archive/Valid"), ("train_images", "val_images"),
            ("cats_train", "cats_val"), ("training", "validate"),
        ],
    )  # fmt: skip
    def test_splits_of_other_names(self, tmp_path: Path, train: str, val: str) -> None:
        listing = list_images(lay(tmp_path, *classes(train, 10), *classes(val, 4)))
        assert listing.classes == ABC
        assert Counter(item.label for item in listing.train) == {0: 10, 1: 10, 2: 10}
        assert Counter(item.label for item in listing.val) == {0: 4, 1: 4, 2: 4}
        assert listing.found.val == "given"

    def test_classes_with_splits_inside(self, tmp_path: Path) -> None:
        for name in ABC:
            lay(tmp_path, *many(f"{name}/train", 5), *many(f"{name}/val", 2))
        listing = list_images(tmp_path)
        assert listing.classes == ABC
        assert (len(listing.train), len(listing.val)) == (15, 6)

    def test_one_level_too_high(self, tmp_path: Path) -> None:
        listing = list_images(lay(tmp_path, *classes("archive/data", 10)))
        assert listing.classes == ABC
        assert (len(listing.train), len(listing.val)) == (24, 6)
        assert listing.found.notes == ("found in archive/data",)

    def test_a_pipe_is_no_image(self, tmp_path: Path) -> None:
        """Opening it would wait for ever; a link to nothing is an image that cannot be read."""
        lay(tmp_path, *classes(".", 5))
        os.mkfifo(tmp_path / "a/pipe.png")
        (tmp_path / "b/gone.png").symlink_to("/nowhere.png")
        (tmp_path / "c/round.png").symlink_to("round.png")
        assert [len(images_below(tmp_path / name)) for name in ABC] == [5, 6, 6]

    def test_a_link_to_a_folder_above_ends(self, tmp_path: Path) -> None:
        (tmp_path / "set").mkdir()
        (tmp_path / "set/in").symlink_to(tmp_path / "set", target_is_directory=True)
        with pytest.raises(DataError, match=r"has one class, 'in'"):
            list_images(tmp_path / "set")

    @pytest.mark.parametrize(
        "names",
        [
            ("color", "grey"),
            ("fold_0", "fold_1", "fold_2"),
            ("entrenamiento", "prueba"),
            ("训练", "测试"),
        ],
    )
    def test_folders_that_hold_the_same_folders_are_no_classes(
        self, tmp_path: Path, names: tuple[str, ...]
    ) -> None:
        for name in names:
            lay(tmp_path / "set", *classes(name, 5))
        with pytest.raises(DataError, match=r"holds the folders a, b, c, as splits, folds or var"):
            list_images(tmp_path / "set")
        (tmp_path / "set").rename(tmp_path / "train")  # as the message says
        for root in (tmp_path, tmp_path / "train"):
            assert list_images(root).classes == tuple(sorted(names))

    def test_a_folder_of_the_classes_next_to_it_is_no_class(self, tmp_path: Path) -> None:
        lay(tmp_path, *classes(".", 5), "augmented/a/1.png", "augmented/c/1.png")
        with pytest.raises(DataError, match=r"has the folders a, c, and 'augmented' next to them"):
            list_images(tmp_path)

    @pytest.mark.parametrize("other", ["docs/img/1.png", "labels/", "notebooks/cat/1.png"])
    def test_splits_one_level_deeper_next_to_other_folders(
        self, tmp_path: Path, other: str
    ) -> None:
        lay(tmp_path, *classes("data/train", 5), *classes("data/test", 2), other)
        listing = list_images(tmp_path)
        assert (listing.classes, len(listing.train), len(listing.val)) == (ABC, 15, 6)
        assert "found in data" in listing.found.notes

    def test_several_datasets_are_not_one(self, tmp_path: Path) -> None:
        lay(tmp_path, *classes("one/train", 3), *classes("two/train", 3), *classes("three", 3))
        with pytest.raises(DataError, match="a train split inside 'one' and others, and none ins"):
            list_images(tmp_path)

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            (("cat_0.jpg", "cat_1.jpg", "dog_0.jpg", "dog_1.jpg"), "whose names begin with cat, dog;"),
            (("Abyssinian_1.jpg", "Abyssinian_2.jpg", "great_dane_1.jpg", "great_dane_12.jpg"),
             "but 4 images whose names begin with Abyssinian, great_dane;"),
            (("IMG_1.jpg", "IMG_2.jpg", "x.jpg"), "but 3 images;"),
            (("all.zip",), "but all.zip, which must be unpacked;"),
        ],
    )  # fmt: skip
    def test_images_without_class_folders(
        self, tmp_path: Path, files: tuple[str, ...], said: str
    ) -> None:
        with pytest.raises(DataError, match=said):
            find_images(lay(tmp_path, *files))

    def test_an_archive_is_to_be_unpacked(self, tmp_path: Path) -> None:
        (tmp_path / "set.tar.gz").write_bytes(b"")
        with pytest.raises(DataError, match="not a folder; unpack it and give the folder"):
            list_images(tmp_path / "set.tar.gz")

    @pytest.mark.parametrize("name", ["cu\np", "cup\r", "a\tb"])
    def test_names_of_more_than_a_line(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DataError, match="has a line break or control character in its name"):
            list_images(lay(tmp_path, *many(name, 2), *many("pen", 2)))

    def test_test_is_left_alone_next_to_val(self, tmp_path: Path) -> None:
        lay(tmp_path, *classes("train", 5), *classes("val", 2), *classes("test", 3))
        listing = list_images(tmp_path)
        assert [len(part) for part in (listing.train, listing.val, listing.test)] == [15, 6, 9]
        assert {item.path.parent.parent.name for item in listing.val} == {"val"}

    def test_a_test_that_does_not_fit_is_reported(self, tmp_path: Path) -> None:
        lay(tmp_path, *classes("train", 5), *classes("val", 2), *many("test/z", 3))
        listing = list_images(tmp_path)
        assert listing.test == ()
        assert listing.found.notes[0].startswith("test cannot be used: class 'z' is in")

    def test_trainval_counts_without_val_and_train_with_it(self, tmp_path: Path) -> None:
        lay(tmp_path, *classes("train", 5), *classes("trainval", 7), *classes("test", 2))
        assert len(list_images(tmp_path).train) == 21
        lay(tmp_path, *classes("val", 2))
        listing = list_images(tmp_path)
        assert len(listing.train) == 15
        assert listing.found.notes == ("not used: trainval (21 images)",)

    def test_notes_and_unlabelled_images_next_to_splits_are_no_classes(
        self, tmp_path: Path
    ) -> None:
        lay(tmp_path, *classes("train", 5), *classes("val", 2), *many("unlabeled", 9))
        lay(tmp_path, "meta/", "devkit/readme.txt", *many("test", 3))
        listing = list_images(tmp_path)
        assert listing.classes == ABC
        assert listing.found.notes == (
            "not used: unlabeled (9 images)",
            "not used: 3 images in test without classes",
        )

    def test_unlabelled_images_next_to_classes_are_no_class(self, tmp_path: Path) -> None:
        listing = list_images(lay(tmp_path, *many("a", 5), *many("b", 5), *many("unlabeled", 4)))
        assert listing.classes == ("a", "b")
        assert listing.found.notes == ("not used: unlabeled (4 images)",)

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            (many("train", 3) + many("val", 3) + many("bus", 3), "'train' and 'val', which names a split"),
            (many("test", 3) + many("a", 3) + many("b", 3), "'test', which names a split, next to class"),
            (classes("val", 3) + classes("test", 3), "has test, val and no folder 'train' to train on"),
            (classes("train_1", 3) + classes("train_2", 3), "has 2 folders for train: train_1, train_2"),
        ],
    )  # fmt: skip
    def test_splits_are_never_classes(self, tmp_path: Path, files: list[str], said: str) -> None:
        with pytest.raises(DataError, match=said):
            list_images(lay(tmp_path, *files))

    def test_classes_whose_names_have_a_splits_word(self, tmp_path: Path) -> None:
        names = ("crash test", "train", "train station")
        lay(tmp_path, *(file for name in names for file in many(name, 3)))
        assert list_images(tmp_path).classes == names

    def test_val_next_to_the_classes_of_train(self, tmp_path: Path) -> None:
        lay(tmp_path, *(file for name in ABC for file in many(name, 5)), *classes("val", 2))
        listing = list_images(tmp_path)
        assert (listing.classes, len(listing.train), len(listing.val)) == (ABC, 15, 6)

    def test_what_systems_put_there_is_never_taken(self, tmp_path: Path) -> None:
        lay(tmp_path, *many("a", 5), *many("b", 5), "$RECYCLE.BIN/", "System Volume Information/")
        lay(tmp_path, "a/@eaDir/00.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/a/._00.jpg", "Thumbs.db")
        lay(tmp_path, "a/Thumbs.db", "a/.thumbnails/1.jpg", "b/thumbnails/00.jpg", "desktop.ini")
        listing = list_images(tmp_path)
        assert listing.classes == ("a", "b")
        assert len(listing.train) + len(listing.val) == 10
        assert listing.found.left == {"in folders of thumbnails": 1}

    def test_what_is_left_out_is_counted(self, tmp_path: Path) -> None:
        lay(tmp_path, *many("a", 5), *many("b", 5), "b/x.jfif", "b/Y.JPEG", "a/1.nef", "a/2.NEF")
        lay(tmp_path, "loose.jpg", "a/notes.txt", "a/LICENSE")
        for name in ("one", "2024.03.07 10.22.31"):
            Image.new("RGB", (4, 4)).save(tmp_path / "a" / name, format="jpeg")
        listing = list_images(tmp_path)
        assert len(listing.train) + len(listing.val) == 12
        assert listing.found.left == {".nef": 2, "without a suffix": 2, "in no class folder": 1}
        lay(
            tmp_path / "split", *classes("train", 3), *classes("val", 2), "train/x.jpg", "val/y.jpg"
        )
        assert list_images(tmp_path / "split").found.left == {"in no class folder": 2}

    def test_unicode_forms_of_one_name(self, tmp_path: Path) -> None:
        lay(tmp_path, *many(f"train/{NFC}", 3), *many("train/pen", 3), *many(f"val/{NFD}", 2))
        listing = list_images(tmp_path)
        assert listing.classes == (NFC, "pen")
        assert [item.label for item in listing.val] == [0, 0]
        assert "two Unicode forms (NFC and NFD)" in listing.found.notes[0]
        lay(tmp_path, *many(f"train/{NFD}", 3))
        with pytest.raises(DataError, match="twice, once in composed and once in decomposed"):
            list_images(tmp_path)

    @pytest.mark.parametrize("other", ["Cup", "cup "])
    def test_names_that_look_alike(self, tmp_path: Path, other: str) -> None:
        lay(tmp_path, *classes("train", 3, ("cup", "pen")), *classes("val", 3, (other, "pen")))
        with pytest.raises(DataError, match="differ in capitals or blanks alone; rename one"):
            list_images(tmp_path)
        both = list_images(lay(tmp_path / "both", *many("cup", 2), *many(other, 2)))
        assert "that differ in capitals or blanks alone" in both.found.notes[0]


def jpeg(colour: int) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, colour, 0)).save(made, format="jpeg")
    return made.getvalue()


def shard(path: Path, *names: str, **contents: bytes) -> Path:
    """A tar of images of one colour each, and of what is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = {name: jpeg(number) for number, name in enumerate(names)}
    with tarfile.open(path, "w") as tar:
        for name, data in {**files, **contents}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path.parent


class TestPhotos:
    def test_heic_is_taken_with_its_extra(self, tmp_path: Path) -> None:
        pytest.importorskip("pillow_heif")
        lay(tmp_path, *many("a", 3), *many("b", 3))
        Image.new("RGB", (64, 64), (200, 0, 0)).save(tmp_path / "a/IMG_1.HEIC", format="HEIF")
        listing = list_images(tmp_path)
        assert len(listing.train) + len(listing.val) == 7
        assert decode(tmp_path / "a/IMG_1.HEIC", 8)[:, 4, 4].tolist() == pytest.approx(
            [200, 0, 0], abs=6
        )

    def test_without_it_heic_is_counted(self, tmp_path: Path) -> None:
        if HEIF_READ:
            pytest.skip("pillow-heif is installed")
        lay(tmp_path, *many("a", 5), *many("b", 5), "b/1.heic", "b/2.HEIC", "c/3.heic")
        with pytest.raises(
            DataError, match=r"'c' has no images in .* but 1 .heic .pip install 'bneck.heif"
        ):
            list_images(tmp_path)
        (tmp_path / "c/3.heic").rename(tmp_path / "c.txt")
        (tmp_path / "c").rmdir()
        assert list_images(tmp_path).found.left == {".heic (pip install 'bneck[heif]')": 2}

    @pytest.mark.parametrize(
        ("suffix", "form"), [("jfif", "jpeg"), ("AVIF", "avif"), ("JPE", "jpeg")]
    )
    def test_photos_of_other_suffixes(self, tmp_path: Path, suffix: str, form: str) -> None:
        lay(tmp_path, *many("a", 3), *many("b", 3))
        Image.new("RGB", (64, 64), (200, 0, 0)).save(tmp_path / f"a/x.{suffix}", format=form)
        listing = list_images(tmp_path)
        assert tmp_path / f"a/x.{suffix}" in {item.path for item in (*listing.train, *listing.val)}
        assert decode(tmp_path / f"a/x.{suffix}", 8)[:, 4, 4].tolist() == pytest.approx(
            [200, 0, 0], abs=6
        )


class TestShards:
    @pytest.mark.parametrize("form", ["2024.03.{i:02} 10.22.31.jpg", "v{m}.{i}.jpg", "{i}.JPG"])
    def test_all_pictures_of_class_folders_are_used(self, tmp_path: Path, form: str) -> None:
        names = [f"{c}/{form.format(i=i, m=i % 3)}" for c in ("cup", "pen") for i in range(10)]
        found = find_images(shard(tmp_path / "a.tar", *names))
        assert found.classes == ("cup", "pen")
        assert (len(found.train.labels), len(found.val.labels)) == (16, 4)

    def test_labels_of_names_with_dots(self, tmp_path: Path) -> None:
        notes = {f"a.{i}.cls": str(i % 2).encode() for i in range(10)}
        found = find_images(shard(tmp_path / "a.tar", *(f"a.{i}.jpg" for i in range(10)), **notes))
        both = dict(zip(found.train.names, found.train.labels.tolist(), strict=True))
        assert len(found.train.names) == 8
        assert all(label == int(name[2]) % 2 for name, label in both.items())

    def test_further_images_of_a_key_are_left_out_and_counted(self, tmp_path: Path) -> None:
        names = [f"{k}{end}" for k in range(4) for end in (".seg.png", ".jpg")]
        notes = {f"{k}.cls": str(k % 2).encode() for k in range(4)}
        found = find_images(shard(tmp_path / "a.tar", *names, **notes))
        used = [*found.train.names, *found.val.names]
        assert sorted(used) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
        assert found.found.left == {"further images of a key": 4}

    @pytest.mark.parametrize("name", ["photos-latest", "festival-0"])
    def test_words_not_parts_of_words(self, tmp_path: Path, name: str) -> None:
        names = [f"{c}/{i}.jpg" for c in ("cup", "pen") for i in range(10)]
        found = find_images(shard(tmp_path / f"{name}.tar", *names))
        assert (len(found.train.labels), len(found.val.labels)) == (16, 4)
        assert found.found.val == "split off by seed 0"

    @pytest.mark.parametrize("labelled", [True, False])
    def test_test_is_left_alone(self, tmp_path: Path, labelled: bool) -> None:
        for split, count in (("train", 6), ("val", 2)):
            shard(
                tmp_path / f"{split}-0.tar", *(f"{c}/{i}.jpg" for c in "ab" for i in range(count))
            )
        place = "a/" if labelled else ""
        found = find_images(shard(tmp_path / "test-0.tar", *(f"{place}{i}.jpg" for i in range(5))))
        assert (len(found.train.labels), len(found.val.labels)) == (12, 4)
        assert (found.test is not None and len(found.test.labels)) == (5 if labelled else False)
        assert found.found.notes == (
            () if labelled else ("not used: 5 images of test without labels",)
        )

    def test_shards_of_no_split_next_to_train_are_reported(self, tmp_path: Path) -> None:
        shard(tmp_path / "train-0.tar", *(f"{c}/{i}.jpg" for c in "ab" for i in range(5)))
        found = find_images(shard(tmp_path / "more.tar", "a/1.jpg", "b/1.jpg"))
        assert found.found.notes == ("not used: 2 images of no split (more.tar)",)

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_class_lists_of_windows(self, tmp_path: Path, encoding: str) -> None:
        notes = {f"{i}.cls": (b"cup", b"pen")[i % 2] for i in range(8)}
        shard(tmp_path / "a.tar", *(f"{i}.jpg" for i in range(8)), **notes)
        (tmp_path / "classes.txt").write_bytes("pen\r\ncup\r\n".encode(encoding))
        assert find_images(tmp_path).classes == ("pen", "cup")


class TestTables:
    def test_test_is_left_alone(self, tmp_path: Path) -> None:
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        for name, count in (
            ("train-00000-of-00001", 8),
            ("dev-0", 4),
            ("test-0", 2),
            ("latest", 2),
        ):
            rows = {
                "image": [{"bytes": jpeg(i)} for i in range(count)],
                "label": [i % 2 for i in range(count)],
            }
            pq.write_table(pa.table(rows), tmp_path / f"{name}.parquet")
        found = find_images(tmp_path)
        assert found.test is not None
        parts = (found.train, found.val, found.test)
        assert [len(part.labels) for part in parts] == [10, 4, 2]


class TestRepeats:
    def test_by_content_across_splits_and_classes(self, tmp_path: Path) -> None:
        for i in range(4):
            Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / "copy.png").write_bytes((tmp_path / "1.png").read_bytes())
        (tmp_path / "other.png").write_bytes((tmp_path / "2.png").read_bytes())
        train = file_source([tmp_path / f"{n}.png" for n in ("0", "1", "2", "other")], [0, 1, 0, 1])
        val = file_source([tmp_path / f"{n}.png" for n in ("3", "copy", "gone")], [0, 1, 0])
        found = repeated(train, val)
        assert found == Repeated(
            leaked=(str(tmp_path / "copy.png"),), torn=(str(tmp_path / "2.png"),)
        )

    def test_millions_are_not_read_twice(self, tmp_path: Path) -> None:
        for i in range(3):
            Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(tmp_path / f"{i}.bmp")
        source = file_source([tmp_path / f"{i}.bmp" for i in range(3)])
        assert repeated(source, source, most=5) is None
        line = sentence(("a",), {"train": 3, "val": 3}, Found(), None)
        assert line.endswith("; repeated images were not looked for")

    def test_the_sentence(self) -> None:
        found = Found(
            "given",
            {".heic (pip install 'bneck[heif]')": 60, "without a suffix": 10},
            ("val is dev",),
        )
        line = sentence(
            ("cup", "pen", "none"), {"train": 144, "val": 16}, found, Repeated(("x",) * 4), 7
        )
        assert line == (
            "3 classes (cup, pen, none); 144 train, 16 val (given), 7 test (left alone); left out: 60 .heic "
            "(pip install 'bneck[heif]'), 10 without a suffix; 4 images are in train and val; val is dev"
        )


def test_a_training_says_records_and_reports_it(
    tmp_path: Path, tiny_file: Path, call: Call
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for label, name in enumerate(("cup", "pen")):
            folder = data / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40, 40), (200 * label, 9 * i, 0)).save(folder / f"{i}.png")
    said = call(
        "train",
        tiny_file,
        "--data",
        data,
        "--resolution",
        32,
        "--epochs",
        1,
        "--batch",
        4,
        "--out",
        run,
    )
    line = (
        "2 classes (cup, pen); 12 train, 4 val (given), 6 test (left alone); "
        "4 images are in train and val"
    )
    assert said.code == 0
    assert f"data: {line}" in said.err
    assert json.loads((run / "run.json").read_text())["data"]["found"] == line
    assert f"Data: {line}." in (run / "report.md").read_text()
    assert json.loads(call("evaluate", run, "--split", "test", "--json").out)["images"] == 6
    shutil.copytree(data, tmp_path / "other")
    shutil.rmtree(tmp_path / "other/train/cup")
    lay(tmp_path / "other/train/cup", "0.png")
    for split, count in (("test", 6), ("val", 4)):
        command = ("evaluate", run, "--data", tmp_path / "other", "--split", split, "--json")
        assert json.loads(call(*command).out)["images"] == count
    for split in ("val", "test"):
        shutil.rmtree(data / split)
    said = refusal(call("evaluate", run))  # what would be val now was learned from
    assert "is split off by seed 0 now, and was given when the run was trained" in said


def test_deep_values_are_recorded_and_used_at_predict(
    tmp_path: Path, tiny_file: Path, call: Call
) -> None:
    """A network that sees images of 12 bits in files of 16, in its record and its file's metadata."""
    data, run = tmp_path / "data", tmp_path / "run"
    for label, name in enumerate(("cup", "pen")):
        (data / name).mkdir(parents=True)
        for i in range(5):
            values = np.full((40, 40), 4000 - 3000 * label - i, np.uint16)
            Image.fromarray(values).save(data / name / f"{i}.png")
    given = ("--resolution", 32, "--epochs", 1, "--batch", 4, "--out", run)
    assert "taken as of 12 bits" in call("train", tiny_file, "--data", data, *given).err
    assert json.loads((run / "run.json").read_text())["data"]["bits"] == 12
    found = find_images(data)
    assert {part.bits for part in (found.train, found.val)} == {12}
    answers, record, _ = answering(run / "model.onnx", "cpu")
    assert (answers.metadata["bits"], known_bits(answers, {})) == ("12", 12)
    assert known_bits(answering(run, "cpu")[0], record) == 12
    flat, eight = tmp_path / "twelve.png", tmp_path / "eight.png"
    Image.fromarray(np.full((40, 40), 1600, np.uint16)).save(flat)
    Image.fromarray(np.full((40, 40), 100, np.uint8)).save(eight)
    one, other = json.loads(call("predict", run, flat, eight, "--json").out)
    assert one["classes"] == other["classes"]  # 1600 of 4096 is 100 of 256


TABLES = {
    "comma": "path,index\n{a},0\n{b},1\n", "semicolon": "path;index\n{a};0\n{b};1\n",
    "tab": "path\tindex\n{a}\t0\n{b}\t1\n", "names": "path,label\n{a},cup\n{b},pen\n",
    "filename": "filename,label\n{a},0\n{b},1\n", "blanks": "path, index\n{a}, 0\n{b}, 1\n\n",
    "float": "path,index\n{a},0.0\n{b},1.0\n", "capitals": "Path;Index\n{a};0\n{b};1\n",
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", TABLES)
def test_tables_of_labels_from_spreadsheets(tmp_path: Path, form: str, encoding: str) -> None:
    lay(tmp_path, "in/a 1.jpg", "b.jpg")
    text = TABLES[form].format(a="in/a 1.jpg", b="b.jpg").replace("\n", "\r\n")
    (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
    items = labelled_images(tmp_path, places=lambda names: {}, known={"cup": 0, "pen": 1}).items
    assert [(item.path, item.label) for item in items] == [
        (tmp_path / "in/a 1.jpg", 0), (tmp_path / "b.jpg", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("column", "label"), [("label", 1), ("index", 2)])
def test_numbers_that_are_names(tmp_path: Path, column: str, label: int) -> None:
    """A network with the classes 1 and 2: names in a column of labels, positions in one of indices."""
    lay(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    (tmp_path / "labels.csv").write_text(f"id,{column}\n0,2\n1,2\n2,1\n")
    items = labelled_images(tmp_path, places=lambda names: {}, known={"1": 0, "2": 1}).items
    assert [item.path.name for item in items] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [item.label for item in items] == [label, label, label - 1]


@pytest.mark.parametrize("value", ["", "-1", "1.5", "mug"])
def test_labels_that_are_no_class(tmp_path: Path, value: str) -> None:
    lay(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "labels.csv").write_text(f"path;label\na.jpg;cup\nb.jpg;{value}\n")
    with pytest.raises(DataError, match=f"has no index in line 3: '{value}'"):
        labelled_images(tmp_path, places=lambda names: {}, known={"cup": 0})
