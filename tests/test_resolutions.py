"""Lower resolutions in a search by importance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bneck
from bneck.runs.search.main import search
from bneck.runs.search.widths.resolutions import sides
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text, to_text
from bneck.specs.transforms import with_resolution
from simulated_device import SimulatedDevice

QUICK: dict[str, Any] = {"epochs": 1.0, "repeats": 1, "workers": 1}


@pytest.mark.parametrize(
    ("resolution", "share", "expected"),
    [
        (224, 0.5, [192, 160]),  # (160 / 224) ** 2 = 0.51
        (224, 0.75, []),
        (256, 0.05, [224, 192, 160, 128]),
        (160, 0.35, [128]),
        (128, 0.1, []),
    ],
)
def test_a_part_of_a_cut_is_left_to_the_widths(
    tiny: NetSpec, resolution: int, share: float, expected: list[int]
) -> None:
    assert sides(with_resolution(tiny, resolution), share) == expected


@pytest.fixture(scope="module")
def start(tiny: NetSpec, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("larger")
    (folder / "larger.yaml").write_text(to_text(with_resolution(tiny, 160)))
    bneck.train(str(folder / "larger.yaml"), pictures, epochs=2.0, batch=8, out=folder / "run")
    return folder / "run"


def test_the_resolution_that_keeps_most_before_training_is_trained(
    simulated: SimulatedDevice, start: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    record = search(pictures, "30%", start=str(start), device=simulated.name, out=out, **QUICK)
    lines = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    scores = {one["name"]: one["score"] for one in lines if one["event"] == "standing"}
    own, lower = (score for name, score in scores.items() if "steps" not in name)
    assert record["allocation"]["resolutions"] == {"160": own, "128": lower}
    titles = [one["title"] for one in [record["found"], *record["others"].values()]]
    assert ("by importance at 128 px" in titles) == (lower > own)
    for one in [record["found"], *record["others"].values()]:
        if one["title"] == "by importance at 128 px":
            assert from_text(one["spec"]).resolution == 128
            assert 0.9 < one["measured_ms"] / record["target_ms"] <= 1.0
    assert record["measured_latency_ms"] <= record["target_ms"]
    if record["allocation"]["shipped"] in ("found", "lower"):
        rows, cuts = from_text(record["found"]["spec"]).rows, record["allocation"]["cuts"]
        gone = {int(cut.split()[1]) for cut in cuts if cut.startswith("row ")}
        left = [row for row in range(len(rows) + len(gone)) if row not in gone]
        for cut in cuts:
            if cut.startswith("rows."):
                key, _, width = cut.rpartition(" ")
                _, row, part = key.partition(":")[0].split(".")
                assert getattr(rows[left.index(int(row))], part) == int(width)


def test_a_resolution_that_the_user_gave_is_kept(
    simulated: SimulatedDevice, start: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    record = search(
        pictures, "30%", start=str(start), resolution=160, device=simulated.name, out=out, **QUICK
    )
    assert record["allocation"]["resolutions"] == {}
    assert record["allocation"]["steps"].keys() == {"0", "1", "2"}
