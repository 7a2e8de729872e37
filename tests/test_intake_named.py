"""Images whose classes a table tells (`train.csv`), or their own names (`cat.0.jpg`)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bneck.data.find import find_images
from bneck.data.folders import DataError
from bneck.data.pack import pack
from bneck.data.sources import Source, Sources
from bneck.data.stream import Stream
from commands import Call
from test_data_folders import lay, many

KINDS = ("cat", "dog")
NAMES = [f"im/{i}.jpg" for i in range(10)]


def table(path: Path, head: str, rows: Iterable[str], encoding: str = "utf-8") -> None:
    path.write_bytes("\n".join([head, *rows, ""]).encode(encoding))


def told(source: Source | None, classes: tuple[str, ...]) -> dict[str, str]:
    assert source is not None
    return {
        name: classes[label] for name, label in zip(source.names, source.labels.tolist(), strict=True)
    }  # fmt: skip


def every(found: Sources) -> dict[str, str]:
    return told(found.train, found.classes) | told(found.val, found.classes)


WANTED = {f"im/{i}.jpg": KINDS[i % 2] for i in range(10)}
FORMS = {
    "filename,label": "{i}.jpg,{kind}", "image;label": "im/{i}.jpg;{kind}", "path\tclass": "im/{i}.jpg\t{kind}",
    "id,breed": "{i},{kind}", "Image_ID, Category": "{i}, {kind}", ",file,label": "{i},im\\{i}.jpg,{kind}",
    "label,class,path": "{n},{kind},{i}.jpg", "id,name_of_it": "{i},{kind}",
    "id,image,label": "x{i},{i},{kind}", "image,label": "../here/im/{i}.jpg,{kind}",
    "filepaths,labels,extra": "im/{i}.jpg,{kind},{i}", "image,cat,dog": "{i},{m}.0,{n}.0",
    "path,label": "/home/me/set/im/{i}.jpg,{kind}", "image,split,label": "{i},,{kind}",
}  # fmt: skip


class TestTables:
    @pytest.mark.parametrize("name", ["train.csv", "labels.csv", "list.tsv"])
    @pytest.mark.parametrize("form", FORMS)
    def test_columns(self, tmp_path: Path, form: str, name: str) -> None:
        root = tmp_path / "here"
        lay(root, *NAMES)
        rows = (FORMS[form].format(i=i, kind=KINDS[i % 2], n=i % 2, m=1 - i % 2) for i in range(10))
        table(root / name, form, rows, "utf-8-sig" if name == "train.csv" else "utf-16")
        found = find_images(root)
        assert (found.classes, every(found)) == (KINDS, WANTED)
        assert (len(found.train.labels), len(found.val.labels)) == (8, 2)
        assert found.found.val == "split off by seed 0"
        assert found.found.notes == (f"classes by {name}",)

    def test_whole_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lay(tmp_path / "here", *NAMES)
        monkeypatch.chdir(tmp_path)
        rows = [f"{tmp_path / 'here' / n},{KINDS[i % 2]}" for i, n in enumerate(NAMES)]
        table(tmp_path / "here/list.csv", "path,label", rows)
        found = find_images("here")
        assert (every(found), dict(found.found.left)) == (WANTED, {})

    def test_numbers_are_classes_in_their_order(self, tmp_path: Path) -> None:
        lay(tmp_path, *NAMES)
        table(tmp_path / "train.csv", "id,label", [f"{i},{9 + i % 2}.0" for i in range(10)])
        assert find_images(tmp_path).classes == ("9", "10")

    def test_the_split_is_the_same_wherever_the_data_lies(self, tmp_path: Path) -> None:
        for place in (tmp_path / "one", tmp_path / "other/set"):
            lay(place, *NAMES)
            table(place / "train.csv", "id,label", [f"{i},{KINDS[i % 2]}" for i in range(10)])
        one, other = (find_images(tmp_path / name) for name in ("one", "other/set"))
        assert list(one.val.names) == list(other.val.names)

    @pytest.mark.parametrize(
        ("column", "words"),
        [("split", "train valid test"), ("Data Set", "Train VAL Test"), ("set", "training dev testing")],
    )  # fmt: skip
    def test_a_column_of_splits(self, tmp_path: Path, column: str, words: str) -> None:
        lay(tmp_path, *NAMES)
        parts = [words.split()[max(0, i - 5) // 2] for i in range(10)]  # 0-6, 7-8, 9
        rows = [f"{i},{KINDS[i % 2]},{part}" for i, part in enumerate(parts)]
        table(tmp_path / "list.csv", f"id,label,{column}", rows)
        found = find_images(tmp_path)
        assert list(found.val.names) == ["im/8.jpg", "im/7.jpg"]  # of cat, then of dog
        assert told(found.test, KINDS) == {"im/9.jpg": "dog"}
        assert (len(found.train.labels), found.found.val) == (7, "given")

    @pytest.mark.parametrize("head", ["sep=,\n", '"sep=;"\n# made by hand\n'])
    def test_lines_before_the_columns(self, tmp_path: Path, head: str) -> None:
        lay(tmp_path, *NAMES)
        rows = (f"{i},{KINDS[i % 2]}" for i in range(10))
        table(tmp_path / "train.csv", f"{head}id,label", rows)
        assert every(find_images(tmp_path)) == WANTED

    @pytest.mark.parametrize(
        ("form", "said"),
        [
            ("path,label,label", "has the column 'label' twice"),
            (
                "path,label",
                r"a row of 3 values under 2 columns, .*; put values that hold ',' in double",
            ),
            (
                "url,label,more",
                "train.csv has the columns url, label, more and none of images: call",
            ),
        ],
    )
    def test_why_a_table_is_none_is_said(self, tmp_path: Path, form: str, said: str) -> None:
        """Of two columns of one name the last counted, and what is beyond the columns was left out."""
        lay(tmp_path, *NAMES)
        rows = (f"{i}.jpg,{KINDS[i % 2]},{KINDS[i // 5]}" for i in range(10))
        table(tmp_path / "train.csv", form, rows)
        with pytest.raises(
            DataError, match=rf"has one class, 'im'; at least two are needed; .*{said}"
        ):
            find_images(tmp_path)

    def test_splits_in_other_words(self, tmp_path: Path) -> None:
        lay(tmp_path, *NAMES)
        table(
            tmp_path / "list.csv",
            "id,label,split",
            (f"{i},{KINDS[i % 2]},{i % 3}" for i in range(10)),
        )
        with pytest.raises(
            DataError, match="has the values 0, 1, 2 in the column 'split'; write train"
        ):
            find_images(tmp_path)

    def test_is_valid(self, tmp_path: Path) -> None:
        lay(tmp_path, *NAMES)
        rows = [f"{i},{KINDS[i % 2]},{i > 7}" for i in range(10)]
        table(tmp_path / "labels.csv", "name,fname,label,is_valid", (f",{row}" for row in rows))
        assert list(find_images(tmp_path).val.names) == ["im/8.jpg", "im/9.jpg"]

    def test_rows_with_and_without_a_split(self, tmp_path: Path) -> None:
        lay(tmp_path, *NAMES)
        rows = [f"{i},{KINDS[i % 2]},{'train' if i else 'no'}" for i in range(10)]
        table(tmp_path / "list.csv", "id,label,split", rows)
        with pytest.raises(
            DataError, match="has 'no' in the column 'split', next to train, val or"
        ):
            find_images(tmp_path)

    @pytest.mark.parametrize("names", ["train val test", "train_labels valid_labels test_labels"])
    def test_tables_and_folders_of_splits(self, tmp_path: Path, names: str) -> None:
        """Each split numbers its images from 0, and an answer sheet lies next to them."""
        lay(tmp_path, *many("train", 8), *many("val", 4), *many("test", 2))
        for name, count in zip(names.split(), (8, 4, 2), strict=True):
            rows = [f"{i:02d},{KINDS[i % 2]}" for i in range(count)]
            table(tmp_path / f"{name}.csv", "id,label", rows)
        table(tmp_path / "sample_submission.csv", "id,label", ["00,cat"])
        found = find_images(tmp_path)
        assert sorted(found.train.names) == many("train", 8)
        assert sorted(found.val.names) == many("val", 4)
        assert told(found.test, KINDS) == {"test/00.jpg": "cat", "test/01.jpg": "dog"}

    def test_tables_in_the_folders_of_splits(self, tmp_path: Path) -> None:
        for split, count in (("train", 8), ("valid", 2)):
            lay(tmp_path, *many(split, count))
            rows = [f"{i:02d}.jpg,{1 - i % 2},{i % 2}" for i in range(count)]
            table(tmp_path / split / "_classes.csv", "filename, cat, dog", rows)
        found = find_images(tmp_path)
        assert told(found.val, found.classes) == {"valid/00.jpg": "cat", "valid/01.jpg": "dog"}
        assert len(found.train.labels) == 8

    def test_images_of_a_test_without_labels_are_not_used(self, tmp_path: Path) -> None:
        lay(tmp_path, *many("train", 10), *many("test", 3))
        rows = [f"{i:02d},{KINDS[i % 2]}" for i in range(10)]
        table(tmp_path / "train.csv", "id,breed", rows)
        table(tmp_path / "test.csv", "id", ["00", "01", "02"])
        found = find_images(tmp_path)
        assert {name.split("/")[0] for name in every(found)} == {"train"}
        assert found.found.notes == ("classes by train.csv", "not used: test (3 images)")

    def test_folders_of_splits_divide_one_table(self, tmp_path: Path) -> None:
        lay(tmp_path, *many("train", 8), *many("val", 4))
        rows = [f"{n},{KINDS[i % 2]}" for i, n in enumerate([*many("train", 8), *many("val", 4)])]
        table(tmp_path / "labels.csv", "path,label", rows)
        found = find_images(tmp_path)
        assert (len(found.train.labels), sorted(found.val.names)) == (8, many("val", 4))

    def test_what_is_not_usual_is_counted(self, tmp_path: Path) -> None:
        lay(tmp_path, *many("im", 300), "im/x.jpg", "im/y.heif2", "other/z.jpg", "im/.hidden.jpg")
        rows = [f"{i:02d},{KINDS[i % 2]}" for i in range(300)]
        rows += ["00,cat", "01,cat", "gone,dog", "lost,cat", "02,"]
        table(tmp_path / "train.csv", "id,label", rows)
        found = find_images(tmp_path)
        assert dict(found.found.left) == {
            "with two classes in train.csv": 1, "without a row in train.csv": 1,
            "rows of train.csv without a class or an image": 1,
        }  # fmt: skip
        assert found.found.notes == (
            "classes by train.csv",
            "2 rows of train.csv name an image that is not there, or not one file alone",
            "1 rows of train.csv stand in it twice",
            "not used: other (1 images)",
        )
        assert len(every(found)) == 301  # with the two that are not there, without 01

    def test_many_images_that_are_not_there(self, tmp_path: Path) -> None:
        lay(tmp_path)
        (tmp_path / "im").mkdir()
        for i in range(9):
            Image.new("RGB", (40, 40), (20 * i, 0, 0)).save(tmp_path / f"im/{i}.jpg")
        table(tmp_path / "train.csv", "id,label", [f"{i},{KINDS[i % 2]}" for i in range(10)])
        found = find_images(tmp_path)
        with pytest.raises(
            DataError, match=r"1 of 10 images .* 9 \(there is no such file\).*--bad-sh"
        ):
            pack(found, 32, tmp_path / "pack")
        packed = pack(found, 32, tmp_path / "pack", bad_share=0.1)
        assert len(packed.train.names) + len(packed.val.names) == 9
        stream = Stream(found.train, bad_share=0.2)
        assert len(stream.labels) == 8

    def test_many_images_of_two_classes(self, tmp_path: Path) -> None:
        lay(tmp_path, *NAMES)
        rows = [f"{i},{kind}" for i in range(10) for kind in (KINDS if i > 7 else KINDS[:1])]
        table(tmp_path / "train.csv", "id,label", rows)
        with pytest.raises(
            DataError, match="gives 2 of 10 images more than one class; bneck learns"
        ):
            find_images(tmp_path)

    @pytest.mark.parametrize(
        ("head", "rows", "said"),
        [
            ("id,label,breed", [f"{i},{i % 2},{i % 3}" for i in range(10)],
             "has 2 columns that may be the classes, label, breed, and they divide the images"),
            ("id,age,sex", [f"{i},{i % 2},{i % 3}" for i in range(10)], "may be the classes, age, sex,"),
            ("id,x,y", [f"{i},1,{i % 2}" for i in range(10)], "may be the classes, x, y,"),
            ("id", map(str, range(10)), "has the columns id and none of classes; add a column 'label'"),
            ("id,label", ["a1,cat", "a2,dog"], "none of the 2 images that .*train.csv names is in"),
            ("id,label", [f"{i},cat" for i in range(10)], "has one class, 'cat'; at least two"),
            ("id,label", [f"{i},{KINDS[i > 8]}" for i in range(10)], "class 'dog' has a single image"),
            ("file,class,xmin,ymin,xmax,ymax", ["0.jpg,cat,1,1,2,2"], "has one class, 'im'; at least"),
        ],
    )  # fmt: skip
    def test_tables_that_are_refused(
        self, tmp_path: Path, head: str, rows: Iterable[str], said: str
    ) -> None:
        lay(tmp_path, *NAMES)
        table(tmp_path / "train.csv", head, rows)
        with pytest.raises(DataError, match=said):
            find_images(tmp_path)

    def test_two_tables_of_a_split(self, tmp_path: Path) -> None:
        lay(tmp_path, *NAMES)
        for name in ("a", "b"):
            table(tmp_path / f"{name}.csv", "id,label", [f"{i},{KINDS[i % 2]}" for i in range(10)])
        with pytest.raises(
            DataError, match=r"has 2 tables of all images: a\.csv, b\.csv; leave one"
        ):
            find_images(tmp_path)

    def test_a_class_of_val_alone(self, tmp_path: Path) -> None:
        lay(tmp_path, *NAMES)
        table(tmp_path / "train.csv", "id,label", [f"{i},{KINDS[i % 2]}" for i in range(6)])
        table(
            tmp_path / "val.csv", "id,label", [f"{i},{('cat', 'emu')[i % 2]}" for i in range(6, 10)]
        )
        with pytest.raises(DataError, match=r"class 'emu' of .* is in val but not in train"):
            find_images(tmp_path)


class TestTablesNextToClassFolders:
    FILES = (*many("cat", 5), *many("dog", 5))

    def listed(self, root: Path, head: str, labels: Iterable[object]) -> Sources:
        lay(root, *self.FILES)
        rows = (f"{n},{label}" for n, label in zip(self.FILES, labels, strict=True))
        table(root / "train.csv", f"path,{head}", rows)
        return find_images(root)

    @pytest.mark.parametrize("names", [("cat", "dog"), ("0", "1")])
    def test_that_say_the_same(self, tmp_path: Path, names: tuple[str, str]) -> None:
        found = self.listed(tmp_path, "label", [names[0]] * 5 + [names[1]] * 5)
        assert (found.kind, found.classes) == ("folders", KINDS)
        note = "not used: train.csv, as the folders tell the classes"
        assert found.found.notes == (note,)

    def test_that_divide_into_splits(self, tmp_path: Path) -> None:
        labels = ["cat,train"] * 4 + ["cat,val"] + ["dog,train"] * 4 + ["dog,val"]
        found = self.listed(tmp_path, "label,split", labels)
        assert (found.classes, list(found.val.names)) == (KINDS, ["cat/04.jpg", "dog/04.jpg"])

    def test_folders_that_are_no_classes(self, tmp_path: Path) -> None:
        """As HAM10000's two parts, by a table with a column of classes among others."""
        labels = [f"{('mel', 'nv')[i % 2]},{i}" for i in range(10)]
        found = self.listed(tmp_path, "dx,age", labels)
        assert found.classes == ("mel", "nv")
        assert every(found)["dog/00.jpg"] == "nv"

    def test_that_contradict_them(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"gives 1 of 10 images another class than the folders"):
            self.listed(tmp_path, "label", ["cat"] * 6 + ["dog"] * 4)

    def test_that_tell_other_things(self, tmp_path: Path) -> None:
        cells = (f"{i % 3},{i % 4}" for i in range(10))
        found = self.listed(tmp_path, "width,height", cells)
        assert (found.classes, len(found.found.notes)) == (KINDS, 1)


