"""8 bits: numbers round as defined, files answer as their emulation, fine-tuning does not lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import bneck
from bneck.data.batches import eval_batches
from bneck.data.pack import Packed
from bneck.devices import protocol
from bneck.devices.models import network_model, wrapped_model
from bneck.devices.protocol import TimingError
from bneck.devices.runtimes import runtime
from bneck.graphs.forms import form
from bneck.graphs.quantization import (
    Scale,
    points,
    quantize_bias,
    quantize_weight,
    settled,
    weight_steps,
)
from bneck.nets.build import Net, build
from bneck.nets.calibrate import best_range, calibrate, layer_errors, naive
from bneck.nets.fold import folded_weights
from bneck.nets.quantize import QuantizedNet, emulation
from bneck.records.run import RunFolder
from bneck.runs import files
from bneck.runs import quantize as quantize_run
from bneck.runs.files import write_file
from bneck.runs.quantize import fine_tune
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec, layers
from bneck.specs.text import to_text
from bneck.specs.wrapper import PlainNetwork
from bneck.specs.zoo import network
from bneck.tasks.checks import ExportError
from bneck.tasks.classify.scoring import evaluate
from bneck.tasks.classify.task import ClassifyOptions
from bneck.tasks.registry import task
from bneck.training.settings import Settings
from learning import Module, train
from test_graphs import VARIED
from test_shrink import trained

finite = st.floats(-1e3, 1e3, width=32)


class TestNumbers:
    @given(finite, finite, st.lists(finite, min_size=1, max_size=20))
    def test_values_inside_a_range_are_off_by_half_a_step_at_most(
        self, one: float, other: float, values: list[float]
    ) -> None:
        low, high = min(one, other, 0.0), max(one, other, 0.0)
        scale = Scale.of(one, other) if one <= other else Scale.of(other, one)
        inside = np.clip(np.array(values), low, high)
        back = (scale.quantize(inside).astype(float) - scale.zero) * scale.step
        # Half a step, and as much again where rounding the zero point has moved the ends.
        assert np.abs(back - inside).max() <= 1.001 * scale.step

    @given(finite, finite)
    def test_zero_is_exact_and_ends_are_in_range(self, low: float, high: float) -> None:
        scale = Scale.of(min(low, high), max(low, high))
        assert -128 <= scale.zero <= 127
        assert int(scale.quantize(np.zeros(1))[0]) == scale.zero

    def test_by_hand(self) -> None:
        assert Scale.of(0.0, 2.55) == Scale(pytest.approx(0.01), -128)  # type: ignore[arg-type]
        assert Scale.of(-1.28, 1.27) == Scale(pytest.approx(0.01), 0)  # type: ignore[arg-type]
        assert Scale.of(0.0, 255.0).quantize(np.array([0, 1, 254.6, 300])).tolist() == [
            -128, -127, 127, 127,
        ]  # fmt: skip

    def test_integers_before_a_cut_h_swish_begin_at_minus_three(self) -> None:
        """Of 255 steps from -9.2 to 6, 50.3 are below each 3: 50 steps of 0.06 from -3 to 0, to 12.3 in all."""
        walk, point = [*layers(network("v3-small"))], "rows.4.expand.pre"
        found = settled({point: (-9.2, 6.0), "rows.4.expand": (-0.4, 6.0)}, walk, "cut")
        assert found == {point: (-3.0, pytest.approx(12.3)), "rows.4.expand": (-0.4, 6.0)}
        assert Scale.of(*found[point]) == Scale(pytest.approx(0.06), 50 - 128)  # type: ignore[arg-type]
        # From -1 on, as many would end below 5: 95 of 3/95 end at 5.05.
        assert settled({point: (-1.0, 5.0)}, walk, "cut")[point][1] == pytest.approx(
            255 * 3 / 95 - 3
        )
        for low, high in ((0.0, 0.0), (-9.0, -1.0), (2.0, 500.0)):
            least, most = settled({point: (low, high)}, walk, "cut")[point]
            assert least == -3
            assert most >= max(high, 0)

    def test_narrow_first_rows_have_no_ranges_but_for_what_leaves_them(self) -> None:
        found = points([*layers(network("v3-large"))], "cut", "hsigmoid")
        assert [name for name in found if name.startswith(("image", "rows.0", "rows.1."))] == [
            "rows.1.project.sum"
        ]
        assert "image" in points(
            layers(network("v2")), "cut", "hsigmoid"
        )  # 32 channels are not narrow

    def test_weights_have_one_step_a_channel(self) -> None:
        weight = np.array([[1.27, -0.01], [-12.7, 0.0]], np.float32).reshape(2, 2, 1, 1)
        steps = weight_steps(weight, np.zeros(2, np.float32), 1.0)
        assert steps == pytest.approx([0.01, 0.1])
        assert quantize_weight(weight, steps).reshape(2, 2).tolist() == [[127, -1], [-127, 0]]

    def test_a_bias_beside_tiny_weights_fits_into_32_bits(self) -> None:
        weight = np.full((1, 1, 1, 1), 1e-7, np.float32)
        bias = np.array([5.0], np.float32)
        steps = weight_steps(weight, bias, 0.02)
        whole = quantize_bias(bias, steps, 0.02)
        assert abs(int(whole[0])) <= 2**30 + 2**8
        assert whole[0] * steps[0] * 0.02 == pytest.approx(5.0, rel=1e-5)

    def test_a_range_is_cut_where_outliers_cost_more_than_they_bring(self) -> None:
        values = np.random.default_rng(0).standard_normal(20_000)
        assert best_range(values, 0.0, 0.0) == (0.0, 0.0)
        low, high = best_range(values, float(values.min()), 40.0)  # one far outlier, not drawn
        assert high < 40 * 0.5
        assert low == pytest.approx(values.min(), rel=0.3)


RUNTIMES = ["litert", "onnxruntime", "openvino"]


@pytest.mark.parametrize("name", [*RUNTIMES, pytest.param("executorch", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "spec",
    [network("v3-small@64"), VARIED, network("v4-conv-small@64"), network("lcnet@64")],
    ids=["v3-small", "varied", "v4-conv-small", "lcnet"],
)
def test_files_answer_as_their_emulation(name: str, spec: NetSpec) -> None:
    assert_as_emulated(name, trained(spec).eval())


@pytest.mark.parametrize("name", RUNTIMES)
def test_layers_that_give_nothing_do_no_harm(name: str) -> None:
    """Squeezes and an expansion that are 0 on every image: LiteRT's process ended in a corrupted heap."""
    net = trained(network("v3-small@64")).eval()
    with torch.no_grad():
        for part, layer in net.named_modules():
            if part.endswith("se.reduce") or part == "rows.2.expand.bn":
                layer.bias.fill_(-100.0)
    assert_as_emulated(name, net)


