"""Reduced tails and output strides: the counts behind Tables 6 to 8, and equal values when dilated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bneck.costs.count import count
from bneck.nets.build import build
from bneck.specs.network import NetSpec, layers
from bneck.specs.rows import Bneck, Conv, Pool, SpecError, squeeze_width
from bneck.specs.tails import dagger, original_tail, output_stride, rf2
from bneck.specs.transforms import WidthRule, scale_width, with_classes, with_resolution
from bneck.specs.zoo import NETWORKS, network, width_rule


def bnecks(spec: NetSpec) -> list[Bneck]:
    return [row for row in spec.rows if isinstance(row, Bneck)]


def tail(spec: NetSpec, rows: int) -> list[tuple[int, int]]:
    """(expanded, out) of the last bnecks."""
    return [(row.expanded, row.out) for row in bnecks(spec)[-rows:]]


# Reduced tails: Tables 6 and 7


def test_tails_for_detection_and_segmentation_have_the_authors_widths() -> None:
    """They differ in the first expansion (and RF2 of V2 keeps it, Table 7 rows 2 to 4)."""
    assert tail(network("v3-large+dagger"), 3) == [(672, 80), (480, 80), (480, 80)]
    assert tail(network("v3-small+dagger"), 3) == [(288, 48), (288, 48), (288, 48)]
    assert tail(network("v3-large+rf2"), 3) == [(336, 80), (480, 80), (480, 80)]
    assert tail(network("v3-small+rf2"), 3) == [(144, 48), (288, 48), (288, 48)]
    assert tail(network("v2+rf2"), 4) == [(576, 80), (480, 80), (480, 80), (480, 160)]
    for name, conv in (("v3-large", 480), ("v3-small", 288)):
        for variant in ("dagger", "rf2"):
            spec = network(f"{name}+{variant}")
            assert spec.width_into(spec.pool_at) == conv
            assert spec.rows[-1] == network(name).rows[-1]
            assert {row.se for row in bnecks(spec)} == {
                row.se and squeeze_width(row.expanded) for row in bnecks(spec)
            }
    assert network("v2+rf2").width_into(20) == 1280


def ssdlite_head_params(c4: int, c5: int) -> int:
    """SSDLite as the authors build it: four extra maps, 3 and 6 anchors, 91 class slots."""
    maps, total = [c4, c5], 0
    for depth in (512, 256, 256, 128):
        half = depth // 2  # 1x1, depthwise and 1x1, each with batch norm's two numbers a channel
        total += maps[-1] * half + 2 * half + 9 * half + 2 * half + half * depth + 2 * depth
        maps.append(depth)
    for channels, anchors in zip(maps, (3, 6, 6, 6, 6, 6), strict=True):
        for outputs in (4 * anchors, 91 * anchors):
            total += 9 * channels + 2 * channels + channels * outputs + outputs
    return total


@pytest.mark.parametrize(
    ("name", "c4", "c5", "published"),
    [
        ("v3-large", 672, 960, 5_006_735),
        ("v3-large+dagger", 672, 480, 3_248_255),
        ("v3-small", 288, 576, 2_518_271),
        ("v3-small+dagger", 288, 288, 1_785_743),
    ],
)
def test_detectors_have_the_parameters_behind_table_6(
    name: str, c4: int, c5: int, published: int
) -> None:
    """To the last parameter; the totals agree with Table 6 once batch norm is taken off."""
    spec = network(name)
    features = sum(row.params for row in count(spec, 320).rows[: spec.pool_at])
    assert features + ssdlite_head_params(c4, c5) == published


@pytest.mark.parametrize(
    ("name", "c5", "low", "params_m", "madds_g"),
    [
        ("v3-large+rf2+os16", 480, 120, 1.507198, 9.37),
        ("v3-small+rf2+os16", 288, 88, 0.468830, 2.73),
        ("v2+rf2+os16", 160, 192, 0.987, 12.32),
        ("v2-0.5+rf2+os16", 80, 96, 0.283, 3.90),
        ("v2-0.35+rf2+os16", 56, 96, 0.169, 2.46),
    ],
)
def test_segmenters_have_the_counts_behind_table_7(
    name: str, c5: int, low: int, params_m: float, madds_g: float
) -> None:
    """LR-ASPP with F = 128 and 19 classes on rows 8, 11, 4, 9 and 10, at 1024 x 2048 pixels.

    Multiply-adds hold the output stride too: where it is not kept, they are a quarter of it.
    """
    spec = network(name)
    end = spec.pool_at if name.startswith("v3") else spec.pool_at - 1  # V2 ends in its last bneck
    rows = count(spec, (1024, 2048)).rows[:end]
    assert spec.width_into(end) == c5
    head = c5 * 128 + 256 + c5 * 128 + 128 + (128 + low) * 19 + 2 * 19
    assert sum(row.params for row in rows) + head == pytest.approx(params_m * 1e6, abs=600)
    if name.startswith("v3"):
        assert sum(row.params for row in rows) + head == round(params_m * 1e6)
    work = 64 * 128 * c5 * 128 + 128 * 256 * (128 + low) * 19
    assert sum(row.madds for row in rows) + work == pytest.approx(madds_g * 1e9, abs=5.1e6)


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.25])
@pytest.mark.parametrize("name", ["v3-large", "v3-small"])
def test_halving_a_tail_and_scaling_it_commute_at_the_paper_s_widths(
    name: str, width: float
) -> None:
    """So the authors' order, a halved table times a width, gives the same networks."""
    for edit in (dagger, rf2):
        before = scale_width(edit(network(name)), width)
        assert edit(scale_width(network(name), width)).rows == before.rows