class TestDottedNames:
    DOTTED = tuple(f"{kind}.{i}.jpg" for kind in KINDS for i in range(5))

    @pytest.mark.parametrize("place", ["", "train/", "set/train/", "set/train/train/", "images/"])
    def test_class_before_the_first_dot(self, tmp_path: Path, place: str) -> None:
        found = find_images(lay(tmp_path, *(place + name for name in self.DOTTED)))
        assert found.classes == KINDS
        assert every(found) == {place + name: name[:3] for name in self.DOTTED}
        assert (len(found.train.labels), found.found.val) == (8, "split off by seed 0")
        assert found.found.notes == ("classes by the names of the files",)

    def test_splits(self, tmp_path: Path) -> None:
        lay(tmp_path, *(f"{s}/{name}" for s in ("train", "val") for name in self.DOTTED))
        lay(tmp_path, *(f"test1/{i}.jpg" for i in range(7)))
        found = find_images(tmp_path)
        assert (len(found.train.labels), len(found.val.labels), found.test) == (10, 10, None)
        assert "not used: 7 images in test1 without classes" in found.found.notes

    def test_next_to_the_folder_of_a_test(self, tmp_path: Path) -> None:
        """As the archives of cats and dogs lie where both were unpacked in one place."""
        lay(tmp_path, *self.DOTTED, *(f"test1/{i}.jpg" for i in range(7)))
        found = find_images(tmp_path)
        assert every(found) == {name: name[:3] for name in self.DOTTED}
        assert (len(found.train.labels), found.test) == (8, None)
        assert "not used: 7 images in test1 without classes" in found.found.notes

    def test_next_to_a_folder_of_more(self, tmp_path: Path) -> None:
        names = (*self.DOTTED, *(f"more/cat.{i}.jpg" for i in range(5, 9)))
        assert every(find_images(lay(tmp_path, *names))) == {
            name: name.removeprefix("more/")[:3] for name in names
        }

    @pytest.mark.parametrize("odd", ["cat.jpg", "notes.png", "cat_7.jpg", "img.0.x.jpg"])
    def test_one_that_is_called_otherwise(self, tmp_path: Path, odd: str) -> None:
        with pytest.raises(DataError, match="has no class folders, but 11 images"):
            find_images(lay(tmp_path, *self.DOTTED, odd))

    def test_one_class(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="has no class folders, but 5 images"):
            find_images(lay(tmp_path, *self.DOTTED[:5]))


