"""Ablation variants: counts by hand, the paper's placements, and promises kept over the whole zoo."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise, permutations, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bneck.costs.count import count
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool, SpecError, squeeze_width
from bneck.specs.tails import dagger, efficient_tail, original_tail, output_stride, rf2
from bneck.specs.text import from_text, to_text
from bneck.specs.variants import (
    KINDS,
    VARIANTS,
    fig9_components,
    hswish_from,
    no_squeeze,
    relu_everywhere,
    squeeze_by_expansion,
    squeeze_by_input,
    with_stem,
)
from bneck.specs.zoo import NETWORKS, network

PAGE = (Path(__file__).parent.parent / "docs/networks.md").read_text(encoding="utf-8")
WIDTHS = ["", "-0.35", "-0.75", "-1.25"]


def acts(spec: NetSpec) -> list[str]:
    return [row.act for row in spec.rows if not isinstance(row, Pool)]


def bnecks(spec: NetSpec) -> list[Bneck]:
    return [row for row in spec.rows if isinstance(row, Bneck)]


def madds(name: str) -> int:
    return count(network(name)).madds


# Over the whole zoo

SQUEEZING = {"v3-large", "v3-small", "mnasnet-a1", "mnas-small", "lcnet"}
FLAT = set(NETWORKS) - SQUEEZING
REFUSED = {
    *product(FLAT, ("se-input", "se-expansion")),
    *product(("v1", "lcnet"), ("original-tail", "efficient-tail")),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_variant_gives_a_network_or_is_refused_in_a_sentence(name: str) -> None:
    """At every width it counts, and keeps classes, resolution and gate; at 0.35 it reads back alike."""
    for variant, place in product(VARIANTS, WIDTHS):
        full = f"{name}{place}+{variant}@192"
        if (name, variant) in REFUSED:
            with pytest.raises(SpecError, match=re.escape(name)):
                network(full)
            continue
        spec, plain = network(full), network(f"{name}{place}@192")
        assert (spec.name, spec.resolution, spec.classes) == (full, 192, 1000)
        assert spec.se_gate == plain.se_gate
        assert count(spec).params > spec.width_into(len(spec.rows)) * 1000
        if place == "-0.35":
            assert from_text(to_text(spec)) == spec


@pytest.mark.parametrize("name", NETWORKS)
def test_a_variant_that_a_network_has_already_changes_nothing(name: str) -> None:
    """Only a halved tail can be halved again, which names do not allow."""
    for variant, edit in VARIANTS.items():
        if (name, variant) not in REFUSED and edit.kind != "reduced tail":
            spec = network(f"{name}+{variant}")
            assert edit.edit(spec).rows == spec.rows


@settings(max_examples=50)
@given(
    st.sampled_from(sorted(NETWORKS)),
    st.sampled_from(WIDTHS),
    st.lists(st.sampled_from(sorted(VARIANTS)), min_size=2, max_size=3, unique=True),
)
def test_the_order_of_variants_in_a_name_means_nothing(
    name: str, place: str, chosen: list[str]
) -> None:
    """They are applied by kind; all orders give one network or are all refused."""
    found = set()
    for order in permutations(chosen):
        try:
            found.add(network(f"{name}{place}+{'+'.join(order)}").digest())
        except SpecError:
            found.add("refused")
    assert len(found) == 1


def test_every_kind_has_variants_and_the_page_lists_them_all() -> None:
    """docs/networks.md has a line for each."""
    assert {variant.kind for variant in VARIANTS.values()} == set(KINDS)
    for name in VARIANTS:
        assert f"`+{name}`" in PAGE


# Nonlinearity: Table 5


def test_h_swish_from_80_channels_is_v3_large_itself() -> None:
    """Also at a width, where 80 channels are 40: the number is the full-width table's."""
    assert network("v3-large+hswish80").rows == network("v3-large").rows
    assert network("v3-large-0.5+hswish80").rows == network("v3-large-0.5").rows
    assert network("v3-small+hswish40").rows == network("v3-small").rows
    assert network("v3-large-minimalistic+hswish80+stem16-hswish") != network("v3-large")


def test_h_swish_begins_where_table_5_has_it() -> None:
    """@16 is everywhere, @112 begins at the eleventh bneck; the stem keeps its own."""
    assert acts(network("v3-large+hswish16")) == ["hswish"] * 18
    wanted = ["hswish"] + ["relu"] * 10 + ["hswish"] * 7
    assert acts(network("v3-large+hswish112")) == wanted
    # V2's rows are ReLU6; its first two stages have 16 and 24 channels.
    assert acts(network("v2+hswish24")) == ["relu6"] * 2 + ["hswish"] * 17
    assert acts(network("v2+hswish16")) == ["hswish"] * 19
    assert acts(network("v3-large+hswish1000")) == ["hswish"] + ["relu"] * 16 + ["hswish"]


