"""State dicts of torchvision and timm: every tensor finds its place, and the source's habits follow.

No file of either was at hand; `foreign_nets` has modules of the same names.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bneck
from bneck.imports.match import which_network
from bneck.imports.source import filters, places
from bneck.nets.build import Net, build
from bneck.records.run import RunFolder
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.text import to_text
from bneck.specs.zoo import NETWORKS, network
from foreign_nets import Timm, Torchvision, trained

# The first conv in the last stage stands for V3's 960 or 576; see the paper's Tables 1 and 2.
LARGE_STAGES = [1, 2, 3, 4, 2, 3, 1]
SMALL_STAGES = [1, 2, 3, 2, 3, 1]
A1_STAGES = [1, 2, 3, 4, 2, 3, 1]
V2_STAGES = [1, 2, 3, 4, 3, 3, 1]


@pytest.fixture
def tiny_v2() -> NetSpec:
    """A network of V2's kinds of row: linear projections, ReLU6, the last conv before the pool."""
    return NetSpec(
        name="tiny-v2",
        resolution=32,
        classes=5,
        rows=(
            Conv(3, 16, "relu6", 2),
            Bneck(3, 16, 8, 0, "relu6", 1),
            Bneck(3, 48, 16, 0, "relu6", 2),
            Bneck(3, 96, 16, 0, "relu6", 1),
            Conv(1, 64, "relu6"),
            Pool(),
        ),
    )


def answers_alike(
    theirs: nn.Module, spec: NetSpec, path: Path, tmp_path: Path, **options: object
) -> bneck.NetSpec:
    """Import a file, compare its answers with `theirs` on random images; the imported spec."""
    named = tmp_path / "named.yaml"
    named.write_text(to_text(spec))
    bneck.import_weights(path, named, out=tmp_path / "run", **options)  # type: ignore[arg-type]
    ours = bneck.build(tmp_path / "run")
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted, got = theirs(images), ours(images)
    assert wanted.std() > 1e-3  # answers that differ from image to image and class to class
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    return ours.spec


def saved(net: nn.Module, path: Path) -> Path:
    torch.save(net.state_dict(), path)
    return path


class TestAnswers:
    def test_torchvision_v3(self, tiny: NetSpec, tmp_path: Path) -> None:
        theirs = trained(Torchvision(tiny, 3))
        spec = answers_alike(theirs, tiny, saved(theirs, tmp_path / "w.pth"), tmp_path)
        assert (spec.padding, spec.bn_eps) == ("symmetric", 1e-3)

    def test_torchvision_v2_has_torchs_epsilon(self, tiny_v2: NetSpec, tmp_path: Path) -> None:
        theirs = trained(Torchvision(tiny_v2, 5))
        spec = answers_alike(theirs, tiny_v2, saved(theirs, tmp_path / "w.pth"), tmp_path)
        assert (spec.padding, spec.bn_eps) == ("symmetric", 1e-5)

    def test_timm_v3(self, tiny: NetSpec, tmp_path: Path) -> None:
        theirs = trained(Timm(tiny, 3, [1, 2, 1], port=False))
        spec = answers_alike(theirs, tiny, saved(theirs, tmp_path / "w.pth"), tmp_path)
        assert (spec.padding, spec.bn_eps) == ("symmetric", 1e-5)

    def test_timm_port_pads_as_tensorflow(self, tiny: NetSpec, tmp_path: Path) -> None:
        theirs = trained(Timm(tiny, 3, [1, 2, 1], port=True))
        path = saved(theirs, tmp_path / "tf_mobilenetv3_tiny-0123abcd.pth")
        spec = answers_alike(theirs, tiny, path, tmp_path)
        assert (spec.padding, spec.bn_eps) == ("same", 1e-3)
        assert bneck.build(tmp_path / "run").normalisation.mean == (0.5, 0.5, 0.5)

    def test_timm_with_the_last_conv_before_the_pool(
        self, tiny_v2: NetSpec, tmp_path: Path
    ) -> None:
        theirs = trained(Timm(tiny_v2, 5, [1, 2], port=False))
        answers_alike(theirs, tiny_v2, saved(theirs, tmp_path / "w.pth"), tmp_path)

    def test_safetensors_and_a_wrapped_dict(self, tiny: NetSpec, tmp_path: Path) -> None:
        theirs = trained(Torchvision(tiny, 3))
        save_file(theirs.state_dict(), tmp_path / "w.safetensors")
        answers_alike(theirs, tiny, tmp_path / "w.safetensors", tmp_path)
        wrapped = {
            "epoch": 3,
            "state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()},
        }
        torch.save(wrapped, tmp_path / "w.tar")
        (tmp_path / "second").mkdir()
        answers_alike(theirs, tiny, tmp_path / "w.tar", tmp_path / "second")

    def test_own_weights_come_through_unchanged(self, tiny: NetSpec, tmp_path: Path) -> None:
        own = trained(build(tiny))
        path = tmp_path / "w.safetensors"
        save_file(own.state_dict(), path)
        spec = answers_alike(own, tiny, path, tmp_path)
        assert spec.digest() == tiny.digest()


