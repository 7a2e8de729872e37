"""Where predict draws: every picture has a file of its own, and none is written over a picture."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import bneck
from annotated import SIZE, draw_boxes, draw_scenes
from bneck.nets.build import build
from bneck.runs.drawn import drawn_files, refuse_shared
from bneck.runs.files import write_file
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.tasks.classify.task import ClassifyOptions
from bneck.tasks.registry import task
from commands import Call, refusal


@pytest.fixture(scope="module")
def runs(tiny: NetSpec, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A detector and a segmenter, hardly trained."""
    root = tmp_path_factory.mktemp("runs")
    draw_boxes(root / "boxes", "train", 8, 0)
    draw_boxes(root / "boxes", "val", 1, 1)
    (root / "scenes").mkdir()
    draw_scenes(root / "scenes")
    torch.set_num_threads(1)
    detect, segment = root / "detect", root / "segment"
    boxes: dict[str, Any] = {"resolution": 48, "epochs": 0.5, "batch": 4}
    bneck.train(tiny, root / "boxes", task="detect", out=detect, **boxes)
    scenes: dict[str, Any] = {"epochs": 0.2, "size": SIZE, "filters": 32}
    bneck.train(tiny, root / "scenes", task="segment", out=segment, **scenes)
    return {"detect": detect, "segment": segment}


def drawn(path: Path, grey: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (grey, grey, grey)).save(path)
    return path


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in folder.iterdir()}


OPTIONS = [("detect", "--out"), ("segment", "--out"), ("segment", "--mask")]


class TestPredict:
    @pytest.mark.parametrize(("task", "option"), OPTIONS)
    def test_two_pictures_of_one_name_get_two_files(
        self, runs: dict[str, Path], call: Call, tmp_path: Path, task: str, option: str
    ) -> None:
        pictures = [drawn(tmp_path / name, 90 * i) for i, name in enumerate(("a/x.png", "b/x.jpg"))]
        answer = call("predict", runs[task], *pictures, option, tmp_path / "out")
        assert answer.code == 0
        assert sorted(digests(tmp_path / "out")) == ["x-2.png", "x.png"]
        first, second = answer.out.splitlines()
        assert first.endswith(f"-> {tmp_path / 'out' / 'x.png'}")
        assert second.endswith(f"-> {tmp_path / 'out' / 'x-2.png'}")

    @pytest.mark.parametrize(("task", "option"), OPTIONS)
    def test_no_picture_is_written_over(
        self, runs: dict[str, Path], call: Call, tmp_path: Path, task: str, option: str
    ) -> None:
        mine = tmp_path / "mine"
        dog, cat = drawn(mine / "dog.png", 10), drawn(mine / "cat.jpg", 20)
        drawn(mine / "cat.png", 30)  # another picture, not named
        (tmp_path / "link.png").symlink_to(dog)
        before = digests(mine)
        for images, place, sentence in (
            ((dog, cat), mine, f"{option} would be written over the picture {dog}"),
            ((dog,), dog, f"{option} would be written over the picture {dog}"),
            ((dog,), tmp_path / "link.png", f"{option} would be written over the picture"),
            (
                (cat,),
                mine,
                f"{option} would be written over {mine / 'cat.png'}, which is there already",
            ),
        ):
            assert sentence in refusal(call("predict", runs[task], *images, option, place))
            assert digests(mine) == before

    @pytest.mark.parametrize(("task", "option"), OPTIONS)
    def test_only_what_was_drawn_before_is_written_over(
        self, runs: dict[str, Path], call: Call, tmp_path: Path, task: str, option: str
    ) -> None:
        dog, out = drawn(tmp_path / "dog.jpg", 10), tmp_path / "out"
        assert call("predict", runs[task], dog, option, out).code == 0
        assert call("predict", runs[task], dog, option, out).code == 0
        mine = drawn(tmp_path / "other" / "dog.png", 40)
        before = digests(mine.parent)
        for place in (mine, mine.parent):
            said = refusal(call("predict", runs[task], dog, option, place))
            assert "which is there already and was not drawn by bneck; name another place" in said
        assert digests(mine.parent) == before

    def test_a_classifier_draws_nothing(self, tiny: NetSpec, call: Call, tmp_path: Path) -> None:
        dog, model, out = drawn(tmp_path / "dog.png", 10), tmp_path / "m.onnx", tmp_path / "x.png"
        chosen, options = task("classify"), ClassifyOptions()
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        write_file(chosen, build(tiny).eval(), model, images, record={}, options=options)
        said = refusal(call("predict", model, dog, "--out", out))
        assert "a network of the task classify, which has nothing to draw; leave it out" in said
        assert "--mask" in refusal(call("predict", model, dog, "--mask", out))
        assert not out.exists()


class TestNames:
    def test_numbers_never_meet_another_picture_s_name(self) -> None:
        images = ["a/x.jpg", "b/X.jpg", "c/x-2.jpg", "d/x.png", "a/x.jpg"]
        names = [path.name for path in drawn_files("out", images, "--out") if path]
        assert names == ["x.png", "X-3.png", "x-2.png", "x-4.png", "x-5.png"]

    def test_nothing_is_drawn_without_a_place(self) -> None:
        assert drawn_files(None, ["a.jpg", "b.jpg"], "--out") == [None, None]

    def test_a_picture_and_its_mask_are_two_files(self) -> None:
        refuse_shared([Path("a/x.png"), None], [Path("b/x.png"), None])
        with pytest.raises(InputError, match=r"two options would both write a/x\.png"):
            refuse_shared([Path("a/x.png")], [Path("a/x.png")])
