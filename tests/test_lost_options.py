"""Options that would do nothing, and outputs that would be somebody's file: each is refused."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

import bneck
from bneck.nets.build import build
from bneck.nets.weights import save_weights
from bneck.specs.network import NetSpec
from bneck.specs.text import to_text
from commands import Call, refusal


@pytest.fixture
def classifier(tiny: NetSpec, tmp_path: Path) -> Path:
    run = tmp_path / "classifier"
    run.mkdir()
    (run / "spec.yaml").write_text(to_text(tiny))
    (run / "run.json").write_text('{"format": 2, "kind": "import"}')
    save_weights(build(tiny).state_dict(), run / "weights.safetensors")
    return run


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """A run of two classes at 128 pixels, as its record says."""
    run = tmp_path / "detector"
    run.mkdir()
    (run / "spec.yaml").write_text(to_text(bneck.network("v3-small-0.35@128")))
    wrapper = {"head": "ssdlite", "classes": 2, "extras": [64, 32, 32, 16]}
    record = {
        "format": 2,
        "kind": "train",
        "task": "detect",
        "wrapper": wrapper,
        "classes": ["a", "b"],
    }
    (run / "run.json").write_text(json.dumps(record))
    return run


def test_a_run_is_counted_as_it_was_trained(detector: Path, call: Call) -> None:
    """Not with COCO's 90 classes at 320 pixels; the task need not be said."""
    wanted = bneck.count(detector, task="detect")
    for more in ((), ("--task", "detect")):
        found = json.loads(call("count", detector, "--json", *more).out)
        assert (found["classes"], found["resolution"]) == (2, 128)
        assert (found["params"], found["madds"]) == (wanted.params, wanted.madds)
    other = json.loads(call("count", detector, "--json", "--classes", "5").out)
    assert other["classes"] == 5
    assert other["params"] > wanted.params


def test_a_run_and_a_file_are_measured_as_they_are(detector: Path, call: Call) -> None:
    said = refusal(call("measure", detector, "--task", "detect", "--classes", "5"))
    assert said.startswith("--classes goes with names and spec files, and ")
    said = refusal(call("measure", detector, "--task", "segment"))
    assert said.endswith("is a network of the task detect, which its run knows; leave --task out")


def test_another_task_than_the_run_s(classifier: Path, call: Call, tmp_path: Path) -> None:
    said = refusal(call("export", classifier, "--task", "detect", "--out", tmp_path / "x.onnx"))
    assert said.endswith("is a network of the task classify, which its run knows; leave --task out")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            ("compare", "v3-small", "--rounds", "10"),
            "--rounds goes with --measure; add --measure or",
        ),
        (
            ("reproduce", "table1", "--no-measure", "--threads", "1"),
            "--threads goes with --measure",
        ),
        (("train", "--resume", "run", "--epochs", "3"), "--epochs cannot be changed by --resume"),
        (("search", "--resume", "run", "--seed", "0"), "--seed cannot be changed by --resume"),
        (("choose", "--resume", "run", "--seed", "0"), "--seed cannot be changed by --resume"),
        (("search", "--trials", "3"), "--trials goes with --from-scratch"),
        (("import", "--list", "--as", "v2"), "--list prints what is known and imports nothing"),
        (("quantize", "run", "--epochs", "0", "--lr", "1e-4"), "--lr goes with --epochs above 0"),
    ],
)
def test_an_option_that_would_do_nothing(
    command: tuple[str, ...], sentence: str, call: Call
) -> None:
    """Also where it says the default."""
    assert refusal(call(*command)).startswith(sentence)


@pytest.mark.parametrize(
    ("ledger", "sentence"),
    [
        ("sqlite:///{}/nowhere/t.db", "unable to open database file); choose another one"),
        ("sqlite:///{}/text.db", "file is not a database); choose another one"),
        ("sqlite:///{}/other.db", "no such column: studies."),
        ("sqlite//t.db", "the ledger sqlite//t.db is no URL; write sqlite:///FILE"),
    ],
)
def test_a_ledger_that_cannot_be_is_refused_before_anything_is_measured(
    ledger: str, sentence: str, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "text.db").write_text("hello, this is no database")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("create table studies (a int)")
    out = tmp_path / "run"
    said = refusal(call(
        "search", "--from-scratch", "--trials", "2", "--ledger", ledger.format(tmp_path), "--out", out
    ))  # fmt: skip
    assert sentence in said
    assert not out.exists()


def test_a_file_computes_on_the_processor(classifier: Path, call: Call, tmp_path: Path) -> None:
    bneck.export(classifier, out=tmp_path / "m.onnx")
    said = refusal(call("evaluate", tmp_path / "m.onnx", "--compute", "cuda"))
    assert "is a file, which runs on the processor; leave it out" in said


@pytest.mark.parametrize("name", ["notes.txt", "dog.png", "folder", "weights.safetensors"])
def test_outputs_are_named_as_their_kind(name: str, call: Call, tmp_path: Path) -> None:
    mine = tmp_path / name
    mine.mkdir() if name == "folder" else mine.write_text("mine")
    for command in ("export", "compare", "table"):
        said = refusal(call(command, "v3-small-0.35", "--out", mine))
        assert said.startswith(f"--out is {mine}; name a file that ends in .")
    assert mine.is_dir() or mine.read_text() == "mine"


def test_weights_are_not_exported_over(classifier: Path, call: Call) -> None:
    weights = classifier / "weights.safetensors"
    before = weights.read_bytes()
    said = refusal(call("export", classifier, "--format", "torch", "--out", weights))
    assert said == f"{weights} is there already; choose another --out"
    assert weights.read_bytes() == before


def test_a_file_has_its_own_precision(classifier: Path, call: Call, tmp_path: Path) -> None:
    bneck.export(classifier, out=tmp_path / "m.onnx")
    said = refusal(call("measure", tmp_path / "m.onnx", "--task", "detect"))
    assert "--task goes with names and spec files, and" in said
    said = refusal(call("measure", tmp_path / "m.onnx", "--precision", "int8"))
    assert (
        "a precision of int8 is asked for, and the files are measured as they are, in fp32" in said
    )