def test_relu_everywhere_leaves_projections_and_gates_alone() -> None:
    """V1 has a nonlinearity after its projections, the EdgeTPU network a linear conv."""
    large = network("v3-large+relu")
    assert set(acts(large)) == {"relu"}
    assert large.se_gate == "hsigmoid"
    assert [row.se for row in bnecks(large)] == [row.se for row in bnecks(network("v3-large"))]
    assert {row.out_act for row in bnecks(large)} == {"linear"}
    assert {row.out_act for row in bnecks(network("v1+relu"))} == {"relu"}
    assert {row.out_act for row in bnecks(network("v1+hswish16"))} == {"hswish"}
    assert acts(network("v3-edgetpu+hswish16"))[1] == "linear"


def test_minimalistic_is_large_with_relu_no_squeeze_and_3x3() -> None:
    """Two ways to one network."""
    both = network("v3-large+relu+no-se")
    rows = [replace(row, kernel=3) if isinstance(row, Bneck) else row for row in both.rows]
    assert tuple(rows) == network("v3-large-minimalistic").rows


@pytest.mark.parametrize("channels", [0, 1281])
def test_h_swish_from_a_width_that_is_nowhere_is_refused(channels: int) -> None:
    """The widest row has 1280 channels."""
    with pytest.raises(SpecError, match=r"v3-large has no row with .* choose from 1 to 1280"):
        hswish_from(network("v3-large"), channels)


# Stem: section 5.1


def test_the_small_stem_saves_ten_million() -> None:
    """112 x 112 pixels, 16 filters fewer: conv 3 x 9, depthwise 9, projection to 16."""
    saved = 112 * 112 * 16 * (27 + 9 + 16)
    assert saved == 10_436_608
    for name in ("v3-large", "v3-large-minimalistic"):
        assert madds(f"{name}+stem32-relu") - madds(name) == saved
    for name in ("v2", "mnasnet-a1", "proxyless-mobile"):
        assert madds(name) - madds(f"{name}+stem16-hswish") == saved


def test_the_row_behind_another_stem_still_expands_nothing() -> None:
    """32 -> 16 adds no input, 16 -> 16 does; Mnas-small's first row never does."""
    large = network("v3-large+stem32-hswish")
    assert large.rows[:2] == (Conv(3, 32, "hswish", 2), Bneck(3, 32, 16, 0, "relu", 1))
    assert not large.has_skip(1)
    assert large.rows[2:] == network("v3-large").rows[2:]
    small = network("mnas-small+stem16-relu")
    assert small.rows[1] == Bneck(3, 16, 8, 0, "relu", 1, skip="no")
    halved = network("v3-large-0.5+stem32-relu")  # 32 filters of the full-width table
    assert halved.rows[0] == Conv(3, 16, "relu", 2)
    with pytest.raises(SpecError, match="out is 0"):
        with_stem(large, 0, "relu")


# Squeeze-and-excite: section 5.3


