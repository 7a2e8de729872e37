"""Segmenters as ONNX files: they answer as the module does, at every output stride, with either head."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from bneck.devices.runtimes import OnnxRuntime
from bneck.export import segmenter_file
from bneck.export.files import ExportError
from bneck.export.segmenter_file import compare, export_segmenter, shipped
from bneck.graphs.segmenter_graph import segmenter_graph
from bneck.nets.segmenter import SegmentNet, build_segmenter
from bneck.recipes import segment_measure
from bneck.recipes.segment_measure import PROTOCOL, measure_segmenters
from bneck.specs.errors import InputError
from bneck.specs.segmenter import Segmenter, from_settings, segmenter
from bneck.specs.text import from_text
from bneck.specs.zoo import network
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


@pytest.mark.parametrize("argmax", [False, True])
@pytest.mark.parametrize("head", ["lraspp", "raspp"])
@pytest.mark.parametrize("size", [(64, 64), (75, 101), (33, 20)])
def test_the_file_answers_as_the_module(
    tmp_path: Path, head: str, size: tuple[int, int], argmax: bool
) -> None:
    net = trained(segmenter(LITTLE, classes=4, filters=8, head=head))  # type: ignore[arg-type]
    path = tmp_path / "model.onnx"
    names = ["a", "b", "c", "d"]
    check = export_segmenter(net, path, images(2, 3, *size), classes=names, argmax=argmax)
    assert check["largest_difference"] <= 1e-4
    assert check["equal_pixels"] > 0.99
    onnx.checker.check_model(onnx.load(path))
    session = OnnxRuntime().load(path.read_bytes(), threads=1)
    out = session.run(images(1, 3, *size).numpy())
    assert out.shape == ((1, *size) if argmax else (1, 4, *size))
    assert json.loads(session.metadata["classes"]) == names
    spec = from_text(session.metadata["spec"])
    assert from_settings(spec, json.loads(session.metadata["segmenter"])) == net.seg


@pytest.mark.parametrize(
    "name", ["v3-small-0.35+rf2+os16", "v2-0.35+rf2+os8", "v3-edgetpu-0.35", "v3-small-0.35+os32"]
)
def test_networks_of_all_kinds(name: str) -> None:
    """Fused rows, dilation, and a map of more than one pooling window (640 x 900 at 1/8 and 1/32)."""
    net = trained(segmenter(network(name), classes=3, filters=8))
    for size in [(96, 120), *([(832, 900)] if "os" in name and "v3" in name else [])]:
        model = segmenter_graph(net.seg, shipped(net), size).SerializeToString()
        check = compare(net, model, images(1, 3, *size), argmax=False)
        assert check["largest_difference"] <= 1e-4


def test_windows_and_gates_reach_the_file() -> None:
    seg = replace(
        segmenter(LITTLE, classes=3, filters=8), window=3, window_stride=(1, 2), gate="sigmoid"
    )
    net = trained(seg)
    model = segmenter_graph(seg, shipped(net), (90, 120)).SerializeToString()
    assert compare(net, model, images(1, 3, 90, 120), argmax=False)["largest_difference"] <= 1e-4


def test_a_file_that_answers_otherwise_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = trained(segmenter(LITTLE, classes=3, filters=8))

    def spoiled(net: SegmentNet) -> dict[str, np.ndarray]:
        weights = shipped(net)
        return weights | {"head.low.bias": weights["head.low.bias"] + 0.1}

    monkeypatch.setattr(segmenter_file, "shipped", spoiled)
    path = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match="does not answer as the network does on 1 images"):
        export_segmenter(net, path, images(1, 3, 40, 40), classes="abc", argmax=False)
    assert not path.exists()


def test_segmenters_are_measured_side_by_side() -> None:
    """A record each, with a ratio to the first; nothing is claimed of the figures themselves."""
    patient = replace(PROTOCOL, rounds=3, max_repeats=0, max_spread=float("inf"))
    pair = [segmenter(LITTLE, classes=3, filters=8, head=head) for head in ("lraspp", "raspp")]
    rounds: list[int] = []
    found = measure_segmenters(
        pair, (40, 72), protocol=patient, on_round=lambda done, of: rounds.append(done)
    )
    assert [record["segmenter"] for record in found] == ["little lraspp8", "little raspp8"]
    assert found[0]["ratio"] == 1
    assert found[1]["ratio"] == pytest.approx(found[1]["cpu_ms"] / found[0]["cpu_ms"])
    assert found[0]["size"] == [40, 72]
    assert all(record["n"] == 3 and record["cpu_ms"] > 0 for record in found)
    assert rounds == [1, 2, 3]
    with pytest.raises(InputError, match="nothing to measure"):
        measure_segmenters([], (40, 72))
    with pytest.raises(InputError, match="there is no runtime 'abacus'"):
        measure_segmenters(pair, (40, 72), runtime_name="abacus")


def test_measuring_by_command(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    loose = replace(PROTOCOL, max_repeats=0, max_spread=float("inf"))
    monkeypatch.setattr(segment_measure, "PROTOCOL", loose)
    names = ("v3-small-0.35+rf2", "v2-0.35+rf2")
    answer = call(
        "measure", *names, "--task", "segment", "--size", "64x96", "--rounds", 3, "--json"
    )
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert [r["segmenter"] for r in found] == [f"{n}+os16 lraspp128" for n in names]
    answer = call("measure", names[0], "--task", "segment", "--size", "64x96", "--rounds", 3)
    assert "64 x 96 pixels" in answer.out
    assert "at least 1 and 3" in refusal(
        call("measure", names[0], "--task", "segment", "--rounds", 2)
    )