class TestRealNetworks:
    """At full size only names and shapes, which random weights show as well as trained ones."""

    @pytest.mark.parametrize(
        ("name", "entries"),
        # Batch-normed convs x 6 entries, squeeze-and-excites x 4, linear layers x 2. V3-Large: 1 stem,
        # 2 + 14 x 3 in bnecks, 1 last; 8 SE; 2 linear. Small: 1, 2 + 10 x 3, 1; 9; 2. V2: 1, 2 + 16 x 3, 1; 1.
        [
            ("v3-large", 46 * 6 + 8 * 4 + 4),
            ("v3-small", 34 * 6 + 9 * 4 + 4),
            ("v2", 52 * 6 + 2),
        ],
    )
    def test_torchvision(self, name: str, entries: int, tmp_path: Path) -> None:
        theirs = Torchvision(network(name), 1000)
        assert len(theirs.state_dict()) == entries
        record = bneck.import_weights(saved(theirs, tmp_path / "w.pth"), name, out=tmp_path / "run")
        assert (record["class_count"], record["source"]["layout"]) == (1000, "torchvision")
        assert record["params"] == bneck.count(name).params
        assert record["excused"] == []

    @pytest.mark.parametrize(
        ("name", "stages"),
        [
            ("v3-large", LARGE_STAGES),
            ("v3-small", SMALL_STAGES),
            ("v3-small-0.75", SMALL_STAGES),
            ("v3-large-minimalistic", LARGE_STAGES),
            ("mnasnet-a1", A1_STAGES),
            ("v2", V2_STAGES),
        ],
    )
    def test_timm(self, name: str, stages: list[int], tmp_path: Path) -> None:
        theirs = Timm(network(name), 1000, stages, port=False)
        record = bneck.import_weights(saved(theirs, tmp_path / "w.pth"), name, out=tmp_path / "run")
        assert (record["class_count"], record["source"]["layout"]) == (1000, "timm")
        assert record["params"] == bneck.count(name).params


class TestSource:
    """Normalisation, padding and epsilon: whose they are, and how to overrule them."""

    @pytest.fixture
    def timm_file(self, tiny: NetSpec, tmp_path: Path) -> Path:
        return saved(trained(Timm(tiny, 3, [1, 2, 1], port=False)), tmp_path / "w.pth")

    def test_a_port_is_told_by_the_config_beside_it(
        self, timm_file: Path, tiny_file: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "config.json").write_text(
            '{"architecture": "tf_mobilenetv3_small_100", "pretrained_cfg": '
            '{"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}'
        )
        record = bneck.import_weights(timm_file, tiny_file, out=tmp_path / "run")
        assert record["source"]["layout"] == "timm-tf"
        assert record["padding"] == "same"
        assert record["normalisation"] == {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}

    def test_a_port_is_told_by_an_option(
        self, timm_file: Path, tiny_file: Path, tmp_path: Path
    ) -> None:
        plain = bneck.import_weights(timm_file, tiny_file, out=tmp_path / "plain")
        port = bneck.import_weights(timm_file, tiny_file, out=tmp_path / "port", source="timm-tf")
        assert (plain["padding"], plain["bn_eps"]) == ("symmetric", 1e-5)
        assert plain["normalisation"]["mean"] == [0.485, 0.456, 0.406]
        assert any("--source timm-tf" in note for note in plain["notes"])
        assert (port["padding"], port["bn_eps"]) == ("same", 1e-3)
        assert port["normalisation"] == {"mean": [0.5] * 3, "std": [0.5] * 3}

    def test_everything_can_be_overruled(
        self, timm_file: Path, tiny_file: Path, tmp_path: Path
    ) -> None:
        bneck.import_weights(
            timm_file, tiny_file, out=tmp_path / "run", padding="same", bn_eps=0.01,
            mean=(0, 0, 0), std=(1, 1, 1),
        )  # fmt: skip
        net = bneck.build(tmp_path / "run")
        assert (net.spec.padding, net.spec.bn_eps) == ("same", 0.01)
        assert (net.normalisation.mean, net.normalisation.std) == ((0, 0, 0), (1, 1, 1))