def assert_as_emulated(name: str, net: Net) -> None:
    pytest.importorskip({"litert": "ai_edge_litert"}.get(name, name))
    engine, spec = runtime(name), net.spec
    size = (8, spec.channels, 64, 64)
    images = torch.from_numpy(np.random.default_rng(0).standard_normal(size, dtype=np.float32))
    quantized = calibrate(net, [images], form(name, "int8"))
    assert set(quantized.ranges) <= set(points([*layers(spec)], quantized.hswish, spec.se_gate))
    model = network_model(
        spec, engine, "int8", weights=quantized.weights, ranges=quantized.ranges, resolution=64
    )
    got = engine.load(model, threads=1).run(images[:1].numpy())
    with torch.inference_mode():
        wanted = emulation(net, quantized)(images[:1]).numpy()
    low, high = quantized.ranges["classifier"]
    step = Scale.of(low, high).step
    assert np.abs(got - wanted).max() <= 4 * step
    assert np.abs(got - wanted).mean() <= step


@pytest.fixture(scope="module")
def net(tiny: NetSpec, image_data: Any) -> Net:
    torch.set_num_threads(1)
    settings = Settings(epochs=10, batch=16, lr=0.005, average=0.9, bn_momentum=0.1)
    trained: Net = train(build(tiny), image_data, settings)
    return trained.eval()


def batches(packed: Packed) -> list[tuple[Tensor, Tensor]]:
    indices = np.arange(len(packed.val.labels))
    return list(eval_batches(packed.val, indices, resolution=32, batch=10))


