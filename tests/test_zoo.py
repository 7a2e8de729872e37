"""Every network of the zoo: published counts, and the same contract for each."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bneck.costs.count import count
from bneck.costs.published import PUBLISHED as PUBLISHED_ROWS
from bneck.devices.runtimes import OnnxRuntime
from bneck.graphs.onnx_graph import network_graph
from bneck.nets.build import build
from bneck.nets.fold import folded_weights
from bneck.nets.shrink import shrink
from bneck.runs.networks import zoo
from bneck.specs.network import PADDINGS, layers
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.text import from_text, to_text
from bneck.specs.transforms import (
    fix_skips,
    stages,
    with_classes,
    with_expanded,
    with_out,
    with_resolution,
)
from bneck.specs.zoo import NETWORKS, family, network

# Parameters and multiply-adds in millions at 224 px, 1000 classes: V1 by its paper's arithmetic, V2
# and its widths as measured on torchvision and timm; MnasNet-A1 as measured on timm; Mnas-small,
# Proxyless, minimalistic and EdgeTPU from their authors' code and README.
PUBLISHED = {
    "v1": (4.232, 568.74),
    "v1-0.75": (2.59, 325.4),
    "v1-0.5": (1.33, 149.5),
    "v1-0.25": (0.47, 41.0),
    "v2": (3.505, 300.77),
    "v2-0.75": (2.636, 209.07),
    "v2-0.5": (1.969, 97.13),
    "v2-0.35": (1.677, 59.29),
    "v2-1.4": (6.109, 582.20),
    "mnasnet-a1": (3.887, 311.58),
    "mnasnet-a1-0.75": (2.912, 223.4),
    "mnasnet-a1-0.5": (2.082, 103.2),
    "mnasnet-a1-0.35": (1.747, 61.7),
    "mnas-small": (2.030, 68.34),
    "proxyless-mobile": (4.081, 320.43),
    "v3-large-minimalistic": (3.924, 209.1),
    "v3-small-minimalistic": (2.045, 52.3),
    "v3-edgetpu": (4.09, 990.67),
    "v3-edgetpu-0.75": (2.99, 624.5),
    # V4 counted by hand from its tables, to the last parameter and multiply-add; timm prints 2.24 for
    # half the width, and the parameters of LCNet.
    "v4-conv-small": (3.774024, 186.005568),
    "v4-conv-medium": (9.715512, 827.649984),
    "v4-conv-small@256": (3.774024, 242.178048),
    "v4-conv-medium@256": (9.715512, 1080.244224),
    "efficientnet-lite0": (4.652008, 385.19),
}
PARAMETERS = {  # timm's
    "v4-conv-small-0.5": 2.24,
    "lcnet-0.35": 1.64,
    "lcnet-0.5": 1.88,
    "lcnet-0.75": 2.36,
    "lcnet": 2.95,
    "lcnet-1.5": 4.50,
}
LCNET = {  # PP-LCNet, by width: parameters and FLOPs in millions
    0.25: (1.5, 18),
    0.35: (1.6, 29),
    0.5: (1.9, 47),
    0.75: (2.4, 99),
    1.0: (3.0, 161),
    1.5: (4.5, 342),
    2.0: (6.5, 590),
    2.5: (9.0, 906),
}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_counts_are_the_published_ones(name: str, published: tuple[float, float]) -> None:
    """To the last digit that was published."""
    costs = count(network(name))
    digits, fine = (len(str(figure).partition(".")[2]) for figure in published)
    assert costs.params / 1e6 == pytest.approx(published[0], abs=0.6 * 10**-digits)
    assert costs.madds / 1e6 == pytest.approx(published[1], abs=1e-7 if fine == 6 else 0.06)


@pytest.mark.parametrize(("name", "params"), PARAMETERS.items())
def test_parameters_are_those_that_timm_prints(name: str, params: float) -> None:
    assert round(count(network(name)).params / 1e6, 2) == params


@pytest.mark.parametrize(("width", "printed"), LCNET.items())
def test_lcnet_has_the_figures_of_its_paper(width: float, printed: tuple[float, int]) -> None:
    """Its FLOPs are ours and 2 for every number that goes through batch norm."""
    spec = network(f"lcnet-{width}")
    costs = count(spec)
    numbers = sum(
        layer.out * layer.size_out[0] * layer.size_out[1]
        for layer in layers(spec)
        if layer.kind in ("conv", "depthwise") and layer.bn
    )
    assert round(costs.params / 1e6, 1) == printed[0]
    assert round((costs.madds + 2 * numbers) / 1e6) == printed[1]


def test_the_squeeze_of_mnasnet_taken_of_the_expansion_would_be_5_14m() -> None:
    """The mistake to guard against: its squeeze is a quarter of the input."""
    spec = network("mnasnet-a1")
    rows = [
        replace(row, se=row.expanded // 4) if isinstance(row, Bneck) and row.se else row
        for row in spec.rows
    ]
    assert count(replace(spec, rows=tuple(rows))).params / 1e6 == pytest.approx(5.14, abs=0.006)


def test_what_the_zoo_marks_as_different_from_print_is_what_is_known_to_be() -> None:
    """All of Table 9 agrees; what does not says why."""
    entries = zoo()
    marked = {
        (row["network"], row["source"]) for e in entries for row in e["published"] if row["differs"]
    }
    assert marked == {
        ("v3-large", "Table 3"),  # 219 where Table 9 has 217
        ("v3-small-minimalistic", "authors' code"),
        ("v2", "Table 3"),  # 3.505M printed as 3.4M
        ("mnasnet-a1", "Table 3"),
        ("mnas-small", "Table 3"),
        ("efficientnet-lite0", "authors' code"),
        *(("lcnet" if width == 1 else f"lcnet-{width}", "PP-LCNet") for width in LCNET),
    }
    rows = [row for e in entries for row in e["published"]]
    assert {(r["network"], r["source"]) for r in rows if r["note"]} == marked
    assert sum(row["source"] == "Table 9" for row in rows) == 19
    assert len(rows) == len(PUBLISHED_ROWS)


TABLES = Path(__file__).parents[2] / "shared" / "paper" / "tables"


@pytest.mark.data
@pytest.mark.skipif(not TABLES.is_dir(), reason="the paper's tables are not beside the project")
def test_the_printed_figures_are_those_of_table_9() -> None:
    """Typed in once, read from the table here."""
    with (TABLES / "table9_multipliers.csv").open() as file:
        lines = list(csv.DictReader(line for line in file if not line.startswith("#")))
    wanted = {
        (f"v3-{x['network']}", float(x["multiplier"]), int(x["resolution"])): (
            float(x["top1"]), float(x["madds_m"]), float(x["params_m"]),
        )
        for x in lines
    }  # fmt: skip
    found = {}
    for row in PUBLISHED_ROWS:
        if row.source == "Table 9":
            spec = network(row.network)
            width = re.search(r"-(\d\.\d+)", row.network)
            key = family(row.network), float(width[1]) if width else 1.0, spec.resolution
            found[key] = (row.top1, row.madds_m, row.params_m)
    assert found == wanted


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("padding", PADDINGS)
def test_a_network_counts_builds_exports_and_reads_back_alike(name: str, padding: str) -> None:
    """Spec = text = module = graph, at 10 classes and an even or an odd size."""
    side = {"symmetric": 64, "same": 51}[padding]
    spec = with_classes(with_resolution(network(name), side), 10)
    spec = replace(spec, padding=padding)  # type: ignore[arg-type]
    assert from_text(to_text(spec)) == spec
    net = build(spec).eval()
    assert sum(p.numel() for p in net.parameters()) == count(spec).params
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = net(images).numpy()
    model = network_graph(spec, folded_weights(net)).SerializeToString()
    got = OnnxRuntime().load(model, threads=1).run(images.numpy())
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_runs_at_any_size_and_learns_everywhere(name: str) -> None:
    """Three sizes, three batches; every parameter gets a gradient; an image does not see its batch."""
    torch.manual_seed(0)
    net = build(with_classes(network(name), 7))
    for batch, side in ((1, 33), (2, 64)):
        net.eval()
        images = torch.randn(batch, 3, side, side)
        with torch.inference_mode():
            scores = net(images)
            assert scores.shape == (batch, 7)
            alone = torch.cat([net(image[None]) for image in images])
        assert torch.allclose(scores, alone, rtol=1e-4, atol=1e-5 * float(scores.abs().max()))
    net.train()
    images = torch.randn(2, 3, 48, 48).to(memory_format=torch.channels_last)
    net.to(memory_format=torch.channels_last)(images).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_every_row_is_a_network_too(name: str) -> None:
    """Shrunk to half of every output and every expansion, it runs and counts as its spec."""
    spec = with_classes(fix_skips(network(name)), 7)
    half = spec
    head = [(i,) for i in range(spec.pool_at + 1, len(spec.rows))]
    for group in [*stages(spec), *head]:
        row = spec.rows[group[0]]
        assert not isinstance(row, Pool)
        half = with_out(half, group, row.out // 2)
    for i, row in enumerate(spec.rows):
        if isinstance(row, Bneck) and spec.expands(i):
            half = with_expanded(half, i, row.expanded // 2)
    net = shrink(build(spec), half)
    assert net.spec == half
    assert sum(p.numel() for p in net.parameters()) == count(half).params
    assert torch.isfinite(net.eval()(torch.randn(1, 3, 48, 48))).all()


def test_minimalistic_has_neither_squeeze_nor_h_swish_nor_5x5() -> None:
    """Channels and strides are those of the network it comes from."""
    plain, full = network("v3-small-minimalistic"), network("v3-small")
    for row, old in zip(plain.rows, full.rows, strict=True):
        if isinstance(row, Pool):
            continue
        assert not isinstance(old, Pool)
        assert (row.out, row.stride, row.act) == (old.out, old.stride, "relu")
        if isinstance(row, Bneck):
            assert isinstance(old, Bneck)
            assert (row.kernel, row.se, row.expanded) == (3, 0, old.expanded)
        assert not isinstance(row, Conv) or row.kernel == old.kernel


def test_mnasnet_squeezes_to_a_quarter_of_the_input_at_every_width() -> None:
    """Not of the expansion, and not rounded: 24 -> 6, 40 -> 10, 80 -> 20, 112 -> 28, 160 -> 40."""
    for name in ("mnasnet-a1", "mnasnet-a1-0.5", "mnas-small"):
        spec = network(name)
        for i, row in enumerate(spec.rows):
            if isinstance(row, Bneck) and row.se:
                assert row.se == spec.width_into(i) // 4


def test_v1_scales_without_rounding_to_eight_and_never_below_it() -> None:
    """max(int(c x m), 8): 32 -> 11 and 64 -> 22 at 0.35; 32 -> 8 at 0.2."""
    spec = network("v1-0.35")
    assert [spec.rows[0].out, spec.rows[1].out] == [11, 22]  # type: ignore[union-attr]
    assert not any(spec.expands(i) for i in range(len(spec.rows)))
    assert network("v1-0.2").rows[0].out == 8  # type: ignore[union-attr]


def test_the_edgetpu_network_expands_by_full_convolutions_in_its_first_half() -> None:
    """Two stages of fused rows; their expand convolution is the only one with a kernel."""
    net = build(network("v3-edgetpu"))
    fused = [row for row in net.spec.rows if isinstance(row, Bneck) and row.fused]
    assert [row.out for row in fused] == [32] * 4 + [48] * 4
    assert [row.stride for row in fused] == [2, 1, 1, 1] * 2
    weight = net.get_parameter("rows.2.expand.conv.weight")
    assert weight.shape == (128, 16, 3, 3)
    assert "rows.2.depthwise.conv.weight" not in dict(net.named_parameters())
    assert "rows.10.depthwise.conv.weight" in dict(net.named_parameters())
