"""MnasNet's block strings: the published ones are read and written exactly, wrong ones are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bneck.costs.count import count
from bneck.specs.codec import from_codec, to_codec
from bneck.specs.errors import InputError
from bneck.specs.rows import Bneck
from bneck.specs.transforms import fix_skips
from bneck.specs.zoo import MNAS_SMALL, MNASNET_A1, PROXYLESS_MOBILE, V3_LARGE

# As the authors publish them (tensorflow/tpu, mnasnet_models.py).
A1 = [
    "r1_k3_s11_e1_i32_o16_noskip",
    "r2_k3_s22_e6_i16_o24",
    "r3_k5_s22_e3_i24_o40_se0.25",
    "r4_k3_s22_e6_i40_o80",
    "r2_k3_s11_e6_i80_o112_se0.25",
    "r3_k5_s22_e6_i112_o160_se0.25",
    "r1_k3_s11_e6_i160_o320",
]
B1 = [
    "r1_k3_s11_e1_i32_o16_noskip",
    "r3_k3_s22_e3_i16_o24",
    "r3_k5_s22_e3_i24_o40",
    "r3_k5_s22_e6_i40_o80",
    "r2_k3_s11_e6_i80_o96",
    "r4_k5_s22_e6_i96_o192",
    "r1_k3_s11_e6_i192_o320_noskip",
]
SMALL = [
    "r1_k3_s11_e1_i8_o8_noskip",
    "r1_k3_s22_e3_i8_o16",
    "r2_k3_s22_e6_i16_o16",
    "r4_k5_s22_e6_i16_o32_se0.25",
    "r3_k3_s11_e6_i32_o32_se0.25",
    "r3_k5_s22_e6_i32_o88_se0.25",
    "r1_k3_s11_e6_i88_o144",
]


@pytest.mark.parametrize("blocks", [A1, B1], ids=["A1", "B1"])
def test_published_strings_come_back_as_they_went_in(blocks: list[str]) -> None:
    assert to_codec(from_codec(blocks)) == blocks


def test_a1_is_the_zoo_network_with_its_published_size() -> None:
    spec = from_codec(A1)
    assert fix_skips(spec).rows == fix_skips(MNASNET_A1).rows
    costs = count(spec)  # published: 3.9M parameters, 312M multiply-adds
    assert round(costs.params / 1e6, 1) == 3.9
    assert round(costs.madds / 1e6) == 312


def test_b1_has_its_published_size() -> None:
    costs = count(from_codec(B1))  # published: 4.4M parameters, 315M multiply-adds
    assert round(costs.params / 1e6, 1) == 4.4
    assert abs(costs.madds / 1e6 - 315) < 1


def test_small_is_the_zoo_network() -> None:
    spec = from_codec(SMALL)
    assert [r for r in fix_skips(spec).rows if isinstance(r, Bneck)] == [
        r for r in fix_skips(MNAS_SMALL).rows if isinstance(r, Bneck)
    ]
    assert to_codec(spec) == SMALL


def test_rows_of_one_block_need_not_be_written_as_one_to_be_joined() -> None:
    assert to_codec(fix_skips(from_codec(B1)))[1] == "r3_k3_s22_e3_i16_o24"
    loose = ["r1_k3_s22_e3_i16_o24", "r2_k3_s11_e3_i24_o24"]
    assert to_codec(from_codec(loose)) == ["r3_k3_s22_e3_i16_o24"]


def test_blocks_that_differ_are_kept_apart() -> None:
    blocks = to_codec(PROXYLESS_MOBILE)
    spec = from_codec(blocks, act="relu6")
    assert len(blocks) > 7
    assert fix_skips(spec).rows == fix_skips(PROXYLESS_MOBILE).rows


@st.composite
def block_lists(draw: st.DrawFn) -> list[str]:
    width, blocks = draw(st.integers(1, 40)), []
    for _ in range(draw(st.integers(1, 5))):
        out, stride = draw(st.integers(1, 40)), draw(st.sampled_from(["11", "22"]))
        text = f"r{draw(st.integers(1, 4))}_k{draw(st.sampled_from([3, 5, 7]))}_s{stride}"
        text += f"_e{draw(st.sampled_from(['1', '2.5', '3', '6']))}_i{width}_o{out}"
        text += draw(st.sampled_from(["", "_se0.25", "_se0.5", "_se1"]))
        blocks.append(text + draw(st.sampled_from(["", "_noskip"])))
        width = out
    return blocks


@given(block_lists())
def test_what_is_written_reads_as_the_same_network(blocks: list[str]) -> None:
    spec = from_codec(blocks)
    again = from_codec(to_codec(spec))
    assert fix_skips(again).rows == fix_skips(spec).rows


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([], "there are no blocks"),
        (["hello"], "'hello' is no part"),
        ([""], "is no part"),
        (["r2_k3_s22_e6_i16"], "it lacks o"),
        (["r2_k3_s22_e6_i16_o24_k5"], "'k5' is no part of one or stands there twice"),
        (["r2_k3_s22_e6_i16_o24_noskip_noskip"], "twice"),
        (["r2_k3_s21_e6_i16_o24"], "s11 and s22"),
        (["r0_k3_s22_e6_i16_o24"], "1 to 99"),
        (["r1.5_k3_s22_e6_i16_o24"], "r1.5 is no whole number"),
        (["r1_k3_s22_e0.5_i16_o24"], "at least 1"),
        (["r1_k3_s22_e6_i16_o24_se2"], "se from 0 to 1"),
        (["r1_k3_s22_e6_i0_o24"], "at least 1"),
        (["r1_k4_s22_e6_i16_o24"], "kernel is 4"),
        (["r1_k3_s22_e6_i16_o24", "r1_k3_s11_e6_i16_o24"], "but 24 come out"),
    ],
)
def test_wrong_strings_are_refused_in_one_sentence(blocks: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        from_codec(blocks)


def test_what_no_string_can_say_is_refused() -> None:
    with pytest.raises(InputError, match="row 11 has 80 channels in"):
        to_codec(V3_LARGE)  # row 11 squeezes 480 channels to 120, more than the 80 that enter
