"""Every network of the zoo: published counts, and the same contract for each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bneck.costs.count import count
from bneck.devices.runtimes import OnnxRuntime
from bneck.graphs.onnx_graph import network_graph
from bneck.nets.build import build
from bneck.nets.fold import folded_weights
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.text import from_text, to_text
from bneck.specs.transforms import with_classes, with_resolution
from bneck.specs.zoo import NETWORKS, network

# Parameters and multiply-adds in millions at 224 px, 1000 classes: V2 and its widths as measured on
# torchvision and timm; MnasNet-A1 as measured on timm; Mnas-small, Proxyless and minimalistic from
# their authors' code and README.
PUBLISHED = {
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
}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_counts_are_the_published_ones(name: str, published: tuple[float, float]) -> None:
    """To the last digit that was published."""
    costs = count(network(name))
    assert costs.params / 1e6 == pytest.approx(published[0], abs=0.0006)
    assert costs.madds / 1e6 == pytest.approx(published[1], abs=0.06)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_counts_builds_exports_and_reads_back_alike(name: str) -> None:
    """Spec = text = module = graph, at 64 px and 10 classes."""
    spec = with_classes(with_resolution(network(name), 64), 10)
    assert from_text(to_text(spec)) == spec
    net = build(spec).eval()
    assert sum(p.numel() for p in net.parameters()) == count(spec).params
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = net(images).numpy()
    model = network_graph(spec, folded_weights(net)).SerializeToString()
    got = OnnxRuntime().load(model, threads=1).run(images.numpy())
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


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
