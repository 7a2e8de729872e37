"""Two processes that train together: what one refuses ends both, and is said once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch.distributed as dist

from forked import Forked, bneck


def member(place: Path, rank: int, *words: str) -> None:
    """What a launcher does, without one: a process group, then the command in each process."""
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    bneck(*words)


def together(folder: Path, *arguments: object) -> list[tuple[int, list[str]]]:
    """Exit codes of the two processes, and what each said as a refusal."""
    members = [
        Forked(member, folder / "meet", rank, *map(str, arguments), folder=folder)
        for rank in range(2)
    ]
    try:
        ended = [one.wait(120) for one in members]
    finally:
        for one in members:
            one.kill()
    assert not any("Traceback" in errors for _, _, errors in ended), ended
    return [
        (code, [line for line in errors.splitlines() if line.startswith("bneck: ")])
        for code, _, errors in ended
    ]


def spoil(pictures: Path, folder: Path) -> Path:
    """The pictures, of which a third of train cannot be read."""
    shutil.copytree(pictures, folder)
    for file in (folder / "train" / "circle").iterdir():
        file.write_bytes(b"no picture")
    return folder


def test_an_option_is_refused_by_both(tiny_file: Path, pictures: Path, tmp_path: Path) -> None:
    options = ("--data", pictures, "--batch", 0, "--out", tmp_path / "run")
    first, second = together(tmp_path, "train", tiny_file, *options)
    assert first == (2, ["bneck: batch is 0; it must be at least 1"])
    assert second == (2, [])


def test_data_that_only_the_first_reads(tiny_file: Path, pictures: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "run", spoil(pictures, tmp_path / "spoilt")
    first, second = together(
        tmp_path, "train", tiny_file, "--data", data, "--batch", 8, "--out", out
    )
    assert first[0] == 2
    assert len(first[1]) == 1
    assert "cannot be read, more than the allowed 1.0%" in first[1][0]
    assert second == (2, [])
    assert not out.exists()


def test_a_folder_that_only_the_first_looks_at(
    tiny_file: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    options = ("--data", pictures, "--batch", 8, "--out", tmp_path / "run")
    first, second = together(tmp_path, "train", tiny_file, *options)
    assert first[0] == 2
    assert "exists and is not an empty folder" in first[1][0]
    assert second == (2, [])


def test_bad_data_in_the_midst_of_training_ends_both(
    tiny_file: Path, pictures: Path, tmp_path: Path
) -> None:
    """Numbers are exchanged then, so that the other one only sees its partner leave."""
    data = spoil(pictures, tmp_path / "spoilt")
    options = ("--data", data, "--stream", "--batch", 8, "--epochs", 2, "--out", tmp_path / "run")
    members = together(tmp_path, "train", tiny_file, *options)
    assert [code for code, _ in members] == [2, 2]
    said = [line for _, lines in members for line in lines]
    assert any("cannot be read, more than the allowed" in line for line in said)
    assert all("cannot be read" in line or "ended behind step" in line for line in said)


def test_both_end_well(tiny_file: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--data", pictures, "--batch", 8, "--epochs", 0.5, "--out", out)
    assert together(tmp_path, "train", tiny_file, *options) == [(0, []), (0, [])]
    assert json.loads((out / "run.json").read_text())["state"] == "finished"
