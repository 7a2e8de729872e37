"""Counts: by hand, against the paper's Table 9, and against the built nets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from bneck.costs.count import RowCount, count
from bneck.nets.build import build
from bneck.specs.network import NetSpec, Size
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.transforms import with_resolution
from bneck.specs.zoo import network
from drawn import specs

# Table 9: resolution, multiplier, multiply-adds and parameters in millions.
LARGE = """
224 1.25 356 7.5
224 1.0  217 5.4
224 0.75 155 4.0
224 0.5   69 2.6
224 0.35  40 2.2
256 1.0  282 5.4
192 1.0  160 5.4
160 1.0  112 5.4
128 1.0   73 5.4
 96 1.0   43 5.4
"""
SMALL = """
224 1.25  91 3.6
224 1.0   57 2.5
224 0.75  44 2.0
224 0.5   21 1.6
224 0.35  12 1.4
256 1.0   74 2.5
160 1.0   30 2.5
128 1.0   20 2.5
 96 1.0   12 2.5
"""
TABLE_9 = [
    (family, *line.split())
    for family, table in (("v3-large", LARGE), ("v3-small", SMALL))
    for line in table.strip().splitlines()
]


class TestPaper:
    @pytest.mark.parametrize(
        ("name", "params", "madds"),  # models.md 3.1 and 3.2: measured on public implementations
        [("v3-large", 5_483_032, 216_589_760), ("v3-small", 2_542_856, 56_510_400)],
    )
    def test_width_1_is_exact(self, name: str, params: int, madds: int) -> None:
        assert (count(network(name)).params, count(network(name)).madds) == (params, madds)

    @pytest.mark.parametrize(("family", "resolution", "width", "madds", "params"), TABLE_9)
    def test_table_9_is_met(
        self, family: str, resolution: str, width: str, madds: str, params: str
    ) -> None:
        counted = count(network(f"{family}-{width}@{resolution}"))
        assert counted.madds / 1e6 == pytest.approx(float(madds), abs=1.0)
        assert counted.params / 1e6 == pytest.approx(float(params), abs=0.1)

    def test_every_row_of_table_9_was_looked_at(self) -> None:
        assert len(TABLE_9) == 19


# Image 3 x 8 x 8; a batch norm has 2 numbers a channel, a bias 1.
HAND = NetSpec(
    name="hand",
    resolution=8,
    classes=5,
    rows=(
        Conv(3, 8, "hswish", 2),
        Bneck(3, 16, 8, 4, "relu"),
        Bneck(5, 8, 16, 0, "hswish", 2),
        Conv(1, 24, "hswish"),
        Pool(),
        Conv(1, 10, "hswish", bn=False),
    ),
)


class TestByHand:
    def rows(self, spec: NetSpec = HAND) -> tuple[RowCount, ...]:
        return count(spec).rows

    def test_stem(self) -> None:
        stem = self.rows()[0]
        assert stem.params == 3 * 8 * 9 + 2 * 8
        assert stem.madds == 3 * 8 * 9 * 4 * 4  # 8 x 8 pixels become 4 x 4
        assert stem.activation_bytes == 4 * (3 * 8 * 8 + 8 * 4 * 4)
        assert (stem.size_in, stem.width_in) == ((8, 8), 3)

    def test_bneck_with_everything(self) -> None:
        row = self.rows()[1]
        expand, depthwise, project = 8 * 16 + 2 * 16, 16 * 9 + 2 * 16, 16 * 8 + 2 * 8
        squeeze = (16 * 4 + 4) + (4 * 16 + 16)  # two 1x1 convs with bias
        assert row.params == expand + depthwise + squeeze + project
        pixels = 4 * 4
        assert row.madds == 8 * 16 * pixels + 16 * 9 * pixels + 2 * 16 * 4 + 16 * 8 * pixels
        assert (row.size_in, row.width_in) == ((4, 4), 8)

    def test_bneck_without_expand_conv(self) -> None:
        row = self.rows()[2]
        assert row.params == (8 * 25 + 2 * 8) + (8 * 16 + 2 * 16)
        assert row.madds == 8 * 25 * 2 * 2 + 8 * 16 * 2 * 2
        # The depthwise conv reads 8 x 4 x 4 and writes 8 x 2 x 2; nothing waits to be added.
        assert row.activation_bytes == 4 * (128 + 32)

    def test_behind_the_stem(self) -> None:
        last, pool, head, classifier = self.rows()[3:]
        assert (last.params, last.madds) == (16 * 24 + 2 * 24, 16 * 24 * 2 * 2)
        assert (pool.params, pool.madds, pool.activation_bytes) == (0, 0, 4 * (24 * 2 * 2 + 24))
        assert (head.params, head.madds) == (24 * 10 + 10, 24 * 10)
        assert (classifier.params, classifier.madds) == (10 * 5 + 5, 10 * 5)
        assert classifier.activation_bytes == 4 * (10 + 5)

    def test_totals(self) -> None:
        counted = count(HAND)
        assert counted.params == 232 + 628 + 376 + 432 + 0 + 250 + 55
        assert counted.madds == 3456 + 6528 + 1312 + 1536 + 0 + 240 + 50

    def test_a_residual_waits_while_its_row_works(self) -> None:
        # Expanded 16 x 4 x 4 = 256 numbers, input and output 128: the depthwise conv holds 256 + 256
        # and, with a residual, the 128 that wait. The expand conv's input is the residual itself.
        alone = Bneck(3, 16, 8, 4, "relu", skip="no")
        parted = replace(HAND, rows=(HAND.rows[0], alone, *HAND.rows[2:]))
        assert self.rows()[1].activation_bytes == 4 * (256 + 256 + 128)
        assert self.rows(parted)[1].activation_bytes == 4 * (256 + 256)
        assert count(HAND).activation_bytes == 4 * 640
        assert count(parted).activation_bytes == 4 * 512
        assert count(parted).madds == count(HAND).madds

    def test_the_residual_is_held_once_where_the_depthwise_conv_reads_it(self) -> None:
        rows = (HAND.rows[0], Bneck(3, 8, 8, 0, "relu"), Pool())
        assert self.rows(replace(HAND, rows=rows))[1].activation_bytes == 4 * (128 + 128 + 128)

    def test_a_resolution_may_be_a_pair(self) -> None:
        # 8 x 5 pixels become 4 x 3, then 2 x 2.
        rows = count(HAND, (8, 5)).rows
        assert rows[0].madds == 3 * 8 * 9 * 4 * 3
        assert rows[2].madds == (8 * 25 + 8 * 16) * 2 * 2
        assert rows[5].madds == 24 * 10


def measured(spec: NetSpec, size: tuple[int, int]) -> tuple[int, int]:
    """Parameters and multiply-adds of the built net, from its tensors and its convolutions' outputs."""
    net, madds = build(spec).eval(), 0

    def hook(conv: nn.Module, _: object, out: Tensor) -> None:
        nonlocal madds
        assert isinstance(conv, nn.Conv2d)
        madds += conv.weight[0].numel() * out[0].numel()

    for module in net.modules():
        assert not isinstance(module, nn.Linear)
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(hook)
    with torch.inference_mode():
        net(torch.zeros(1, spec.channels, *size))
    return sum(p.numel() for p in net.parameters()), madds


