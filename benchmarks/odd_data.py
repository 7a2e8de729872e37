"""Data sets as people have them, for `odd_inputs.py`: layouts, boxes and masks, odd, wrong or unusual."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

Make = Callable[[Path], Any]


class Files(Protocol):
    """Where the user's files are put."""

    user: Path

    def file(self, name: str, content: bytes | str = b"") -> Path: ...

    def picture(self, name: str, colour: tuple[int, int, int] = ..., side: int = ...) -> Path: ...


def layouts(files: Files) -> Iterator[tuple[Path, str | None]]:
    """Folders of classes, each with what the line at the start must say; None: refused."""

    def folder(name: str, *places: str, count: int = 6) -> Path:
        for place in places:
            for i in range(count):
                files.picture(f"found/{name}/{place}/{i}.png", side=16 + len(place) + i)
        return files.user / "found" / name

    def classes(*splits: str) -> Sequence[str]:
        return [f"{split}/{name}" for split in splits for name in ("ant", "bee")]

    two = "2 classes (ant, bee); "
    for train, val in (
        ("Train", "Val"),
        ("TRAIN_DATA", "VALID_DATA"),
        ("trainset_v2", "testset_v2"),
        ("data/train", "data/test"),
        ("images_train", "images_holdout"),
        ("training", "validate"),
    ):
        yield (
            folder(f"{train}-{val}".replace("/", "-"), *classes(train, val)),
            f"{two}12 train, 12 val",
        )
    yield (
        folder("notes", *classes("data/train", "data/val"), "docs/img"),
        f"{two}12 train, 12 val (given)",
    )
    yield folder("alone", *classes("train", "val", "test")), "12 val (given), 12 test (left alone)"
    for name, places in {
        "folds": classes("fold_0", "fold_1"),
        "spanish": classes("entrenamiento", "prueba"),
        "chinese": classes("训练", "测试"),
        "variants": classes("color", "grey"),
        "val": ("ant", "bee", "val"),
        "test": ("pass", "fail", "test"),
        "loose": ("",),
        "mixed": (*classes("a/train", "b/train"), "c/x", "c/y"),
        "lines": ("an\nt", "bee"),
        "one": ("ant",),
        "augmented": ("ant", "bee", "augmented/ant", "augmented/bee"),
        "two vals": (*classes("train"), *classes("val_1", "val_2")),
    }.items():
        yield folder(name, *places), None
    for text in ("image_id,label\n0.png,ant\n", "path;class\nimages/0.png;ant\n"):
        place = folder(f"table-{len(text)}", "images")
        files.file(f"found/{place.name}/train.csv", text)
        yield place, None
    yield from _told_by_tables_and_names(files)
    yield files.file("found/zip/train.zip").parent, None
    yield files.file("found/set.tar.gz"), None


