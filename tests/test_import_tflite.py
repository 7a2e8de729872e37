"""TFLite files: what they mean in float is what a net computes, and their graph says how."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bneck
from bneck.nets.build import Net, build
from bneck.nets.fold import folded_weights
from bneck.nets.weights import save_weights
from bneck.specs.network import NetSpec, Padding
from bneck.specs.text import to_text
from foreign_nets import trained

pytest.importorskip("tflite")
from tflite_writer import TfliteWriter

DATA = Path(__file__).parents[2] / "shared" / "data" / "weights"


@pytest.fixture
def net(tiny: NetSpec) -> Net:
    net = trained(build(replace(tiny, padding="same")))
    assert isinstance(net, Net)
    return net


def answers(net: torch.nn.Module) -> torch.Tensor:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        scores: torch.Tensor = net.eval()(images)
    return scores


def imported(data: bytes, spec: NetSpec, folder: Path) -> Net:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.tflite").write_bytes(data)
    (folder / "named.yaml").write_text(to_text(spec))
    bneck.import_weights(folder / "net.tflite", folder / "named.yaml", out=folder / "run")
    return bneck.build(folder / "run")


@pytest.mark.parametrize("fused_gate", [False, True])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_a_float_file_answers_as_the_net_it_came_from(
    tiny: NetSpec, tmp_path: Path, padding: Padding, fused_gate: bool
) -> None:
    theirs = trained(build(replace(tiny, padding=padding)))
    assert isinstance(theirs, Net)
    writer = TfliteWriter(theirs.spec, folded_weights(theirs), fused_gate=fused_gate)
    # The other padding is said, the file's is taken.
    said = replace(tiny, padding="same" if padding == "symmetric" else "symmetric")
    ours = imported(writer.write(), said, tmp_path)
    assert ours.spec.padding == padding
    wanted = answers(theirs)
    torch.testing.assert_close(
        answers(ours), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max())
    )


@pytest.mark.parametrize("stored", ["float16", "uint8", "int8"])
def test_stored_numbers_mean_what_the_format_says(net: Net, tmp_path: Path, stored: str) -> None:
    writer = TfliteWriter(net.spec, folded_weights(net), stored=stored)
    ours = imported(writer.write(), net.spec, tmp_path)
    state = ours.state_dict()
    for name, layout in (
        ("rows.0", (0, 3, 1, 2)),
        ("rows.3.depthwise", (3, 0, 1, 2)),
        ("rows.3.project", (0, 3, 1, 2)),
    ):
        weight = writer.real[f"{name}.weight"].transpose(layout).astype(np.float32)
        bias = writer.real[f"{name}.bias"].astype(np.float32)
        np.testing.assert_array_equal(state[f"{name}.conv.weight"].numpy(), weight)
        np.testing.assert_array_equal(state[f"{name}.bn.bias"].numpy(), bias)
    wanted = answers(net)
    largest = float((answers(ours) - wanted).abs().max() / wanted.abs().max())
    assert largest < {"float16": 0.005, "int8": 0.1, "uint8": 0.3}[stored]


@pytest.mark.parametrize("eps", [1e-3, 1e-5])
def test_a_folded_batch_norm_is_bias_and_nothing_else(net: Net, tmp_path: Path, eps: float) -> None:
    """Bit for bit: batch norm gives its input plus the bias."""
    spec = replace(net.spec, bn_eps=eps)
    ours = imported(TfliteWriter(spec, folded_weights(net)).write(), spec, tmp_path)
    for module in ours.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            x = torch.randn(2, module.num_features, 3, 3)
            for form in (x, x.contiguous(memory_format=torch.channels_last)):
                assert torch.equal(module(form), x + module.bias[None, :, None, None])
            assert module.weight.requires_grad


def test_normalisation_is_read_off_the_inputs_quantisation(net: Net, tmp_path: Path) -> None:
    data = TfliteWriter(net.spec, folded_weights(net), stored="uint8").write()
    ours = imported(data, net.spec, tmp_path / "eight")
    # The writer's input is (pixel - 128) / 127.5 for pixels from 0 to 255.
    assert ours.normalisation.mean == pytest.approx([128 / 255] * 3)
    assert ours.normalisation.std == pytest.approx([0.5] * 3)
    ours = imported(
        TfliteWriter(net.spec, folded_weights(net)).write(), net.spec, tmp_path / "float"
    )
    assert ours.normalisation.mean == (0.5, 0.5, 0.5)  # nothing said, TensorFlow's taken


def test_the_input_says_the_resolution(net: Net, tmp_path: Path) -> None:
    small = replace(net.spec, resolution=48)
    ours = imported(TfliteWriter(small, folded_weights(net)).write(), net.spec, tmp_path)
    assert ours.spec.resolution == 48


class WithScaling(TfliteWriter):
    def before(self, at: int) -> int:
        scale = self.constant("rescale", np.float32(1 / 127.5))
        return self.simple("MUL", [at, scale], 3, self.spec.resolution)


class WithSigmoid(TfliteWriter):
    def before(self, at: int) -> int:
        return self.simple("LOGISTIC", [at], 3, self.spec.resolution)


def test_an_operator_without_numbers_that_no_network_here_has(net: Net, tmp_path: Path) -> None:
    data = WithSigmoid(net.spec, folded_weights(net)).write()
    with pytest.raises(bneck.InputError, match=r"answers otherwise than tiny with its weights"):
        imported(data, net.spec, tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_files_that_bneck_exported(tiny: NetSpec, tmp_path: Path, precision: str) -> None:
    """Their h-swish and their gates lack the 1/6, which the weights after them make up for."""
    theirs, run = build(tiny), tmp_path / "theirs"
    for _ in range(20):  # statistics of its own images
        theirs.train()(torch.randn(16, 3, 32, 32))
    run.mkdir()
    (run / "spec.yaml").write_text(to_text(tiny))
    save_weights(theirs.state_dict(), run / "weights.safetensors")
    for i in range(8):
        colours = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(colours).save(tmp_path / f"{i}.png")
    file = tmp_path / "m.tflite"
    bneck.export(run, "tflite", precision=precision, out=file, data=tmp_path)
    record = bneck.import_weights(file, run / "spec.yaml", out=tmp_path / "ours")
    assert record["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    ours = bneck.build(tmp_path / "ours")
    wanted = answers(theirs)
    largest = float((answers(ours) - wanted).abs().max() / wanted.abs().max())
    assert largest < {"fp32": 1e-5, "fp16": 0.002, "int8": 0.05}[precision]


def test_an_exported_file_that_takes_pixels(tiny: NetSpec, tmp_path: Path) -> None:
    file = tmp_path / "m.tflite"
    (tmp_path / "tiny.yaml").write_text(to_text(tiny))
    bneck.export(tmp_path / "tiny.yaml", "tflite", out=file, pixels=True)
    with pytest.raises(
        bneck.InputError, match="was made by bneck export --pixels, which folds the input's"
    ):
        bneck.import_weights(file, tmp_path / "tiny.yaml", out=tmp_path / "run")


def test_a_number_of_the_graph_without_a_place_is_named(net: Net, tmp_path: Path) -> None:
    with pytest.raises(bneck.InputError, match=r"1 names of the file have no place .*: rescale"):
        imported(WithScaling(net.spec, folded_weights(net)).write(), net.spec, tmp_path)


def test_another_nonlinearity_in_the_same_shapes(net: Net, tmp_path: Path) -> None:
    rows = tuple(
        replace(row, act="relu6") if getattr(row, "act", None) == "relu" else row
        for row in net.spec.rows
    )
    data = TfliteWriter(net.spec, folded_weights(net)).write()
    with pytest.raises(
        bneck.InputError, match=r"nonlinearity in rows.1.depthwise.weight is relu, "
    ):
        imported(data, replace(net.spec, rows=rows), tmp_path)


def test_another_network_says_how_many_do_not_fit(net: Net, tmp_path: Path) -> None:
    data = TfliteWriter(net.spec, folded_weights(net)).write()
    shorter = replace(net.spec, rows=(*net.spec.rows[:3], *net.spec.rows[4:]))
    with pytest.raises(bneck.InputError, match="have no place in the network: "):
        imported(data, shorter, tmp_path)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file(net: Net, tmp_path: Path, share: float) -> None:
    data = TfliteWriter(net.spec, folded_weights(net)).write()
    with pytest.raises(bneck.InputError, match="is not a whole TFLite file"):
        imported(data[: int(share * len(data))], net.spec, tmp_path)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("v3-small_224_1.0_uint8.tflite", "v3-small"),
        ("v3-large-minimalistic_224_1.0_uint8.tflite", "v3-large-minimalistic"),
        ("mobilenet_v2_1.0_224_quant.tflite", "v2"),
    ],
)
def test_the_authors_files(file: str, name: str, tmp_path: Path) -> None:
    record = bneck.import_weights(DATA / file, name, out=tmp_path / "run")
    assert (record["class_count"], record["padding"], record["resolution"]) == (1001, "same", 224)
    assert record["normalisation"]["mean"] == pytest.approx([128 / 255] * 3)
    assert record["excused"] == []
    with pytest.raises(
        bneck.InputError, match=rf"holds {name}, not v3-large; import it with bneck import --as "
    ):
        bneck.import_weights(DATA / file, "v3-large", out=tmp_path / "other")
    torn = tmp_path / "torn.tflite"
    torn.write_bytes((DATA / file).read_bytes()[:1_000_000])
    with pytest.raises(bneck.InputError, match="is not a whole TFLite file"):
        bneck.import_weights(torn, name, out=tmp_path / "torn")
