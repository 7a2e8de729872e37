"""Images made ready once for all processes of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from annotated import draw_boxes, draw_scenes
from bneck.data.memory import available_bytes
from bneck.records.progress import Silent
from bneck.runs.data import prepared_record, reopened
from bneck.tasks.registry import task


def prepared(name: str, tiny_file: Path, data: Path, scratch: Path, **options: Any) -> Any:
    chosen = task(name)
    own = chosen.Options(**options)
    found = chosen.find(str(data), own, seed=0)
    spec, wrapper = chosen.arrange(str(tiny_file), own, found)
    return chosen.prepare(
        found, spec, wrapper, own, scratch=scratch, seed=0, heldout=0.2, processes=3,
        progress=Silent(),
    )  # fmt: skip


def test_annotations_are_read_once_for_all_processes(tiny_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "boxes"
    for split, count in (("train", 24), ("val", 9)):
        draw_boxes(data, split, count, seed=0)
    made = prepared("detect", tiny_file, data, tmp_path / "scratch", resolution=64)
    for file in data.glob("*.json"):
        file.unlink()
    # Opened anew, as in another process: the seed alone is not what `open` has seen.
    other = replace(
        reopened(task("detect"), prepared_record(made), tmp_path / "scratch"),  # type: ignore[type-var]
        seed=1,
    )
    assert other.counts() == {"train": 24, "val": 9}


def test_scenes_share_the_memory_with_those_of_all_workers(tiny_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "scenes"
    data.mkdir()
    draw_scenes(data)
    made = prepared("segment", tiny_file, data, tmp_path / "scratch", filters=16)
    assert made.processes == 3
    # Train and what is scored, in each of the three.
    assert 0 < 2 * 3 * made.open().train.kept_bytes <= available_bytes()
