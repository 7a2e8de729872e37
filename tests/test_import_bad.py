"""Files that must not be imported: each is refused in one sentence, and nothing in it is run."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import bneck
from bneck.specs.network import NetSpec
from bneck.specs.text import to_text
from bneck.specs.transforms import scale_width
from bneck.specs.zoo import network
from foreign_nets import Timm, Torchvision, trained


@pytest.fixture
def state(tiny: NetSpec) -> dict[str, torch.Tensor]:
    return trained(Torchvision(tiny, 3)).state_dict()


def refusal(file: Path, name: str | Path, folder: Path, **options: Any) -> str:
    """The one sentence; nothing is written."""
    with pytest.raises(bneck.InputError) as refused:
        bneck.import_weights(file, name, out=folder / "run", **options)
    said = str(refused.value)
    assert "\n" not in said
    assert not said.endswith(".")
    assert not (folder / "run").exists()
    return said


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


class TestCode:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_pickle_with_code_is_refused_and_not_run(
        self, state: dict[str, Any], tiny_file: Path, tmp_path: Path, zipped: bool
    ) -> None:
        file, sprung = tmp_path / "w.pth", tmp_path / "sprung"
        torch.save({**state, "x": Trap(sprung)}, file, _use_new_zipfile_serialization=zipped)
        said = refusal(file, tiny_file, tmp_path)
        assert "holds code (" in said
        assert "mkdir" in said
        assert "which is never run here" in said
        assert not sprung.exists()

    def test_a_bare_pickle(self, tiny_file: Path, tmp_path: Path) -> None:
        file, sprung = tmp_path / "w.pkl", tmp_path / "sprung"
        file.write_bytes(pickle.dumps(Trap(sprung)))
        refusal(file, tiny_file, tmp_path)
        assert not sprung.exists()

    def test_a_pickle_that_calls_itself_tflite_or_safetensors(
        self, tiny_file: Path, tmp_path: Path
    ) -> None:
        sprung = tmp_path / "sprung"
        for protocol in (0, 2, 4):
            for suffix in ("tflite", "safetensors"):
                file = tmp_path / f"w.{suffix}"
                file.write_bytes(pickle.dumps(Trap(sprung), protocol=protocol))
                refusal(file, tiny_file, tmp_path)
        assert not sprung.exists()

    def test_a_whole_pickled_module(self, tiny: NetSpec, tiny_file: Path, tmp_path: Path) -> None:
        torch.save(Torchvision(tiny, 3), tmp_path / "w.pth")
        said = refusal(tmp_path / "w.pth", tiny_file, tmp_path)
        assert "holds code (foreign_nets.Torchvision)" in said


class TestKindsOfTensors:
    @pytest.mark.parametrize(
        ("kind", "sentence"),
        [
            ("int8 of a tensor", "holds quantized tensors (its first: classifier.3.weight)"),
            ("int8 of a channel", "holds quantized tensors (its first: classifier.3.weight)"),
            ("whole", "holds quantized tensors (its first: classifier.3.weight)"),
            ("coo", "holds sparse tensors (its first: classifier.3.weight)"),
            ("csr", "holds sparse tensors (its first: classifier.3.weight)"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:.*(quantized tensor|Sparse CSR|TypedStorage).*:UserWarning")
    def test_quantized_and_sparse_ones_are_refused(
        self, state: dict[str, Any], tiny_file: Path, tmp_path: Path, kind: str, sentence: str
    ) -> None:
        value = state["classifier.3.weight"]
        scales = torch.full((len(value),), 0.01)
        match kind:
            case "whole":
                other = (value / 0.01).round().int()
            case "coo":
                other = value.to_sparse()
            case "csr":
                other = value.to_sparse_csr()
            case "int8 of a tensor":
                other = torch.quantize_per_tensor(value, 0.01, 0, torch.qint8)
            case _:
                zeros = torch.zeros(len(value), dtype=torch.int64)
                other = torch.quantize_per_channel(value, scales, zeros, 0, torch.qint8)
        torch.save({**state, "classifier.3.weight": other}, tmp_path / "w.pth")
        assert sentence in refusal(tmp_path / "w.pth", tiny_file, tmp_path)

    @pytest.mark.parametrize(
        ("name", "change", "sentence"),
        [
            ("classifier.3.weight", lambda v: v.to("meta"), "holds tensors without values (on torch's device"),
            ("classifier.3.weight", lambda v: v.to(torch.complex64), "holds tensors of complex numbers"),
            ("features.0.1.running_var", lambda v: -v, "has negative variances in features.0.1.running_var"),
        ],
    )  # fmt: skip
    @pytest.mark.filterwarnings("ignore")
    def test_values_that_no_network_has(
        self,
        state: dict[str, Any],
        tiny_file: Path,
        tmp_path: Path,
        name: str,
        change: Any,
        sentence: str,
    ) -> None:
        torch.save({**state, name: change(state[name])}, tmp_path / "w.pth")
        assert sentence in refusal(tmp_path / "w.pth", tiny_file, tmp_path)


class TestDamage:
    @pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
    @pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
    def test_a_truncated_file(
        self, state: dict[str, Any], tiny_file: Path, tmp_path: Path, kind: str, share: float
    ) -> None:
        file = tmp_path / "w"
        if kind == "safetensors":
            save_file(state, file)
        else:
            torch.save(state, file, _use_new_zipfile_serialization=kind == "zip")
        data = file.read_bytes()
        file.write_bytes(data[: int(share * len(data))])
        said = refusal(file, tiny_file, tmp_path)
        assert (
            f"{file} is not a whole {'safetensors' if kind == 'safetensors' else 'torch'} file"
            in said
        )

    @pytest.mark.parametrize(
        "data", [b"", b"P", b"hello", bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(99)]
    )
    def test_no_weights_at_all(self, tiny_file: Path, tmp_path: Path, data: bytes) -> None:
        file = tmp_path / "w.pth"
        file.write_bytes(data)
        assert "is no torch, safetensors or TFLite file" in refusal(file, tiny_file, tmp_path)

    def test_no_such_file_and_a_folder(self, tiny_file: Path, tmp_path: Path) -> None:
        said = refusal(tmp_path / "none.pth", tiny_file, tmp_path)
        assert said == f"{tmp_path / 'none.pth'} cannot be read: No such file or directory"
        assert "is a folder; name the file of weights" in refusal(tmp_path, tiny_file, tmp_path)

    def test_numbers_that_are_none(
        self, state: dict[str, torch.Tensor], tiny_file: Path, tmp_path: Path
    ) -> None:
        state["features.2.block.0.0.weight"][3, 4] = float("nan")
        torch.save(state, tmp_path / "w.pth")
        said = refusal(tmp_path / "w.pth", tiny_file, tmp_path)
        assert "values that are no numbers in features.2.block.0.0.weight" in said

    @pytest.mark.parametrize(
        ("held", "sentence"),
        [
            ([torch.zeros(2)], "holds a list; it must hold a state dict"),
            ({}, "holds a dict; it must hold a state dict"),
            ({"a": 1}, "holds a int under 'a'; it must hold a state dict"),
            ({3: torch.zeros(2)}, "holds a Tensor under 3; it must hold a state dict"),
            (
                {"layer1.0.weight": torch.zeros(2)},
                "has no convolutions or linear layers by name (it has 0.weight); there is nothing",
            ),
        ],
    )
    def test_other_things_in_a_torch_file(
        self, tiny_file: Path, tmp_path: Path, held: Any, sentence: str
    ) -> None:
        torch.save(held, tmp_path / "w.pth")
        assert sentence in refusal(tmp_path / "w.pth", tiny_file, tmp_path)


class TestOtherNetworks:
    """At full size, since it is the zoo's networks that can be recognised."""

    @pytest.mark.parametrize(
        ("held", "said_to_be"),
        [("v3-small-0.75", "v3-small"), ("v3-small", "v3-small-0.75"), ("v2", "v3-large")],
    )
    def test_says_which_width_or_network_it_is(
        self, tmp_path: Path, held: str, said_to_be: str
    ) -> None:
        torch.save(Torchvision(network(held), 1000).state_dict(), tmp_path / "w.pth")
        said = refusal(tmp_path / "w.pth", said_to_be, tmp_path)
        assert said == (
            f"{tmp_path / 'w.pth'} holds {held}, not {said_to_be}; import it with bneck import --as {held}"
        )

    def test_a_width_by_another_rule(self, tmp_path: Path) -> None:
        """Timm's V3-Small 0.5 keeps 16 filters in the stem where the paper's rule has 8."""
        stem, first, *rest = (half := network("v3-small-0.5")).rows
        kept = replace(half, rows=(replace(stem, out=16), replace(first, expanded=16), *rest))
        path = tmp_path / "w.pth"
        torch.save(Timm(kept, 1000, [1, 2, 3, 2, 3, 1], port=False).state_dict(), path)
        said = refusal(path, "v3-small", tmp_path)
        assert said.startswith(
            f"{path} is about 0.5 times as wide as v3-small, by no rule of width known"
        )
        # The way out that the sentence names.
        table = tmp_path / "mine.yaml"
        table.write_text(to_text(kept))
        record = bneck.import_weights(path, table, out=tmp_path / "mine")
        assert record["class_count"] == 1000

    def test_a_tiny_network_is_none_of_the_zoo(
        self, tiny: NetSpec, tiny_file: Path, tmp_path: Path
    ) -> None:
        twice = scale_width(tiny, 2)
        torch.save(Torchvision(twice, 3).state_dict(), tmp_path / "w.pth")
        said = refusal(tmp_path / "w.pth", tiny_file, tmp_path)
        assert f"{tmp_path / 'w.pth'} is about 2 times as wide as tiny" in said

    def test_every_name_without_a_match_is_listed(
        self, state: dict[str, Any], tiny_file: Path, tmp_path: Path
    ) -> None:
        gone = [name for name in state if name.startswith("features.3.block.2.")]
        assert len(gone) == 4
        for name in gone:
            state[f"more.{name}"] = state.pop(name)
        torch.save(state, tmp_path / "w.pth")
        said = refusal(tmp_path / "w.pth", tiny_file, tmp_path)
        assert "4 names of the file have no place in the network: " in said
        assert "4 names that the network needs are not in the file: " in said
        assert said.endswith("; name what may differ with bneck import --allow-unmatched PATTERN")
        for name in gone:
            assert said.count(name) == 2
            assert said.count(f"more.{name}") == 1