def test_squeeze_widths_of_input_and_of_expansion() -> None:
    """V3-Large squeezes in MnasNet-A1's rows; a quarter of their inputs are A1's widths."""
    of_input = [row.se for row in bnecks(network("v3-large+se-input")) if row.se]
    assert of_input == [6, 10, 10, 20, 28, 28, 40, 40]
    assert of_input == [row.se for row in bnecks(network("mnasnet-a1")) if row.se]
    assert network("v3-large+se-expansion").rows == network("v3-large").rows
    assert {row.se for row in bnecks(network("v3-large+no-se"))} == {0}
    for i, row in enumerate((half := network("v3-large-0.5+se-input")).rows):
        assert not isinstance(row, Bneck) or row.se in (0, half.width_into(i) // 4)
    for row in bnecks(network("mnasnet-a1-0.75+se-expansion")):
        assert row.se in (0, squeeze_width(row.expanded))


def test_mnasnet_squeezing_by_expansion_has_the_known_parameters() -> None:
    """5.14M against 3.89M: how a wrong squeeze width of MnasNet-A1 is known to show."""
    assert count(network("mnasnet-a1+se-expansion")).params == pytest.approx(5.14e6, abs=5e3)


# Last stage: Fig. 5


def test_the_efficient_last_stage_saves_what_figure_5_says() -> None:
    """30M by the paper; by the figure's layers on the 7 x 7 map 34.3M, of MnasNet-A1 as of V3-Large."""
    block = 49 * (9 * 960 + 960 * 320 + 320 * 1280)
    saved = block - 960 * 1280
    assert saved == 34_317_760
    assert madds("v3-large+original-tail") - madds("v3-large") == saved
    assert madds("mnasnet-a1") - madds("mnasnet-a1+efficient-tail") == saved


def test_the_original_last_stage_is_mnasnet_s() -> None:
    """Rows as Fig. 5 draws them; there and back again is the same network."""
    rows = network("v3-large+original-tail").rows[-4:]
    wanted = (Bneck(5, 960, 160, 240, "hswish"), Bneck(3, 960, 320, 0, "hswish"))
    assert rows == (*wanted, Conv(1, 1280, "hswish"), Pool())
    assert network("mnasnet-a1").rows[-3:] == network("v3-large+original-tail+relu").rows[-3:]
    for spec in (network("v3-large"), network("v3-small-0.75"), network("v3-large-minimalistic")):
        assert efficient_tail(original_tail(spec)).rows == spec.rows
    mnasnet = network("mnasnet-a1")
    assert original_tail(efficient_tail(mnasnet)).rows == mnasnet.rows


def test_the_last_conv_of_the_original_stage_keeps_its_width() -> None:
    """As MnasNet's does at every width below 1; the block's own widths follow the rule."""
    half = network("v3-large-0.5+original-tail")
    assert half.rows[-3] == Bneck(3, 480, 160, 0, "hswish")
    assert half.width_into(len(half.rows)) == 1280
    assert network("mnasnet-a1-0.5+efficient-tail").rows[-3:] == (
        Conv(1, 480, "relu"),
        Pool(),
        Conv(1, 1280, "relu", bn=False),
    )


def test_networks_that_fig_5_does_not_fit_are_refused() -> None:
    """No conv before the pool; a last bneck whose stride or full convolution would be lost."""
    v2 = network("v2")
    last = v2.rows[-3]
    assert isinstance(last, Bneck)
    odd_rows = [{"stride": 2}, {"fused": True}, {"start": 3}, {"kernel": 0}]
    for odd in (replace(last, **change) for change in odd_rows):  # type: ignore[arg-type]
        with pytest.raises(SpecError, match="is fused, strided or has another"):
            efficient_tail(replace(v2, rows=(*v2.rows[:-3], odd, *v2.rows[-2:])))
    only = NetSpec(name="only", rows=(Conv(1, 8, "relu"), Pool()))
    for edit in (original_tail, efficient_tail):
        with pytest.raises(SpecError, match=r"only has neither last stage of Fig\. 5"):
            edit(only)


# Fig. 9, and names


def test_components_lead_from_mnasnet_to_v3_large() -> None:
    """Each step is the section's own: 34.3M, 10.4M, then nothing but nonlinearities, then squeezes."""
    found = fig9_components(network("mnasnet-a1"), network("v3-large"))
    specs = [spec for _, spec in found]
    assert specs[0] == network("mnasnet-a1")
    assert specs[-1] == network("v3-large")
    costs = [count(spec).madds for spec in specs]
    steps = [before - after for before, after in pairwise(costs[1:-1])]
    assert steps == [34_317_760, 10_436_608, 0]
    assert costs[0] > costs[1]  # NetAdapt narrows what the search found
    assert [spec.se_gate for spec in specs] == ["sigmoid"] * 5 + ["hsigmoid"]
    assert set(acts(specs[1])) == set(acts(specs[2])) == {"relu"}
    assert acts(specs[3]) == ["hswish"] + ["relu"] * 17
    assert acts(specs[4]) == acts(specs[5])
    assert len({label for label, _ in found}) == len({spec.name for spec in specs}) == 6


@pytest.mark.parametrize(
    ("name", "why"), [("v2", "last stage"), ("v3-large-minimalistic", "squeeze")]
)
def test_components_need_a_network_that_has_them(name: str, why: str) -> None:
    """Nothing is taken off that is not there."""
    with pytest.raises(SpecError, match=f"{name} has .*{why}"):
        fig9_components(network("mnasnet-a1"), network(name))


def test_functions_name_what_they_return() -> None:
    """In Python as by name."""
    large = network("v3-large")
    for edit in (relu_everywhere, no_squeeze, squeeze_by_input, squeeze_by_expansion, rf2, dagger):
        spec = edit(large)
        assert network(spec.name) == spec
    assert network(hswish_from(large, 40).name) == hswish_from(large, 40)
    assert network(with_stem(large, 32, "relu").name) == with_stem(large, 32, "relu")
    assert network(output_stride(large, 16).name) == output_stride(large, 16)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v3-large+relo", "there is no variant 'relo'; did you mean relu"),
        ("v3-large+", "there is no variant ''; known are relu, "),
        ("v3-large+hswish0", "there is no variant 'hswish0'; did you mean hswish80"),
        ("v3-large+hswish5000", "v3-large has no row with 5000 channels"),
        ("v3-large+relu+relu", "relu and relu both set the nonlinearity; give one"),
        ("v3-large+dagger+rf2", "dagger and rf2 both set the reduced tail; give one"),
        ("v3-large+os8+os16", "os8 and os16 both set the output stride"),
        ("v3-lerge+relu", r"there is no network 'v3-lerge\+relu'; did you mean v3-large"),
        ("v3-large+relu-0.5", "there is no variant 'relu-0.5'; did you mean relu"),
        ("v3-large@96+relu", r"there is no network 'v3-large@96\+relu'"),
    ],
)
def test_wrong_names_are_answered(name: str, message: str) -> None:
    """The nearest names are offered, and what excludes what is said."""
    with pytest.raises(SpecError, match=message):
        network(name)
