"""`bneck evaluate`: crops by hand, classes of the data and of the network brought together."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import bneck
from bneck.cli import main
from bneck.data.folders import DataError
from bneck.data.images import read_crop
from bneck.data.labels import read_classes
from bneck.nets.build import build
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.specs.rows import SpecError
from bneck.specs.text import to_text
from bneck.tasks.classify.scoring import evaluate
from learning import Module

DATA = Path(__file__).parents[2] / "shared" / "data"
COLOURS = {"n01": (250, 20, 20), "n02": (20, 250, 20), "n03": (20, 20, 250)}
EACH = 4


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """CLASS/*.png of one colour each, in the order red, green, blue."""
    root = tmp_path / "images"
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for i in range(EACH):
            Image.new("RGB", (40 + i, 36), colour).save(root / name / f"{i}.png")
    return root


def colour_net(
    tiny: NetSpec, folder: Path, outputs: int, order: dict[int, int], **record: Any
) -> Path:
    """A run folder of a net that answers class order[k] for the k-th of red, green and blue.

    All its rows are zero but the last conv, made to hand the mean colour through: see below.
    """
    spec = replace(tiny, classes=outputs)
    net = build(spec)
    state = {name: torch.zeros_like(v) for name, v in net.state_dict().items()}
    for name in state:
        if name.endswith("running_var") or ".bn.weight" in name:
            state[name] += 1
    centre = {3: 1, 5: 2}
    state["rows.0.conv.weight"][range(3), range(3), 1, 1] = 1.0
    state["rows.1.depthwise.conv.weight"][range(3), 0, centre[3], centre[3]] = 1.0
    state["rows.1.se.gate.bias"] += 3.0  # hard sigmoid of 3 is 1
    state["rows.1.project.conv.weight"][range(3), range(3)] = 1.0
    state["rows.2.expand.conv.weight"][range(3), range(3)] = 1.0
    state["rows.2.depthwise.conv.weight"][range(3), 0, centre[3], centre[3]] = 1.0
    state["rows.2.project.conv.weight"][range(3), range(3)] = 1.0
    # Row 3 adds zero to its input.
    state["rows.4.conv.weight"][range(3), range(3)] = 1.0
    state["rows.6.conv.weight"][range(3), range(3)] = 1.0
    for colour, label in order.items():
        state["classifier.weight"][label, colour] = 10.0
    folder.mkdir()
    (folder / "spec.yaml").write_text(to_text(spec))
    save_file(state, folder / "weights.safetensors")
    if record:
        (folder / "run.json").write_text(json.dumps({"format": 1, "kind": "import", **record}))
    return folder


class TestAccuracy:
    def test_classes_in_the_order_of_their_folders(
        self, tiny: NetSpec, images: Path, tmp_path: Path
    ) -> None:
        net = colour_net(tiny, tmp_path / "net", 3, {0: 0, 1: 1, 2: 2}, classes=[*COLOURS])
        found = bneck.evaluate(net, images)
        assert (found["images"], found["score"], found["top5"]) == (3 * EACH, 1.0, 1.0)
        assert found["loss"] < 0.1
        assert (found["crop"], found["resolution"], found["classes"]) == ("central", 32, 3)
        assert found["notes"] == found["left_out"] == []

    def test_wrong_answers_count_as_wrong(
        self, tiny: NetSpec, images: Path, tmp_path: Path
    ) -> None:
        net = colour_net(tiny, tmp_path / "net", 3, {0: 0, 1: 2, 2: 1}, classes=[*COLOURS])
        found = bneck.evaluate(net, images, crop="resize", resolution=48)
        assert found["score"] == pytest.approx(1 / 3)
        assert found["top5"] == 1.0
        assert (found["crop"], found["resolution"]) == ("resize", 48)

    def test_top5_and_the_background(self) -> None:
        """Scores by hand: label 0 is best, third, and sixth of eight."""
        scores = torch.tensor([
            [9.0, 8, 1, 1, 1, 1, 1, 1],
            [9.0, 6, 8, 7, 1, 2, 3, 4],
            [9.0, 3, 8, 7, 6, 5, 4, 1],
        ])  # fmt: skip
        batch = [(scores[:, :, None, None], torch.zeros(3, dtype=torch.long))]
        with_it = evaluate(Module(torch.nn.Flatten()), batch)
        assert (with_it.top1, with_it.top5, with_it.n) == (1.0, 1.0, 3)
        without = evaluate(Module(torch.nn.Flatten()), batch, background=True)
        assert without.top1 == pytest.approx(1 / 3)
        assert without.top5 == pytest.approx(2 / 3)


class TestClasses:
    def test_folders_are_found_by_the_records_names(
        self, tiny: NetSpec, images: Path, tmp_path: Path
    ) -> None:
        net = colour_net(
            tiny, tmp_path / "net", 5, {0: 4, 1: 0, 2: 2}, classes=["n02", "x", "n03", "y", "n01"]
        )
        assert bneck.evaluate(net, images)["score"] == 1.0

    def test_or_by_other_names_of_its_classes(
        self, tiny: NetSpec, images: Path, tmp_path: Path
    ) -> None:
        net = colour_net(
            tiny, tmp_path / "net", 4, {0: 3, 1: 0, 2: 2}, classes=["green", "x", "blue", "red"],
            class_ids={"n01": 3, "n02": 0, "n03": 2},
        )  # fmt: skip
        assert bneck.evaluate(net, images)["score"] == 1.0

    def test_a_search_s_record_too(self, tiny: NetSpec, images: Path, tmp_path: Path) -> None:
        net = colour_net(
            tiny, tmp_path / "net", 3, {0: 2, 1: 1, 2: 0}, kind="search",
            data={"classes": ["n03", "n02", "n01"]},
        )  # fmt: skip
        assert bneck.evaluate(net, images)["score"] == 1.0

    def test_a_network_without_names_knows_its_classes_by_number(
        self, tiny: NetSpec, images: Path, tmp_path: Path
    ) -> None:
        """Folders called 2, 10 and 9 are these classes of eleven, and nothing that three classes have."""
        for old, new in (("n01", "2"), ("n02", "10"), ("n03", "9")):
            (images / old).rename(images / new)
        net = colour_net(tiny, tmp_path / "net", 11, {0: 2, 1: 10, 2: 9})
        assert bneck.evaluate(net, images)["score"] == 1.0
        three = colour_net(tiny, tmp_path / "three", 3, {0: 1, 1: 0, 2: 2})
        with pytest.raises(
            bneck.InputError, match=r"none of them \(3 classes without names\); say"
        ):
            bneck.evaluate(three, images)

    def test_folders_in_the_order_of_their_names_are_no_classes(
        self, tiny: NetSpec, images: Path, tmp_path: Path
    ) -> None:
        net = colour_net(tiny, tmp_path / "net", 3, {0: 0, 1: 1, 2: 2})
        with pytest.raises(
            bneck.InputError, match=r"has 3 classes \(n01, n02, n03\), and the network"
        ):
            bneck.evaluate(net, images)
        named = colour_net(tiny, tmp_path / "named", 3, {0: 0}, classes=["red", "green", "blue"])
        with pytest.raises(bneck.InputError, match=r"knows none of them \(red, green, blue\); say"):
            bneck.evaluate(named, images)
        (tmp_path / "list.txt").write_text("n01\nn02\nn03\n")
        assert bneck.evaluate(net, images, labels=tmp_path / "list.txt")["score"] == 1.0

    def test_classes_that_the_network_does_not_know_are_left_out_and_reported(
        self, tiny: NetSpec, images: Path, tmp_path: Path
    ) -> None:
        """By position, n01 and n03 would be classes 0 and 1."""
        net = colour_net(tiny, tmp_path / "net", 3, {0: 1, 2: 2}, classes=["n00", "n01", "n03"])
        found = bneck.evaluate(net, images)
        assert (found["images"], found["score"]) == (2 * EACH, 1.0)
        assert found["notes"] == [
            "left out: 4 images of 1 classes that the network does not know (n02)",
            "the data has images of 2 of the network's 3 classes",
        ]

    def test_case_and_form_of_a_name_do_not_matter_where_that_is_certain(
        self, tiny: NetSpec, images: Path, tmp_path: Path
    ) -> None:
        (images / "n01").rename(images / "Ka\u0308fer")  # as macOS writes it
        net = colour_net(
            tiny, tmp_path / "net", 3, {0: 1, 1: 2, 2: 0}, classes=["N03", "k\u00e4fer", "n02"]
        )
        found = bneck.evaluate(net, images)
        assert (found["images"], found["score"], found["notes"]) == (3 * EACH, 1.0, [])
        two = colour_net(tiny, tmp_path / "two", 3, {1: 2}, classes=["N03", "n03", "n02"])
        (images / "n03").rename(images / "ñ03")
        assert bneck.evaluate(two, images)["images"] == EACH

    def test_a_csv_must_not_contradict_the_names_of_the_network(
        self, tiny: NetSpec, images: Path, tmp_path: Path
    ) -> None:
        net = colour_net(tiny, tmp_path / "net", 3, {0: 0, 1: 1, 2: 2}, classes=[*COLOURS])
        (images / "labels.csv").write_text("path,label,class\nn02/0.png,1,n02\nn03/0.png,0,n03\n")
        with pytest.raises(
            bneck.InputError, match=r"gives n03 the index 0 in line 3, and the network has"
        ):
            bneck.evaluate(net, images)

    @pytest.mark.parametrize("kind", ["csv", "json"])
    def test_or_by_a_list_of_imagenet_and_the_background_is_dropped(
        self, tiny: NetSpec, images: Path, tmp_path: Path, kind: str
    ) -> None:
        """Indices 217, 0 and 999 of 1000 are scores 218, 1 and 1000 of 1001."""
        net = colour_net(tiny, tmp_path / "net", 1001, {0: 218, 1: 1, 2: 1000})
        listed = tmp_path / f"list.{kind}"
        if kind == "csv":
            listed.write_text("label,imagenet_index,wnid\n0,217,n01\n1,0,n02\n2,999,n03\n")
        else:
            listed.write_text('{"217": ["n01", "red"], "0": ["n02", "green"], "999": ["n03", "b"]}')
        found = bneck.evaluate(net, images, labels=listed)
        assert (found["score"], found["classes"]) == (1.0, 1001)
        assert found["notes"] == [
            "the network has 1001 classes, the data 1000: its background class is left out"
        ]
        plain = colour_net(tiny, tmp_path / "plain", 1000, {0: 217, 1: 0, 2: 999})
        found = bneck.evaluate(plain, images, labels=listed)
        assert (found["score"], found["notes"]) == (1.0, [])

    def test_a_csv_of_images(self, tiny: NetSpec, images: Path, tmp_path: Path) -> None:
        rows = [(f"{n}/{i}.png", k) for k, n in enumerate(COLOURS) for i in range(2)]
        with (images / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "index"), *rows])
        net = colour_net(tiny, tmp_path / "net", 1001, {0: 1, 1: 2, 2: 3})
        found = bneck.evaluate(net, images)
        assert (found["images"], found["score"]) == (6, 1.0)
        assert len(found["notes"]) == 1
        # The same list from elsewhere, with labels that count the background: 1000 is in it.
        elsewhere = tmp_path / "elsewhere.csv"
        lines = ["path,label", *(f"{n}/0.png,{k + 998}" for k, n in enumerate(COLOURS))]
        elsewhere.write_text("\n".join(lines))
        shifted = colour_net(tiny, tmp_path / "shifted", 1000, {0: 997, 1: 998, 2: 999})
        found = bneck.evaluate(shifted, images, labels=elsewhere)
        assert (found["images"], found["score"]) == (3, 1.0)
        assert "the data has 1001 classes, the network 1000" in found["notes"][0]

    def test_numbers_of_classes_that_do_not_fit(
        self, tiny: NetSpec, images: Path, tmp_path: Path
    ) -> None:
        net = colour_net(tiny, tmp_path / "net", 10, {0: 0})
        with pytest.raises(bneck.InputError) as refused:
            bneck.evaluate(net, images)
        assert str(refused.value) == (
            f"{images} has 3 classes (n01, n02, n03), and the network knows none of them (10 classes without "
            "names); say which is which with --labels (a list of the network's classes by index), or pass "
            "images of its classes"
        )
        (images / "labels.csv").write_text("path,index\nn01/0.png,10\n")
        with pytest.raises(
            bneck.InputError, match=r"has labels up to 10 and the network 10 classes"
        ):
            bneck.evaluate(net, images)


class TestBadInput:
    @pytest.fixture
    def net(self, tiny: NetSpec, tmp_path: Path) -> Path:
        return colour_net(tiny, tmp_path / "net", 3, {0: 0, 1: 1, 2: 2}, classes=[*COLOURS])

    @pytest.mark.parametrize("name", ["v3-small", "none"])
    def test_no_weights(self, images: Path, tmp_path: Path, name: str) -> None:
        with pytest.raises(bneck.InputError, match=r"has no trained weights.*; pass the folder of"):
            bneck.evaluate(name, images)

    def test_options(self, net: Path, images: Path) -> None:
        with pytest.raises(bneck.InputError, match="crop is 'ten'; allowed are central, resize"):
            bneck.evaluate(net, images, crop="ten")
        with pytest.raises(bneck.InputError, match="resolution is 0; it must be"):
            bneck.evaluate(net, images, resolution=0)

    def test_data_that_is_none(self, net: Path, images: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="there is no folder"):
            bneck.evaluate(net, tmp_path / "nowhere")
        with pytest.raises(DataError, match=r"no class folders and no labels\.csv"):
            bneck.evaluate(net, images / "n01")

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("", "lists no images; it needs the columns path and index"),
            ("a,b\n1,2\n", "lists no images; it needs the columns path and index"),
            ("path,index\n", "lists no images"),
            ("path,index\nn01/0.png,red\n", "has no index in line 2: 'red'; it must be a whole"),
            ("path,index\nn01/0.png,0\nn01/1.png,-1\n", "has no index in line 3: '-1'"),
        ],
    )
    def test_a_list_of_images_that_is_none(
        self, net: Path, images: Path, text: str, sentence: str
    ) -> None:
        (images / "labels.csv").write_text(text)
        with pytest.raises(DataError) as refused:
            bneck.evaluate(net, images)
        assert sentence in str(refused.value)

    def test_unreadable_images(self, net: Path, images: Path) -> None:
        (images / "n02" / "1.png").write_bytes(b"")
        with pytest.raises(bneck.InputError) as refused:
            bneck.evaluate(net, images)
        assert "1 of 12 images cannot be read, more than the allowed 1.0%: " in str(refused.value)
        assert "n02/1.png (the file is empty)" in str(refused.value)

    def test_one_in_a_hundred_is_left_out_and_said(self, net: Path, images: Path) -> None:
        for i in range(100):
            shutil.copy(images / "n01" / "0.png", images / "n01" / f"more{i}.png")
        (images / "n03" / "3.png").write_bytes(b"torn")
        found = bneck.evaluate(net, images)
        assert (found["images"], found["score"]) == (111, 1.0)
        assert found["left_out"] == [[str(images / "n03" / "3.png"), found["left_out"][0][1]]]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("c.txt", ""),
            ("c.json", "{"),
            ("c.json", "3"),
            ("c.csv", "a,b\n1,2\n"),
            ("c.json", '{"a": 1}'),
        ],
    )
    def test_a_list_of_classes_that_is_none(
        self, net: Path, images: Path, tmp_path: Path, name: str, text: str
    ) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match="is no list of classes; known are"):
            bneck.evaluate(net, images, labels=tmp_path / name)

    def test_a_list_of_other_classes(self, net: Path, images: Path, tmp_path: Path) -> None:
        (tmp_path / "c.txt").write_text("n01\nn02\n")
        with pytest.raises(bneck.InputError, match="does not name the class folders n03 of"):
            bneck.evaluate(net, images, labels=tmp_path / "c.txt")


class TestCrops:
    """A picture whose red is its column and whose green is its row, so that pixels tell their place."""

    @pytest.fixture
    def ramp(self, tmp_path: Path) -> Path:
        pixels = np.zeros((160, 240, 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = np.arange(240), np.arange(160)[:, None]
        Image.fromarray(pixels).save(tmp_path / "ramp.png")
        return tmp_path / "ramp.png"

    def test_central_looks_at_seven_eighths_of_both_sides(self, ramp: Path) -> None:
        crop = read_crop(ramp, 70, "central")
        assert isinstance(crop, np.ndarray)
        assert crop.shape == (3, 70, 70)
        # From 15 to 225 of 240 columns and from 10 to 150 of 160 rows: 3 columns and 2 rows a pixel.
        assert abs(int(crop[0, 35, 0]) - 15.5) <= 1.5
        assert abs(int(crop[0, 35, -1]) - 223.5) <= 1.5
        assert abs(int(crop[1, 0, 35]) - 10.5) <= 1
        assert abs(int(crop[1, -1, 35]) - 148.5) <= 1

    def test_resize_looks_at_the_middle_square(self, ramp: Path) -> None:
        crop = read_crop(ramp, 140, "resize")
        assert isinstance(crop, np.ndarray)
        assert crop.shape == (3, 140, 140)
        # The shorter side, 160, stays 140 * 256 / 224; the middle 140 x 140 of 240 x 160 is left.
        np.testing.assert_array_equal(crop[0, 0], np.arange(50, 190))
        np.testing.assert_array_equal(crop[1, :, 0], np.arange(10, 150))

    def test_resize_at_half_the_size(self, ramp: Path) -> None:
        crop = read_crop(ramp, 70, "resize")
        assert isinstance(crop, np.ndarray)
        assert abs(int(crop[0, 35, 0]) - 50.5) <= 1
        assert abs(int(crop[0, 35, -1]) - 188.5) <= 1

    @pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (33, 32)])
    @pytest.mark.parametrize("crop", ["central", "resize"])
    def test_odd_shapes(self, tmp_path: Path, size: tuple[int, int], crop: Any) -> None:
        Image.new("RGB", size, (9, 9, 9)).save(tmp_path / "odd.png")
        found = read_crop(tmp_path / "odd.png", 32, crop)
        assert isinstance(found, np.ndarray)
        assert found.shape == (3, 32, 32)
        assert (found == 9).all()

    def test_an_unreadable_file_is_a_reason(self, tmp_path: Path) -> None:
        assert read_crop(tmp_path / "none.png", 32, "central") == "there is no such file"


class TestClassLists:
    def test_a_text_file(self, tmp_path: Path) -> None:
        (tmp_path / "c.txt").write_text("cat\n dog \n\ncrane\n")
        found = read_classes(tmp_path / "c.txt")
        assert found.names == ("cat", "dog", "crane")
        assert found.places == {"cat": 0, "dog": 1, "crane": 2}

    def test_a_name_of_two_classes_finds_neither(self, tmp_path: Path) -> None:
        (tmp_path / "c.json").write_text('{"0": ["n1", "crane"], "1": ["n2", "crane"]}')
        found = read_classes(tmp_path / "c.json")
        assert found.names == ("crane", "crane")
        assert found.places == {"n1": 0, "n2": 1}


class TestNormalisation:
    def test_a_value(self) -> None:
        assert Normalisation.from_json(IMAGENET.as_json()) == IMAGENET
        assert Normalisation((0, 0, 0), (1, 1, 1)).std == (1.0, 1.0, 1.0)

    @pytest.mark.parametrize(
        "value",
        [None, {}, {"mean": [1, 2, 3]}, {"mean": "abc", "std": [1, 1, 1]}, {"mean": [0, 0, float("nan")],
         "std": [1, 1, 1]}, {"mean": [0, 0, 0], "std": [1, 1, -1]}],
    )  # fmt: skip
    def test_no_value(self, value: Any) -> None:
        with pytest.raises(SpecError, match="three numbers"):
            Normalisation.from_json(value)

    def test_it_decides_what_a_net_sees(self, tiny: NetSpec, images: Path, tmp_path: Path) -> None:
        """With a mean of the brightest pixel all inputs are negative, and h-swish lets nothing through."""
        dark = {"mean": [1.0] * 3, "std": [0.01] * 3}
        net = colour_net(
            tiny, tmp_path / "net", 3, {0: 0, 1: 1, 2: 2}, normalisation=dark, classes=[*COLOURS]
        )
        found = bneck.evaluate(net, images)
        assert found["normalisation"] == dark
        assert found["score"] == pytest.approx(1 / 3)
        assert found["loss"] == pytest.approx(float(np.log(3)), abs=1e-3)


class TestCommands:
    @pytest.fixture
    def call(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> Callable[..., tuple[int, str, str]]:
        def run(*arguments: object) -> tuple[int, str, str]:
            monkeypatch.setattr(sys, "argv", ["bneck", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                main.run()
            return int(ended.value.code or 0), *capsys.readouterr()

        return run

    def test_import_then_evaluate(
        self, call: Any, tiny: NetSpec, tiny_file: Path, images: Path, tmp_path: Path
    ) -> None:
        net = colour_net(tiny, tmp_path / "net", 3, {0: 0, 1: 1, 2: 2})
        names = tmp_path / "names.txt"
        names.write_text("n01\nn02\nn03\n")
        code, out, err = call(
            "import", net / "weights.safetensors", "--as", tiny_file, "--out", tmp_path / "run",
            "--labels", names, "--mean", "0.4,0.5,0.6", "--json",
        )  # fmt: skip
        assert (code, err) == (0, "")
        record = json.loads(out)
        assert record["normalisation"] == {"mean": [0.4, 0.5, 0.6], "std": [0.229, 0.224, 0.225]}
        assert record["classes"] == ["n01", "n02", "n03"]
        assert record["command"].startswith("bneck import ")
        code, out, err = call("evaluate", tmp_path / "run", "--data", images, "--json")
        assert code == 0
        assert err == "scoring tiny (12)\n"
        assert json.loads(out)["score"] == 1.0
        code, out, err = call("evaluate", tmp_path / "run", "--data", images, "--crop", "resize")
        assert out.splitlines()[:2] == ["tiny, fp32:", "top-1 100.0% on val, 12 images"]
        last = [line for line in out.splitlines() if line.split()[:1] == ["val"]]
        assert [line.split()[:4] for line in last] == [["val", "12", "100.0", "100.0"]]
        assert float(last[0].split()[4]) < 0.1
        code, out, err = call("show", tmp_path / "run")
        assert code == 0
        assert "tiny at 32 px, 3 classes, symmetric padding" in out

    def test_refusals(
        self, call: Any, tiny: NetSpec, tiny_file: Path, images: Path, tmp_path: Path
    ) -> None:
        net = colour_net(tiny, tmp_path / "net", 3, {0: 0})
        file = tmp_path / "w.pth"
        file.write_bytes(b"nothing")
        for arguments, sentence in (
            (("import", file, "--as", tiny_file), "is no torch, safetensors or TFLite file"),
            (("import",), "a file or a name of published weights is needed"),
            (("import", file), "is no torch, safetensors or TFLite file"),
            (
                ("import", file, "--as", tiny_file, "--mean", "grey"),
                "--mean is 'grey'; write three",
            ),
            (("evaluate", "v3-small", "--data", images), "v3-small has no trained weights"),
            (("evaluate", net), "the images to score on are needed; pass their folder with --data"),
        ):
            code, out, err = call(*arguments)
            assert (code, out) == (2, "")
            assert err.count("\n") == 1
            assert sentence in err


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "imagenet_sample").is_dir(), reason=f"{DATA} is not there")
def test_the_authors_v3_small_on_real_images(tmp_path: Path) -> None:
    """74 % on the even-numbered sample images by an independent reading of the same file."""
    pytest.importorskip("tflite")
    sample = DATA / "imagenet_sample"
    with (sample / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["index"]) % 2 == 0]
    assert len(rows) == 500
    with tarfile.open(sample / "imagenet_sample_256.tar") as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # not in 3.11.2
        for row in rows:
            tar.extract(row["path"], tmp_path / "sample")
    with (tmp_path / "sample" / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "index"), *((r["path"], r["index"]) for r in rows)])
    weights = DATA / "weights" / "v3-small_224_1.0_uint8.tflite"
    top1 = {}
    for padding in ("same", "symmetric"):
        run = tmp_path / padding
        bneck.import_weights(weights, "v3-small", out=run, padding=padding)
        top1[padding] = bneck.evaluate(run, tmp_path / "sample")["score"]
    assert top1["same"] == pytest.approx(0.74, abs=0.01)
    assert top1["symmetric"] == pytest.approx(0.56, abs=0.02)