class TestClasses:
    def save(self, tiny: NetSpec, classes: int, folder: Path) -> Path:
        torch.save(Torchvision(tiny, classes).state_dict(), folder / "w.pth")
        return folder / "w.pth"

    @pytest.mark.parametrize("classes", [1000, 1001])
    def test_imagenet_s_are_taken_and_said(
        self, tiny: NetSpec, tiny_file: Path, tmp_path: Path, classes: int
    ) -> None:
        record = bneck.import_weights(
            self.save(tiny, classes, tmp_path), tiny_file, out=tmp_path / "run"
        )
        assert record["class_count"] == classes
        assert bneck.network(tmp_path / "run").classes == classes
        assert any("the first is the background" in n for n in record["notes"]) == (classes == 1001)

    def test_another_number_must_be_meant(
        self, tiny: NetSpec, tiny_file: Path, tmp_path: Path
    ) -> None:
        path = self.save(tiny, 10, tmp_path)
        said = refusal(path, tiny_file, tmp_path)
        assert "has 10 classes, published weights have 1000, or 1001 with the background" in said
        assert "has 10 classes, not 1000" in refusal(path, tiny_file, tmp_path, classes=1000)
        record = bneck.import_weights(path, tiny_file, out=tmp_path / "run", classes=10)
        assert record["class_count"] == 10

    def test_weight_and_bias_that_disagree(
        self, state: dict[str, torch.Tensor], tiny_file: Path, tmp_path: Path
    ) -> None:
        state["classifier.3.bias"] = torch.zeros(4)
        torch.save(state, tmp_path / "w.pth")
        said = refusal(tmp_path / "w.pth", tiny_file, tmp_path)
        assert "1 names have another shape: classifier.3.bias (4, not 3)" in said

    def test_names_of_another_number_of_classes(
        self, tiny: NetSpec, tiny_file: Path, tmp_path: Path
    ) -> None:
        names = tmp_path / "names.txt"
        names.write_text("a\nb\n")
        said = refusal(self.save(tiny, 3, tmp_path), tiny_file, tmp_path, labels=names)
        assert (
            said == f"{names} has 2 classes, and the network 3 classes; give a list of all of them"
        )


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"source": "keras"}, "there is no source 'keras'; known are auto, timm, timm-tf"),
            ({"padding": "valid"}, "padding is 'valid'; allowed are symmetric, same"),
            (
                {"mean": (123.7, 116.3, 103.5)},
                "as if of pixels from 0 to 255; pixels are from 0 to 1, so",
            ),
            ({"mean": (1, 2)}, "mean is (1, 2); it must be three numbers, for red, green and blue"),
            (
                {"std": (0.5, 0, 0.5)},
                "std is (0.5, 0.0, 0.5); each of the three numbers must be above",
            ),
            ({"bn_eps": 0}, "bn_eps is 0; it must be a number above 0 and at most 1"),
        ],
    )
    def test_values_that_cannot_be(
        self, state: dict[str, Any], tiny_file: Path, tmp_path: Path, options: Any, sentence: str
    ) -> None:
        torch.save(state, tmp_path / "w.pth")
        assert sentence in refusal(tmp_path / "w.pth", tiny_file, tmp_path, **options)

    def test_a_folder_in_use_is_left_alone(
        self, state: dict[str, Any], tiny_file: Path, tmp_path: Path
    ) -> None:
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(bneck.InputError, match="exists and is not an empty folder"):
            bneck.import_weights(tmp_path / "w.pth", tiny_file, out=tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]

    def test_an_unknown_network(self, tmp_path: Path) -> None:
        assert "there is no network 'v3-tiny'" in refusal(tmp_path / "w.pth", "v3-tiny", tmp_path)
