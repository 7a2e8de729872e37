"""The scripts that a user copies, in their small form: they end well, and leave what they promise."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from forked import Forked

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, folder: Path, *arguments: str) -> str:
    """What an example prints, run in an empty folder."""
    code, out, err = Forked(script, EXAMPLES / f"{name}.py", *arguments, folder=folder).wait()
    assert code == 0, err
    return out


def script(path: Path, *arguments: str) -> None:
    """As `python PATH ARGUMENTS`."""
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


def share(printed: str, words: str) -> float:
    found = re.search(rf"{words} ([\d.]+)%", printed)
    assert found, printed
    return float(found[1])


def test_there_are_five_and_each_says_how_it_is_run() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) == 5
    for script in scripts:
        assert f"python examples/{script.name}" in script.read_text(encoding="utf-8")


def test_segmenter(tmp_path: Path) -> None:
    """A few epochs tell ground from sky: better than calling everything one class (a third each)."""
    printed = run("train_a_segmenter", tmp_path, "--epochs", "4")
    assert share(printed, "mIOU") > 33.4
    for name in ("model.onnx", "overlay.png", "report.md"):
        assert (tmp_path / "runs/segmenter" / name).is_file()


@pytest.mark.slow
def test_own_images(tmp_path: Path) -> None:
    """Three shapes are told apart, and 8 bits do not undo it."""
    pytest.importorskip("ai_edge_litert", reason="needs bneck[litert]")
    printed = run("own_images_to_phone_model", tmp_path)
    assert share(printed, "float: top-1") > 60
    assert share(printed, "8-bit file in litert: top-1") > 60
    assert (tmp_path / "runs/phone/model-int8.tflite").stat().st_size < 1_000_000


@pytest.mark.slow
def test_detector(tmp_path: Path) -> None:
    """It finds some: an untrained detector has an AP50 near 0."""
    pytest.importorskip("faster_coco_eval", reason="needs bneck[detect]")
    printed = run("train_a_detector", tmp_path)
    assert share(printed, "AP50") > 10
    for name in ("model.onnx", "model-boxes.onnx", "boxes.png"):
        assert (tmp_path / "runs/detector" / name).is_file()


@pytest.mark.slow
def test_space_of_one_s_own(tmp_path: Path) -> None:
    """Five networks of it are judged; the best is a spec that other commands take."""
    import bneck

    printed = run("search_your_own_space", tmp_path)
    assert len(re.findall(r"^trial \d: ", printed, re.MULTILINE)) == 5
    spec = bneck.network(tmp_path / "runs/space/spec.yaml")
    assert (spec.resolution, spec.classes) == (32, 10)


@pytest.mark.slow
def test_adapting(tmp_path: Path) -> None:
    """The miniature is narrowed to 85 % of its latency, estimated; whether the clock agrees it says itself."""
    printed = run("adapt_v3_to_raspberry_pi", tmp_path)
    assert re.search(r"^found +[\d.]+ ms  top-1 [\d.]+%", printed, re.MULTILINE)
    assert re.search(r"the target is (met|NOT met): ", printed)
    assert (tmp_path / "runs/pi/report.html").is_file()