class TestAgainstTheNet:
    @pytest.mark.parametrize(
        ("name", "resolution"),
        [
            ("v3-large", 224),
            ("v3-large-0.35", 97),
            ("v3-large-1.25", (64, 33)),
            ("v3-small", 96),
            ("v3-small-0.5", (1, 1)),
            ("v3-small-0.75", (50, 127)),
            ("v3-small-1.25", 32),
        ],
    )
    def test_zoo(self, name: str, resolution: Size) -> None:
        spec = network(name)
        size = (resolution, resolution) if isinstance(resolution, int) else resolution
        counted = count(spec, resolution)
        assert (counted.params, counted.madds) == measured(spec, size)

    @settings(max_examples=50, deadline=None)
    @given(specs())
    def test_any_network(self, spec: NetSpec) -> None:
        counted = count(spec)
        assert (counted.params, counted.madds) == measured(spec, (spec.resolution, spec.resolution))
        assert sum(row.params for row in counted.rows) == counted.params
        assert sum(row.madds for row in counted.rows) == counted.madds
        assert max(row.activation_bytes for row in counted.rows) == counted.activation_bytes
        assert [row.row for row in counted.rows] == list(range(len(spec.rows) + 1))


def test_the_specs_own_resolution_is_the_default() -> None:
    assert count(with_resolution(HAND, 16)) == count(HAND, 16) == count(HAND, (16, 16))
    assert count(HAND, 16) != count(HAND)
