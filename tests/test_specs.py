"""Specs: rounding, what can be a network, the zoo against the paper, edits that keep residuals."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec, layers
from bneck.specs.rows import Bneck, Conv, Pool, SpecError, round8, squeeze_width
from bneck.specs.transforms import (
    rename,
    scale_width,
    with_resolution,
)
from bneck.specs.zoo import NETWORKS, V3_LARGE, V3_SMALL, network
from drawn import POOL, STEM, net, skips, specs


class TestRound8:
    @pytest.mark.parametrize(
        ("value", "rounded"),
        [
            (0, 8),  # never below 8
            (4, 8),
            (8, 8),
            (8.8, 8),  # 8 is above 0.9 x 8.8 = 7.92
            (9, 16),  # 8 is nearer, but below 0.9 x 9 = 8.1
            (11.9, 16),
            (12, 16),  # halfway goes up
            (17.7, 16),  # 0.9 x 17.7 = 15.93
            (18, 24),  # 0.9 x 18 = 16.2
            (20, 24),
            (27, 32),  # 0.9 x 27 = 24.3
            (100, 104),
            (99.9, 96),
        ],
    )
    def test_by_hand(self, value: float, rounded: int) -> None:
        assert round8(value) == rounded

    @pytest.mark.parametrize(  # the squeeze widths of the authors' graphs (models.md 1.1)
        ("expanded", "squeeze"),
        [
            (16, 8),
            (72, 24),
            (96, 24),
            (120, 32),
            (144, 40),
            (240, 64),
            (288, 72),
            (480, 120),
            (672, 168),
        ],
    )
    def test_squeeze_widths_are_those_of_the_authors(self, expanded: int, squeeze: int) -> None:
        assert squeeze_width(expanded) == squeeze

    @settings(deadline=None)
    @given(st.floats(0, 1e6))
    def test_is_a_multiple_of_8_near_the_value(self, value: float) -> None:
        rounded = round8(value)
        assert rounded % 8 == 0
        assert rounded >= 8
        assert rounded >= 0.9 * value
        assert rounded <= value + 8

    @settings(deadline=None)
    @given(st.floats(0, 5000), st.floats(0, 5000))
    def test_never_falls_as_the_value_grows(self, a: float, b: float) -> None:
        assert round8(min(a, b)) <= round8(max(a, b))


WHOLE = "it must be a whole number of at least 1"
BAD_ROWS: dict[str, tuple[Callable[[], Any], str]] = {
    "kernel as text": (lambda: Conv("3", 8, "relu"), f"kernel is '3'; {WHOLE}"),  # type: ignore[arg-type]
    "kernel of a half": (lambda: Conv(2.5, 8, "relu"), f"kernel is 2.5; {WHOLE}"),  # type: ignore[arg-type]
    "kernel true": (lambda: Conv(True, 8, "relu"), f"kernel is True; {WHOLE}"),
    "kernel even": (lambda: Conv(4, 8, "relu"), "kernel is 4; it must be odd"),
    "kernel 0": (lambda: Conv(0, 8, "relu"), f"kernel is 0; {WHOLE}"),
    "kernel 0.0": (lambda: Bneck(0.0, 8, 8, 0, "relu"), f"kernel is 0.0; {WHOLE}"),  # type: ignore[arg-type]
    "kernel false": (lambda: Bneck(False, 8, 8, 0, "relu"), f"kernel is False; {WHOLE}"),
    "start even": (lambda: Bneck(3, 8, 8, 0, "relu", start=4), "start is 4; it must be odd"),
    "start negative": (lambda: Bneck(3, 8, 8, 0, "relu", start=-3), f"start is -3; {WHOLE}"),
    "nothing for the stride": (
        lambda: Bneck(0, 8, 8, 0, "relu", 2),
        "stride is 2, and with kernel 0 and start 0 there is no depthwise convolution that could have it",
    ),
    "fused with a start": (
        lambda: Bneck(3, 8, 8, 0, "relu", start=3, fused=True),
        "the row is fused, with kernel 3 and start 3; a fused row has a kernel of at least 1 and start 0",
    ),
    "fused without a kernel": (
        lambda: Bneck(0, 8, 8, 0, "relu", fused=True),
        "the row is fused, with kernel 0 and start 0; a fused row has a kernel of at least 1",
    ),
    "out negative": (lambda: Conv(3, -8, "relu"), f"out is -8; {WHOLE}"),
    "out 0": (lambda: Bneck(3, 8, 0, 0, "relu"), f"out is 0; {WHOLE}"),
    "out missing": (lambda: Conv(3, None, "relu"), f"out is None; {WHOLE}"),  # type: ignore[arg-type]
    "expanded 0": (lambda: Bneck(3, 0, 8, 0, "relu"), f"expanded is 0; {WHOLE}"),
    "se negative": (lambda: Bneck(3, 8, 8, -1, "relu"), "se is -1; it must be a squeeze width"),
    "se true": (lambda: Bneck(3, 8, 8, True, "relu"), "se is True; it must be a squeeze width"),
    "stride 3": (lambda: Conv(3, 8, "relu", 3), "stride is 3; it must be 1 or 2"),
    "stride 0": (lambda: Bneck(3, 8, 8, 0, "relu", 0), f"stride is 0; {WHOLE}"),
    "dilation 0": (lambda: Bneck(3, 8, 8, 0, "relu", dilation=0), f"dilation is 0; {WHOLE}"),
    "act unknown": (
        lambda: Conv(3, 8, "gelu"),  # type: ignore[arg-type]
        "act is 'gelu'; allowed are linear, relu, relu6, hswish",
    ),
    "act a list": (lambda: Conv(3, 8, ["relu"]), "act is ['relu']; allowed are"),  # type: ignore[arg-type]
    "skip unknown": (
        lambda: Bneck(3, 8, 8, 0, "relu", skip="maybe"),  # type: ignore[arg-type]
        "skip is 'maybe'; allowed are auto, yes, no",
    ),
    "bn 1": (lambda: Conv(3, 8, "relu", bn=1), "bn is 1; it must be true or false"),  # type: ignore[arg-type]
    "bn as text": (lambda: Conv(3, 8, "relu", bn="no"), "bn is 'no'; it must be true or false"),  # type: ignore[arg-type]
}

ABOVE_0, FROM_0 = (
    "it must be a number above 0 and at most 1",
    "it must be a number from 0 to below 1",
)
BAD_SPECS: dict[str, tuple[Callable[[], Any], str]] = {
    "name a number": (lambda: NetSpec(name=5, rows=(STEM, POOL)), "name is 5; it must be text"),  # type: ignore[arg-type]
    "name empty": (lambda: NetSpec(name="", rows=(STEM, POOL)), "name is ''; it must be text"),
    "name blank": (lambda: NetSpec(name=" \t", rows=(STEM, POOL)), "and not blank"),
    "resolution 0": (lambda: net(resolution=0), f"resolution is 0; {WHOLE}"),
    "resolution of a half": (lambda: net(resolution=22.5), f"resolution is 22.5; {WHOLE}"),
    "channels negative": (lambda: net(channels=-3), f"channels is -3; {WHOLE}"),
    "classes as text": (lambda: net(classes="10"), f"classes is '10'; {WHOLE}"),
    "classes true": (lambda: net(classes=True), f"classes is True; {WHOLE}"),
    "padding unknown": (lambda: net(padding="valid"), "padding is 'valid'; allowed are symmetric, same"),
    "gate unknown": (lambda: net(se_gate="tanh"), "se_gate is 'tanh'; allowed are hsigmoid, sigmoid"),
    "dropout 1": (lambda: net(dropout=1), f"dropout is 1; {FROM_0}"),
    "dropout negative": (lambda: net(dropout=-0.1), f"dropout is -0.1; {FROM_0}"),
    "dropout as text": (lambda: net(dropout="0.2"), f"dropout is '0.2'; {FROM_0}"),
    "dropout false": (lambda: net(dropout=False), f"dropout is False; {FROM_0}"),
    "dropout nan": (lambda: net(dropout=float("nan")), f"dropout is nan; {FROM_0}"),
    "eps 0": (lambda: net(bn_eps=0.0), f"bn_eps is 0.0; {ABOVE_0}"),
    "eps as text": (lambda: net(bn_eps="1e-3"), f"bn_eps is '1e-3'; {ABOVE_0}"),
    "eps infinite": (lambda: net(bn_eps=float("inf")), f"bn_eps is inf; {ABOVE_0}"),
    "eps nothing": (lambda: net(bn_eps=None), f"bn_eps is None; {ABOVE_0}"),
    "momentum 0": (lambda: net(bn_momentum=0), f"bn_momentum is 0; {ABOVE_0}"),
    "momentum 1.5": (lambda: net(bn_momentum=1.5), f"bn_momentum is 1.5; {ABOVE_0}"),
    "rows a list": (
        lambda: NetSpec(name="x", rows=[STEM, POOL]),  # type: ignore[arg-type]
        "it must be a tuple of Conv, Bneck and Pool",
    ),
    "rows of text": (
        lambda: NetSpec(name="x", rows=("conv", "pool")),  # type: ignore[arg-type]
        "rows is ('conv', 'pool'); it must be a tuple of Conv, Bneck and Pool",
    ),
    "no rows": (lambda: NetSpec(name="x", rows=()), "row 0 must be a conv"),
    "no stem": (lambda: NetSpec(name="x", rows=(POOL,)), "row 0 must be a conv"),
    "bneck as stem": (
        lambda: NetSpec(name="x", rows=(Bneck(3, 8, 8, 0, "relu"), POOL)),
        "row 0 must be a conv: a network starts with its stem",
    ),
    "no pool": (lambda: NetSpec(name="x", rows=(STEM,)), "there are 0 pool rows; a network has exactly one"),
    "two pools": (lambda: net(POOL), "there are 2 pool rows; a network has exactly one"),
    "bneck after the pool": (
        lambda: NetSpec(name="x", rows=(STEM, POOL, Bneck(1, 16, 16, 0, "relu"))),
        "row 2 stands after the pool; only 1x1 convs may stand there",
    ),
    "3x3 conv after the pool": (
        lambda: NetSpec(name="x", rows=(STEM, POOL, Conv(3, 8, "relu"))),
        "row 2 stands after the pool",
    ),
    "strided conv after the pool": (
        lambda: NetSpec(name="x", rows=(STEM, POOL, Conv(1, 8, "relu", 2))),
        "row 2 stands after the pool",
    ),
    "a start without expansion": (
        lambda: net(Bneck(3, 16, 24, 0, "relu", start=5)),
        "row 1 has start 5 and no expansion: 16 channels enter it and expanded is 16; give it another",
    ),
    "neither depthwise nor expansion": (
        lambda: net(Bneck(0, 16, 24, 0, "relu")),
        "row 1 has kernel 0 and no expansion: 16 channels enter it and expanded is 16; give it another",
    ),
    "residual over unequal widths": (
        lambda: net(Bneck(3, 64, 24, 0, "relu", skip="yes")),
        "row 1 asks for a residual that cannot add up: stride 1, 16 channels in and 24 out",
    ),
    "residual over a stride": (
        lambda: net(Bneck(3, 64, 16, 0, "relu", 2, skip="yes")),
        "row 1 asks for a residual that cannot add up: stride 2, 16 channels in and 16 out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", [*BAD_ROWS, *BAD_SPECS])
def test_what_cannot_be_is_refused_in_one_sentence(case: str) -> None:
    make, message = (BAD_ROWS | BAD_SPECS)[case]
    with pytest.raises(SpecError, match=re.escape(message)) as caught:
        make()
    assert isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)


class TestSpec:
    def test_a_residual_needs_stride_1_equal_widths_and_no_no(self) -> None:
        spec = net(
            Bneck(3, 64, 16, 0, "relu"),
            Bneck(3, 64, 16, 0, "relu", 2),
            Bneck(3, 64, 24, 0, "relu"),
            Bneck(3, 64, 24, 0, "relu", skip="no"),
            Bneck(3, 64, 24, 0, "relu", skip="yes"),
            Conv(3, 24, "relu"),
        )
        assert skips(spec) == [False, True, False, False, False, True, False, False]

    def test_width_into_a_row_is_the_output_above_it(self) -> None:
        spec = NetSpec(
            name="x", channels=4, rows=(STEM, Bneck(3, 64, 24, 0, "relu"), POOL, Conv(1, 9, "relu"))
        )
        assert [spec.width_into(i) for i in range(5)] == [4, 16, 24, 24, 9]

    def test_pool_at_parts_features_from_head(self) -> None:
        assert V3_LARGE.rows[V3_LARGE.pool_at - 1] == Conv(1, 960, "hswish")
        assert V3_LARGE.rows[V3_LARGE.pool_at + 1 :] == (Conv(1, 1280, "hswish", bn=False),)

    def test_the_digest_ignores_the_name_and_nothing_else(self) -> None:
        spec = net(Bneck(3, 64, 24, 16, "relu"))
        assert spec.digest() == rename(spec, "another").digest()
        bneck = spec.rows[1]
        row_edits: list[dict[str, Any]] = [
            {"kernel": 5}, {"expanded": 72}, {"out": 32}, {"se": 0}, {"act": "relu6"},
            {"stride": 2}, {"dilation": 2}, {"skip": "no"}, {"start": 3}, {"kernel": 0},
        ]  # fmt: skip
        edited = [replace(spec, rows=(STEM, replace(bneck, **edit), POOL)) for edit in row_edits]
        edited += [replace(spec, rows=(replace(STEM, bn=False), bneck, POOL))]
        header_edits: list[dict[str, Any]] = [
            {"resolution": 192}, {"channels": 1}, {"classes": 10}, {"padding": "same"},
            {"se_gate": "sigmoid"}, {"bn_eps": 1e-5}, {"bn_momentum": 0.1}, {"dropout": 0.0},
        ]  # fmt: skip
        edited += [replace(spec, **edit) for edit in header_edits]
        digests = {s.digest() for s in [spec, *edited]}
        assert len(digests) == 1 + len(row_edits) + 1 + len(header_edits)
        assert all(re.fullmatch("[0-9a-f]{12}", digest) for digest in digests)

    @settings(deadline=None)
    @given(specs())
    def test_equal_specs_have_equal_digests(self, spec: NetSpec) -> None:
        again = replace(spec, rows=tuple(replace(row) for row in spec.rows))
        assert again == spec
        assert again.digest() == spec.digest()

    def test_a_number_without_a_point_gives_the_same_digest(self) -> None:
        assert net(dropout=0, bn_momentum=1).digest() == net(dropout=0.0, bn_momentum=1.0).digest()


# Tables 1 and 2 up to the pool: input side, kernel, expanded (the stem and the last conv have none),
# out, se, nonlinearity, stride. The squeeze widths are those of the authors' code (models.md 1.1).
TABLE_1 = """
224 3   -  16   0 HS 2
112 3  16  16   0 RE 1
112 3  64  24   0 RE 2
 56 3  72  24   0 RE 1
 56 5  72  40  24 RE 2
 28 5 120  40  32 RE 1
 28 5 120  40  32 RE 1
 28 3 240  80   0 HS 2
 14 3 200  80   0 HS 1
 14 3 184  80   0 HS 1
 14 3 184  80   0 HS 1
 14 3 480 112 120 HS 1
 14 3 672 112 168 HS 1
 14 5 672 160 168 HS 2
  7 5 960 160 240 HS 1
  7 5 960 160 240 HS 1
  7 1   - 960   0 HS 1
