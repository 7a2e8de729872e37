"""A search from trained weights: narrowed by importance, compared with a uniform width, resumed alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import bneck
from bneck.nets.weights import load_weights
from bneck.records.progress import Silent
from bneck.runs.search.main import resume_search, search
from bneck.runs.search.widths.by_importance import far_behind
from bneck.runs.search.widths.lose import upper_bound
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.text import from_text, load, to_text
from bneck.specs.transforms import rename, scale_width, with_expanded
from simulated_device import SimulatedDevice, plugged_in, work_ms
from test_block_search import SPACE

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


def test_weights_of_another_task_to_compare_with_are_refused_at_once(
    start: Path, pictures: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(start, other)
    record = json.loads((start / "run.json").read_text())
    boxes = {"task": "detect", "wrapper": {"extra": []}}
    (other / "run.json").write_text(json.dumps({**record, **boxes}))
    with pytest.raises(InputError, match="a network of the task detect, whose backbone lacks the"):
        search(pictures, start=str(start), also=[str(other)], out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


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


def test_both_forms_of_a_uniform_width_are_trained_and_the_better_one_comes_first(
    found: dict[str, Any],
) -> None:
    """Of nearly equal latency, as the found network."""
    other = found["others"]["uniform-2"]
    assert {found["uniform"]["title"], other["title"]} == {"uniform width", "width multiplier"}
    assert found["uniform"]["digest"] != other["digest"]
    assert found["uniform"]["scores"] >= other["scores"]
    assert found["baseline"]["score"] == found["uniform"]["scores"][0]
    for one in (found["uniform"], other):
        assert 0.9 < one["measured_ms"] / found["target_ms"] <= 1.0
        assert one["width"] < 1
    report = (Path(found["run"]) / "report.md").read_text()
    assert other["title"] in report


def test_the_seed_network_trained_as_long_is_the_yardstick_and_the_teacher(
    found: dict[str, Any],
) -> None:
    settings, seed = found["settings"], found["seed_network"]
    assert settings["recovery"]["epochs"] == 2 * settings["training"]["epochs"] == 2.0
    lines = (Path(found["run"]) / "ledger.jsonl").read_text().splitlines()
    trained = {e["name"]: e["score"] for e in map(json.loads, lines) if e["event"] == "trained"}
    assert seed["narrowed_from"] == trained["seed-0"]
    assert seed["scores"] == [trained["seed-longer"]]
    names = list(trained)
    assert all(
        names.index("seed-longer") < names.index(name)
        for name in names
        if name.startswith(("found", "uniform"))
    )
    narrowed_from = f"narrowed at top-1 {100 * trained['seed-0']:.1f} %"
    assert narrowed_from in (Path(found["run"]) / "report.md").read_text()


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


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


class Killed(BaseException):
    pass


class UntilSeed(Silent):
    """Ends a search at its first training."""

    def stage(self, name: str, total: int) -> None:
        if name.startswith("training"):
            raise Killed


def test_a_seed_narrower_than_the_start_has_its_most_important_channels(
    simulated: SimulatedDevice, start: Path, tiny: NetSpec, pictures: Path, tmp_path: Path
) -> None:
    (narrow := tmp_path / "narrow.yaml").write_text(to_text(with_expanded(tiny, 3, 96)))
    out = tmp_path / "run"
    with pytest.raises(Killed):
        search(
            pictures, "80%", start=str(start), seed_network=str(narrow), device=simulated.name,
            out=out, progress=UntilSeed(), **QUICK,
        )  # fmt: skip
    record = json.loads((out / "run.json").read_text())
    # Ten batches of nine of the 96 images.
    assert record["inherited"] == {
        "start": {"keep": "fisher", "images": 90, "new_head": False, "reconstructed_on": 90}
    }
    assert (out / "scratch" / "start.safetensors").is_file()


class UntilResult(Silent):
    """Ends a search at its last training, as a kill does."""

    def stage(self, name: str, total: int) -> None:
        if name.startswith("training found, uniform"):
            raise Killed


def test_only_ways_that_are_not_far_behind_are_trained_again(
    simulated: SimulatedDevice, start: Path, pictures: Path, tmp_path: Path
) -> None:
    given = {**QUICK, "repeats": 2, "device": simulated.name, "out": tmp_path / "run"}
    record = search(pictures, "60%", start=str(start), **given)
    networks = [record["found"], record["uniform"], *record["others"].values()]
    assert far_behind({"a": 0.8, "b": 0.76, "c": 0.74}) == {"c"}
    firsts = [one["scores"][0] for one in networks]
    assert {one["title"] for one in networks} >= {"by importance", "uniform width"}
    for one in networks:
        near = one["scores"][0] >= max(firsts) - 0.05
        assert len(one["scores"]) == (2 if near or one["title"] == "by importance" else 1)


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
    # What needs no weights is looked at before they are, which may have to be fetched.
    with pytest.raises(InputError, match=r"photos; check the path"):
        search(tmp_path / "photos", start="nowhere")
    with pytest.raises(InputError, match="the target is '50'; write a time"):
        search(pictures, "50", start="nowhere")
    with pytest.raises(
        InputError, match=r"are of .*, which cannot become v2.*leave --seed-network"
    ):
        search(pictures, start=str(start), seed_network="v2", out=tmp_path / "d")
    assert not (tmp_path / "d").exists()
    with pytest.raises(InputError, match=r"--from"):
        search(pictures, seed_network=str(start), out=tmp_path / "c")


def test_a_seed_without_weights_is_trained_first_and_simpler_ways_are_compared(
    simulated: SimulatedDevice, tiny_file: Path, pictures: Path, tmp_path: Path
) -> None:
    record = search(
        pictures, ["80%", "60%"], seed_network=str(tiny_file), resolution=48, device=simulated.name,
        out=tmp_path / "run", **QUICK,
    )  # fmt: skip
    (second,) = record["family"]
    assert (record["target"], second["target"]) == ("80%", "60%")
    for one in (record, second):
        assert 0.9 < one["measured_latency_ms"] / one["target_ms"] <= 1.0
        others = one["others"]
        assert {"resolution", "scratch"} <= {*others, one["allocation"]["shipped"]}
        everyone = [one["found"], one["uniform"], *others.values()]
        assert one["score"] == max(network["scores"][0] for network in everyone)
        file = tmp_path / "run" / one["export"]["file"]
        assert load(file.parent / "spec.yaml") == from_text(one["found"]["spec"])
    assert second["measured_latency_ms"] < record["measured_latency_ms"]
    assert second["export"]["file"] == "found-60percent/model.onnx"
    report = (tmp_path / "run" / "report.md").read_text()
    for one in record["others"].values():
        assert one["title"] in report
    assert "| found-60percent |" in report


def test_the_fastest_network_within_a_loss(
    simulated: SimulatedDevice, start: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    record = search(pictures, start=str(start), lose=90.0, device=simulated.name, out=out, **QUICK)
    assert record["lose"]["met"]
    probes = record["lose"]["probes"]
    fits = [probe["share"] for probe in probes if probe["at_most"] <= 90]
    assert record["target"] == record["lose"]["target"] == f"{100 * min(fits):.4g}%"
    for probe in probes:
        lost = 100 * (record["seed_network"]["scores"][0] - probe["score"])
        assert probe["lost"] == pytest.approx(lost)
        assert probe["at_most"] >= probe["lost"]
    assert "The loss was to be at most 90 points" in (out / "report.md").read_text()


def test_a_bound_follows_from_how_often_answers_differ() -> None:
    assert upper_bound(1.0, 0.01, 10**12) == pytest.approx(1.0, abs=1e-3)
    # 100 of 1,000 answers differ, and as many are better as are worse: sd 0.1 ** 0.5 / 1000 ** 0.5 = 1 point.
    assert upper_bound(0.0, 0.1, 1000) == pytest.approx(1.2816, abs=1e-3)


def test_another_network_is_compared_where_it_is_fast_enough(
    simulated: SimulatedDevice, start: Path, tiny: NetSpec, pictures: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    narrow = tmp_path / "narrow.yaml"
    narrow.write_text(to_text(rename(scale_width(tiny, 0.5), "narrow")))
    bneck.train(str(narrow), pictures, epochs=1.0, batch=8, out=small)
    heard = Heard()
    record = search(
        pictures, "80%", start=str(start), also=[str(small), str(start)], device=simulated.name,
        out=tmp_path / "run", progress=heard, **QUICK,
    )  # fmt: skip
    (other,) = (
        one
        for one in [*record["others"].values(), record["found"]]
        if "narrow from" in one["title"]
    )
    assert other["params"] == bneck.count(small).params
    assert other["measured_ms"] < record["target_ms"]
    assert any("and is not compared" in said for said in heard.said)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3}, "--steps belongs to NetAdapt"),
        ({"retrain": True}, "--retrain trains the result from random weights with --method netadapt"),
        ({"method": "magic"}, "there is no method 'magic'; known are importance, netadapt"),
        ({"target": "50%", "lose": 1.0}, "--lose 1 looks for the fastest network"),
        ({"lose": 0.0}, "lose is 0; it must be points above 0 and below 100"),
        ({"target": ["50%", "50%"]}, "the targets are 50%, 50%; give each target once"),
        ({"target": ["50%", "40%"], "method": "netadapt"}, "a second --target gets a network of its own"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(
    options: dict[str, Any], message: str, pictures: Path, tiny_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        search(pictures, seed_network=str(tiny_file), out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("retrain", [False, True])
def test_netadapt_begins_with_the_start_and_keeps_its_weights_unless_it_trains_anew(
    simulated: SimulatedDevice, start: Path, pictures: Path, tmp_path: Path, retrain: bool
) -> None:
    record = search(
        pictures, "92%", start=str(start), method="netadapt", steps=1, delta=0.08, retrain=retrain, seed=5,
        device=simulated.name, out=tmp_path / "run", **{**QUICK, "epochs": 0.1},
    )  # fmt: skip
    assert record["measured_latency_ms"] <= record["target_ms"]
    assert record["steps"]
    # A tenth of an epoch hardly moves a filter: each one that was kept is next to one of the start's.
    ours, theirs = (
        load_weights(folder / "weights.safetensors")["rows.0.conv.weight"].flatten(1)
        for folder in (tmp_path / "run" / "found", start)
    )
    nearest = torch.cdist(ours, theirs).min(1).values
    assert (nearest.max() < 0.1 * theirs.norm(dim=1).mean()) == (not retrain)


def test_a_device_that_slows_down_at_the_end_gets_a_narrower_network(
    start: Path, pictures: Path, tmp_path: Path
) -> None:
    heard, out = Heard(), tmp_path / "run"
    with plugged_in() as device:
        seed = load(start / "spec.yaml")
        seed_ms, shipped = device.network_ms(seed), out / "found" / "model.onnx"

        def work(model: bytes) -> float:
            # Once a file is shipped, whatever is faster than the seed takes 3 % more.
            ms = work_ms(model)
            return 1.03 * ms if shipped.is_file() and ms < 0.97 * seed_ms else ms

        device.work = work
        record = search(
            pictures, "80%", start=str(start), device=device.name, out=out, progress=heard, **QUICK
        )
    assert any(said.endswith("narrowing further") for said in heard.said)
    assert record["measured_latency_ms"] <= record["target_ms"]


def test_a_disturbed_last_measurement_is_repeated_and_trains_nothing_again(
    start: Path, pictures: Path, tmp_path: Path
) -> None:
    heard, out = Heard(), tmp_path / "run"
    with plugged_in() as device:
        seed_ms, shipped = (
            device.network_ms(load(start / "spec.yaml")),
            out / "found" / "model.onnx",
        )

        def work(model: bytes) -> float:
            # Until it is measured once more, whatever is faster than the seed takes 8 % more at the end.
            ms, repeated = work_ms(model), any("measured once more" in one for one in heard.said)
            return 1.08 * ms if shipped.is_file() and not repeated and ms < 0.97 * seed_ms else ms

        device.work = work
        record = search(
            pictures, "80%", start=str(start), device=device.name, out=out, progress=heard, **QUICK
        )
    assert sum("measured once more, which counts" in said for said in heard.said) == 1
    assert not any(said.endswith("narrowing further") for said in heard.said)
    assert record["measured_latency_ms"] <= record["target_ms"]


def test_blocks_of_a_search_are_narrowed_by_importance_where_that_is_asked(
    simulated: SimulatedDevice, pictures: Path, tiny_file: Path, tmp_path: Path
) -> None:
    space = tmp_path / "toy.yaml"
    space.write_text(SPACE)
    record = search(
        pictures, "40%", from_scratch=True, method="importance", space=str(space), trials=3,
        proxy_epochs=1, top=1, seed_network=str(tiny_file), device=simulated.name,
        out=tmp_path / "run", **QUICK,
    )  # fmt: skip
    assert record["blocks"]["trials"]
    assert record["measured_latency_ms"] <= record["target_ms"]
    assert record["allocation"]["cuts"]