def _told_by_tables_and_names(files: Files) -> Iterator[tuple[Path, str | None]]:
    """Images whose classes a table, or their own names, tell."""
    two = "2 classes (ant, bee); "

    def place(name: str, *images: str) -> Path:
        for i, image in enumerate(images):
            files.picture(f"found/{name}/{image}", side=20 + i)
        return files.user / "found" / name

    numbered = [f"images/{i}.png" for i in range(12)]
    kinds = [("ant", "bee")[i % 2] for i in range(12)]
    for name, table, said in (
        ("commas", ["id,label", *(f"{i},{kind}" for i, kind in enumerate(kinds))], f"{two}10 train, 2 val"),
        ("excel", ["\ufeffimage;class", *(f"{i}.png;{kind}" for i, kind in enumerate(kinds))], two),
        ("splits", ["path,label,split", *(
            f"images/{i}.png,{kind},{('train', 'val')[i % 3 == 0]}" for i, kind in enumerate(kinds)
        )], f"{two}8 train, 4 val (given)"),
        ("shorter", ["id,label", *(f"{i},{kind}" for i, kind in enumerate(kinds[:8]))], "4 without a row in"),
        ("doubt", ["id,label", "0,ant", *(f"{i},{kinds[i - 1]}" for i in range(12))], None),
        ("one class", ["id,label", *(f"{i},ant" for i in range(12))], None),
        ("gaps", ["id,label", *(f"{i},{(3, 17)[i % 2]}" for i in range(12))], "2 classes (3, 17); "),
        ("quotes", ['"id","label"', *(
            f'"{i}","{kind}, big"' for i, kind in enumerate(kinds)
        )], "(ant, big, bee, big)"),
        ("drives", ["path;label", *(f"C:\\set\\{i}.png;{kind}" for i, kind in enumerate(kinds))], two),
        ("repeats", ["id,label", *(
            f"{i % 12},{kinds[i % 12]}" for i in range(17)
        )], "5 rows of train.csv stand in it"),
        ("sep", ["sep=;", "id;label", *(f"{i};{kind}" for i, kind in enumerate(kinds))], two),
        ("comments", ["# of may", "id,label", *(f"{i},{kind}" for i, kind in enumerate(kinds))], two),
        ("parts", ["id,label,split", *(f"{i},{kind},{i % 3}" for i, kind in enumerate(kinds))], None),
        ("label twice", ["id,label,label", *(f"{i},{kind},{i // 6}" for i, kind in enumerate(kinds))], None),
        ("more values", ["id,label", *(f"{i},{kind}, small" for i, kind in enumerate(kinds))], None),
        ("addresses", ["url,label", *(f"http://x/{i}.png,{kind}" for i, kind in enumerate(kinds))], None),
        ("no columns", [f"images/{i}.png,{kind}" for i, kind in enumerate(kinds)], None),
        ("padded", ["id,label", *(f"{i:04},{kind}" for i, kind in enumerate(kinds))], None),
        ("several", ["id,ant,bee", *(f"{i},1,{i % 2}" for i in range(12))], None),
        ("absent", ["id,label", *(f"{i + 90},{kind}" for i, kind in enumerate(kinds))], None),
    ):  # fmt: skip
        root = place(f"told by {name}", *numbered)
        files.file(f"found/{root.name}/train.csv", "\n".join(table))
        yield root, said
    dotted = [f"{kind}.{i}.png" for kind in ("ant", "bee") for i in range(6)]
    tests = [f"test1/{i}.png" for i in range(3)]
    yield place("dots", *dotted), "classes by the names of the files"
    yield place("dots next to a test", *dotted, *tests), f"{two}10 train, 2 val"
    yield (
        place("dots in train", *(f"train/{name}" for name in dotted), *tests),
        f"{two}10 train, 2 val",
    )
    yield place("dots and more", *dotted, "ant.png"), None


def _turned(path: Path, turn: int, *, block: int = 0) -> None:
    """A photo of 64 x 40 that EXIF turns, with a white block of so many pixels in its upper left corner."""
    exif, values = Image.Exif(), np.zeros((40, 64, 3), np.uint8)
    exif[0x0112] = turn
    values[:block, :block] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, exif=exif)