@pytest.mark.parametrize("stream", [False, True])
def test_a_training_and_its_evaluations(
    tmp_path: Path, tiny_file: Path, call: Call, stream: bool
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    (data / "images").mkdir(parents=True)
    rows = []
    for i in range(24):
        split = ("train", "val", "test")[(i // 8) % 3]
        color = (200 * (i % 2), 9 * (i % 12), 0)
        Image.fromarray(np.full((40, 40, 3), color, np.uint8)).save(data / f"images/{i}.png")
        rows.append(f"{i};{('cup', 'pen')[i % 2]};{split}")
    table(data / "labels.csv", "image_id;label;split", rows, "utf-8-sig")
    given = ("--resolution", 32, "--epochs", 1, "--batch", 4, *["--stream"] * stream, "--out", run)
    said = call("train", tiny_file, "--data", data, *given)
    line = (
        "2 classes (cup, pen); 8 train, 8 val (given), 8 test (left alone); "
        "4 images are in train and val; classes by labels.csv"
    )
    assert said.code == 0, said.err
    assert json.loads((run / "run.json").read_text())["data"]["found"] == line
    for split in ("val", "test"):
        own = json.loads(call("evaluate", run, "--split", split, "--json").out)
        others = json.loads(call("evaluate", run, "--data", data, "--split", split, "--json").out)
        assert (own["images"], others["images"], own["score"]) == (8, 8, others["score"])
    other = shutil.copytree(data, tmp_path / "other")
    table(other / "labels.csv", "image_id;label;split", [*rows[:-1], "23;emu;test"])
    found = json.loads(call("evaluate", run, "--data", other, "--split", "test", "--json").out)
    assert found["images"] == 7
    assert found["notes"] == [
        "left out: 1 images of 1 classes that the network does not know (emu)"
    ]
    for name, head in (("labels.csv", "image_id;label"), ("train.csv", "file;breed")):
        (other / "labels.csv").unlink(missing_ok=True)
        table(other / name, head, [row.rsplit(";", 1)[0] for row in rows])
        assert json.loads(call("evaluate", run, "--data", other, "--json").out)["images"] == 24
    (other / "train.csv").unlink()
    for i in range(24):
        (other / f"images/{i}.png").rename(other / f"images/{('cup', 'pen')[i % 2]}.{i}.png")
    assert json.loads(call("evaluate", run, "--data", other, "--json").out)["images"] == 24
