"""The commands about files and runtimes: what they print, and how they refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bneck.devices import protocol
from commands import Call, refusal

pytest.importorskip("ai_edge_litert")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure of a busy machine is refused: these tests look at none."""
    monkeypatch.setattr(protocol, "_check_spread", lambda *of: None)


@pytest.fixture(scope="module")
def exported(tiny_file: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import bneck

    path = tmp_path_factory.mktemp("files") / "tiny.tflite"
    bneck.export(tiny_file, "tflite", out=path, data=pictures)
    return path


class TestMeasure:
    def test_runtimes_and_precisions_are_interleaved(self, call: Call, tiny_file: Path) -> None:
        options = ("--runtime", "litert", "--runtime", "onnxruntime", "--precision", "int8")
        done = call("measure", tiny_file, tiny_file, *options, "--rounds", "3", "--json")
        found = json.loads(done.out)
        assert [(one["runtime"], one["precision"]) for one in found] == [
            ("litert", "int8"),
            ("onnxruntime", "int8"),
        ]
        assert all(len(one["rounds_ms"]) == 3 for one in found)

    def test_an_exported_file_is_measured_as_it_is(self, call: Call, exported: Path) -> None:
        done = call("measure", exported, "--rounds", "3", "--json")
        (found,) = json.loads(done.out)
        assert (found["network"], found["runtime"]) == ("tiny.tflite", "litert")

    def test_the_papers_ratios_stand_beside_ours(self, call: Call) -> None:
        networks = ("v2-0.35", "v3-small")
        done = call(
            "measure", *networks, "--runtime", "litert", "--rounds", "3", "--against", "paper"
        )
        line = next(line for line in done.out.splitlines() if line.strip().startswith("v3-small"))
        assert line.split()[-1] == "0.952"  # 15.8 / 16.6 ms, Table 3

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--against", "rivals"), "against is 'rivals'; allowed is paper"),
            (
                ("--runtime", "abacus"),
                "there is no runtime 'abacus'; known are onnxruntime, litert, .*",
            ),
            (
                ("--precision", "int4"),
                "onnxruntime does not run precision 'int4'; it runs fp32, fp16, int8",
            ),
            (
                ("--runtime", "torch", "--precision", "int8"),
                "torch does not run precision 'int8'.*",
            ),
        ],
    )
    def test_refused(
        self, call: Call, tiny_file: Path, options: tuple[str, ...], said: str
    ) -> None:
        assert re.fullmatch(said, refusal(call("measure", tiny_file, "--rounds", "3", *options)))


class TestExport:
    def test_json_says_what_was_written_and_how_it_was_checked(
        self, call: Call, tiny_file: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "tiny.tflite"
        done = call("export", tiny_file, "--format", "tflite", "--out", out, "--json")
        found = json.loads(done.out)
        assert (found["file"], found["runtime"], found["precision"]) == (str(out), "litert", "fp32")
        assert found["label_agreement"] == 1.0
        assert found["largest_difference"] <= 1e-4
        assert not found["trained"]
        assert found["size_mb"] == pytest.approx(out.stat().st_size / 1e6)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--format", "coreml"), "there is no format 'coreml'; known are onnx, tflite, .*"),
            (("--format", "tflite", "--precision", "int8"), "int8 needs images .* --data"),
            (("--format", "torch", "--precision", "int8"), "torch does not run precision 'int8'.*"),
            (("--format", "torch", "--pixels"), "files for torch take normalized images; .*"),
            (
                ("--format", "openvino", "--out", "x.bin"),
                r"--out is x\.bin; name a file that ends in \.xml",
            ),
        ],
    )
    def test_refused(
        self,
        call: Call,
        tiny_file: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        options: tuple[str, ...],
        said: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert re.fullmatch(said, refusal(call("export", tiny_file, *options)))
        assert list(tmp_path.iterdir()) == []


class TestFilesAnswer:
    def test_predict_and_evaluate_take_them(
        self, call: Call, exported: Path, pictures: Path, tmp_path: Path
    ) -> None:
        picture = pictures / "val" / "circle" / "00.png"
        done = call("predict", exported, picture, "--json")
        assert len(json.loads(done.out)[0]["classes"]) == 3
        done = call("evaluate", exported, "--data", pictures)
        assert "the network knows none of them (3 classes without names)" in done.err
        (tmp_path / "classes.txt").write_text("circle\nsquare\nstripes\n")
        done = call(
            "evaluate", exported, "--data", pictures, "--json", "--labels", tmp_path / "classes.txt"
        )
        assert json.loads(done.out)["images"] == 30

    def test_a_file_of_somebody_else_is_refused(self, call: Call, tmp_path: Path) -> None:
        path = tmp_path / "foreign.tflite"
        path.write_bytes(b"not a model")
        said = refusal(call("measure", path, "--rounds", "3"))
        assert said.startswith("litert cannot load this file: ")


def test_quantize_refuses_the_untrained(call: Call, tiny_file: Path) -> None:
    assert "has no trained weights; pass the folder" in refusal(call("quantize", tiny_file))


def test_table_refuses_what_has_none(call: Call, tiny_file: Path, tmp_path: Path) -> None:
    options = ("--runtime", "torch", "--out", tmp_path / "t.jsonl")
    said = refusal(call("table", tiny_file, *options))
    assert said.startswith("there are no latency tables for the runtime torch; take onnxruntime")


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_tasks_are_measured_where_they_have_files(call: Call, task: str) -> None:
    names = ("measure", "v3-small-0.35", "--task", task)
    why = refusal(call(*names, "--runtime", "torch", "--rounds", 3))
    assert "no files of detectors and segmenters for the runtime torch; take onnxruntime" in why
    assert "does not run precision 'int4'" in refusal(
        call(*names, "--precision", "int4", "--rounds", 3)
    )
    why = refusal(call(*names, "--device", "ssh:somewhere"))
    assert why.startswith("ssh:somewhere cannot be used: ")  # they run wherever classifiers do