def _boxes_of_turned_photos(files: Files) -> Iterator[tuple[Path, int | None]]:
    """COCO of photos that EXIF turns, whose sizes are those stored, those shown, or squares."""
    for suffix, (width, height), count in (
        (".jpg", (64, 40), 4), (".jpg", (40, 64), 4), (".png", (64, 40), 4), (".png", (64, 64), None),
    ):  # fmt: skip
        name = f"boxes/turned {width} x {height} {suffix}"
        for split in ("train", "val"):
            images, objects = [], []
            for i in range(4):
                _turned(files.user / name / split / f"{i}{suffix}", 6, block=20)
                images.append(
                    {"id": i, "file_name": f"{i}{suffix}", "width": width, "height": height}
                )
                objects.append({"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 19, 19]})
            held = {
                "images": images,
                "annotations": objects,
                "categories": [{"id": 1, "name": "cup"}],
            }
            files.file(f"{name}/{split}/_annotations.coco.json", json.dumps(held))
        yield files.user / name, count


def boxes(files: Files) -> Iterator[tuple[Path, int | None]]:
    """Annotated images, each with the number of boxes of train that are learned from; None: refused."""
    yield from _yolo_labels(files)
    yield from _boxes_of_turned_photos(files)
    for name, edit in _edits().items():
        yield _coco(files, name, edit[0]), edit[1]
    yield from _voc_labels(files)
    for name, text in {
        "via.json": '{"_via_settings": {}}',
        "boxes.csv": "filename,class\n0.jpg,cup\n",
        "labelme.json": '{"shapes": []}',
    }.items():
        files.picture(f"boxes/{name} alone/0.jpg")
        yield files.file(f"boxes/{name} alone/{name}", text).parent, None


def _yolo_labels(files: Files) -> Iterator[tuple[Path, int | None]]:
    def yolo(
        name: str, line: str, *, names: str = "names: [cup, pen]", encoding: str = "utf-8"
    ) -> Path:
        for split in ("train", "val"):
            for i in range(4):
                files.picture(f"boxes/{name}/images/{split}/{i}.jpg", side=64)
                files.file(f"boxes/{name}/labels/{split}/{i}.txt", line.encode(encoding))
        if names:
            files.file(
                f"boxes/{name}/data.yaml", f"train: images/train\nval: images/val\n{names}\n"
            )
        return files.user / "boxes" / name

    box = "1 0.5 0.5 0.4 0.4"
    for name, line in {
        "plain": box,
        "crlf": f"{box}\r\n\r\n",
        "tabs": box.replace(" ", "\t"),
        "float": "1.0" + box[1:],
        "corners of a polygon": "0 .1 .1 .9 .1 .9 .9 .1 .9",
    }.items():
        yield yolo(name, line), 4
    yield yolo("bom", box, encoding="utf-8-sig"), 4
    yield yolo("twice", f"{box}\n{box}\n"), 8
    yield yolo("numbers", box, names=""), 4
    for name, line in {
        "semicolons": box.replace(" ", ";"),
        "commas": box.replace(".", ","),
        "words": "cup" + box[1:],
        "from 1": "2" + box[1:],
        "confidence": f"{box} 0.9",
        "percent": "1 50 50 40 40",
        "negative": "1 .5 .5 -.4 .4",
        "nan": "1 nan .5 .4 .4",
        "as corners": "1 0.3 0.4 0.8 0.9",
        "short": "1 0.5 0.5",
        "key points": "0 .5 .5 .4 .4 .3 .3 2 .6 .6 2",
        "comment": f"# boxes\n{box}",
        "empty": "",
    }.items():
        yield yolo(name, line), None
    for name, listed, count in (
        ("names from 1", "names: {1: cup, 2: pen}", None), ("yes and no", "names: [yes, no]", 4),
        ("elsewhere", "path: /nowhere\nnames: {0: cup, 1: pen}", 4),
        ("one more", "nc: 3\nnames: [cup, pen]", None),
        ("no names", "nc: 2", 4), ("as text", "names: cup, pen", None), ("tabs", "names:\t[cup, pen]", None),
    ):  # fmt: skip
        yield yolo(f"yaml {name}", box, names=listed), count


def _voc_labels(files: Files) -> Iterator[tuple[Path, int | None]]:
    texts: dict[str, tuple[Callable[[str], bytes | str], int | None]] = {
        "plain xml": (str, 3),
        "namespace": (lambda t: t.replace("<annotation>", '<annotation xmlns="x">'), 3),
        "utf-16": (lambda t: t.encode("utf-16"), 3),
        "bom": (lambda t: t.encode("utf-8-sig"), 3),
        "latin-1": (lambda t: t.replace("cup", "é").encode("latin-1"), None),
        "exchanged": (lambda t: t.replace("<xmin>8", "<xmin>48"), None),
        "torn": (lambda t: t[:90], None),
        "capitals": (
            lambda t: t.replace("bndbox", "BndBox").replace("annotation", "Annotation"),
            3,
        ),
        "fractions of pixels": (lambda t: t.replace(">8<", ">8.25<"), 3),
        "commas": (lambda t: t.replace(">8<", ">8,25<"), None),
        "no number": (lambda t: t.replace(">8<", ">nan<"), None),
        "part": (lambda t: t.replace("</object>", "<part><name>lid</name></part></object>"), 3),
        "other order": (
            lambda t: t.replace("<xmin>8</xmin>", "").replace("<ymax>", "<xmin>8</xmin><ymax>"),
            3,
        ),
        "no box": (lambda t: t.replace("bndbox", "polygon"), None),
        "other size": (lambda t: t.replace("<width>64", "<width>640"), None),
    }
    for name, (change, count) in texts.items():
        for i in range(4):
            files.picture(f"boxes/{name} voc/{i}.jpg", side=64)
            files.file(f"boxes/{name} voc/{i}.xml", change(_XML))
        yield files.user / f"boxes/{name} voc", count


_XML = (
    "<annotation><filename>0.jpg</filename><size><width>64</width><height>64</height></size><object><name>cup"
    "</name><bndbox><xmin>8</xmin><ymin>8</ymin><xmax>38</xmax><ymax>38</ymax></bndbox></object></annotation>"
)


def _edits() -> dict[str, tuple[Callable[[dict[str, Any]], Any], int | None]]:
    def each(part: str, **fields: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda data: [one.update(fields) for one in data[part]] and None

    return {
        "plain": (lambda data: None, 4),
        "text": (each("annotations", bbox=["8", "8", "30", "30"]), 4),
        "twice": (
            lambda data: data["annotations"].extend(
                [{**a, "id": 9 + a["id"]} for a in data["annotations"]]
            ),
            8,
        ),
        "blanks": (lambda data: data["categories"][0].update(name=" cup\n"), 4),
        "no ids": (each("annotations", id=None, area=0), 4),
        "hashes": (
            lambda data: (
                [one.update(id=10**30 + one["id"]) for one in data["annotations"]] and None
            ),
            4,
        ),
        "text ids": (
            lambda data: (
                [
                    one.update({key: f"x{one[key]}"})
                    for part, key in (("images", "id"), ("annotations", "image_id"))
                    for one in data[part]
                ]
                and None
            ),
            4,
        ),
        "beyond floats": (lambda data: data["annotations"][0].update(bbox=[0, 0, 10**400, 5]), 3),
        "no area": (lambda data: data["annotations"][0].update(bbox=[8, 8, 0, 9]), 3),
        "no name": (lambda data: data["categories"][0].update(name=None), 4),
        "runs": (each("annotations", segmentation={"counts": "PQ", "size": [64, 64]}), 4),
        "capitals": (
            lambda data: (
                [o.update(file_name=o["file_name"].upper()) for o in data["images"]] and None
            ),
            4,
        ),
        "name twice": (lambda data: data["categories"][1].update(name="cup"), None),
        "id twice": (lambda data: data["categories"][1].update(id=1), None),
        "corners": (each("annotations", bbox=[20, 20, 60, 60]), None),
        "turned boxes": (each("annotations", bbox=[8, 8, 30, 30, 45]), None),
        "no category": (each("annotations", category_id=None), None),
        "comma": (lambda data: json.dumps(data)[:-1] + ",}", None),
        "lines": (lambda data: "\n".join(map(json.dumps, data["annotations"])), None),
        "list": (lambda data: json.dumps(data["annotations"]), None),
        "url": (lambda data: [one.pop("file_name") for one in data["images"]] and None, None),
        "mask": (
            each("annotations", bbox=None, segmentation={"counts": [0, 9], "size": [64, 64]}),
            None,
        ),
        "five": (each("annotations", bbox=[1, 2, 3, 4, 5]), None),
        "map": (lambda data: data.update(categories={}), None),
        "crowds": (each("annotations", iscrowd=1), None),
        "fractions": (each("annotations", bbox=[0.1, 0.1, 0.5, 0.5]), None),
        "size": (each("images", width=640), None),
    }


def _coco(files: Files, name: str, edit: Callable[[dict[str, Any]], Any]) -> Path:
    for split in ("train", "val"):
        data: dict[str, Any] = {
            "images": [
                {"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 64} for i in range(4)
            ],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "bbox": [8, 8, 30, 30]} for i in range(4)
            ],
            "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "pen"}],
        }
        for i in range(4):
            files.picture(f"boxes/{name} coco/{split}/{i}.jpg", side=64)
        text = edit(data) or json.dumps(data)
        files.file(f"boxes/{name} coco/{split}/_annotations.coco.json", text)
    return files.user / f"boxes/{name} coco"


def masks(files: Files) -> Iterator[tuple[Path, int | None]]:
    """Images and masks, each with the number of pixels of the second class in train; None: refused."""
    half = np.zeros((64, 64), np.uint8)
    half[:, :32] = 1
    names, count = "ground\nthing\n", 3 * 64 * 32  # val is one of four

    def plain(values: Any) -> Make:
        return lambda path: Image.fromarray(values).save(path)

    def palette(values: Any, *colours: int) -> Make:
        def save(path: Path) -> None:
            image = Image.frombytes("P", (64, 64), values.astype(np.uint8).tobytes())
            image.putpalette([*colours, *[0] * (768 - len(colours))])
            image.save(path)

        return save

    colours = np.stack((half * 200, half * 100, half * 50), axis=2)
    shades = "ground 0 0 0\nthing 200 100 50\n"
    for name, (make, listed, wanted) in {
        "ids": (plain(half), names, count),
        "bom": (plain(half), "\ufeff" + names.replace("\n", "\r\n"), count),
        "numbered": (plain(half), "1: thing\n0: ground\n", count),
        "semicolons": (plain(colours), shades.replace(" ", ";"), count),
        "white": (plain(half * 255), names, count),
        "colours": (plain(colours), shades, count),
        "palette": (palette(half, 0, 0, 0, 200, 100, 50), shades, count),
        "other places": (
            palette(np.where(half, 9, 5), *[1] * 15, 0, 0, 0, *[1] * 9, 200, 100, 50),
            shades,
            count,
        ),
        "16 bits": (plain(half.astype(np.uint16)), names, count),
        "no list": (plain(half), "", count),
        "from 1": (plain(half + 1), names, None),
        "grey edge": (plain(half * 97), names, None),
        "half": (plain(half[::2, ::2].copy()), names, None),
        "one class": (plain(half), "thing\n", None),
        "other order": (plain(colours), "thing 200 100 50\nground 0 0 0\n", count),
        "alpha and colours": (plain(np.dstack((colours, half * 0 + 255))), shades, count),
        "spreadsheet": (
            plain(colours),
            'name,r,g,b\n"ground, wet",0,0,0\n"thing",200,100,50\n',
            count,
        ),
        "alpha alone": (plain(np.dstack((colours * 0, half * 255))), names, None),
        "no object": (plain(half * 0), names, None),
        "scaled ids": (plain(half.astype(np.uint16) * 257), names, None),
        "name twice": (plain(half), "thing\nthing\n", None),
        "blue first": (plain(colours), "name,b,g,r\nground,0,0,0\nthing,50,100,200\n", None),
        "gaps": (plain(half), "1: ground\n2: thing\n", None),
        "empty list": (plain(half), "\n", None),
        "colour lacks": (plain(colours), "ground 0 0 0\nthing 1 2 3\n", None),
        "three, no list": (plain(half * 2), "", None),
        "all ignored": (plain(half * 0 + 255), names, None),
        "void alone": (plain(half), "void\nignore\n", None),
    }.items():
        root = files.user / "masks" / name
        (root / "masks").mkdir(parents=True)
        for i in range(4):
            files.picture(f"masks/{name}/images/{i}.jpg", side=64)
            make(root / f"masks/{i}.png")
        if listed:
            files.file(f"masks/{name}/classes.txt", listed)
        yield root, wanted
    yield from _masks_that_do_not_fit(files, half, names)


def _masks_that_do_not_fit(
    files: Files, half: Any, names: str
) -> Iterator[tuple[Path, int | None]]:
    """Of val other than of train, and of photos that are turned by their EXIF data."""
    for name, other in (("white", half * 255), ("one more", half * 2)):
        root = files.user / f"masks/val is {name}"
        for split, values in (("train", half), ("val", other)):
            (root / "masks" / split).mkdir(parents=True)
            for i in range(4):
                files.picture(f"masks/{root.name}/images/{split}/{i}.jpg", side=64)
                Image.fromarray(values).save(root / f"masks/{split}/{i}.png")
        files.file(f"masks/{root.name}/classes.txt", names)
        yield root, None
    for suffix, turn in ((".jpg", 6), (".png", 8), (".webp", 5)):
        root = files.user / f"masks/turned {turn} {suffix}"
        (root / "masks").mkdir(parents=True)
        for i in range(4):
            _turned(root / f"images/{i}{suffix}", turn)
            Image.fromarray(half[:40].copy()).save(root / f"masks/{i}.png")
        files.file(f"masks/{root.name}/classes.txt", names)
        yield root, 3 * 64 * 32
