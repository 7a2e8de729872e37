"""Wrappers: rows, layers and graphs of a wrapped network say the same; shrinking keeps what is strong."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bneck.costs.count import count_madds, count_params, count_whole
from bneck.tasks.detect.count import count_detector
from bneck.tasks.segment.count import count_segmenter
from bneck.costs.table import TableError, row_keys
from bneck.costs.table_file import header_line, read_table
from bneck.devices.fill import grid, plan_for
from bneck.devices.head_models import wrapped_model
from bneck.devices.runtimes import OnnxRuntime
from bneck.tasks.detect.module import DetectorNet, build_detector
from bneck.tasks.segment.module import build_segmenter
from bneck.nets.shrink import ShrinkError
from bneck.nets.shrink_wrapped import shrink_detector, shrink_segmenter
from bneck.records.ledger import Ledger
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.text import resolve
from bneck.specs.transforms import fix_skips, random_widths, with_expanded, with_resolution
from bneck.specs.wrapper import PLAIN, Aspp, Placed, Plain, Ssdlite

SSD = Ssdlite(classes=2)
LR = Aspp(shape=(48, 64), classes=3, filters=16)
R = replace(LR, head="raspp")
SMALL = with_resolution(resolve("v3-small+dagger"), 96)
WRAPPED = [
    pytest.param(SMALL, PLAIN, id="plain"),
    pytest.param(SMALL, SSD, id="ssdlite"),
    pytest.param(with_resolution(resolve("v1"), 96), SSD, id="ssdlite without expansion"),
    pytest.param(resolve("v3-small+rf2"), LR, id="lraspp"),
    pytest.param(resolve("v2-0.5+rf2"), R, id="raspp"),
]


def madds(placed: Placed) -> int:
    """Multiply-adds of a row by hand: size out, kernel, widths."""
    row, (height, width) = placed.row, placed.size
    if isinstance(row, Pool):
        return 0
    pixels = -(-height // row.stride) * -(-width // row.stride)
    if isinstance(row, Conv):
        return pixels * row.kernel**2 * placed.width_in * row.out
    expand = height * width * placed.width_in * row.expanded if placed.expands else 0
    spatial = pixels * row.kernel**2 * row.expanded
    return expand + spatial + 2 * row.expanded * row.se + pixels * row.expanded * row.out


@pytest.mark.parametrize(("spec", "wrapper"), WRAPPED)
def test_rows_do_the_work_of_the_layers(spec: NetSpec, wrapper: Plain | Ssdlite | Aspp) -> None:
    by_layers = sum(map(count_madds, wrapper.layers(spec)))
    assert sum(map(madds, wrapper.rows(spec))) == by_layers
    assert count_whole(spec, wrapper).madds == by_layers


def test_an_output_stride_is_reached_once() -> None:
    spec = resolve("v3-small+rf2")
    once = LR.network(spec)
    assert LR.segmenter(spec).output_stride == LR.segmenter(once).output_stride == 16
    assert LR.network(once) == once  # its name too


def test_counts_are_those_of_the_tasks() -> None:
    assert count_whole(SMALL, SSD).params == count_detector(SSD.detector(SMALL)).params
    spec = resolve("v3-small+rf2")
    assert count_whole(spec, LR).madds == count_segmenter(LR.segmenter(spec), LR.shape).madds
    by_hand = sum(map(count_params, LR.layers(spec)))
    assert count_segmenter(LR.segmenter(spec), LR.shape).params == by_hand


@pytest.mark.parametrize(("spec", "wrapper"), WRAPPED)
def test_a_table_for_a_network_has_every_narrower_one(
    spec: NetSpec, wrapper: Plain | Ssdlite | Aspp
) -> None:
    spans = {}
    for shape, widths in grid(spec, wrapper):
        low, high = spans.setdefault(shape, (widths, widths))
        spans[shape] = (tuple(map(min, low, widths)), tuple(map(max, high, widths)))
    rng = random.Random(0)
    for _ in range(10):
        for shape, widths in row_keys(random_widths(spec, rng), wrapper):
            low, high = spans[shape]
            assert all(a <= w <= b for a, w, b in zip(low, widths, high, strict=True))


def test_a_table_answers_for_its_own_wrapper_only(tmp_path: Path) -> None:
    Ledger(tmp_path / "t.jsonl").append(header_line({"wrapper": SSD.key}))
    assert read_table(tmp_path / "t.jsonl", SSD).wrapper == SSD
    with pytest.raises(TableError, match=r"is a latency table of ssdlite 2 .*, not of classifiers"):
        read_table(tmp_path / "t.jsonl")
    assert plan_for(SMALL, SSD).wrapper == SSD


@pytest.mark.parametrize("wrapper", [SSD, LR])
def test_what_is_timed_is_the_whole(wrapper: Ssdlite | Aspp) -> None:
    spec = SMALL if wrapper is SSD else resolve("v3-small+rf2")
    session = OnnxRuntime().load(wrapped_model(spec, wrapper, OnnxRuntime()), threads=1)
    height, width = wrapper.size(spec)
    shapes = [tuple(out.shape) for out in session.run_all(torch.zeros(1, 3, height, width).numpy())]
    # 6 x 6 cells of 3 boxes; 3 x 3, 2 x 2, 1, 1 and 1 of 6: 108 + 54 + 24 + 18 = 204
    assert shapes == ([(1, 204, 4), (1, 204, 3)] if wrapper is SSD else [(1, 3, 48, 64)])


def silence(net: nn.Module, row: int, kept: int) -> None:
    """Make all but the first `kept` channels of a row's expansion give nothing, whatever comes in."""
    expand = net.get_submodule(f"rows.{row}.expand.bn")
    assert isinstance(expand, nn.BatchNorm2d)
    with torch.no_grad():
        expand.weight[kept:] = 0
        expand.bias[kept:] = 0


