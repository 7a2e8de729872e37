"""Published weights by name: fetched from a hub on loopback, then taken from the cache."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from bneck import build
from bneck.imports.hub import HubName, hub_name
from bneck.imports.published import KNOWN, network_of
from bneck.specs.errors import InputError
from bneck.specs.zoo import network
from commands import Answer
from foreign_nets import Timm, trained
from forked import Forked, bneck
from hub_server import commit_of, served

SMALL, FLAT, PICKLE, OTHER = "timm/mobilenetv3_small_050.x", "org/flat", "org/pickle", "org/vit"
STAGES = [1, 2, 3, 2, 3, 1]
PREPROCESSING = {
    "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.8, "interpolation": "bicubic",
    "license": "apache-2.0",
}  # fmt: skip
Hub = Callable[..., Answer]


@pytest.fixture(scope="module")
def weights() -> bytes:
    net = trained(Timm(network("v3-small-0.5"), 1000, STAGES, port=False))
    return save({name: value.contiguous() for name, value in net.state_dict().items()})


@pytest.fixture(scope="module")
def address(weights: bytes) -> Iterator[tuple[str, list[str]]]:
    named = {"architecture": "mobilenetv3_small_050", "pretrained_cfg": PREPROCESSING}
    flat = {"architecture": "mobilenetv3_small_050", **PREPROCESSING}
    repositories = {
        SMALL: {"config.json": json.dumps(named).encode(), "model.safetensors": weights},
        FLAT: {"config.json": json.dumps(flat).encode(), "model.safetensors": weights},
        PICKLE: {"config.json": b"{}", "pytorch_model.bin": b"\x80"},
        OTHER: {"config.json": b'{"architecture": "vit_tiny"}'},
    }
    with served(repositories) as (where, asked):
        yield where, asked


@pytest.fixture
def hub(address: tuple[str, list[str]], tmp_path: Path) -> Hub:
    """Runs bneck in a process of its own, since huggingface_hub reads its environment when imported."""

    def run(*words: str, **more: str) -> Answer:
        env = {**os.environ, "HF_ENDPOINT": address[0], "HF_HOME": str(tmp_path / "hf"), **more}
        return Answer(*Forked(bneck, *words, folder=tmp_path, environment=env).wait())

    return run


def record(answer: Answer) -> dict[str, Any]:
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert isinstance(found, dict)
    return found


def sentence(answer: Answer) -> str:
    assert answer.code == 2
    assert answer.err.count("\n") == 1, answer.err
    return answer.err


def choose_twice() -> None:
    """What is at hand for a choice, before and after the first network was taken."""
    from bneck.records.progress import Silent
    from bneck.runs.choose.weights import at_hand
    from bneck.runs.start import find_start

    (one,) = at_hand([], Silent())
    print(one.spec.name, one.text, one.origin)
    folder = find_start(one.text).folder
    (one,) = at_hand([], Silent())
    print(one.text == str(folder), one.origin)


@pytest.mark.parametrize("name", [SMALL, f"hf:{FLAT}"])
def test_a_name_becomes_a_network_with_its_origin_in_the_record(hub: Hub, name: str) -> None:
    found = record(hub("import", name, "--out", "run", "--json"))
    repository = name.removeprefix("hf:")
    assert found["name"] == "v3-small-0.5"
    assert found["source"]["repository"] == repository
    assert found["source"]["commit"] == commit_of(repository)
    assert found["source"]["license"] == "apache-2.0"
    assert found["normalisation"] == {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    assert found["preprocessing"] == {"crop": 0.8, "interpolation": "bicubic"}


def test_only_what_was_named_is_fetched_and_the_cache_serves_offline(
    hub: Hub, address: tuple[str, list[str]]
) -> None:
    address[1].clear()
    record(hub("import", SMALL, "--out", "first", "--json"))
    assert {line.split()[1].rpartition("/")[2] for line in address[1]} == {
        "config.json", "model.safetensors",
    }  # fmt: skip
    address[1].clear()
    again = record(hub("import", SMALL, "--out", "second", "--json", HF_HUB_OFFLINE="1"))
    assert again["source"]["commit"] == commit_of(SMALL)
    assert address[1] == []


def test_a_choice_finds_what_the_cache_has_without_a_connection(
    address: tuple[str, list[str]], tmp_path: Path, weights: bytes
) -> None:
    """Also the import of it is made from the cache, and is not found twice then."""
    known, commit = "timm/mobilenetv3_small_050.lamb_in1k", "0123456789" * 4
    root = tmp_path / "hf/hub/models--timm--mobilenetv3_small_050.lamb_in1k"
    (root / "snapshots" / commit).mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs/main").write_text(commit)
    config = {"architecture": "mobilenetv3_small_050", "pretrained_cfg": PREPROCESSING}
    (root / "snapshots" / commit / "config.json").write_text(json.dumps(config))
    (root / "snapshots" / commit / "model.safetensors").write_bytes(weights)
    env = {
        **os.environ, "HF_ENDPOINT": address[0], "HF_HOME": str(tmp_path / "hf"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }  # fmt: skip
    address[1].clear()
    code, out, err = Forked(choose_twice, folder=tmp_path, environment=env).wait()
    assert code == 0, err
    assert out.splitlines() == [
        f"v3-small-0.5 {known}@{commit} {known}", f"True {known}",
    ]  # fmt: skip
    assert address[1] == []


def test_a_cache_laid_out_by_hand_serves_too(hub: Hub, tmp_path: Path, weights: bytes) -> None:
    commit = "0123456789" * 4
    root = tmp_path / "hf/hub/models--timm--mobilenetv3_small_050.y"
    folder = root / "snapshots" / commit
    folder.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs/main").write_text(commit)
    config = {"architecture": "mobilenetv3_small_050", "pretrained_cfg": PREPROCESSING}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(weights)
    name = "timm/mobilenetv3_small_050.y"
    found = record(hub("import", name, "--out", "run", "--json", HF_HUB_OFFLINE="1"))
    assert found["source"]["commit"] == commit


def test_a_damaged_file_of_the_cache_is_named(hub: Hub, tmp_path: Path) -> None:
    record(hub("import", SMALL, "--out", "first", "--json"))
    (file,) = (tmp_path / "hf/hub").rglob("model.safetensors")
    content = bytearray(file.resolve().read_bytes())
    content[-1] ^= 255
    file.resolve().write_bytes(content)
    said = sentence(hub("import", SMALL, "--out", "second", HF_HUB_OFFLINE="1"))
    assert str(file) in said
    assert "damaged" in said


@pytest.mark.parametrize(
    ("name", "env", "words"),
    [
        ("timm/no_such.thing", {}, ["no public repository timm/no_such.thing", "import --list"]),
        (f"{SMALL}@v9", {}, ["has no revision v9"]),
        (f"hf:{PICKLE}", {}, ["has no model.safetensors", "pickle"]),
        (f"hf:{OTHER}", {}, ["vit_tiny", "import --list"]),
        (SMALL, {"HF_HUB_OFFLINE": "1"}, ["not in the cache", "HF_HUB_OFFLINE", "config.json"]),
        pytest.param(
            SMALL,
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            ["not in the cache", "cannot be reached"],
            marks=pytest.mark.slow,  # the hub's library tries six times
        ),
    ],
)
def test_refusals(hub: Hub, name: str, env: dict[str, str], words: list[str]) -> None:
    said = sentence(hub("import", name, **env))
    assert all(word in said for word in words), said


def test_a_start_by_name_trains_and_is_pinned_to_its_commit(hub: Hub, pictures: Path) -> None:
    found = record(
        hub("train", "--from", SMALL, "--data", str(pictures), "--resolution", "32", "--epochs", "1",
            "--batch", "8", "--out", "run", "--json")
    )  # fmt: skip
    assert found["name"].startswith("v3-small-0.5")
    assert found["options"]["start"] == f"{SMALL}@{commit_of(SMALL)}"
    assert found["source"]["sha256"]
    assert found["source"]["license"] == "apache-2.0"


def test_names() -> None:
    assert hub_name("timm/a_b.c") == HubName("timm/a_b.c")
    assert hub_name("hf:org/a-b@v1.0") == HubName("org/a-b", "v1.0")
    assert hub_name("runs/mine") is None
    with pytest.raises(InputError, match="write hf:ORG/REPO"):
        hub_name("hf:org")


def test_a_folder_of_that_name_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timm/mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_name("timm/mine") is None


@pytest.mark.parametrize("one", KNOWN, ids=lambda one: one.name)
def test_the_network_of_each_known_name_is_that_of_its_architecture(one: Any) -> None:
    assert network(one.network).classes == 1000
    if one.name.startswith("timm/"):
        architecture = one.name.removeprefix("timm/").partition(".")[0]
        assert network_of(architecture, one.name) == one.network


def test_published_sizes_are_those_of_timms_table() -> None:
    # param_count of timm's results table, in millions
    sizes = {
        "v3_small_050": 1.59,
        "v4_conv_small.": 3.77,
        "v4_conv_medium": 9.72,
        "lcnet_100": 2.95,
        "efficientnet_lite0": 4.65,
        "small_075.": 2.04,
        "v2_140": 6.11,
        "semnasnet": 3.89,
        "mnasnet_small": 2.03,
    }
    for part, millions in sizes.items():
        found = [one.as_json()["params"] for one in KNOWN if part in one.name]
        assert found
        assert all(abs(params / 1e6 - millions) < 0.006 for params in found)


def test_the_weights_are_those_of_the_file(hub: Hub, tmp_path: Path) -> None:
    record(hub("import", SMALL, "--out", "run", "--json"))
    theirs = trained(Timm(network("v3-small-0.5"), 1000, STAGES, port=False))
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted, got = theirs.eval()(images), build(tmp_path / "run")(images)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
