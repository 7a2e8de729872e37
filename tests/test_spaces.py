"""Spaces: their sizes, the way there and back, the rows a table must cover, and wrong input."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bneck.costs.table import row_keys
from bneck.nas.blocks import Block, BlockSpace
from bneck.nas.space import Choice, NotInSpace, Space, SpaceError
from bneck.nas.spaces import load_space, mnasnet, space, space_from_text, v3, v4_like
from bneck.nas.widths import WidthSpace
from bneck.specs.codec import from_codec
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool, squeeze_width
from bneck.specs.transforms import (
    fix_skips,
    with_classes,
    with_expanded,
    with_out,
    with_resolution,
)
from bneck.specs.zoo import MNASNET_A1, V3_LARGE, V3_SMALL, network
from test_codec import A1, B1

MNASNET, V3S = mnasnet(), v3("v3-small", resolution=64, classes=10)
WIDTHS = WidthSpace(V3_SMALL)
V4 = v4_like(resolution=64, classes=10)
SPACES: list[Space] = [MNASNET, V3S, v3("v3-large"), V4, WIDTHS]
OWN = """
space: 1
name: own
resolution: 64
classes: 10
stem: {op: conv, kernel: 3, out: [8, 16], act: hswish, stride: 2}
blocks:
- {stride: 2, op: dconv, kernel: 3, out: 16, layers: 1}
- {stride: 2, op: [conv, mbconv2.5], kernel: [3, 5], se: [0, 0.25], out: [24, 40], layers: [1, 3], act: hswish}
tail:
- {op: conv, kernel: 1, out: [96, 144], act: hswish}
- {op: pool}
"""


def sizes(of: Space) -> list[int]:
    return [len(choice.options) for choice in of.choices]


class TestMnasNet:
    def test_has_42_tokens_in_the_order_of_the_paper(self) -> None:
        names = ["op", "kernel", "se", "skip", "out", "layers"]  # section 4.1, 7 blocks
        assert [c.name for c in MNASNET.choices] == [
            f"block{i}.{n}" for i in range(7) for n in names
        ]

    def test_options_are_the_papers_around_mobilenet_v2(self) -> None:
        # Widths 0.75, 1, 1.25 of 16 24 32 64 96 160 320 to the nearest 8 that is not below 0.9 of
        # them: 12 -> 16, 18 -> 24 and so on; layers -1, 0, +1 of 1 2 3 4 3 3 1, at least 1.
        outs = [c.options for c in MNASNET.choices if c.name.endswith("out")]
        assert outs == [
            (16, 24), (24, 32), (24, 32, 40), (48, 64, 80), (72, 96, 120), (120, 160, 200),
            (240, 320, 400),
        ]  # fmt: skip
        layers = [c.options for c in MNASNET.choices if c.name.endswith("layers")]
        assert layers == [(1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (2, 3, 4), (2, 3, 4), (1, 2)]
        per_block = [4 * 2 * 2 * 2 * len(o) * len(n) for o, n in zip(outs, layers, strict=True)]
        product = 1
        for size in per_block:
            product *= size
        assert MNASNET.size == product

    def test_b1_without_its_off_grid_widths_lies_in_it(self) -> None:
        blocks = [b.replace("o192", "o160").replace("i192", "i160") for b in B1]
        spec = from_codec([b.replace("_noskip", "") for b in blocks])
        tokens = MNASNET.encode(spec)
        assert MNASNET.decode(tokens).digest() == fix_skips(spec).digest()
        picked = {c.name: c.options[t] for c, t in zip(MNASNET.choices, tokens, strict=True)}
        assert picked["block0.op"] == "dconv"
        assert picked["block1.op"] == "mbconv3"
        assert picked["block4.out"] == 96
        assert picked["block5.layers"] == 4

    def test_a1_does_not_lie_in_it_but_in_one_with_its_112_channels(self) -> None:
        with pytest.raises(NotInSpace, match="mnasnet-a1 does not lie in the space mnasnet"):
            MNASNET.encode(MNASNET_A1)
        blocks = list(MNASNET.blocks)
        blocks[4] = replace(blocks[4], out=(96, 112))
        wider = replace(MNASNET, blocks=tuple(blocks))
        assert wider.decode(wider.encode(MNASNET_A1)).rows == fix_skips(MNASNET_A1).rows
        assert wider.decode(wider.encode(from_codec(A1))).rows == fix_skips(MNASNET_A1).rows


class TestV3:
    def test_every_stage_chooses_all_six(self) -> None:
        fields = {"op", "kernel", "se", "out", "layers", "act"}
        for block in range(1, 5):
            assert {c.name for c in V3S.choices if c.group == f"block{block}"} == {
                f"block{block}.{f}" for f in fields
            }

    def test_squeeze_widths_are_a_quarter_of_the_expansion(self) -> None:
        tokens = [0] * len(V3S.choices)
        for i, choice in enumerate(V3S.choices):
            if choice.name.endswith(".se"):
                tokens[i] = choice.options.index(0.25)
        rows = [row for row in V3S.decode(tokens).rows if isinstance(row, Bneck)]
        assert [row.se for row in rows] == [squeeze_width(row.expanded) for row in rows]

    def test_v3_itself_was_narrowed_by_netadapt_and_is_in_no_such_space(self) -> None:
        with pytest.raises(NotInSpace):
            v3("v3-small").encode(V3_SMALL)


class TestV4:
    def test_v4_conv_small_lies_in_it(self) -> None:
        spec = fix_skips(with_classes(with_resolution(network("v4-conv-small"), 64), 10))
        assert V4.decode(V4.encode(spec)).rows == spec.rows

    def test_a_block_chooses_its_bottleneck_and_later_ones_keep_the_width_of_their_stage(
        self,
    ) -> None:
        text = """
