"""Wrappers: rows, layers and graphs of a wrapped network say the same; shrinking keeps what is strong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bneck.costs.count import count_madds, count_params, count_whole
from bneck.costs.table import TableError, row_keys
from bneck.costs.table_file import header_line, read_table
from bneck.devices.fill import grid
from bneck.devices.models import wrapped_model
from bneck.devices.runtimes import OnnxRuntime, runtime
from bneck.graphs.forms import form
from bneck.nets.build import WrappedNet
from bneck.nets.calibrate import calibrate
from bneck.nets.fold import folded_weights
from bneck.nets.ops import Conv2d, initialise
from bneck.nets.quantize import emulation
from bneck.nets.shrink import ShrinkError, shrink_into
from bneck.records.ledger import Ledger
from bneck.runs.search.latency import seed_plan
from bneck.specs.network import Layer, NetSpec, Size, layers
from bneck.specs.operators import Operators
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.text import resolve
from bneck.specs.transforms import fix_skips, random_widths, with_expanded, with_resolution
from bneck.specs.wrapper import PLAIN, Output, Placed, Plain, PlainNetwork
from bneck.tasks.detect.count import count_detector
from bneck.tasks.detect.head import Ssdlite
from bneck.tasks.detect.module import DetectorNet, build_detector
from bneck.tasks.segment.count import count_segmenter
from bneck.tasks.segment.head import Aspp
from bneck.tasks.segment.module import SegmentNet, build_segmenter

T = TypeVar("T")
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
    assert LR.around(spec).output_stride == LR.around(once).output_stride == 16
    assert LR.network(once) == once  # its name too


def test_counts_are_those_of_the_tasks() -> None:
    assert count_whole(SMALL, SSD).params == count_detector(SSD.around(SMALL)).params
    spec = resolve("v3-small+rf2")
    assert count_whole(spec, LR).madds == count_segmenter(LR.around(spec), LR.shape).madds
    by_hand = sum(map(count_params, LR.layers(spec)))
    assert count_segmenter(LR.around(spec), LR.shape).params == by_hand


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
    assert seed_plan(SMALL, SSD).wrapper == SSD


@pytest.mark.parametrize("wrapper", [SSD, LR])
def test_what_is_timed_is_the_whole(wrapper: Ssdlite | Aspp) -> None:
    spec = SMALL if wrapper is SSD else resolve("v3-small+rf2")
    session = OnnxRuntime().load(
        wrapped_model(wrapper.around(spec), OnnxRuntime(), wrapper.size(spec)), threads=1
    )
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
    net = build_detector(SSD.around(spec))
    settled(net)
    row = SSD.around(spec).c4_row  # C4 itself is narrowed: its heads must follow
    silence(net, row, 64)
    narrow = shrink_into(net, DetectorNet(SSD.around(with_expanded(spec, row, 64))))
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
def test_any_narrower_network_takes_the_weights(spec: NetSpec, wrapper: Ssdlite | Aspp) -> None:
    wide = wrapper.around(fix_skips(spec))
    detects = isinstance(wrapper, Ssdlite)
    net = settled(build_detector(wide) if detects else build_segmenter(wide))
    kind = DetectorNet if detects else SegmentNet
    kept = net.state_dict()
    for name, value in shrink_into(net, kind(wide)).state_dict().items():
        assert torch.equal(value, kept[name])
    for seed in (0, 1):
        narrow = random_widths(spec, random.Random(seed))
        small = shrink_into(net, kind(wrapper.around(narrow)))
        assert sum(p.numel() for p in small.parameters()) == count_whole(narrow, wrapper).params
        # Every tensor of the narrow one is made of numbers of the wide one: nothing stays uninitialised.
        for name, value in small.state_dict().items():
            assert torch.isin(value, kept[name]).all()


def test_only_narrowing_is_shrinking() -> None:
    net, more = (DetectorNet(Ssdlite(classes=n).around(SMALL)) for n in (2, 3))
    with pytest.raises(ShrinkError, match=r"classes is 2 in .* and 3 in "):
        shrink_into(net, more)
    other = DetectorNet(SSD.around(with_resolution(resolve("v3-small+relu"), 96)))
    with pytest.raises(ShrinkError, match="is not a narrower row 0"):
        shrink_into(net, other)
    seg, fewer = (
        SegmentNet(replace(LR, filters=n).around(resolve("v3-small+rf2"))) for n in (16, 8)
    )
    with pytest.raises(ShrinkError, match=r"filters is 16 in .* and 8 in "):
        shrink_into(seg, fewer)


@dataclass(frozen=True)
class Embedder(PlainNetwork):
    """A task that nobody has: the mean of the last map, brought to `numbers` by a 1x1 convolution."""

    numbers: int = 5

    def layers(self, size: Size) -> Iterator[Layer]:
        walk = [layer for layer in layers(self.network, size) if layer.row < self.network.pool_at]
        yield from walk
        last, one = walk[-1], (1, 1)
        yield Layer(
            name="embed", kind="conv", row=self.network.pool_at, width_in=last.out, out=self.numbers,
            size_in=one, size_out=one, bn=False,
        )  # fmt: skip

    def feeds(self) -> dict[str, str]:
        return {"embed": list(self.layers(64))[-2].name}

    @property
    def rounded(self) -> dict[str, tuple[float, float]]:
        return {"embed.mean": (-3.0, 3.0)}

    def outputs(self, size: tuple[int, int], *, finished: bool = False) -> tuple[Output, ...]:
        return (Output("vector", ("batch", self.numbers, 1, 1)),)

    def answer(
        self, graph: Operators[T], image: T, size: tuple[int, int], *, finished: bool = False
    ) -> dict[str, T]:
        *rows, embed = self.layers(size)
        y = graph.conv(embed, graph.mean("embed.mean", graph.through(rows, image)))
        return {"vector": graph.product("vector", y, y)}


class EmbedderNet(WrappedNet):
    def __init__(self, spec: NetSpec) -> None:
        super().__init__(Embedder(spec))
        self.embed = Conv2d(spec.width_into(spec.pool_at), 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        for row in self.rows:
            x = row(x)
        return self.embed(x.mean((2, 3), keepdim=True)).square()


def test_a_new_task_is_a_value_and_a_module() -> None:
    """Files of every kind, emulation, calibration and shrinking know no task by its name."""
    spec = with_resolution(fix_skips(resolve("v3-small-0.5")), 64)
    net = EmbedderNet(spec)
    initialise(net)
    settled(net)
    x = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = net(x[:1]).numpy()
    for engine in (OnnxRuntime(), runtime("litert")):
        model = wrapped_model(net.wrapped, engine, (64, 64), weights=folded_weights(net))
        got = engine.load(model, threads=1).run(x[:1].numpy())
        assert got.reshape(wanted.shape) == pytest.approx(wanted, rel=1e-3, abs=1e-4)
        quantized = calibrate(net, [x], form(engine.name, "int8"))
        with torch.inference_mode():
            near = emulation(net, quantized)(x[:1]).numpy()
        ranges = dict(quantized.ranges)
        model = wrapped_model(
            net.wrapped, engine, (64, 64), "int8", weights=quantized.weights, ranges=ranges
        )
        got = engine.load(model, threads=1).run(x[:1].numpy())
        assert np.abs(got.reshape(near.shape) - near).max() <= 0.1 * np.abs(near).max()
    small = shrink_into(net, EmbedderNet(random_widths(spec, random.Random(0))))
    for name, value in small.state_dict().items():
        assert torch.isin(value, net.state_dict()[name]).all()
