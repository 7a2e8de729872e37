"""Files and folders whose names are not UTF-8, as old archives leave them: they work, or are refused.

Linux lets a name be any bytes; Python reads `caf\\xe9` (Latin-1) as `caf\\udce9`, which no UTF-8 text,
json file or terminal takes as it stands.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import bneck
from annotated import draw_boxes, draw_scenes
from bneck.data.find import find_images
from bneck.runs.train import train
from commands import Call, refusal

ODD = os.fsdecode(b"caf\xe9")  # caf\udce9


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder of such a name, where the file system takes it."""
    path = tmp_path / ODD
    try:
        path.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    return path


def oddly_named(folder: Path) -> None:
    """Give every file below a folder such a name."""
    for path in [*folder.rglob("*.png")]:
        path.rename(path.with_name(f"{ODD}-{path.name}"))


class TestClassifiers:
    def test_images_and_the_folders_above(
        self, odd: Path, pictures: Path, tiny_file: Path, tmp_path: Path, call: Call
    ) -> None:
        data, run = odd / "photos", tmp_path / "run"
        shutil.copytree(pictures, data)
        oddly_named(data)
        bad = data / "train" / "circle" / f"{ODD}-00.png"
        bad.write_bytes(b"")  # so that a name is told in the record and in the report
        options = ("--epochs", "0.5", "--resolution", "32")
        assert call("train", tiny_file, "--data", data, "--out", run, *options).code == 0
        ((name, reason),) = json.loads((run / "run.json").read_text())["data"]["left_out"]
        assert (name, reason) == (str(bad), "the file is empty")
        assert "caf" in (run / "report.md").read_text(encoding="utf-8")
        for command in (
            ("evaluate", run),
            ("evaluate", run, "--data", data),
            ("predict", run, data / "val" / "circle" / f"{ODD}-01.png"),
            ("predict", run, data / "val" / "circle" / f"{ODD}-01.png", "--json"),
            ("export", run, "--precision", "int8"),
            ("report", run),
        ):
            assert call(*command).code == 0, command

    def test_they_can_be_streamed(self, odd: Path, pictures: Path, tmp_path: Path) -> None:
        shutil.copytree(pictures, odd / "photos")
        oddly_named(odd / "photos")
        spec = bneck.network("v3-small@32")
        record = train(spec, odd / "photos", out=tmp_path / "run", epochs=0.2, stream=True)
        assert record["state"] == "finished"

    def test_a_class_is_refused(self, odd: Path, pictures: Path, call: Call) -> None:
        for name in (ODD, "b"):
            shutil.copytree(pictures / "val" / "circle", odd / "data" / name)
        said = refusal(call("train", "v3-small", "--data", odd / "data"))
        assert said.startswith("the class 'caf\\udce9' in ")
        assert said.endswith("caf\\udce9/data has a name that is not UTF-8; rename its folder")

    def test_in_tar_files_too(self, tmp_path: Path) -> None:
        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "PNG")
        with tarfile.open(tmp_path / "all.tar", "w") as tar:
            for i in range(8):
                entry = tarfile.TarInfo(f"{'ab'[i % 2]}/{ODD}-{i}.png")
                entry.size = len(picture.getvalue())
                tar.addfile(entry, io.BytesIO(picture.getvalue()))
        found = find_images(tmp_path)
        assert (len(found.train.names), len(found.val.names)) == (6, 2)


def test_detectors(odd: Path, tiny_file: Path, tmp_path: Path, call: Call) -> None:
    run, data = tmp_path / "run", odd / "boxes"
    for split, count in (("train", 8), ("val", 4)):
        draw_boxes(data, split, count, seed=0)
        json_file = data / f"instances_{split}.json"
        content = json.loads(json_file.read_text())
        for entry in content["images"]:
            entry["file_name"] = f"{ODD}-{entry['file_name']}"
        json_file.write_text(json.dumps(content))
    oddly_named(data)
    picture = data / "images" / f"{ODD}-val-1.png"
    for command in (
        ("train", tiny_file, "--task", "detect", "--data", data, "--out", run,
         "--resolution", 48, "--epochs", 1),
        ("evaluate", run),
        ("predict", run, picture, "--out", tmp_path / "drawn"),
        ("export", run, "--precision", "int8"),
        ("report", run),
    ):  # fmt: skip
        answer = call(*command)
        assert answer.code == 0, answer.err
    (data / "instances_val.json").unlink()
    said = refusal(call("evaluate", run))
    assert (
        "caf\\udce9/boxes is split off by seed 0 now, and was given when the run was trained"
        in said
    )


def test_segmenters(odd: Path, tiny_file: Path, tmp_path: Path, call: Call) -> None:
    run, data = tmp_path / "run", odd / "scenes"
    data.mkdir()
    draw_scenes(data)
    oddly_named(data)
    picture = data / "val" / f"{ODD}-01.png"
    for command in (
        ("train", tiny_file, "--task", "segment", "--data", data, "--out", run, "--filters", 16,
         "--epochs", 1),
        ("evaluate", run),
        ("predict", run, picture, "--out", tmp_path / "painted.png"),
        ("predict", run, picture, "--out", odd / "painted.png", "--json"),
        ("export", run, "--precision", "int8"),
        ("report", run),
    ):  # fmt: skip
        answer = call(*command)
        assert answer.code == 0, answer.err
    shutil.rmtree(data / "val")
    (data / "valannot" / f"{ODD}-00.png").unlink()
    assert "caf\\udce9" in refusal(call("evaluate", run, "--data", data / "val"))