class TestCalibration:
    def test_without_ranges_it_is_the_net_itself(self, net: Net, packed: Packed) -> None:
        images = batches(packed)[0][0]
        for hswish in ("op", "split", "cut", "fused"):
            plain = QuantizedNet(PlainNetwork(net.spec), folded_weights(net), hswish).eval()
            with torch.inference_mode():
                assert torch.allclose(plain(images), net(images), rtol=1e-4, atol=1e-5)

    def test_it_stays_near_the_float_net(self, net: Net, packed: Packed) -> None:
        images = torch.cat([i for i, _ in batches(packed)])
        quantized = calibrate(net, [images], "split")
        with torch.inference_mode():
            wanted, got = net(images), emulation(net, quantized)(images)
        assert float((got - wanted).square().mean().sqrt()) < 0.1 * float(wanted.std())

    @pytest.mark.parametrize(("count", "said"), [(0, "is none"), (1, "is 1"), (7, "are 7")])
    def test_too_few_images_are_refused(
        self, net: Net, packed: Packed, count: int, said: str
    ) -> None:
        images = batches(packed)[0][0][:count]
        with pytest.raises(InputError, match=f"on at least 8 images, and there {said} here; pass"):
            calibrate(net, [images] if count else [], "split")

    def test_images_of_one_colour_are_refused(self, net: Net) -> None:
        images = torch.rand(1, 3, 1, 1).expand(8, -1, 32, 32)
        with pytest.raises(InputError, match=r"all 8 images .* are of one color"):
            calibrate(net, [images], "split")
        calibrate(net, [images, torch.rand(1, 3, 1, 1).expand(1, -1, 32, 32)], "split")

    def test_the_guilty_layer_is_found(self, net: Net, packed: Packed) -> None:
        """One channel of a depthwise filter a thousand times the others': with one scale a tensor
        the others would be gone; here a range that is much too wide does the same."""
        images = batches(packed)[0][0]
        quantized = calibrate(net, [images], "split")
        ranges = dict(quantized.ranges)
        ranges["rows.2.depthwise"] = (0.0, 400 * ranges["rows.2.depthwise"][1])
        broken = type(quantized)(weights=quantized.weights, ranges=ranges, hswish="split")
        errors = layer_errors(net, broken, images)
        assert errors[0].layer == "rows.2.depthwise"
        assert errors[0].row == 2
        assert errors[0].alone > 3 * errors[1].alone
        assert {error.layer for error in errors} == {layer.name for layer in layers(net.spec)}

    def test_the_naive_way_is_worse(self, packed: Packed) -> None:
        spec = network("v3-small@32")
        uneven = trained(spec).eval()
        for name, value in uneven.state_dict().items():
            if name.endswith("depthwise.bn.weight"):  # channels of very different size
                value.mul_(torch.logspace(-2, 0.5, len(value)))
        images = torch.cat([i for i, _ in batches(packed)])
        with torch.inference_mode():
            wanted = uneven(images)
            careful, careless = (
                float(
                    (emulation(uneven, way(uneven, [images], "split"))(images) - wanted)
                    .square()
                    .mean()
                )
                for way in (calibrate, naive)
            )
        assert careful < careless


class TestFineTuning:
    def test_a_little_of_it_does_not_lose(self, net: Net, packed: Packed, image_data: Any) -> None:
        post = calibrate(net, [i for i, _ in batches(packed)], "split")
        settings = Settings(epochs=3, batch=16, lr=2e-4, average=0.9, warmup=0.25, teach=1.0)
        tuned = fine_tune(net, post, image_data, settings)
        before, after = (
            evaluate(Module(emulation(net, quantized).eval()), batches(packed))
            for quantized in (post, tuned)
        )
        assert after.top1 >= before.top1 - 1 / 30
        assert after.expected >= before.expected
        assert set(tuned.weights) == set(post.weights)
        images, _ = next(iter(batches(packed)))
        with torch.inference_mode():
            wanted = net(images).softmax(1)
            near, far = (
                float((emulation(net, one)(images).softmax(1) - wanted).square().mean())
                for one in (tuned, post)
            )
        assert near < far  # the float network is the teacher
        changed = [n for n in post.weights if not np.array_equal(post.weights[n], tuned.weights[n])]
        assert len(changed) > len(post.weights) * 0.8


@pytest.fixture
def run(net: Net, tmp_path: Path) -> Path:
    """The folder of a run that trained the tiny net, as far as export and quantize look at it."""
    from bneck.nets.weights import save_weights

    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.spec.write_text(to_text(net.spec), encoding="utf-8")
    save_weights(net.state_dict(), folder.weights)
    record = {
        "format": 2,
        "kind": "train",
        "task": "classify",
        "state": "finished",
        "classes": ["circle", "square", "stripes"],
        "wrapper": {},
        "options": {"seed": 0, "task": {}},
        "data": {"name": "pictures"},
    }
    folder.run_json.write_text(json.dumps(record), encoding="utf-8")
    return folder.path


