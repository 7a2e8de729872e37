"""The choice among published networks: a device's table, and which network is taken for some images."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import bneck
from bneck.cli.ending import print_choice
from bneck.devices.deployment import Deployment
from bneck.devices.runtimes import runtime
from bneck.nets.build import build
from bneck.records.files import cache_folder
from bneck.records.progress import Silent
from bneck.records.run import FORMAT, RunFolder
from bneck.runs.choose.known import Known, known_networks
from bneck.runs.choose.table import device_table, draw_front
from bneck.runs.choose.weights import at_hand
from bneck.runs.folder import resumable
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.text import resolve, to_text
from bneck.specs.transforms import rename, scale_width
from commands import Call, refusal
from simulated_device import SimulatedDevice, plugged_in
from test_search_killed import finish, start

QUICK: dict[str, Any] = {"epochs": 1.0, "repeats": 1, "workers": 1}


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.stages: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def stage(self, name: str, total: int) -> None:
        self.stages.append(name)


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Imports of other tests are weights at hand too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def device() -> Iterator[SimulatedDevice]:
    with plugged_in() as device:
        yield device


@pytest.fixture(autouse=True)
def no_imports() -> Iterator[None]:
    """What a test imports into the cache is at hand for no other."""
    yield
    shutil.rmtree(cache_folder("imports"), ignore_errors=True)


class TestKnown:
    def test_every_published_network_once_at_each_of_its_resolutions(self) -> None:
        found = {(one.network, one.resolution): one for one in known_networks()}
        assert len(found) == len(known_networks()) == 43
        small = found["v4-conv-small", 224]
        assert (small.top1, small.source, small.license) == (73.8, "timm", "apache-2.0")
        assert small.command == "bneck import timm/mobilenetv4_conv_small.e2400_r224_in1k"
        assert found["lcnet-0.25", 224].top1 == 51.86
        assert found["lcnet-0.25", 224].command is None

    def test_a_resolution_of_the_papers_table_has_its_score_and_the_weights_of_the_network(
        self,
    ) -> None:
        at_192 = next(
            one for one in known_networks() if (one.network, one.resolution) == ("v3-large", 192)
        )
        assert (at_192.top1, at_192.source) == (73.7, "Table 9")
        assert at_192.weights == "timm/mobilenetv3_large_100.miil_in21k_ft_in1k"

    def test_another_resolution_has_no_score(self) -> None:
        other = Known(network="v3-small", top1=67.5, source="x", weights="timm/y").at(128)
        assert (other.top1, other.source, other.weights) == (None, None, "timm/y")
        assert other.spec.resolution == 128


class TestTable:
    KNOWN = (
        Known(network="v3-small", top1=67.7, source="timm", weights="timm/s", license="mit"),
        Known(network="v3-small-0.5", top1=57.9, source="timm"),
        Known(network="v3-large-0.35", top1=50.0, source="paper"),
        Known(network="lcnet-0.25", top1=51.9, source="PP-LCNet"),
    )

    def ms(self, device: SimulatedDevice, network: str, side: int) -> float:
        return device.network_ms(resolve(f"{network}@{side}"))

    def test_the_fastest_come_first_and_near_the_target_other_resolutions_too(
        self, device: SimulatedDevice
    ) -> None:
        limit_ms = 10.0
        at_224 = {one.network: self.ms(device, one.network, 224) for one in self.KNOWN}
        sides = [96, 128, 160, 192, 224, 256]
        expected = {(name, 224) for name in at_224} | {
            (name, side)
            for name, ms in at_224.items()
            for side in sides
            if 4.0 <= ms * side**2 / 224**2 <= 12.0
        }
        assert 4 < len(expected) < 20
        on = Deployment.of(device.name)
        found = device_table(self.KNOWN, on, limit_ms, Silent())
        rows = found["networks"]
        assert {(row["network"], row["resolution"]) for row in rows} == expected
        times = [row["latency_ms"] for row in rows]
        assert times == sorted(times)
        for row in rows:
            ms = self.ms(device, row["network"], row["resolution"])
            assert row["latency_ms"] == pytest.approx(ms)
            assert row["within"] == (ms <= limit_ms)
            assert (row["top1"] is not None) == (row["resolution"] == 224)
            assert row["command"] == (
                "bneck import timm/s" if row["network"] == "v3-small" else None
            )

    def test_what_was_measured_is_remembered_until_it_is_asked_for_again(
        self, device: SimulatedDevice
    ) -> None:
        on, heard = Deployment.of(device.name), Heard()
        first = device_table(self.KNOWN, on, None, heard)
        bursts = device.bursts
        assert device_table(self.KNOWN, on, None, heard) == first
        assert device.bursts == bursts
        heard.stages.clear()
        device_table(self.KNOWN, on, None, heard, again=True)
        assert heard.stages == ["measuring networks"]
        assert device.bursts > bursts

    def test_latencies_of_a_slower_hour_are_those_of_the_first(self) -> None:
        """The second is measured where the device runs at half its speed."""
        speed = [1.0]
        with plugged_in(slowdown=lambda seconds: speed[0]) as device:
            on = Deployment.of(device.name)
            device_table(self.KNOWN[:1], on, None, Silent())
            speed[0] = 2.0
            rows = device_table(self.KNOWN[1:2], on, None, Silent())["networks"]
            assert rows[0]["latency_ms"] == pytest.approx(self.ms(device, "v3-small-0.5", 224))

    def test_the_front_is_drawn(self, device: SimulatedDevice, tmp_path: Path) -> None:
        found = device_table(self.KNOWN, Deployment.of(device.name), None, Silent())
        draw_front(found, tmp_path / "front.svg")
        drawn = (tmp_path / "front.svg").read_text()
        for one in self.KNOWN:
            assert f"<title>{one.network}@224: " in drawn
        # Large at 0.35 is slower than Small at 0.5 and less accurate here: it is none of the front.
        assert drawn.index("v3-small@224") < drawn.index("v3-large-0.35@224")


@pytest.fixture(scope="module")
def runs(
    tiny: NetSpec, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, NetSpec]]:
    """Trained networks of three widths, by name: the folder and the network."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    for name, width in (("slim", 0.5), ("tiny", 1.0), ("wide", 4.0)):
        spec = rename(scale_width(tiny, width), name)
        file, run = root / f"{name}.yaml", root / name
        file.write_text(to_text(spec))
        bneck.train(str(file), pictures, epochs=1.0, batch=8, out=run)
        found[name] = (str(run), spec)
    return found