class TestExcuses:
    def test_a_fresh_classifier(self, tiny: NetSpec, tiny_file: Path, tmp_path: Path) -> None:
        state = trained(Torchvision(tiny, 3)).state_dict()
        del state["classifier.3.weight"], state["classifier.3.bias"]
        state["aux.weight"] = torch.zeros(2)
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(bneck.InputError) as refused:
            bneck.import_weights(tmp_path / "w.pth", tiny_file, out=tmp_path / "run")
        said = str(refused.value)
        assert "1 names of the file have no place in the network: aux.weight" in said
        assert "2 names that the network needs are not in the file: classifier.3.weight, " in said
        assert not (tmp_path / "run").exists()
        record = bneck.import_weights(
            tmp_path / "w.pth", tiny_file, out=tmp_path / "run", allow_unmatched=["classifier.*", "aux*"],
            classes=7,
        )  # fmt: skip
        assert record["excused"] == ["aux.weight", "classifier.3.weight", "classifier.3.bias"]
        net = bneck.build(tmp_path / "run")
        assert net.spec.classes == 7
        kept = net.get_parameter("rows.3.expand.conv.weight")
        assert torch.equal(kept, state["features.3.block.0.0.weight"])

    def test_our_names_count_too(self, tiny: NetSpec, tiny_file: Path, tmp_path: Path) -> None:
        state = trained(Torchvision(tiny, 3)).state_dict()
        del state["features.3.block.2.fc1.bias"]
        torch.save(state, tmp_path / "w.pth")
        bneck.import_weights(
            tmp_path / "w.pth", tiny_file, out=tmp_path / "run", allow_unmatched=["rows.3.se.*"]
        )
        assert torch.count_nonzero(
            bneck.build(tmp_path / "run").get_parameter("rows.3.se.reduce.bias")
        ) == 0  # fmt: skip


@pytest.mark.parametrize(
    "name", ["v3-small-0.75", "v2-0.35", "v3-large-1.25", "v3-small", "v2-1.4"]
)
def test_a_network_is_known_by_the_shapes_of_its_convolutions(name: str) -> None:
    shapes = [place.shape for place in places(network(name))]
    assert which_network([*shapes[:-1], (77, *shapes[-1][1:])]) == name
    assert which_network(shapes[:-2]) is None


def test_every_place_of_every_network_is_a_tensor_of_its_net() -> None:
    for spec in NETWORKS.values():
        state = Net(spec).state_dict()
        wanted = {name for name in state if not name.endswith("num_batches_tracked")}
        assert {name for place in places(spec) for name in place.names()} == wanted
        assert sorted(filters(state)) == sorted(place.shape for place in places(spec))


def test_an_imported_folder_is_a_network_everywhere(
    tiny: NetSpec, tiny_file: Path, tmp_path: Path
) -> None:
    path = saved(trained(Torchvision(tiny, 3)), tmp_path / "w.pth")
    run = tmp_path / "run"
    bneck.import_weights(path, tiny_file, out=run)
    assert sorted(p.name for p in run.iterdir()) == ["run.json", "spec.yaml", "weights.safetensors"]
    assert bneck.network(run) == bneck.build(run).spec
    assert bneck.count(run).params == sum(p.numel() for p in bneck.build(run).parameters())
    record = RunFolder(run).read()
    assert (record["kind"], record["state"]) == ("import", "finished")
    assert record["source"]["file"] == "w.pth"
    with pytest.raises(bneck.InputError, match="a training or a search has a report"):
        bneck.write_report(run)
    with pytest.raises(bneck.InputError, match="not a training; it has nothing to resume"):
        bneck.resume(run)
