"""Segmenters as ONNX files: they answer as the module does, at every output stride, with either head."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bneck.devices import protocol
from bneck.devices.runtimes import OnnxRuntime, runtime
from bneck.graphs.forms import form
from bneck.graphs.onnx_graph import wrapped_graph
from bneck.nets.calibrate import calibrate
from bneck.nets.fold import folded_weights
from bneck.nets.quantize import emulation, emulator
from bneck.runs.answers import FileAnswers
from bneck.runs.files import write_file
from bneck.runs.measure import measure
from bneck.specs.errors import InputError
from bneck.specs.text import from_text
from bneck.specs.zoo import network
from bneck.tasks.checks import ExportError
from bneck.tasks.segment.file import answer, compare
from bneck.tasks.segment.head import Segmenter, segmenter
from bneck.tasks.segment.module import SegmentNet, build_segmenter
from bneck.tasks.segment.options import SegmentOptions
from bneck.tasks.segment.task import Segment
from commands import Call, refusal
from test_segmenter import LITTLE


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def trained(seg: Segmenter) -> SegmentNet:
    """A net whose batch norms have seen something, so that folding has work to do."""
    net = build_segmenter(seg)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
    return net.eval()


def written(
    net: SegmentNet, path: Path, x: torch.Tensor, *, argmax: bool = False, **how: Any
) -> dict[str, Any]:
    """The file's check against images."""
    record = {"data": {"labels": {"names": list("abcd"[: net.seg.classes])}}}
    options = SegmentOptions(argmax=argmax)
    return write_file(Segment(), net, path, x, record=record, options=options, **how)


def loaded(model: Any) -> Any:
    return OnnxRuntime().load(model.SerializeToString(), threads=1)


@pytest.mark.parametrize("argmax", [False, True])
@pytest.mark.parametrize("head", ["lraspp", "raspp"])
@pytest.mark.parametrize("size", [(64, 64), (75, 101), (33, 20)])
def test_the_file_answers_as_the_module(
    tmp_path: Path, head: str, size: tuple[int, int], argmax: bool
) -> None:
    net = trained(segmenter(LITTLE, classes=4, filters=8, head=head))  # type: ignore[arg-type]
    path = tmp_path / "model.onnx"
    check = written(net, path, images(2, 3, *size), argmax=argmax)
    assert check["largest_difference"] <= 1e-4
    assert check["equal_pixels"] > 0.99
    onnx.checker.check_model(onnx.load(path))
    session = OnnxRuntime().load(path.read_bytes(), threads=1)
    out = session.run(images(1, 3, *size).numpy())
    assert out.shape == ((1, *size) if argmax else (1, 4, *size))
    assert json.loads(session.metadata["classes"]) == ["a", "b", "c", "d"]
    assert from_text(session.metadata["spec"]) == net.seg.network
    assert json.loads(session.metadata["segmenter"]) == net.seg.settings()


