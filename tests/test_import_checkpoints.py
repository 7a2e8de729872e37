"""Checkpoints as training scripts leave them: wrapped, with prefixes, averaged, under names of their own."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import bneck
from bneck.specs.network import NetSpec
from bneck.specs.zoo import network
from commands import Call
from foreign_nets import Timm, Torchvision, trained

State = dict[str, Tensor]


@pytest.fixture
def state(tiny: NetSpec) -> State:
    return trained(Torchvision(tiny, 3)).state_dict()


@pytest.fixture
def other(tiny: NetSpec) -> State:
    """The same network with other weights."""
    return trained(Torchvision(tiny, 3), seed=1).state_dict()


def taken(held: Any, spec: Path, folder: Path, **options: Any) -> tuple[Tensor, list[str]]:
    """The stem's weight after an import, and the notes."""
    torch.save(held, folder / "w.pth")
    record = bneck.import_weights(folder / "w.pth", spec, out=folder / "run", **options)
    stem = bneck.build(folder / "run").get_parameter("rows.0.conv.weight").detach()
    return stem, record["notes"]


STEM = "features.0.0.weight"


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "backbone.", "net.encoder.", "x.y.z."]
)
def test_a_prefix_of_all_names_is_taken_off_and_reported(
    state: State, tiny_file: Path, tmp_path: Path, prefix: str
) -> None:
    held = {prefix + name: value for name, value in state.items()}
    stem, notes = taken(held, tiny_file, tmp_path)
    assert torch.equal(stem, state[STEM])
    said = prefix.replace("_orig_mod.", "")
    assert notes == ([f"the prefix {said} was taken off the names"] if said else [])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2, 2)}}}},
        lambda s: {
            "model_state_dict": s,
            "best": torch.tensor(0.5),
            "args": argparse.Namespace(lr=1),
        },
        lambda s: {"net": s},
        lambda s: {"checkpoint": {"model": {"weights": s}}},
        lambda s: {"anything": s},
    ],
)
def test_a_wrapper_is_taken_off_and_reported(
    state: State, tiny_file: Path, tmp_path: Path, wrap: Callable[[State], Any]
) -> None:
    held = wrap(state)
    stem, notes = taken(held, tiny_file, tmp_path)
    assert torch.equal(stem, state[STEM])
    assert len(notes) == 1
    assert notes[0].startswith("weights taken from ")
    assert notes[0].rpartition(" ")[2].partition(".")[0] in held


@pytest.mark.parametrize(
    "wrap",
    [
        lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema},
        lambda raw, ema: {"model": raw, "model_ema": {"module." + k: v for k, v in ema.items()}},
        lambda raw, ema: {"model": raw, "ema": {"state_dict": ema}},
        lambda raw, ema: (
            {"model." + k: v for k, v in raw.items()}
            | {"ema_model." + k: v for k, v in ema.items()}
        ),
        lambda raw, ema: raw | {"ema.module." + k: v for k, v in ema.items()},
    ],
)
def test_averaged_weights_are_preferred_and_weights_decides(
    state: State, other: State, tiny_file: Path, tmp_path: Path, wrap: Callable[[State, State], Any]
) -> None:
    for name in ("usual", "raw", "ema"):
        (tmp_path / name).mkdir()
    held = wrap(state, other)
    stem, notes = taken(held, tiny_file, tmp_path / "usual")
    assert torch.equal(stem, other[STEM])
    assert "averaged (EMA) weights taken from" in notes[0]
    assert "--weights raw takes the others" in notes[0]
    stem, notes = taken(held, tiny_file, tmp_path / "raw", weights="raw")
    assert torch.equal(stem, state[STEM])
    assert any("left out: " in note for note in notes)
    stem, _ = taken(held, tiny_file, tmp_path / "ema", weights="ema")
    assert torch.equal(stem, other[STEM])


def test_torchs_own_average_has_a_counter(state: State, tiny_file: Path, tmp_path: Path) -> None:
    held = {"module." + name: value for name, value in state.items()}
    stem, _ = taken({"n_averaged": torch.tensor(7), **held}, tiny_file, tmp_path)
    assert torch.equal(stem, state[STEM])


def test_what_weights_asks_for_must_be_there(
    state: State, tiny_file: Path, tmp_path: Path, call: Call
) -> None:
    with pytest.raises(
        bneck.InputError, match=r"has no averaged \(EMA\) weights; leave bneck import --weights out"
    ):
        taken({"model": state}, tiny_file, tmp_path, weights="ema")
    with pytest.raises(
        bneck.InputError, match=r"has averaged \(EMA\) weights alone \(ema\); leave"
    ):
        taken({"ema": state}, tiny_file, tmp_path, weights="raw")
    with pytest.raises(bneck.InputError, match="weights is 'best'; allowed are raw, ema"):
        taken(state, tiny_file, tmp_path, weights="best")
    done = call(
        "import", tmp_path / "w.pth", "--as", tiny_file, "--weights", "ema", "--out", tmp_path / "x"
    )
    assert "has no averaged (EMA) weights" in done.err