"""
TABLE_2 = """
224 3   -  16   0 HS 2
112 3  16  16   8 RE 2
 56 3  72  24   0 RE 2
 28 3  88  24   0 RE 1
 28 5  96  40  24 HS 2
 14 5 240  40  64 HS 1
 14 5 240  40  64 HS 1
 14 5 120  48  32 HS 1
 14 5 144  48  40 HS 1
 14 5 288  96  72 HS 2
  7 5 576  96 144 HS 1
  7 5 576  96 144 HS 1
  7 1   - 576   0 HS 1
"""


class TestZoo:
    @pytest.mark.parametrize(
        ("name", "table", "head"), [("v3-large", TABLE_1, 1280), ("v3-small", TABLE_2, 1024)]
    )
    def test_a_network_is_its_table(self, name: str, table: str, head: int) -> None:
        spec = network(name)
        lines = [line.split() for line in table.strip().splitlines()]
        sides = {layer.row: layer.size_in for layer in reversed(list(layers(spec)))}
        for i, (side, kernel, expanded, out, se, act, stride) in enumerate(lines):
            row = spec.rows[i]
            assert sides[i] == (int(side), int(side))
            common = (int(kernel), int(out), {"HS": "hswish", "RE": "relu"}[act], int(stride))
            assert not isinstance(row, Pool)
            assert (row.kernel, row.out, row.act, row.stride) == common
            if isinstance(row, Bneck):
                assert (row.expanded, row.se) == (int(expanded), int(se))
            else:
                assert (expanded, row.bn) == ("-", True)
        assert spec.rows[len(lines) :] == (POOL, Conv(1, head, "hswish", bn=False))
        assert (spec.name, spec.resolution, spec.classes) == (name, 224, 1000)

    def test_residuals_are_those_of_the_authors(self) -> None:  # models.md 1.1, column "skip"
        assert [i for i, skip in enumerate(skips(V3_LARGE)) if skip] == [
            1,
            3,
            5,
            6,
            8,
            9,
            10,
            12,
            14,
            15,
        ]
        assert [i for i, skip in enumerate(skips(V3_SMALL)) if skip] == [3, 5, 6, 8, 10, 11]

    def test_a_name_may_carry_a_width_and_a_resolution(self) -> None:
        spec = network("v3-small-0.75@192")
        assert (spec.name, spec.resolution) == ("v3-small-0.75@192", 192)
        assert spec.digest() == with_resolution(scale_width(V3_SMALL, 0.75), 192).digest()
        assert network(" V3-Large@96 ") == replace(V3_LARGE, name="v3-large@96", resolution=96)
        assert network("v3-large-1.0").digest() == V3_LARGE.digest()

    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("v3-smal", "v3-small"),
            ("v3large", "v3-large"),
            ("V3_Large", "v3-large"),
            ("v3-small-075", "v3-small"),
            ("v3-small@", "v3-small"),
            ("v3-large-wide@224", "v3-large"),
        ],
    )
    def test_an_unknown_name_is_offered_near_ones(self, name: str, near: str) -> None:
        with pytest.raises(SpecError, match=f"there is no network '{name}'; did you mean .*{near}"):
            network(name)

    @pytest.mark.parametrize("name", ["", "?", "swin"])
    def test_a_name_like_none_gets_the_whole_list(self, name: str) -> None:
        with pytest.raises(SpecError, match=f"known are {', '.join(NETWORKS)}"):
            network(name)

    @pytest.mark.parametrize("name", ["v3-small-0.0", "v3-small-99.0", "v3-small@0"])
    def test_a_width_or_resolution_that_cannot_be_is_named(self, name: str) -> None:
        with pytest.raises(
            SpecError, match=r"(width multiplier|resolution) is (0\.0|99\.0|0); it must be"
        ):
            network(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_zoo_is_known_by_its_names(name: str) -> None:
    assert NETWORKS[name].name == name
    assert network(name) == NETWORKS[name]