space: 1
name: bottlenecks
stem: {op: conv, kernel: 3, out: [16, 24], act: relu, stride: 2}
blocks:
- {stride: 2, op: [convnext3], kernel: 3, start: 7, out: 32, layers: 1}
- {stride: 1, op: [mbconv2, convnext2, extradw2, ffn2], kernel: 3, start: 5, out: 0, layers: 2}
tail:
- {op: pool}
"""
        own = space_from_text(text)
        first = Bneck(0, 48, 32, 0, "relu", 2, skip="no", start=7)
        forms = {"mbconv2": (0, 3), "convnext2": (5, 0), "extradw2": (5, 3), "ffn2": (0, 0)}
        for i, (start, kernel) in enumerate(forms.values()):
            row = Bneck(kernel, 64, 32, 0, "relu", skip="yes", start=start)
            assert own.decode((0, i)).rows[1:] == (first, row, row, Pool())
        covered = {key for spec in own.covering() for key in row_keys(spec)}
        every = [own.decode((stem, op)) for stem in range(2) for op in range(4)]
        assert {key for spec in every for key in row_keys(spec)} <= covered


@pytest.mark.parametrize("of", SPACES, ids=lambda s: s.name)
def test_there_and_back(of: Space) -> None:
    @given(st.tuples(*(st.integers(0, n - 1) for n in sizes(of))))
    @settings(max_examples=15, deadline=None)
    def check(tokens: tuple[int, ...]) -> None:
        spec = of.decode(tokens)
        again = of.encode(spec)
        assert of.decode(again) == spec  # tokens may differ where two say the same
        assert fix_skips(spec) == spec

    check()


@pytest.mark.parametrize("of", SPACES, ids=lambda s: s.name)
def test_sampling_is_seeded_and_reaches_every_option(of: Space) -> None:
    drawn = [of.sample(rng) for rng in [random.Random(3)] for _ in range(400)]
    assert drawn[0] == of.sample(random.Random(3))
    for position, count in enumerate(sizes(of)):
        seen = {tokens[position] for tokens in drawn}
        assert len(seen) >= min(count, 40)


def test_one_own_space_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN, encoding="utf-8")
    own = space(path)
    assert [(c.name, len(c.options)) for c in own.choices] == [
        ("stem", 2), ("block1.op", 2), ("block1.kernel", 2), ("block1.se", 2), ("block1.out", 2),
        ("block1.layers", 2), ("tail0", 2),
    ]  # fmt: skip
    assert own.size == 2**7
    spec = own.decode((0, 1, 1, 1, 1, 1, 0))
    # 2.5 x 16 = 40 and 2.5 x 40 = 100 -> 104; a quarter of them, rounded to 8: 10 -> 16 and 26 -> 24.
    assert spec.rows == (
        Conv(3, 8, "hswish", 2),
        Bneck(3, 8, 16, 0, "relu", 2, skip="no"),
        Bneck(5, 40, 40, 16, "hswish", 2, skip="no"),
        Bneck(5, 104, 40, 24, "hswish", 1, skip="yes"),
        Bneck(5, 104, 40, 24, "hswish", 1, skip="yes"),
        Conv(1, 96, "hswish"),
        Pool(),
    )
    assert (spec.resolution, spec.classes) == (64, 10)
    assert space(path, resolution=32, classes=3).decode([0] * 7).resolution == 32
    full = own.decode((0, 0, 1, 1, 0, 1, 0)).rows[2:5]
    assert full == (Conv(5, 24, "hswish", 2), Conv(5, 24, "hswish"), Conv(5, 24, "hswish"))


def test_covering_networks_have_every_row_of_the_space() -> None:
    own = space_from_text(OWN)
    covered = {key for spec in own.covering() for key in row_keys(spec)}
    rng = random.Random(0)
    for _ in range(200):
        assert set(row_keys(own.decode(own.sample(rng)))) <= covered


def test_digests_tell_spaces_apart() -> None:
    digests = {s.digest() for s in (*SPACES, v3("v3-small"), v3("v3-small", resolution=64))}
    assert len(digests) == len(SPACES) + 2
    assert mnasnet().digest() == MNASNET.digest()


class TestWidths:
    def test_choices_are_those_that_netadapt_narrows(self) -> None:
        names = [choice.name for choice in WidthSpace(V3_LARGE).choices]
        assert names[:3] == ["rows0-1.bottleneck", "rows2-3.bottleneck", "rows4-6.bottleneck"]
        assert [n for n in names if n.endswith("expansion")] == [
            f"row{i}.expansion" for i in range(2, 16)
        ]
        tail = WidthSpace(V3_LARGE, kinds=("tail",))
        assert [c.name for c in tail.choices] == ["row16.tail", "row18.tail"]
        assert tail.choices[0].options == tuple(range(960, 239, -8))

    def test_the_seed_is_all_zeros(self) -> None:
        assert WIDTHS.encode(V3_SMALL) == (0,) * len(WIDTHS.choices)

    def test_a_network_that_netadapt_would_make_lies_in_it(self) -> None:
        spec = with_out(with_expanded(fix_skips(V3_SMALL), 10, 400), (10,), 96)
        spec = with_out(spec, (4, 5, 6), 32)
        found = WIDTHS.decode(WIDTHS.encode(spec))
        assert found.digest() == spec.digest()

    def test_explicit_widths(self) -> None:
        own = WidthSpace(V3_SMALL, widths={"row10.expansion": [576, 100]})
        position = [c.name for c in own.choices].index("row10.expansion")
        tokens = [0] * len(own.choices)
        tokens[position] = 1
        row = own.decode(tokens).rows[10]
        assert isinstance(row, Bneck)
        assert row.expanded == 100

    def test_what_does_not_lie_in_it(self) -> None:
        for spec in (V3_LARGE, network("v3-small@96"), with_expanded(V3_SMALL, 10, 571)):
            with pytest.raises(NotInSpace, match="does not lie in the space v3-small-widths"):
                WIDTHS.encode(spec)

    @pytest.mark.parametrize(
        ("widths", "said"),
        [
            ({"row99.expansion": [8]}, "no width 'row99.expansion'; known are row1"),
            ({"row10.expansion": []}, "row10.expansion has no options"),
            ({"row10.expansion": [584]}, "from 1 to the seed's 576"),
            ({"row10.expansion": [0]}, "from 1 to the seed's 576"),
            ({"row10.expansion": [64, 64]}, "has an option twice"),
        ],
    )
    def test_wrong_widths(self, widths: dict[str, list[int]], said: str) -> None:
        with pytest.raises(SpaceError, match=said):
            WidthSpace(V3_SMALL, widths=widths)


class TestWrongInput:
    @pytest.mark.parametrize(
        ("tokens", "said"),
        [
            ((0,) * 41, "41 tokens came for the space mnasnet; it has 42"),
            (
                (4, *(0,) * 41),
                "block0.op is 4; allowed are 0 to 3 for conv, dconv, mbconv3, mbconv6",
            ),
            ((-1, *(0,) * 41), "block0.op is -1"),
            ((True, *(0,) * 41), "block0.op is True; it must be an index"),
        ],
    )
    def test_tokens_out_of_range(self, tokens: tuple[int, ...], said: str) -> None:
        with pytest.raises(InputError, match=said):
            MNASNET.decode(tokens)

    @pytest.mark.parametrize(
        ("field", "options", "said"),
        [
            ("kernel", (), "block0.kernel has no options; give at least one"),
            ("kernel", (4,), "block0.kernel has the option 4"),
            ("kernel", (3, 3), "an option twice"),
            ("op", ("mbconv1",), "mbconv with a number above 1"),
            ("op", ("resnet",), "conv, dconv, mbconv with"),
            ("op", ("ffn1.5",), "convnext, extradw or ffn with one of at least 2"),
            ("start", (0,), "an odd whole number"),
            ("se", (2,), "a fraction from 0 to 1"),
            ("skip", ("pool",), "identity or none"),
            ("out", (-8,), "at least 1"),
            ("out", (0, 24), "0 keeps the width that enters and stands alone"),
            ("layers", (0,), "at least 1"),
            ("act", ("mish",), "one of linear"),
        ],
    )
    def test_options_that_cannot_be(
        self, field: str, options: tuple[object, ...], said: str
    ) -> None:
        blocks = (replace(MNASNET.blocks[0], **{field: options}), *MNASNET.blocks[1:])
        with pytest.raises(SpaceError, match=said):
            replace(MNASNET, blocks=blocks)

    def test_a_block_of_stride_2_without_a_depthwise_convolution(self) -> None:
        blocks = (replace(MNASNET.blocks[1], op=("ffn4",)),)
        with pytest.raises(
            SpaceError, match="the option 'ffn4' at stride 2, which needs a depthwise"
        ):
            replace(MNASNET, blocks=blocks)

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("space: 1", "space: 2", "begins with 'space: 1'"),
            ("name: own", "name: [", "begins with 'space: 1'"),
            ("name: own", "title: own", "unknown key 'title'"),
            ("layers: 1}", "}", "block0 lacks layers"),
            ("kernel: [3, 5]", "kernel: []", "block1.kernel has no options"),
            ("out: [8, 16]", "out: []", "stem.out has no options"),
            ("op: conv, kernel: 3", "op: bneck, kernel: 3", "stem is"),
            ("op: dconv", "op: dconv, wide: 3", "block0 has an unknown key 'wide'"),
            ("act: hswish, stride: 2", "act: gelu, stride: 2", "stem: act is 'gelu'"),
            ("- {op: pool}", "", "0 pool rows"),
        ],
    )
    def test_a_yaml_file_that_is_no_space(
        self, tmp_path: Path, old: str, new: str, said: str
    ) -> None:
        path = tmp_path / "wrong.yaml"
        assert old in OWN
        path.write_text(OWN.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(SpaceError, match=said) as caught:
            load_space(path)
        assert str(path) in str(caught.value)

    def test_unknown_spaces(self, tmp_path: Path) -> None:
        with pytest.raises(SpaceError, match="known are mnasnet, v3-large, v3-small, v4-like"):
            space("v4")
        with pytest.raises(SpaceError, match="cannot be read"):
            space(tmp_path / "missing.yaml")
        with pytest.raises(SpaceError, match="no blocks"):
            BlockSpace(name="none", stem=(Conv(3, 8, "relu", 2),), blocks=(), tail=((Pool(),),))
        with pytest.raises(SpaceError, match="no options"):
            Choice("x", ())


def test_a_block_of_one_option_each_is_no_choice() -> None:
    block = Block(stride=1, op=("dconv",), kernel=(3,), out=(8,), layers=(1,))
    one = BlockSpace(name="one", stem=(Conv(3, 8, "relu", 2),), blocks=(block,), tail=((Pool(),),))
    assert one.choices == ()
    assert one.size == 1
    spec: NetSpec = one.decode(())
    assert one.encode(spec) == ()