def test_two_networks_of_which_none_is_usual(
    state: State, other: State, tiny_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(bneck.InputError, match=r"holds 2 networks \(left, right\); save the one"):
        taken({"left": state, "right": other}, tiny_file, tmp_path)
    stem, notes = taken({"teacher": other, "student": state}, tiny_file, tmp_path)
    assert torch.equal(stem, state[STEM])
    assert notes == ["weights taken from student; left out: teacher"]


def renamed(state: State, spec: NetSpec) -> State:
    """As another repository names them: features.N.conv.M, linear squeeze-and-excite, conv.0 for the last."""
    last, found = spec.pool_at - 1, {}
    for name, value in state.items():
        match = re.match(r"features\.(\d+)\.block\.(\d+)\.(.*)", name)
        if match:
            row, step, rest = (
                int(match[1]),
                int(match[2]),
                match[3].replace("fc1", "fc.0").replace("fc2", "fc.2"),
            )
            value = value.flatten(1) if rest.startswith("fc") and value.ndim == 4 else value
            name = f"features.{row}.conv.{3 * step}.{rest}"
        elif name.startswith(f"features.{last}."):
            name = "conv." + name.split(".", 2)[2]
        found[name] = value
    return found


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_names_of_nobody_known_are_placed_by_order_and_shape(
    tiny: NetSpec, tiny_file: Path, tmp_path: Path, kind: str
) -> None:
    theirs = trained(Torchvision(tiny, 3))
    state = {f"m.{k}": v for k, v in renamed(theirs.state_dict(), tiny).items()}
    file = tmp_path / "w"
    torch.save(state, file) if kind == "torch" else save_file(
        {k: v.contiguous() for k, v in state.items()}, file
    )
    record = bneck.import_weights(file, tiny_file, out=tmp_path / "run", bn_eps=1e-3)
    assert record["source"]["layout"] == "foreign"
    assert any("placed by order and shape" in note for note in record["notes"])
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        wanted, got = theirs(images), bneck.build(tmp_path / "run").eval()(images).flatten(1)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_order_and_shape_are_certain_or_nothing_is_taken(
    tiny: NetSpec, tiny_file: Path, tmp_path: Path
) -> None:
    """A squeeze-and-excite of as many channels as the block puts out: two matrices of one shape, swapped."""
    state = renamed(trained(Torchvision(tiny, 3)).state_dict(), tiny)
    moved = {k: v for k, v in state.items() if not k.startswith("features.3.conv.6.")}
    swapped = moved | {k: v for k, v in state.items() if k.startswith("features.3.conv.6.")}
    with pytest.raises(bneck.InputError) as refused:
        taken(swapped, tiny_file, tmp_path)
    said = str(refused.value)
    assert "names of the file have no place in the network: " in said
    assert " more" in said
    assert len(said) < 1500


def test_a_known_network_under_other_names_needs_no_name(tmp_path: Path) -> None:
    state = renamed(Torchvision(network("v3-small"), 1000).state_dict(), network("v3-small"))
    torch.save(state, tmp_path / "w.pth")
    record = bneck.import_weights(tmp_path / "w.pth", out=tmp_path / "run")
    assert (record["name"], record["class_count"]) == ("v3-small", 1000)
    with pytest.raises(
        bneck.InputError, match="holds v3-small, not v3-large; import it with bneck import --as"
    ):
        bneck.import_weights(tmp_path / "w.pth", "v3-large", out=tmp_path / "other")


def test_a_torchscript_program(tiny: NetSpec, tiny_file: Path, tmp_path: Path) -> None:
    program = torch.jit.trace(Torchvision(tiny, 3).eval(), torch.zeros(1, 3, 32, 32))
    program.save(tmp_path / "w.pt")
    with pytest.raises(bneck.InputError, match="is a TorchScript program, which is never run here"):
        bneck.import_weights(tmp_path / "w.pt", tiny_file, out=tmp_path / "run")


def test_weights_are_not_chosen_in_tflite_files(tiny_file: Path, tmp_path: Path) -> None:
    (tmp_path / "w.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
    with pytest.raises(bneck.InputError, match="is a TFLite file; leave it out"):
        bneck.import_weights(tmp_path / "w.tflite", tiny_file, out=tmp_path / "r", weights="raw")


def test_timm_with_a_prefix_is_timm(tiny: NetSpec, tiny_file: Path, tmp_path: Path) -> None:
    state = trained(Timm(tiny, 3, [1, 2, 1], port=False)).state_dict()
    held = {f"model.{k}": v for k, v in state.items()} | {"loss.weight": torch.zeros(3)}
    with pytest.raises(bneck.InputError, match=r"have no place in the network: loss\.weight"):
        taken(held, tiny_file, tmp_path)
    record = bneck.import_weights(
        tmp_path / "w.pth", tiny_file, out=tmp_path / "run", allow_unmatched=["loss.*"]
    )
    assert record["source"]["layout"] == "timm"