def choose(device: SimulatedDevice, pictures: Path, out: Path, target: str, **more: Any) -> Any:
    return bneck.choose(
        pictures, target, device=device.name, resolution=32, out=out, **QUICK, **more
    )


def test_a_search_begins_with_the_best_above_the_target_next_to_what_fits(
    device: SimulatedDevice,
    runs: Any,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = {name: device.network_ms(spec) for name, (_, spec) in runs.items()}
    target_ms = 0.8 * times["tiny"]
    assert times["slim"] < target_ms
    assert times["wide"] > 2 * target_ms
    heard, out = Heard(), tmp_path / "run"
    start = [run for run, _ in runs.values()]
    found = choose(device, pictures, out, f"{1000 * target_ms:.3f}us", start=start, progress=heard)
    assert found == {"run": str(out), **json.loads((out / "run.json").read_text())}
    measured = {one["network"]: one["measured_ms"] for one in found["measured"]}
    assert measured == pytest.approx(times)
    assert [one["network"] for one in found["too_slow"]] == ["wide"]
    scored = {one["network"]: one["score"] for one in found["scored"]}
    assert set(scored) == {"slim", "tiny"}
    assert list(scored.values()) == sorted(scored.values(), reverse=True)
    probes = [json.loads(p.read_text()) for p in sorted(out.glob("probes/*/run.json"))]
    assert {p["name"]: p["scores"]["val"]["score"] for p in probes} == scored
    assert all(p["training"]["frozen"] and p["training"]["epochs"] == 1.0 for p in probes)
    assert [one["network"] for one in found["chosen"]] == ["tiny", "slim"]
    searched = json.loads((out / "search-0" / "run.json").read_text())
    assert searched["settings"]["start"] == runs["tiny"][0]
    assert searched["settings"]["also"] == [runs["slim"][0]]
    assert searched["others"] or searched["allocation"]["shipped"] == "also-1"
    assert found["shipped"] == str(out / "search-0")
    (final,) = found["finals"]
    assert (final["network"], final["run"], final["final_score"]) == (
        "tiny",
        "search-0",
        found["score"],
    )
    assert (final["latency_ms"], final["meets_target"]) == (searched["measured_latency_ms"], True)
    assert found["score"] == searched["score"] >= searched["uniform"]["scores"][0]
    assert "too slow even at half the latency: wide" in "\n".join(heard.said)
    assert not (out / "scratch").exists()
    capsys.readouterr()
    print_choice(found)
    assert f"files: {out / 'search-0' / 'report.html'}, " in capsys.readouterr().out


def test_where_all_fit_the_best_two_are_trained_as_long_as_a_search_would(
    device: SimulatedDevice, runs: Any, pictures: Path, tmp_path: Path
) -> None:
    heard, out = Heard(), tmp_path / "run"
    start = [runs[name][0] for name in ("slim", "tiny")]
    found = choose(device, pictures, out, "2ms", start=start, progress=heard)
    trained = {one["network"]: one["final_score"] for one in found["finals"]}
    assert set(trained) == {"slim", "tiny"}
    assert found["score"] == max(trained.values())
    best = json.loads((Path(found["shipped"]) / "run.json").read_text())
    assert best["scores"]["val"]["score"] == found["score"]
    assert best["training"]["epochs"] == 3.0
    lacking = {one["network"]: one["measured_ms"] for one in found["without_weights"]}
    assert lacking
    assert max(lacking.values()) <= 4.0
    known = {one.network: one for one in known_networks() if one.weights and one.resolution == 224}
    best_known = max((known[name] for name in lacking), key=lambda one: one.top1 or 0.0)
    said = (
        f"those of {best_known.network}, the best of them, are fetched with: {best_known.command}"
    )
    assert said in "\n".join(heard.said)


@pytest.fixture(scope="module")
def stubborn(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, NetSpec]:
    """A trained network of 12 blocks of 8 channels, none of which can be left out: nothing narrows it."""
    root = tmp_path_factory.mktemp("stubborn")
    blocks = [Bneck(3, 8, 8, 0, "relu", 1, skip="no") for _ in range(12)]
    rows = (
        Conv(3, 8, "relu", 2),
        *blocks,
        Conv(1, 8, "relu"),
        Pool(),
        Conv(1, 8, "relu", bn=False),
    )
    spec = NetSpec(name="stubborn", resolution=32, classes=3, rows=rows)
    (root / "stubborn.yaml").write_text(to_text(spec))
    bneck.train(str(root / "stubborn.yaml"), pictures, epochs=1.0, batch=8, out=root / "run")
    return str(root / "run"), spec


def test_a_network_that_cannot_be_narrowed_leaves_the_choice_to_the_others(
    device: SimulatedDevice, runs: Any, stubborn: Any, pictures: Path, tmp_path: Path
) -> None:
    """The search from it is refused, and what it would have been compared with is trained alone."""
    ms = device.network_ms(stubborn[1])
    slim_ms = device.network_ms(runs["slim"][1])
    assert slim_ms < ms / 1.1
    heard, out = Heard(), tmp_path / "run"
    found = choose(
        device, pictures, out, f"{1000 * ms / 1.1:.3f}us", start=[runs["slim"][0], stubborn[0]],
        progress=heard,
    )  # fmt: skip
    assert [one["network"] for one in found["chosen"]] == ["stubborn", "slim"]
    assert list(found["refused"]) == ["search-0"]
    assert "cannot be reached from stubborn" in found["refused"]["search-0"]
    assert f"left out: stubborn ({stubborn[0]}): {found['refused']['search-0']}" in heard.said
    assert [(one["network"], one["run"]) for one in found["finals"]] == [("slim", "trained-0")]
    assert found["shipped"] == str(out / "trained-0")

    alone = tmp_path / "alone"
    with pytest.raises(InputError, match="cannot be reached from stubborn"):
        choose(device, pictures, alone, f"{1000 * ms / 1.1:.3f}us", start=[stubborn[0]])


def test_what_fits_ships_in_8_bits_by_calibration_or_fine_tuning(
    call: Call, device: SimulatedDevice, runs: Any, pictures: Path, tmp_path: Path
) -> None:
    """The better of both, as a search ships it, in a file that says what it is."""
    pytest.importorskip("ai_edge_litert")
    out = tmp_path / "run"
    answer = call(
        "choose", "--data", pictures, "--target", "50ms", "--device", device.name, "--resolution", 32,
        "--runtime", "litert", "--precision", "int8", "--from", runs["slim"][0], "--from",
        runs["tiny"][0], "--epochs", 1, "--out", out,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    found = json.loads((out / "run.json").read_text())
    made, best = found["export"], Path(found["shipped"])
    assert Path(made["file"]) == best / "model-int8.tflite"
    assert made["score"] == max(made["ptq"], made["qat"])
    session = runtime("litert").load((best / "model-int8.tflite").read_bytes(), threads=1)
    assert session.metadata["precision"] == "int8"
    assert max(one["final_score"] for one in found["finals"]) == found["score"]
    assert f"; the file is int8, top-1 {made['score']:.1%}\n" in answer.out
    assert f"files: {best / 'report.md'}, {best / 'model-int8.tflite'}\n" in answer.out


def test_what_an_import_found_is_said_once(
    device: SimulatedDevice, pictures: Path, tmp_path: Path
) -> None:
    """By a choice, whose trainings begin with the same file, and by a training alone."""
    net = build(resolve("v3-small-0.35"))
    file = tmp_path / "wrapped.pt"
    torch.save({f"module.{name}": tensor for name, tensor in net.state_dict().items()}, file)
    heard = Heard()
    found = choose(device, pictures, tmp_path / "run", "5ms", start=[str(file)], progress=heard)
    assert [one["run"] for one in found["finals"]] == ["trained-0"]
    assert [said for said in heard.said if "the prefix module. was taken off" in said] == [
        f"{file.name}: the prefix module. was taken off the names"
    ]
    heard = Heard()
    bneck.train(
        None, pictures, start=str(file), epochs=1.0, resolution=32, out=tmp_path / "train",
        progress=heard,
    )  # fmt: skip
    assert len([said for said in heard.said if "the prefix module." in said]) == 1


@pytest.mark.slow
def test_killed_twice_it_chooses_as_if_unbroken(runs: Any, pictures: Path, tmp_path: Path) -> None:
    """Between its short trainings, then in the second of its two searches; nothing fits as it is."""
    starts = [word for name in ("slim", "tiny") for word in ("--from", runs[name][0])]
    target = f"{1000 * SimulatedDevice().network_ms(runs['slim'][1]) / 1.1:.3f}us"
    given = [
        "choose", "--device", "simulated:killed", "--data", str(pictures), "--target", target,
        "--resolution", "32", *starts, "--epochs", "1", "--repeats", "1", "--workers", "1", "--out",
    ]  # fmt: skip
    finish(start(*given, "whole", folder=tmp_path))
    again = [*given, "broken"]
    for moment in ("probes/01-*/run.json", "search-1/ledger.jsonl"):
        process = start(*again, folder=tmp_path)
        while not list((tmp_path / "broken").glob(moment)) and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.wait()
        again = ["choose", "--resume", "broken"]
    finish(start(*again, folder=tmp_path))
    whole, broken = (RunFolder(tmp_path / name).read() for name in ("whole", "broken"))
    assert [one["run"] for one in whole["finals"]] == ["search-0", "search-1"]
    assert whole["score"] == max(one["final_score"] for one in whole["finals"])
    for key in ("measured", "scored", "chosen", "finals", "found", "score"):
        assert broken[key] == whole[key], key
    assert Path(broken["shipped"]).name == Path(whole["shipped"]).name
    for name in ("search-0", "search-1"):
        weights = [
            (tmp_path / run / name / "found/weights.safetensors").read_bytes()
            for run in ("whole", "broken")
        ]
        assert weights[0] == weights[1]
    assert not (tmp_path / "broken/scratch").exists()
    assert bneck.resume(tmp_path / "broken") == {"run": str(tmp_path / "broken"), **broken}


def test_ctrl_c_names_the_choice_and_not_the_search_inside_it(tmp_path: Path) -> None:
    inner = tmp_path / "search-0"
    inner.mkdir()
    for folder, kind in ((tmp_path, "choose"), (inner, "search")):
        (folder / "run.json").write_text(json.dumps({"format": FORMAT, "kind": kind}))
    with pytest.raises(KeyboardInterrupt) as caught, resumable(tmp_path), resumable(inner):
        raise KeyboardInterrupt
    assert caught.value.__notes__ == [f"resume it with: bneck choose --resume {tmp_path}"]


def test_imports_in_the_cache_are_at_hand_and_damaged_ones_are_left_out(
    device: SimulatedDevice, runs: Any, pictures: Path, tmp_path: Path
) -> None:
    """A given file is imported into the cache, where the next choice finds it."""
    file = Path(runs["slim"][0]) / "weights.safetensors"
    imported = cache_folder("imports") / "mine"
    bneck.import_weights(file, str(runs["slim"][0]), out=imported)
    torn = cache_folder("imports") / "torn"
    shutil.copytree(imported, torn)
    (torn / "weights.safetensors").write_bytes(b"")
    heard = Heard()
    try:
        assert [one.text for one in at_hand([], Silent())] == [str(imported), str(torn)]
        found = choose(device, pictures, tmp_path / "run", "2ms", progress=heard)
    finally:
        shutil.rmtree(imported)
        shutil.rmtree(torn)
    assert [one["weights"] for one in found["chosen"]] == [str(imported)]
    assert [one["origin"] for one in found["measured"]] == ["weights.safetensors"] * 2
    assert "left out: slim (weights.safetensors): " in "\n".join(heard.said)


def test_a_network_hardly_above_the_target_is_not_trained_as_if_it_met_it(
    device: SimulatedDevice, runs: Any, pictures: Path, tmp_path: Path
) -> None:
    target_ms = device.network_ms(runs["tiny"][1]) / 1.03
    start = [runs[name][0] for name in ("slim", "tiny")]
    found = choose(device, pictures, tmp_path / "run", f"{1000 * target_ms:.3f}us", start=start)
    assert [one["network"] for one in found["chosen"]] == ["slim"]
    assert found["measured_latency_ms"] <= target_ms


def test_a_target_that_nothing_reaches_names_the_fastest(
    device: SimulatedDevice, runs: Any, pictures: Path, tmp_path: Path
) -> None:
    slim_ms = device.network_ms(runs["slim"][1])
    with pytest.raises(InputError) as caught:
        choose(device, pictures, tmp_path / "run", "1us", start=[runs["slim"][0], runs["wide"][0]])
    said = str(caught.value)
    assert (
        f"reaches 0.001 ms: the fastest, slim ({runs['slim'][0]}), runs in {slim_ms:.3f} ms" in said
    )
    assert f"above {slim_ms / 2:.3f} ms" in said
    assert not (tmp_path / "run").exists()


def test_the_command_prints_the_ranking_and_what_ships(
    call: Call, device: SimulatedDevice, runs: Any, pictures: Path, tmp_path: Path
) -> None:
    ms, out = device.network_ms(runs["slim"][1]), tmp_path / "run"
    answer = call(
        "choose", "--data", pictures, "--target", "2ms", "--device", device.name, "--resolution", 32,
        "--from", runs["slim"][0], "--epochs", 1, "--out", out,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "top-1, frozen epoch" in answer.out
    assert f"slim: {ms:.3f} ms, within the target of 2.000 ms without a search" in answer.out
    assert (
        f"{out / 'trained-0' / 'model.onnx'}\nnext:  bneck ship {out / 'trained-0'}\n" in answer.out
    )


def test_the_command_prints_the_device_s_table(call: Call, device: SimulatedDevice) -> None:
    """All published networks, at the resolutions that they are published at."""
    answer = call("choose", "--device", device.name)
    assert answer.code == 0, answer.err
    lines = [line for line in answer.out.splitlines() if " ms" not in line]
    for one in known_networks():
        (line,) = [
            words for w in lines if (words := w.split())[:2] == [one.network, str(one.resolution)]
        ]
        assert (one.weights in line) == (one.weights is not None)


class TestRefused:
    def test_without_weights(self, call: Call, device: SimulatedDevice, pictures: Path) -> None:
        answer = call("choose", "--data", pictures, "--target", "2ms", "--device", device.name)
        assert "with: bneck import timm/mobilenetv3_small_100.lamb_in1k" in refusal(answer)

    def test_without_a_target(self, call: Call, pictures: Path) -> None:
        assert refusal(call("choose", "--data", pictures)).endswith("add one, as --target 5ms")

    def test_a_share_as_a_target(self, call: Call) -> None:
        assert refusal(call("choose", "--target", "70%")).endswith("with its unit, as 5ms")

    @pytest.mark.parametrize("task", ["detect", "segment"])
    def test_another_task(self, call: Call, task: str) -> None:
        said = refusal(call("choose", "--task", task, "--target", "5ms"))
        assert said.startswith(f"bneck choose --task {task}: one epoch behind a frozen backbone")

    def test_options_that_would_do_nothing(
        self, call: Call, pictures: Path, tmp_path: Path
    ) -> None:
        said = refusal(call("choose", "--from", "x", "--epochs", 2))
        assert said.startswith("--from, --epochs goes with --data")
        plot = tmp_path / "front.svg"
        said = refusal(call("choose", "--data", pictures, "--target", "5ms", "--plot", plot))
        assert said.startswith("--plot draws published accuracy")

    def test_a_plot_that_is_no_svg(self, call: Call, tmp_path: Path) -> None:
        said = refusal(call("choose", "--plot", tmp_path / "front.png"))
        assert said.endswith("front.png; name a file that ends in .svg")