def settled(net: nn.Module) -> nn.Module:
    """With statistics of its own, so that no channel is like another."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
    return net.eval()


def test_a_detector_without_its_silent_channels_finds_the_same() -> None:
    spec = fix_skips(replace(SMALL, rows=no_squeeze(SMALL)))
    net = build_detector(SSD.detector(spec))
    settled(net)
    row = SSD.detector(spec).c4_row  # C4 itself is narrowed: its heads must follow
    silence(net, row, 64)
    narrow = shrink_detector(net, SSD.detector(with_expanded(spec, row, 64)))
    # What is silent stays so behind the depthwise conv too, whose own bias would speak otherwise.
    with torch.no_grad():
        for depthwise in (net.rows[row], net.boxes[0], net.scores[0]):
            depthwise.get_submodule("depthwise.bn").bias[64:] = 0
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for one, other in zip(net(x), narrow(x), strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def no_squeeze(spec: NetSpec) -> tuple[Conv | Bneck | Pool, ...]:
    return tuple(replace(r, se=0) if isinstance(r, Bneck) else r for r in spec.rows)


@pytest.mark.parametrize(("spec", "wrapper"), WRAPPED[1:])
@pytest.mark.parametrize("seed", [0, 1])
def test_any_narrower_network_takes_the_weights(
    spec: NetSpec, wrapper: Ssdlite | Aspp, seed: int
) -> None:
    narrow = random_widths(spec, random.Random(seed))
    if isinstance(wrapper, Ssdlite):
        net = settled(build_detector(wrapper.detector(fix_skips(spec))))
        assert isinstance(net, DetectorNet)
        same = shrink_detector(net, wrapper.detector(fix_skips(spec)))
        small = shrink_detector(net, wrapper.detector(narrow))
    else:
        net = settled(build_segmenter(wrapper.segmenter(fix_skips(spec))))
        same = shrink_segmenter(net, wrapper.segmenter(fix_skips(spec)))  # type: ignore[arg-type]
        small = shrink_segmenter(net, wrapper.segmenter(narrow))  # type: ignore[arg-type]
    for name, value in same.state_dict().items():
        assert torch.equal(value, net.state_dict()[name])
    assert sum(p.numel() for p in small.parameters()) == count_whole(narrow, wrapper).params
    # Every tensor of the narrow one is made of numbers of the wide one: nothing stays uninitialised.
    for name, value in small.state_dict().items():
        assert torch.isin(value, net.state_dict()[name]).all()


def test_only_narrowing_is_shrinking() -> None:
    net = build_detector(SSD.detector(SMALL))
    with pytest.raises(ShrinkError, match="detectors of 2 and 3 classes"):
        shrink_detector(net, Ssdlite(classes=3).detector(SMALL))
    with pytest.raises(ShrinkError, match="is not a narrower row 0"):
        shrink_detector(net, SSD.detector(with_resolution(resolve("v3-small+relu"), 96)))
    seg = build_segmenter(LR.segmenter(resolve("v3-small+rf2")))
    with pytest.raises(ShrinkError, match=r"lraspp8 is not .*lraspp16"):
        shrink_segmenter(seg, replace(LR, filters=8).segmenter(resolve("v3-small+rf2")))
