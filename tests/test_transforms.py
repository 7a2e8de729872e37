"""Edits of specs: widths, expansions, residuals, random narrower networks."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool, SpecError, squeeze_width
from bneck.specs.transforms import (
    WidthRule,
    fix_skips,
    random_widths,
    rename,
    scale_width,
    stages,
    with_classes,
    with_expanded,
    with_out,
    with_resolution,
)
from bneck.specs.zoo import V3_LARGE, V3_SMALL, network
from drawn import assert_narrower, net, skips, specs

# models.md 1.4: stem, expanded/out of every bneck, the last 1x1 conv; by the rule that fits the paper.
CHANNELS = {
    "v3-large-0.35": "8: 8/8 32/8 24/8 24/16 48/16 48/16 96/32 80/32 72/32 72/32 192/40 240/40 240/56 "
    "336/56 336/56, last 336",
    "v3-large-0.5": "8: 8/8 32/16 48/16 48/24 72/24 72/24 144/40 104/40 96/40 96/40 240/56 336/56 336/80 "
    "480/80 480/80, last 480",
    "v3-large-0.75": "16: 16/16 64/24 72/24 72/32 96/32 96/32 192/64 160/64 144/64 144/64 384/88 528/88 "
    "528/120 720/120 720/120, last 720",
    "v3-large-1.25": "24: 24/24 96/32 96/32 96/48 144/48 144/48 288/104 264/104 240/104 240/104 624/144 "
    "864/144 864/200 1200/200 1200/200, last 1200",
    "v3-small-0.35": "8: 8/8 40/8 32/8 32/16 96/16 96/16 48/16 48/16 96/32 192/32 192/32, last 200",
    "v3-small-0.5": "8: 8/8 40/16 56/16 64/24 144/24 144/24 72/24 72/24 144/48 288/48 288/48, last 288",
    "v3-small-0.75": "16: 16/16 72/24 88/24 96/32 192/32 192/32 96/40 120/40 240/72 432/72 432/72, last 432",
    "v3-small-1.25": "24: 24/24 112/32 120/32 128/48 288/48 288/48 144/64 192/64 384/120 720/120 720/120, "
    "last 720",
}  # fmt: skip


class TestScaleWidth:
    @pytest.mark.parametrize("name", CHANNELS)
    def test_channels_are_those_that_fit_the_paper(self, name: str) -> None:
        spec = network(name)
        stem, *between, last = (
            row for row in spec.rows[: spec.pool_at] if not isinstance(row, Pool)
        )
        pairs = " ".join(f"{row.expanded}/{row.out}" for row in between if isinstance(row, Bneck))
        assert f"{stem.out}: {pairs}, last {last.out}" == CHANNELS[name]

    @pytest.mark.parametrize("name", CHANNELS)
    def test_squeeze_widths_stay_a_quarter(self, name: str) -> None:
        for row, old in zip(network(name).rows, network(name.rpartition("-")[0]).rows, strict=True):
            if isinstance(row, Bneck) and isinstance(old, Bneck):
                assert row.se == (squeeze_width(row.expanded) if old.se else 0)

    def test_the_head_is_never_narrowed_and_widened_on_request(self) -> None:
        def head(spec: NetSpec) -> int:
            return spec.width_into(len(spec.rows))

        assert head(scale_width(V3_LARGE, 0.5)) == 1280
        assert head(scale_width(V3_LARGE, 0.5, WidthRule(above_one="scaled"))) == 1280
        assert head(scale_width(V3_LARGE, 1.25)) == 1280
        assert (
            head(scale_width(V3_SMALL, 1.25, WidthRule(above_one="scaled"))) == 1280
        )  # 1.25 x 1024
        assert head(network("v3-large-1.25")) == 1280
        assert head(network("v3-small-1.25")) == 1280

    def test_width_1_is_the_same_network(self) -> None:
        assert scale_width(V3_SMALL, 1) == V3_SMALL

    @pytest.mark.parametrize("width", [0, -1, 11, float("nan")])
    def test_a_width_that_cannot_be_is_refused(self, width: float) -> None:
        with pytest.raises(SpecError, match=r"width multiplier is .*; it must be from 0\.05 to 10"):
            scale_width(V3_SMALL, width)


class TestEdits:
    def test_an_expansion_takes_its_squeeze_width_with_it(self) -> None:
        row = with_expanded(V3_LARGE, 4, 48).rows[4]
        assert row == Bneck(5, 48, 40, 16, "relu", 2)  # 48 / 4 = 12, rounded to 16

    def test_a_squeeze_width_of_its_own_stays(self) -> None:
        spec = net(Bneck(3, 64, 24, 6, "relu"))
        assert with_expanded(spec, 1, 32).rows[1] == Bneck(3, 32, 24, 6, "relu")

    def test_an_expansion_changes_one_row(self) -> None:
        edited = with_expanded(V3_LARGE, 4, 48)
        assert [i for i in range(19) if edited.rows[i] != V3_LARGE.rows[i]] == [4]

    @pytest.mark.parametrize("index", [0, 17])
    def test_only_a_bneck_has_an_expansion(self, index: int) -> None:
        with pytest.raises(
            SpecError, match=f"row {index} is a (conv|pool); only a bneck has an expansion"
        ):
            with_expanded(V3_LARGE, index, 8)

    def test_a_row_without_expand_conv_follows_the_width_above(self) -> None:
        edited = with_out(V3_SMALL, (0,), 8)
        assert edited.rows[:2] == (Conv(3, 8, "hswish", 2), Bneck(3, 8, 16, 8, "relu", 2))

    def test_a_stage_is_narrowed_as_a_whole(self) -> None:
        edited = with_out(V3_LARGE, (4, 5, 6), 32)
        changed = [i for i in range(19) if edited.rows[i] != V3_LARGE.rows[i]]
        assert changed == [4, 5, 6]
        assert skips(edited) == skips(V3_LARGE)
        assert edited.rows[5] == Bneck(5, 120, 32, 32, "relu")

    def test_a_residual_that_is_written_down_cannot_be_broken(self) -> None:
        with pytest.raises(SpecError, match="row 5 asks for a residual that cannot add up"):
            with_out(fix_skips(V3_LARGE), (4,), 32)

    def test_a_pool_has_no_width(self) -> None:
        with pytest.raises(SpecError, match="row 17 is a pool; it has no width of its own"):
            with_out(V3_LARGE, (17,), 8)

    def test_written_down_residuals_neither_come_nor_go(self) -> None:
        fixed = fix_skips(V3_SMALL)
        rows = [row.skip for row in fixed.rows if isinstance(row, Bneck)]
        assert rows == ["no", "no", "yes", "no", "yes", "yes", "no", "yes", "no", "yes", "yes"]
        assert skips(fixed) == skips(V3_SMALL)
        assert fix_skips(fixed) == fixed
        # Rows 6 and 7 of Small (40 -> 48) are equally wide at 0.35, where a new residual appears.
        assert skips(scale_width(V3_SMALL, 0.35))[7]
        assert not skips(scale_width(fixed, 0.35))[7]

    def test_stages_share_a_width_because_residuals_add_them(self) -> None:
        assert stages(V3_LARGE) == [
            (0, 1),
            (2, 3),
            (4, 5, 6),
            (7, 8, 9, 10),
            (11, 12),
            (13, 14, 15),
            (16,),
        ]
        assert stages(V3_SMALL) == [(0,), (1,), (2, 3), (4, 5, 6), (7, 8), (9, 10, 11), (12,)]

    def test_classes_resolution_and_name_are_replaced(self) -> None:
        spec = rename(with_resolution(with_classes(V3_SMALL, 10), 96), "mine")
        assert spec == replace(V3_SMALL, name="mine", classes=10, resolution=96)


class TestRandomWidths:
    @pytest.mark.parametrize("name", ["v3-large", "v3-small", "v3-small-0.35", "v3-small-1.25"])
    def test_zoo_networks_only_get_narrower(self, name: str) -> None:
        rng = random.Random(1)
        for _ in range(20):
            assert_narrower(network(name), random_widths(network(name), rng))

    @settings(max_examples=200, deadline=None)
    @given(specs(), st.integers(0, 99))
    def test_any_network_only_gets_narrower(self, spec: NetSpec, seed: int) -> None:
        assert_narrower(spec, random_widths(spec, random.Random(seed)))

    def test_small_and_large_networks_occur(self) -> None:
        rng = random.Random(0)
        last = [random_widths(V3_LARGE, rng).width_into(17) for _ in range(60)]
        assert min(last) < 0.4 * 960
        assert max(last) == 960

    def test_the_same_seed_draws_the_same_networks(self) -> None:
        first, again = random.Random(7), random.Random(7)
        assert random_widths(V3_SMALL, first) == random_widths(V3_SMALL, again)
        assert random_widths(V3_SMALL, first) != random_widths(V3_SMALL, random.Random(8))