# Output stride: Table 8


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_last_map_has_the_asked_size(name: str, stride: int) -> None:
    """Resolution / stride, at the same parameters; earlier rows are untouched."""
    plain, spec = network(f"{name}@224"), network(f"{name}+os{stride}@224")
    pool = next(layer for layer in layers(spec) if layer.kind == "pool")
    assert pool.size_in == (224 // stride, 224 // stride)
    assert count(spec).params == count(plain).params
    assert (spec.rows == plain.rows) == (stride == 32)
    assert [spec.has_skip(i) for i in range(len(spec.rows))] == [
        plain.has_skip(i) for i in range(len(plain.rows))
    ]


def test_dilations_are_the_authors() -> None:
    """The bneck that loses its stride keeps the rate so far; the rows after it have twice that."""

    def rates(name: str) -> list[int]:
        return [row.dilation for row in bnecks(network(name))]

    assert rates("v3-large+os16") == [1] * 13 + [2, 2]
    assert rates("v3-small+os16") == [1] * 9 + [2, 2]
    assert rates("v3-large+os8") == [1] * 7 + [2] * 6 + [4, 4]
    assert rates("v3-small+os8") == [1] * 4 + [2] * 5 + [4, 4]
    assert rates("v2+os16") == [1] * 14 + [2] * 3


def test_an_output_stride_can_be_lowered_in_steps_and_not_raised() -> None:
    """8 by way of 16 is 8."""
    spec = network("v3-large+os16")
    assert output_stride(spec, 8).rows == network("v3-large+os8").rows
    with pytest.raises(
        SpecError, match=r"v3-large\+os16 has output stride 16; it cannot become 32"
    ):
        output_stride(spec, 32)
    with pytest.raises(SpecError, match="output stride is 12; allowed are 8, 16, 32"):
        output_stride(spec, 12)
    for edit in (dagger, rf2, original_tail):
        with pytest.raises(SpecError, match="set the output stride after"):
            edit(spec)


def test_what_dilation_cannot_do_is_refused() -> None:
    """A conv with a stride behind the wanted one; and no residual comes into being."""
    tiny = NetSpec(
        name="tiny",
        rows=(
            Conv(3, 8, "relu", 2),
            Bneck(3, 24, 16, 0, "relu", 2),
            Bneck(3, 32, 16, 0, "relu", 2),
            Bneck(3, 32, 16, 0, "relu", 2),
            Bneck(1, 32, 24, 0, "relu", 1),
            Conv(3, 32, "relu"),
            Pool(),
        ),
    )
    assert not output_stride(replace(tiny, rows=(*tiny.rows[:5], Pool())), 8).has_skip(3)
    assert output_stride(replace(tiny, rows=(*tiny.rows[:5], Pool())), 8).rows[4] == tiny.rows[4]
    with pytest.raises(SpecError, match="row 5 of tiny is a 3x3 conv with stride 1"):
        output_stride(tiny, 8)
    with pytest.raises(SpecError, match="tiny has output stride 16"):
        output_stride(tiny, 32)
    flat = NetSpec(name="flat", rows=(Conv(3, 8, "relu"), Pool()))
    with pytest.raises(SpecError, match="flat has no bneck with stride 2"):
        dagger(flat)


@pytest.mark.parametrize("stride", [8, 16])
def test_a_dilated_net_computes_the_same_values_on_a_denser_map(stride: int) -> None:
    """Every second or fourth pixel of its features is the strided net's. No squeeze: that averages."""
    name = "v3-small-minimalistic"
    spec = with_classes(with_resolution(network(f"{name}+os{stride}"), 64), 10)
    nets = build(spec), build(with_classes(network(f"{name}@64"), 10))
    dense, plain = (net.eval().double() for net in nets)  # untrained: features are near 1e-5
    plain.load_state_dict(dense.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    with torch.inference_mode():
        assert dense(images).shape == (2, 10)
        features, wanted = images, images
        for i in range(spec.pool_at):
            features, wanted = dense.rows[i](features), plain.rows[i](wanted)
    step = 32 // stride
    assert features.shape[2:] == (64 // stride, 64 // stride)
    assert (wanted > 0).double().mean() > 0.2
    assert (features[:, :, ::step, ::step] - wanted).abs().max() < 1e-10 * wanted.max()


def test_the_uniform_baseline_keeps_the_conv_that_the_other_last_stage_keeps() -> None:
    """The 1280 conv, on whichever side of the pool it stands; the 960 in front of it is scaled."""
    for name in ("v3-large+original-tail", "mnasnet-a1+efficient-tail"):
        spec = network(name)
        narrow = scale_width(spec, 0.5, width_rule(name))
        outs = [row.out for row in narrow.rows if isinstance(row, Conv)]
        assert outs[-1] == 1280
        assert all(out < 1280 for out in outs[:-1])
    assert width_rule("v3-large") == WidthRule()
