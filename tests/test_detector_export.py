"""Exported detectors find what the module finds, with and without decoding inside the file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from bneck.devices.models import wrapped_model
from bneck.devices.runtimes import OnnxRuntime, runtime
from bneck.graphs.forms import form
from bneck.graphs.onnx_graph import wrapped_graph
from bneck.nets.calibrate import calibrate, layer_errors
from bneck.nets.fold import folded_weights
from bneck.nets.quantize import emulation, emulator
from bneck.runs.answers import FileAnswers
from bneck.runs.files import write_file
from bneck.specs.errors import InputError
from bneck.specs.transforms import with_resolution
from bneck.tasks.checks import ExportError
from bneck.tasks.detect.boxes import Found, as_boxes, detections
from bneck.tasks.detect.file import alike_share, compare, difference
from bneck.tasks.detect.head import anchors, ssdlite
from bneck.tasks.detect.module import DetectorNet, build_detector
from bneck.tasks.detect.scoring import check_raw
from bneck.tasks.detect.task import Detect, DetectOptions


def lively(name: str, resolution: int = 96) -> DetectorNet:
    """A net that finds many boxes: random heads, batch norm that is no identity."""
    made = ssdlite(name, classes=3, resolution=resolution)
    spec = with_resolution(made.network, resolution)
    net = build_detector(replace(made, network=spec), seed=1)
    generator = torch.Generator().manual_seed(2)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.2, 0.2, generator=generator)
    for head in net.scores:
        bias = head.get_submodule("predict.conv").bias
        assert isinstance(bias, Tensor)
        nn.init.constant_(bias, -2.0)
    return net.eval()


SIZE = (96, 96)


def written(net: DetectorNet, path: Path, *, decode: bool = False, **how: Any) -> dict[str, Any]:
    """The file's check against two images."""
    options = DetectOptions(decode=decode)
    record = {"classes": ["a", "b", "c"]}
    return write_file(Detect(), net, path, images(2), record=record, options=options, **how)


def loaded(model: Any) -> Any:
    return OnnxRuntime().load(model.SerializeToString(), threads=1)


def images(count: int, resolution: int = 96) -> Tensor:
    return torch.randn(count, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name", ["v3-small+dagger", "v1-0.25", "mnasnet-a1-0.35", "v4-conv-small-0.35"]
)
@pytest.mark.parametrize("decode", [False, True])
def test_the_file_finds_what_the_module_finds(name: str, decode: bool, tmp_path: Path) -> None:
    net = lively(name)
    path = tmp_path / "model.onnx"
    check = written(net, path, decode=decode)
    assert check["boxes"] >= 20
    assert check["largest_difference"] < 1e-3
    session = OnnxRuntime().load(path.read_bytes(), threads=1)
    assert json.loads(session.metadata["classes"]) == ["a", "b", "c"]
    assert session.metadata["task"] == "detect"
    places = np.array(json.loads(session.metadata["anchors"]), np.float32)
    assert np.array_equal(places, np.array(anchors(net.detector), np.float32))
    onnx.checker.check_model(str(path), full_check=True)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["v3-small+dagger", "mnasnet-a1-0.35"])