@pytest.mark.parametrize("head", ["lraspp", "raspp"])
@pytest.mark.parametrize("argmax", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_tflite_file_answers_as_the_module(
    tmp_path: Path, head: str, argmax: bool, precision: str
) -> None:
    pytest.importorskip("ai_edge_litert")
    net = trained(segmenter(LITTLE, classes=4, filters=8, head=head))  # type: ignore[arg-type]
    engine, path, size = runtime("litert"), tmp_path / "model.tflite", (75, 101)
    check = written(
        net, path, images(2, 3, *size), argmax=argmax, engine=engine, precision=precision
    )
    half = precision == "fp16"
    assert check["largest_difference"] <= (1e-2 if half else 1e-4)
    assert check["equal_pixels"] > (0.9 if half else 0.99)
    file = FileAnswers(path, engine.name)
    chooses = file.metadata["axes"] == "NHW"
    assert (file.size, chooses, file.labels) == (size, argmax, tuple("abcd"))
    found = answer(file.session, images(1, 3, *size).numpy(), argmax=argmax)
    assert found.shape == ((1, *size) if argmax else (1, 4, *size))
    # One part for XNNPACK; the choice is LiteRT's own.
    assert file.session.operators() == {"DELEGATE": 1} | ({"ARG_MAX": 1} if argmax else {})


@pytest.mark.parametrize("engine_name", ["onnxruntime", "litert", "openvino"])
@pytest.mark.parametrize("kind", ["lraspp", "raspp", "windows"])
def test_the_8_bit_file_answers_as_its_emulation(
    tmp_path: Path, engine_name: str, kind: str
) -> None:
    pytest.importorskip({"litert": "ai_edge_litert"}.get(engine_name, engine_name))
    seg = segmenter(LITTLE, classes=4, filters=8, head="raspp" if kind == "raspp" else "lraspp")
    if kind == "windows":
        seg = replace(seg, window=3, window_stride=(1, 2), gate="sigmoid")
    net, engine, size = trained(seg), runtime(engine_name), (90, 120)
    quantized = calibrate(net, [images(8, 3, *size)], form(engine_name, "int8"))
    path = tmp_path / f"model{engine.suffix}"
    check = written(
        net, path, images(2, 3, *size), engine=engine, precision="int8", quantized=quantized
    )
    assert check["equal_pixels"] > 0.75  # of a net that knows nothing
    file = FileAnswers(path, engine.name)
    got = torch.from_numpy(answer(file.session, images(1, 3, *size).numpy(), argmax=False))
    want = emulation(net, quantized)(images(1, 3, *size))
    assert (got - want).square().mean() <= 0.03**2 * want.square().mean()
    if engine_name == "litert":
        assert file.session.operators() == {"DELEGATE": 1}
    if engine_name == "onnxruntime":  # in float: the first two rows, of 8 channels
        found = file.session.operators()
        assert sum(n for kind, n in found.items() if kind.startswith("Conv")) == 3


@settings(max_examples=15, deadline=None)
@given(
    st.integers(17, 90),
    st.integers(17, 90),
    st.sampled_from(["lraspp", "raspp"]),
    st.integers(0, 5),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_the_order_in_which_files_compute_changes_nothing(
    height: int, width: int, head: str, window: int, strides: tuple[int, int]
) -> None:
    """The convolution before the resize, R-ASPP's projection in two: at any size and window."""
    plain = segmenter(LITTLE, classes=3, filters=8, head=head)  # type: ignore[arg-type]
    net = trained(replace(plain, window=window, window_stride=strides))
    x = images(1, 3, height, width)
    with torch.inference_mode():
        want = net(x)
        got = emulator(net, folded_weights(net), "op")(x)
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def test_a_wrong_8_bit_file_is_refused() -> None:
    net, size = trained(segmenter(LITTLE, classes=3, filters=8)), (40, 40)
    quantized = calibrate(net, [images(8, 3, *size)], "cut")
    weights = dict(quantized.weights)
    weights["head.low.bias"] = weights["head.low.bias"] + 1
    graph = wrapped_graph(net.seg, weights, size, hswish="cut", ranges=quantized.ranges)
    with pytest.raises(ExportError, match="does not answer as the network does on 1 images"):
        compare(net, loaded(graph), images(1, 3, *size), quantized, "int8", argmax=False)


def test_a_file_of_somebody_else_is_no_segmenter(tmp_path: Path) -> None:
    net, path = trained(segmenter(LITTLE, classes=3, filters=8)), tmp_path / "model.onnx"
    path.write_bytes(wrapped_graph(net.seg, folded_weights(net), (40, 40)).SerializeToString())
    with pytest.raises(InputError, match="was not exported by this version of bneck"):
        FileAnswers(path)


@pytest.mark.parametrize(
    "name", ["v3-small-0.35+rf2+os16", "v2-0.35+rf2+os8", "v3-edgetpu-0.35", "v3-small-0.35+os32"]
)
def test_networks_of_all_kinds(name: str) -> None:
    """Fused rows, dilation, and a map of more than one pooling window (640 x 900 at 1/8 and 1/32)."""
    net = trained(segmenter(network(name), classes=3, filters=8))
    for size in [(96, 120), *([(832, 900)] if "os" in name and "v3" in name else [])]:
        session = loaded(wrapped_graph(net.seg, folded_weights(net), size))
        check = compare(net, session, images(1, 3, *size), None, "fp32", argmax=False)
        assert check["largest_difference"] <= 1e-4


def test_windows_and_gates_reach_the_file() -> None:
    seg = replace(
        segmenter(LITTLE, classes=3, filters=8), window=3, window_stride=(1, 2), gate="sigmoid"
    )
    net = trained(seg)
    session = loaded(wrapped_graph(seg, folded_weights(net), (90, 120)))
    check = compare(net, session, images(1, 3, 90, 120), None, "fp32", argmax=False)
    assert check["largest_difference"] <= 1e-4


class Spoiled(Segment):
    """Compares with a module of other weights than were written."""

    def compare(self, net: Any, *known: Any) -> dict[str, Any]:
        other = trained(net.seg)
        with torch.no_grad():
            other.get_submodule("head.low").bias += 0.1
        return super().compare(other, *known)


def test_a_file_that_answers_otherwise_is_not_kept(tmp_path: Path) -> None:
    net = trained(segmenter(LITTLE, classes=3, filters=8))
    path, options = tmp_path / "model.onnx", SegmentOptions()
    with pytest.raises(ExportError, match="does not answer as the network does on 1 images"):
        write_file(Spoiled(), net, path, images(1, 3, 40, 40), record={}, options=options)
    assert not path.exists()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure of a busy machine is refused: these tests look at none."""
    monkeypatch.setattr(protocol, "_check_spread", lambda *of: None)


@pytest.mark.usefixtures("hasty")
def test_segmenters_are_measured_side_by_side() -> None:
    """A record each, with a ratio to the first; nothing is claimed of the figures themselves."""
    rounds: list[int] = []
    how: dict[str, Any] = {"task": "segment", "size": "40x72", "filters": 8, "rounds": 3}
    pair = (LITTLE, replace(LITTLE, name="other"))
    found = measure(*pair, on_round=lambda done, of: rounds.append(done), **how)
    assert [one.network for one in found] == ["little lraspp8", "other lraspp8"]
    assert [(one.resolution, one.width) for one in found] == [(40, 72)] * 2
    assert found[0].cpu_ratio(found[0]).median == 1
    assert found[1].cpu_ratio(found[0]).median > 0
    assert rounds == [1, 2, 3]
    (other,) = measure(LITTLE, head="raspp", **how)
    assert other.network == "little raspp8"
    many = measure(LITTLE, runtime=["onnxruntime", "litert"], precision=["fp32", "int8"], **how)
    assert [(one.runtime, one.precision) for one in many] == [
        ("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("litert", "fp32"), ("litert", "int8"),
    ]  # fmt: skip
    assert many[0].ratio(many[0]).median == 1
    with pytest.raises(InputError, match="nothing to measure"):
        measure(task="segment")
    with pytest.raises(InputError, match="there is no runtime 'abacus'"):
        measure(LITTLE, runtime="abacus", **how)


@pytest.mark.usefixtures("hasty")
def test_measuring_by_command(call: Call) -> None:
    names = ("v3-small-0.35+rf2", "v2-0.35+rf2")
    how = ("--task", "segment", "--size", "64x96")
    answer = call("measure", *names, *how, "--rounds", 3, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert [r["network"] for r in found] == [f"{n}+os16 lraspp128" for n in names]
    answer = call("measure", names[0], *how, "--rounds", 3)
    assert "64 x 96" in answer.out
    by_default = call("measure", names[0], "--task", "segment", "--rounds", 3, "--json")
    assert [(r["resolution"], r["width"]) for r in json.loads(by_default.out)] == [(512, 1024)]
    assert "at least 1 and 3" in refusal(
        call("measure", names[0], "--task", "segment", "--rounds", 2)
    )
