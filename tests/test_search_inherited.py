"""A search from trained weights: narrowed by importance, compared with a uniform width, resumed alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bneck
from bneck.records.progress import Silent
from bneck.runs.search.main import resume_search, search
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.text import from_text, load
from simulated_device import SimulatedDevice

QUICK: dict[str, Any] = {"epochs": 1.0, "repeats": 1, "workers": 1}


@pytest.fixture(scope="module")
def start(tiny_file: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("start") / "run"
    bneck.train(str(tiny_file), pictures, epochs=2.0, batch=8, out=run)
    return run


@pytest.fixture(scope="module")
def found(
    simulated: SimulatedDevice,
    start: Path,
    pictures: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("search") / "run"
    return search(pictures, "80%", start=str(start), device=simulated.name, out=out, **QUICK)


def test_it_narrows_the_start_and_meets_the_target(
    found: dict[str, Any], start: Path, tiny: NetSpec
) -> None:
    assert found["settings"]["start"] == str(start)
    seed, narrow = load(start / "spec.yaml"), from_text(found["found"]["spec"])
    assert found["seed_network"]["params"] == bneck.count(seed).params
    assert bneck.count(narrow).params < bneck.count(seed).params
    assert 0.9 < found["measured_latency_ms"] / found["target_ms"] <= 1.0
    assert found["allocation"]["cuts"]
    assert found["allocation"]["shipped"] in ("found", "uniform")
    assert found["uniform"]["width"] < 1


@pytest.mark.parametrize("target", ["1us", "1%"])
def test_a_target_below_the_fastest_version_is_refused_before_any_training(
    simulated: SimulatedDevice, start: Path, pictures: Path, tmp_path: Path, target: str
) -> None:
    """Which is 8 channels everywhere, without the row that adds its input."""
    given = {**QUICK, "start": str(start), "device": simulated.name, "out": tmp_path / "run"}
    with pytest.raises(InputError) as caught:
        search(pictures, target, **given)
    rows = (
        Conv(3, 8, "hswish", 2),
        Bneck(3, 8, 8, 8, "relu", 2),
        Bneck(3, 16, 8, 0, "relu", 2),  # with 8 expanded it would have no expand convolution
        Conv(1, 8, "hswish"),
        Pool(),
        Conv(1, 8, "hswish", bn=False),
    )
    ms = simulated.network_ms(NetSpec(name="least", resolution=32, classes=3, rows=rows))
    assert f"its fastest version runs in {ms:.3f} ms; choose a target above" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_better_one_ships(found: dict[str, Any]) -> None:
    run = Path(found["run"])
    assert found["score"] >= found["baseline"]["score"]
    assert load(run / "found" / "spec.yaml") == from_text(found["found"]["spec"])
    assert (run / "found" / "model.onnx").is_file()
    report = (run / "report.md").read_text()
    assert "Widths by importance per millisecond" in report
    assert all(cut.replace(">", "&gt;") in report for cut in found["allocation"]["cuts"])


def test_imported_weights_keep_their_input_and_their_origin(
    simulated: SimulatedDevice, start: Path, tiny_file: Path, pictures: Path, tmp_path: Path
) -> None:
    imported, out = tmp_path / "imported", tmp_path / "run"
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    bneck.import_weights(
        start / "weights.safetensors", str(tiny_file), out=imported, mean=mean, std=std
    )
    record = search(pictures, "80%", start=str(imported), device=simulated.name, out=out, **QUICK)
    held = json.loads((out / "found" / "run.json").read_text())
    assert record["normalisation"] == held["normalisation"] == {"mean": mean, "std": std}
    assert record["source"]["sha256"] == held["source"]["sha256"]
    assert held["options"]["start"] == str(imported)
    # The file was scored in training as it is by itself: with one and the same input.
    scored = bneck.evaluate(out / "found")
    assert scored["score"] == record["found"]["scores"][0]


class Killed(BaseException):
    pass


class UntilResult(Silent):
    """Ends a search at its last training, as a kill does."""

    def stage(self, name: str, total: int) -> None:
        if name == "training 2 networks, percent":
            raise Killed


def test_a_killed_search_ends_in_the_same_network(
    simulated: SimulatedDevice, found: dict[str, Any], start: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        search(
            pictures, "80%", start=str(start), device=simulated.name, out=out, progress=UntilResult(),
            **QUICK,
        )  # fmt: skip
    again = resume_search(out)
    assert again["found"]["digest"] == found["found"]["digest"]
    assert again["found"]["scores"] == found["found"]["scores"]


def test_refusals(start: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--from-scratch searches for blocks"):
        search(pictures, start=str(start), from_scratch=True, out=tmp_path / "a")
    with pytest.raises(InputError, match="has no trained weights"):
        search(pictures, start=str(tmp_path), out=tmp_path / "b")
    with pytest.raises(
        InputError, match=r"are of .*, which cannot become v2.*leave --seed-network"
    ):
        search(pictures, start=str(start), seed_network="v2", out=tmp_path / "d")
    assert not (tmp_path / "d").exists()
    with pytest.raises(InputError, match=r"--from"):
        search(pictures, seed_network=str(start), out=tmp_path / "c")
