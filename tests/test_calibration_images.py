"""Which images int8 is calibrated on, and other images than a run's own in its network's classes."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bneck
from annotated import draw_boxes, draw_scenes
from bneck.data.read import evenly
from bneck.nets.build import build
from bneck.nets.weights import save_weights
from bneck.records.progress import Silent
from bneck.records.run import RunFolder
from bneck.runs.data import Samples, run_dataset
from bneck.runs.load import trained
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import to_text
from bneck.specs.transforms import with_classes
from commands import Call, refusal

pytestmark = pytest.mark.usefixtures("one_thread")


class TestEvenly:
    def test_by_hand(self) -> None:
        by_class = {"a": [0, 1, 2, 3, 4, 5, 6, 7], "b": [8], "c": [9, 10, 11]}
        assert evenly(12, 12, by_class) == list(range(12))
        assert evenly(12, 7, by_class) == [0, 3, 7, 8, 9, 10, 11]
        assert evenly(12, 3, by_class) == [0, 8, 9]
        assert evenly(12, 3, {}) == [0, 5, 11]

    def test_of_more_classes_than_images_each_gives_one_at_most(self) -> None:
        by_class = {str(i): [2 * i, 2 * i + 1] for i in range(1000)}
        found = evenly(2000, 128, by_class)
        assert len(found) == 128
        assert max(Counter(i // 2 for i in found).values()) == 1
        assert found[0] == 0
        assert found[-1] >= 1990

    def test_images_of_several_classes_are_drawn_once(self) -> None:
        found = evenly(6, 4, {"a": [0, 1, 2, 3], "b": [0, 1, 4, 5]})
        assert len(found) == len(set(found)) == 4


def imported(tmp_path: Path, tiny: NetSpec, names: list[str] | None, count: int) -> Path:
    """An import of so many classes, as `bneck import` leaves it."""
    spec = with_classes(tiny, count)
    folder = RunFolder(tmp_path / "imported")
    folder.path.mkdir()
    folder.spec.write_text(to_text(spec), encoding="utf-8")
    save_weights(build(spec).state_dict(), folder.weights)
    record: dict[str, Any] = {"format": 2, "kind": "import", "state": "finished", "classes": names}
    record |= {"class_ids": None, "notes": [], "name": spec.name}
    folder.run_json.write_text(json.dumps(record), encoding="utf-8")
    return folder.path


NAMES = [f"class {i}" for i in range(20)]
NAMES[3], NAMES[11], NAMES[17] = "Stripes", "circle", "square"


class TestClasses:
    def test_a_folder_of_some_of_a_networks_classes(
        self, tmp_path: Path, tiny: NetSpec, pictures: Path
    ) -> None:
        run = trained(imported(tmp_path, tiny, NAMES, 20))
        found: Any = run_dataset(run, pictures)
        assert found.classes == ("circle", "square", "stripes")
        assert found.places == (11, 17, 3)  # by name, whatever its case
        assert "images of 3 of the network's 20 classes" in found.found.notes
        data = run.task.prepare(
            found, run.spec, run.wrapper, run.options, scratch=tmp_path / "scratch", seed=0,
            progress=Silent(),
        )  # fmt: skip
        assert Counter(data.open().train.labels.tolist()) == {11: 32, 17: 32, 3: 32}
        assert Counter(data.open().others.labels.tolist()) == {11: 10, 17: 10, 3: 10}

    def test_images_of_other_classes_are_left_out_and_reported(
        self, tmp_path: Path, tiny: NetSpec, pictures: Path
    ) -> None:
        run = trained(imported(tmp_path, tiny, ["a", "stripes", "square"], 3))
        found: Any = run_dataset(run, pictures)
        assert (found.classes, found.places) == (("square", "stripes"), (2, 1))
        assert found.splits == {"train": 64, "val": 20}
        said = "left out: 42 images of 1 classes that the network does not know (circle)"
        assert said in found.found.notes

    def test_images_of_none_of_its_classes_are_refused(
        self, tmp_path: Path, tiny: NetSpec, pictures: Path
    ) -> None:
        run = trained(imported(tmp_path, tiny, ["a", "b", "c"], 3))
        with pytest.raises(InputError, match="the network knows none of them"):
            run_dataset(run, pictures)

    def test_quantize_takes_what_evaluate_takes(
        self, call: Call, tmp_path: Path, tiny: NetSpec, pictures: Path
    ) -> None:
        run = imported(tmp_path, tiny, NAMES, 20)
        options = ("--runtime", "onnxruntime", "--epochs", 0.5, "--rounds", 3, "--json")
        done = call("quantize", run, "--data", pictures, *options)
        found = json.loads(done.out)
        assert [row["name"] for row in found["rows"]] == ["fp32", "naive", "ptq", "qat"]
        assert found["rows"][0]["score"] == bneck.evaluate(run, pictures)["score"]
        assert "images of 3 of the network's 20 classes" in done.err
        assert "int8 is calibrated on all 96 train images, 32 of each of 3 classes" in done.err
        assert found["calibration"]["classes"] == {"circle": 32, "square": 32, "stripes": 32}
        assert len(set(found["calibration"]["names"])) == 96

    def test_detectors_have_the_networks_classes(self, tmp_path: Path, tiny_file: Path) -> None:
        data, part = tmp_path / "boxes", tmp_path / "part"
        for split in ("train", "val"):
            draw_boxes(data, split, 9, seed=1)
        run = tmp_path / "run"
        bneck.train(str(tiny_file), data, task="detect", out=run, resolution=64, epochs=1, seed=0)
        shutil.copytree(data, part)
        for split in ("train", "val"):
            (file,) = part.glob(f"**/*{split}*.json")
            coco = json.loads(file.read_text())
            gone = coco["categories"].pop(0)["id"]
            coco["annotations"] = [one for one in coco["annotations"] if one["category_id"] != gone]
            file.write_text(json.dumps(coco))
        network = trained(run)
        found: Any = run_dataset(network, part)
        assert tuple(found.classes) == network.labels
        assert {int(n) for one in found.train.pictures for n in one.labels} == {2}
        made = bneck.quantize(run, data=part, epochs=0, rounds=3, runtime_name="onnxruntime")
        assert made["classes"] == list(network.labels)

    def test_segmenters_of_other_classes_are_refused_and_their_own_list_is_not_taken(
        self, call: Call, tmp_path: Path, tiny_file: Path
    ) -> None:
        data, other = tmp_path / "scenes", tmp_path / "other"
        data.mkdir()
        draw_scenes(data)
        shutil.copytree(data, other)
        listed = tmp_path / "list.txt"
        shutil.move(data / "classes.txt", listed)
        run = tmp_path / "run"
        how: dict[str, Any] = {"classes": listed, "filters": 16, "epochs": 1}
        bneck.train(str(tiny_file), data, task="segment", out=run, **how)
        assert tuple(run_dataset(trained(run), other).classes) == trained(run).labels
        names = (other / "classes.txt").read_text().splitlines()
        (other / "classes.txt").write_text("\n".join(["another", *names[1:]]))
        said = refusal(call("quantize", run, "--data", other, "--epochs", 0))
        assert "are not the network's: another" in said


class TestDrawn:
    def test_as_many_of_each_class(self, tmp_path: Path, tiny: NetSpec) -> None:
        """Of 300, 40 and 2 images: both small classes whole, and the rest of the large one."""
        rng = np.random.default_rng(0)
        for name, count in (("many", 300), ("some", 40), ("few", 2)):
            for split in ("train", "val"):
                (tmp_path / "data" / split / name).mkdir(parents=True)
                for i in range(count if split == "train" else 1):
                    image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
                    image.save(tmp_path / "data" / split / name / f"{i:03}.png")
        run = trained(imported(tmp_path, tiny, ["few", "many", "some"], 3))
        data = run_dataset(run, tmp_path / "data")
        drawn = Samples(run, dataset=data).drawn("train", (32, 32), 128)
        assert drawn.as_json()["classes"] == {"few": 2, "many": 86, "some": 40}
        assert (len(drawn.names), drawn.there) == (128, 342)
        said = "int8 is calibrated on 128 of 342 train images, 2 to 86 of each of 3 classes"
        assert drawn.line() == said
        assert sum(len(batch) for batch in drawn.batches()) == 128
        assert drawn.first(5).shape == (5, 3, 32, 32)

    def test_of_a_folder_of_pictures_evenly_over_its_folders(
        self, tmp_path: Path, tiny: NetSpec, pictures: Path
    ) -> None:
        """Of 32 and 10 of each class in train and val: as many of each as there are."""
        run = trained(imported(tmp_path, tiny, NAMES, 20))
        drawn = Samples(run, pictures).drawn("train", (32, 32), 60)
        said = "int8 is calibrated on 60 of 126 pictures, 10 of each of 6 folders"
        assert drawn.line() == said
        assert all(Path(name).is_file() for name in drawn.names)
        assert Counter(Path(name).parent for name in drawn.names) == {
            pictures / split / name: 10
            for split in ("train", "val")
            for name in ("circle", "square", "stripes")
        }
        alone = Samples(run, pictures / "train" / "circle").drawn("train", (32, 32), 20)
        assert alone.line() == "int8 is calibrated on 20 of 32 pictures, evenly spread"

    def test_large_images_are_read_a_few_at_a_time_and_bad_ones_left_out(
        self, tmp_path: Path, tiny: NetSpec, pictures: Path
    ) -> None:
        folder = tmp_path / "pictures"
        shutil.copytree(pictures / "train", folder)
        (folder / "circle" / "00.png").write_bytes(b"")
        run = trained(imported(tmp_path, tiny, NAMES, 20))
        drawn = Samples(run, folder).drawn("train", (2048, 2048), 10)
        read = [len(batch) for batch in drawn.batches()]
        assert read == [1] * 9
