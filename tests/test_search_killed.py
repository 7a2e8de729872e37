"""The main job, killed at random moments or stopped by Ctrl-C, and gone on with."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from forked import Forked, bneck
from search_run import Run
from simulated_device import plugged_in


def search(*words: str) -> None:
    """With a device of its own: two runs then decide alike for certain."""
    with plugged_in(name="simulated:killed"):
        bneck(*words)


def start(*arguments: str, folder: Path) -> Forked:
    """`bneck` in a process and a process group of its own."""
    return Forked(search, *arguments, folder=folder)


def finish(process: Forked) -> None:
    code, _, errors = process.wait()
    assert code == 0, errors


def arguments(data: Path, spec: Path, out: Path, *, delta: float, workers: int) -> list[str]:
    method = ["--method", "netadapt", "--steps", "1", "--delta", str(delta)] if delta else []
    return [
        "search", *method,
        "--device", "simulated:killed", "--data", str(data), "--target", "75%",
        "--seed-network", str(spec), "--epochs", "2",
        "--repeats", "1", "--workers", str(workers),
        "--out", str(out),
    ]  # fmt: skip


def kill_and_resume(
    folder: Path, data: Path, spec: Path, *, kills: int, delta: float, workers: int
) -> None:
    """Kill a search at random moments, resume it each time, and hold it against an unbroken one.

    It goes by NetAdapt with that `delta`, by importance with 0.
    """
    whole, broken = Run(folder / "whole"), Run(folder / "broken")
    given = arguments(data, spec, whole.path, delta=delta, workers=workers)
    finish(start(*given, folder=folder))
    lines = len(whole.ledger)
    # What a run was begun with may be gone when it is resumed.
    lost_data, lost_spec = folder / "data", folder / "seed.yaml"
    shutil.copytree(data, lost_data)
    shutil.copy(spec, lost_spec)
    given = arguments(Path("data"), Path("seed.yaml"), Path("broken"), delta=delta, workers=workers)
    rng = random.Random(os.getpid())
    ledger = broken.path / "ledger.jsonl"
    for moment in sorted(rng.sample(range(1, lines - 1), kills)):
        process = start(*given, folder=folder)
        while process.poll() is None:
            if ledger.exists() and ledger.read_bytes().count(b"\n") >= moment:
                time.sleep(rng.uniform(0, 0.2))
                break
            time.sleep(0.005)
        process.kill()
        process.wait()
        shutil.rmtree(lost_data, ignore_errors=True)
        lost_spec.unlink(missing_ok=True)
        given = ["search", "--resume", "broken"]
    finish(start(*given, folder=folder))

    broken.assert_nothing_done_twice()
    assert broken.record["steps"] == whole.record["steps"]
    assert broken.record["target_ms"] == whole.record["target_ms"]
    for name in ("spec.yaml", "found/weights.safetensors", "found/model.onnx", "table.jsonl"):
        assert (broken.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    for key in ("score", "estimated_latency_ms", "export"):
        assert broken.record[key] == whole.record[key]
    assert not (broken.path / "scratch").exists()


class TestKilled:
    @pytest.mark.parametrize(
        "delta", [pytest.param(0.08, marks=pytest.mark.slow), 0], ids=["netadapt", "importance"]
    )
    def test_killed_twice_it_chooses_as_if_unbroken(
        self, tmp_path: Path, pictures: Path, tiny_file: Path, delta: float
    ) -> None:
        kill_and_resume(tmp_path, pictures, tiny_file, kills=2, delta=delta, workers=1)

    @pytest.mark.slow
    @pytest.mark.parametrize("delta", [0.02, 0], ids=["netadapt", "importance"])
    def test_killed_ten_times_it_chooses_as_if_unbroken(
        self, tmp_path: Path, pictures: Path, tiny_file: Path, delta: float
    ) -> None:
        kill_and_resume(tmp_path, pictures, tiny_file, kills=10, delta=delta, workers=2)

    def test_ctrl_c_ends_in_one_sentence_that_says_how_to_go_on(
        self, tmp_path: Path, pictures: Path, tiny_file: Path
    ) -> None:
        out = tmp_path / "run"
        process = start(
            *arguments(pictures, tiny_file, out, delta=0.08, workers=1), folder=tmp_path
        )
        while not list((out / "scratch").glob("*.checkpoint")) and process.poll() is None:
            time.sleep(0.01)  # until the workers work
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        code, _, errors = process.wait()
        assert code == 130
        assert "Traceback" not in errors
        # On a busy machine the workers' resource tracker may warn after it of what is gone already.
        assert [x for x in errors.splitlines() if x.startswith("bneck: ")] == [
            f"bneck: stopped; resume it with: bneck search --resume {out}"
        ]