class TestCommands:
    @pytest.mark.parametrize("format", ["tflite", "onnx", "openvino"])
    def test_an_8_bit_export_says_what_it_is(
        self, run: Path, pictures: Path, tmp_path: Path, format: str
    ) -> None:
        found = bneck.export(run, format, precision="int8", data=pictures)
        assert found["precision"] == "int8"
        assert found["largest_difference"] <= 0.1
        assert Path(found["file"]).parent == run
        engine = runtime(found["runtime"])
        metadata = engine.load(engine.read(Path(found["file"])), threads=1).metadata
        assert json.loads(metadata["classes"]) == ["circle", "square", "stripes"]
        assert metadata["precision"] == "int8"
        assert metadata["spec"] == to_text(bneck.network(run))

    @pytest.mark.parametrize("format", ["tflite", "onnx", "openvino"])
    def test_weights_in_half_precision(self, run: Path, pictures: Path, format: str) -> None:
        half, whole = (
            bneck.export(run, format, precision=precision, data=pictures)
            for precision in ("fp16", "fp32")
        )
        assert half["precision"] == "fp16"
        assert Path(half["file"]).stem == "model-fp16"
        assert 1e-6 < half["largest_difference"] <= 0.01  # rounded, and by no more than that
        assert whole["largest_difference"] <= 1e-4
        assert half["size_mb"] < 0.7 * whole["size_mb"]
        engine = runtime(half["runtime"])
        metadata = engine.load(engine.read(Path(half["file"])), threads=1).metadata
        assert metadata["precision"] == "fp16"

    def test_pixels_go_straight_in(self, run: Path, pictures: Path) -> None:
        found = bneck.export(run, "tflite", precision="int8", data=pictures, pixels=True)
        engine = runtime("litert")
        session = engine.load(Path(found["file"]).read_bytes(), threads=1)
        assert session.metadata["input"] == "pixels"
        assert session.operators() == {"DELEGATE": 1}

    def test_a_busy_machine_costs_the_times_and_nothing_else(
        self, run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def busy(*of: object, **how: object) -> None:
            raise TimingError("the times spread by 200%")

        monkeypatch.setattr(quantize_run, "measure", busy)
        found = bneck.quantize(run, data=pictures, epochs=0, rounds=3)
        assert [row["name"] for row in found["rows"]] == ["fp32", "naive", "ptq"]
        assert not any("latency_ms" in row for row in found["rows"])
        assert (run / "8bit" / "ptq.tflite").is_file()

    def test_all_three_stand_side_by_side(
        self, run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(protocol, "_check_spread", lambda *of: None)
        found = bneck.quantize(run, data=pictures, epochs=1, rounds=3)
        rows = {row["name"]: row for row in found["rows"]}
        assert list(rows) == ["fp32", "naive", "ptq", "qat"]
        assert rows["ptq"]["score"] >= rows["fp32"]["score"] - 0.1
        assert rows["qat"]["score"] >= rows["fp32"]["score"] - 0.1
        assert rows["ptq"]["size_mb"] < 0.5 * rows["fp32"]["size_mb"]
        assert all(rows[name]["latency_ms"] > 0 for name in ("fp32", "ptq", "qat"))
        assert not (run / "8bit" / "naive.tflite").exists()
        assert json.loads((run / "8bit" / "quantize.json").read_text()) == found

    def test_8_bits_without_images_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"^int8 needs images .* --data"):
            bneck.export("v3-small@32", "tflite", precision="int8", out=tmp_path / "x.tflite")
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_without_pictures_is_refused(self, run: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="empty has no pictures; pass a folder of pictures"):
            bneck.export(run, "tflite", precision="int8", data=tmp_path / "empty")

    def test_an_unknown_format_lists_the_known_ones(self) -> None:
        with pytest.raises(
            InputError, match=r"^there is no format 'coreml'; known are onnx, tflite"
        ):
            bneck.export("v3-small@32", "coreml")

    def test_an_untrained_network_is_not_quantised(self) -> None:
        with pytest.raises(InputError, match="v3-small has no trained weights"):
            bneck.quantize("v3-small")


def test_a_wrong_8_bit_file_is_not_kept(net: Net, packed: Packed, tmp_path: Path) -> None:
    images = torch.cat([i for i, _ in batches(packed)])
    quantized = calibrate(net, [images], "cut")
    weights = dict(quantized.weights)
    engine = runtime("onnxruntime")

    def spoilt(*args: object, **kwargs: object) -> bytes:
        kwargs["weights"] = {**weights, "classifier.bias": weights["classifier.bias"] + 3}
        return wrapped_model(*args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "wrapped_model", spoilt)
        with pytest.raises(ExportError, match="no file was kept"):
            write_file(
                task("classify"), net, tmp_path / "x.onnx", images, record={}, engine=engine,
                options=ClassifyOptions(), precision="int8", quantized=quantized,
            )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