def test_the_tflite_file_finds_what_the_module_finds(
    name: str, precision: str, tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert")
    half = precision == "fp16"
    net, engine, path = lively(name), runtime("litert"), tmp_path / "model.tflite"
    check = written(net, path, engine=engine, precision=precision)
    assert check["boxes"] >= 20
    session = engine.load(path.read_bytes(), threads=1)
    assert session.operators() == {"DELEGATE": 1}
    assert session.metadata["task"] == "detect"
    with torch.inference_mode():
        wanted = net(images(1))
    for got, want in zip(session.run_all(images(1).numpy()), wanted, strict=True):
        assert got.shape == want.shape
        assert np.abs(got - want.numpy()).max() <= (0.02 if half else 1e-4) * want.abs().max()
    parameters = sum(value.size for value in folded_weights(net).values())
    assert path.stat().st_size < (2.4 if half else 4.3) * parameters + 60_000


def test_both_files_find_the_same_in_the_same_order() -> None:
    net, image = lively("v3-small"), images(1).numpy()
    weights, places = folded_weights(net), np.array(anchors(net.detector), np.float32)
    plain, decoding = (
        loaded(wrapped_graph(net.detector, weights, SIZE, finished=decode))
        for decode in (False, True)
    )
    offsets, logits = plain.run_all(image)
    wanted = detections(offsets[0], logits[0], places)
    boxes, scores, labels = decoding.run_all(image)
    assert len(scores) == len(wanted.scores) == 100
    assert scores == pytest.approx(wanted.scores, abs=1e-5)
    assert np.array_equal(labels, wanted.labels)
    assert boxes == pytest.approx(wanted.boxes, abs=1e-5)


def test_decoding_in_another_format_is_refused() -> None:
    engine = runtime("litert")
    with pytest.raises(InputError, match="decoding inside the file is for the format onnx"):
        wrapped_model(lively("v3-small").detector, engine, SIZE, finished=True)


def test_other_padding_is_followed() -> None:
    detector = ssdlite("v3-small", classes=2, resolution=75)
    net = build_detector(replace(detector, network=replace(detector.network, padding="same")))
    session = loaded(wrapped_graph(net.detector, folded_weights(net), (75, 75)))
    with torch.inference_mode():
        wanted = net.eval()(images(2, 75))
    for got, want in zip(session.run_all(images(2, 75).numpy()), wanted, strict=True):
        assert got == pytest.approx(want.numpy(), abs=1e-4)


def test_a_file_of_other_weights_is_refused() -> None:
    net, other = lively("v3-small"), lively("v3-small")
    nn.init.normal_(other.scores[1].get_submodule("predict.conv").weight)
    session = loaded(wrapped_graph(other.detector, folded_weights(other), SIZE))
    with pytest.raises(ExportError, match=r"does not (find|answer as) .* on 1 images"):
        compare(net, session, images(1), None, "fp32", decode=False)


@pytest.mark.parametrize("name", ["v3-small+dagger", "v1-0.25"])
@pytest.mark.parametrize("engine_name", ["onnxruntime", "litert", "openvino"])
def test_the_8_bit_file_answers_as_its_emulation(
    name: str, engine_name: str, tmp_path: Path
) -> None:
    pytest.importorskip({"litert": "ai_edge_litert"}.get(engine_name, engine_name))
    net, engine = lively(name), runtime(engine_name)
    quantized = calibrate(net, [images(8)], form(engine_name, "int8"))
    path = tmp_path / f"model{engine.suffix}"
    check = written(net, path, engine=engine, precision="int8", quantized=quantized)
    assert check["alike"] > 0.75  # with the float module, of heads that know nothing
    file = FileAnswers(path, engine.name)
    assert file.wrapped == net.detector
    with torch.inference_mode():
        # Each output has a range of its own, so none loses its bits to another.
        for got, want, real in zip(
            file(images(2)), emulation(net, quantized)(images(2)), net(images(2)), strict=True
        ):
            got = torch.from_numpy(got)
            assert (got - want).square().mean() <= 0.02**2 * want.square().mean()
            assert (got - real).square().mean() <= 0.05**2 * real.square().mean()
    if engine_name == "litert":
        assert file.session.operators() == {"DELEGATE": 1}
    if engine_name == "onnxruntime":  # in float: the first rows, of at most 16 channels
        found = file.session.operators()
        convolutions = sum(n for kind, n in found.items() if kind.startswith("Conv"))
        assert convolutions == {"v3-small+dagger": 5, "v1-0.25": 3}[name]


def test_an_8_bit_file_may_decode_by_itself(tmp_path: Path) -> None:
    net, path = lively("v3-small+dagger"), tmp_path / "model.onnx"
    quantized = calibrate(net, [images(8)], "cut")
    check = written(net, path, decode=True, precision="int8", quantized=quantized)
    assert check["alike"] > 0.9
    with pytest.raises(InputError, match="this file decodes by itself; pass the run"):
        check_raw(FileAnswers(path))


def test_in_float_the_emulation_is_the_module_and_rounding_a_layer_is_felt() -> None:
    net = lively("v3-small+dagger")
    with torch.inference_mode():
        for got, want in zip(
            emulator(net, folded_weights(net), "op")(images(2)), net(images(2)), strict=True
        ):
            assert torch.allclose(got, want, atol=1e-4)
    errors = layer_errors(net, calibrate(net, [images(8)], "op"), images(1))
    assert {"boxes.0.predict", "extras.3.expand"} <= {error.layer for error in errors}
    assert all(error.alone >= 0 for error in errors)


@pytest.mark.parametrize("decode", [False, True])
def test_a_wrong_8_bit_file_is_refused(decode: bool) -> None:
    net, other = lively("v3-small"), lively("v3-small")
    for head in other.boxes:
        nn.init.normal_(head.get_submodule("predict.conv").weight)
    ours, theirs = (calibrate(one, [images(8)], "cut") for one in (net, other))
    graph = wrapped_graph(
        other.detector, theirs.weights, SIZE, finished=decode, hswish="cut", ranges=theirs.ranges
    )
    with pytest.raises(ExportError, match=r"does not (find|answer as) .* on 1 images"):
        compare(net, loaded(graph), images(1), ours, "int8", decode=decode)


def test_a_file_of_somebody_else_is_no_detector(tmp_path: Path) -> None:
    net, path = lively("v3-small"), tmp_path / "model.onnx"
    path.write_bytes(wrapped_graph(net.detector, folded_weights(net), SIZE).SerializeToString())
    with pytest.raises(InputError, match="was not exported by this version of bneck"):
        FileAnswers(path)


class TestAlike:
    ONE = Found(as_boxes([[0.1, 0.1, 0.5, 0.5]]), np.array([0.9], np.float32), np.array([1]))
    NONE = Found(as_boxes([]), np.empty(0, np.float32), np.empty(0, np.int64))

    def test_by_hand(self) -> None:
        moved = Found(self.ONE.boxes + np.float32(0.02), self.ONE.scores, self.ONE.labels)
        # Overlap: 0.38 squared over twice 0.16 less that, 0.82.
        assert alike_share([self.ONE], [moved]) == 1
        gone = Found(self.ONE.boxes + np.float32(0.1), self.ONE.scores, self.ONE.labels)
        assert alike_share([self.ONE], [gone]) == 0
        assert alike_share([self.ONE, self.ONE], [self.ONE, self.NONE]) == pytest.approx(2 / 3)
        assert alike_share([self.NONE], [self.NONE]) == 1

    def test_another_label_or_score_is_another_box(self) -> None:
        label = Found(self.ONE.boxes, self.ONE.scores, np.array([2]))
        score = Found(self.ONE.boxes, np.array([0.7], np.float32), self.ONE.labels)
        assert alike_share([self.ONE], [label]) == alike_share([self.ONE], [score]) == 0


class TestDifference:
    ONE = Found(as_boxes([[0.1, 0.1, 0.5, 0.5]]), np.array([0.9], np.float32), np.array([1]))

    def test_by_hand(self) -> None:
        moved = Found(self.ONE.boxes + np.float32(0.01), self.ONE.scores, self.ONE.labels)
        assert difference(self.ONE, moved) == pytest.approx(0.01, abs=1e-6)
        assert difference(self.ONE, self.ONE) == 0

    def test_a_missing_box_counts_either_way(self) -> None:
        none = Found(as_boxes([]), np.empty(0, np.float32), np.empty(0, np.int64))
        other = Found(self.ONE.boxes, self.ONE.scores, np.array([2]))
        for a, b in ((self.ONE, none), (none, self.ONE), (self.ONE, other)):
            assert difference(a, b) == float("inf")


def test_what_is_said_of_a_check() -> None:
    said = Detect().check_line
    assert said({"boxes": 7, "alike": 0.9}) == "7 boxes, 90.0% of the boxes alike"
    assert said({"boxes": 0, "alike": 1.0}).startswith(
        "the network finds no box with a score above"
    )
    both = {"boxes": 0, "largest_difference": 1e-6}
    assert said(both) == "0 boxes, boxes and scores differ by 1.0e-06"
