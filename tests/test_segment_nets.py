"""The segmenter's module: counts, sizes, and its head against plain arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bneck.nets.quantize import resize
from bneck.nets.weights import fill, save_weights
from bneck.specs.errors import InputError
from bneck.specs.zoo import NETWORKS, network
from bneck.tasks.segment.count import count_segmenter
from bneck.tasks.segment.head import segmenter
from bneck.tasks.segment.module import (
    LrAspp,
    RAspp,
    SegmentNet,
    build_segmenter,
)
from test_segmenter import LITTLE


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("head", ["lraspp", "raspp"])
@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_the_counted_ones(name: str, head: str) -> None:
    """Every count is derived twice."""
    seg = segmenter(network(name), head=head, stride=16, classes=7)  # type: ignore[arg-type]
    net = SegmentNet(seg)
    assert sum(p.numel() for p in net.parameters()) == count_segmenter(seg, 64).params


@pytest.mark.parametrize("head", ["lraspp", "raspp"])
@pytest.mark.parametrize(
    "name",
    ["v3-small+rf2+os16", "v2-0.35+rf2+os8", "v3-edgetpu-0.5", "v1-0.25", "v4-conv-small-0.35"],
)
def test_multiply_adds_are_the_modules(name: str, head: str) -> None:
    """Counted from shapes that pass through the module's convolutions, at an odd size."""
    seg = segmenter(network(name), head=head, classes=5, filters=24)  # type: ignore[arg-type]
    net = build_segmenter(seg).eval()
    seen: list[int] = []

    def hook(conv: torch.nn.Conv2d, _: object, out: Tensor) -> None:
        weight = conv.weight
        seen.append(weight[0].numel() * out[0].numel())

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(hook)  # type: ignore[arg-type]
    with torch.inference_mode():
        net(images(1, 3, 75, 101))
    assert sum(seen) == count_segmenter(seg, (75, 101)).madds


class TestForward:
    @settings(max_examples=30, deadline=None)
    @given(
        st.sampled_from(["lraspp", "raspp"]), st.booleans(), st.integers(1, 90), st.integers(1, 90)
    )
    def test_any_size(self, head: str, everywhere: bool, height: int, width: int) -> None:
        """Odd sizes, maps smaller than the pooling window, single pixels."""
        seg = segmenter(LITTLE, head=head, classes=3, filters=8, global_pool=everywhere)  # type: ignore[arg-type]
        with torch.inference_mode():
            net = build_segmenter(seg).eval()
            scores = net(images(1, 3, height, width))
            assert scores.shape == (1, 3, height, width)
            assert scores.isfinite().all()
            assert net(images(1, 3, height, width), (40, 50)).shape == (1, 3, 40, 50)

    @pytest.mark.parametrize("stride", [8, 16, 32])
    def test_the_paper_s_windows_on_a_map_larger_than_one(self, stride: int) -> None:
        """An image of 800 x 1,100 pixels has more than one window at each output stride."""
        seg = segmenter(network("v3-small-0.35+rf2"), stride=stride, classes=2, filters=8)
        with torch.inference_mode():
            net = build_segmenter(seg).eval()
            low, last = net.features(images(1, 3, 800, 1100))
            assert low.shape[2:] == (100, 138)
            assert last.shape[2:] == (-(-800 // stride), -(-1100 // stride))
            assert net.head(low, last).shape == (1, 2, 100, 138)

    def test_features_are_the_networks_own(self) -> None:
        """The tapped row passes on what it would pass on untapped; the tap is before the squeeze."""
        seg = segmenter(LITTLE)
        net = build_segmenter(seg).eval()
        x = images(1, 3, 64, 64)
        with torch.inference_mode():
            low, last = net.features(x)
            wanted = x
            for i, row in enumerate(net.rows):
                if i == 2:
                    entering = wanted
                wanted = row(wanted)
            assert torch.equal(last, wanted)
            row = net.rows[2]
            tapped = row.get_submodule("depthwise")(row.get_submodule("expand")(entering))
        assert torch.equal(low, tapped)
        assert low.shape == (1, 24, 8, 8)

    def test_the_tap_of_a_fused_row_is_its_full_convolution(self) -> None:
        net = build_segmenter(segmenter(network("v3-edgetpu"))).eval()
        with torch.inference_mode():
            low, _ = net.features(images(1, 3, 64, 64))
        assert low.shape == (1, 192, 8, 8)

    def test_the_same_seed_gives_the_same_weights(self) -> None:
        one, same, other = (build_segmenter(segmenter(LITTLE), seed=s) for s in (1, 1, 2))
        for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True):
            assert torch.equal(a, b)
        assert not torch.equal(
            one.state_dict()["head.low.weight"], other.state_dict()["head.low.weight"]
        )


def plain_resize(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """(C, h, w) -> (C, height, width), bilinear with corners on corners, by its definition."""
    for axis, size in ((1, height), (2, width)):
        have = x.shape[axis]
        at = np.linspace(0, have - 1, size) if size > 1 else np.zeros(1)
        low = np.floor(at).astype(int).clip(0, have - 1)
        high = (low + 1).clip(0, have - 1)
        share = (at - low).reshape([-1 if i == axis else 1 for i in range(3)])
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


def pointwise(x: np.ndarray, weight: Tensor, bias: Tensor | None) -> np.ndarray:
    out = np.einsum("oi,ihw->ohw", weight.detach().numpy()[:, :, 0, 0].astype(float), x)
    return out if bias is None else out + bias.detach().numpy()[:, None, None]


def test_lr_aspp_by_its_definition() -> None:
    """Fig. 10 in numpy: on a map of 7 x 9 a window of 4 with strides (2, 3) makes a grid of 2 x 2."""
    seg = replace(segmenter(LITTLE, classes=3, filters=4), window=4, window_stride=(2, 3))
    net = build_segmenter(seg).eval()
    head = net.head
    assert isinstance(head, LrAspp)
    head.gate.bias.data.normal_(generator=torch.Generator().manual_seed(1))
    low, last = images(1, 24, 13, 18), images(1, 40, 7, 9)
    x = last[0].numpy().astype(float)
    windows = [
        [x[:, 2 * i : 2 * i + 4, 3 * j : 3 * j + 4].mean((1, 2)) for j in range(2)]
        for i in range(2)
    ]
    pooled = np.array(windows).transpose(2, 0, 1)
    gate = np.clip(pointwise(pooled, head.gate.weight, head.gate.bias) / 6 + 0.5, 0, 1)
    # Batch norm before training has mean 0 and variance 1.
    conv = np.maximum(pointwise(x, head.conv.conv.weight, None) / np.sqrt(1 + 1e-5), 0)
    gated = plain_resize(conv * plain_resize(gate, 7, 9), 13, 18)
    wanted = pointwise(gated, head.classifier.weight, head.classifier.bias)
    wanted = wanted + pointwise(low[0].numpy().astype(float), head.low.weight, head.low.bias)
    with torch.inference_mode():
        np.testing.assert_allclose(head(low, last)[0].numpy(), wanted, atol=1e-5)


def test_r_aspp_by_its_definition() -> None:
    """The mean of the last map beside every pixel of it; the low-level map takes no part."""
    seg = segmenter(LITTLE, classes=3, filters=4, head="raspp")
    head = build_segmenter(seg).eval().head
    assert isinstance(head, RAspp)
    last = images(1, 40, 7, 9)
    x, scale = last[0].numpy().astype(float), np.sqrt(1 + 1e-5)
    conv = np.maximum(pointwise(x, head.conv.conv.weight, None) / scale, 0)
    mean = x.mean((1, 2), keepdims=True)
    pooled = np.maximum(pointwise(mean, head.pooled.conv.weight, None) / scale, 0)
    joined = np.concatenate([conv, np.broadcast_to(pooled, conv.shape)])
    joined = np.maximum(pointwise(joined, head.project.conv.weight, None) / scale, 0)
    wanted = pointwise(joined, head.classifier.weight, head.classifier.bias)
    with torch.inference_mode():
        np.testing.assert_allclose(head(images(1, 24, 13, 18), last)[0], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("into", "size"), [((3, 4), (9, 13)), ((5, 5), (2, 7)), ((1, 3), (4, 5)), ((1, 1), (3, 2))]
)
def test_resizing_is_bilinear_with_corners_on_corners(
    into: tuple[int, int], size: tuple[int, int]
) -> None:
    x = images(1, 2, *into)
    wanted = plain_resize(x[0].numpy().astype(float), *size)
    np.testing.assert_allclose(resize(x, size)[0].numpy(), wanted, atol=1e-6)


def test_weights_survive_a_file_and_another_head_is_refused(tmp_path: Path) -> None:
    seg = segmenter(LITTLE, classes=4)
    net, path = build_segmenter(seg).eval(), tmp_path / "w.safetensors"
    save_weights(net.state_dict(), path)
    x = images(1, 3, 40, 48)
    with torch.inference_mode():
        again = SegmentNet(seg)
        fill(again, path, seg.name)
        assert torch.equal(again.eval()(x), net(x))
    with pytest.raises(InputError, match=r"does not hold the weights of little lraspp128: .*head"):
        fill(SegmentNet(segmenter(LITTLE, classes=5)), path, seg.name)
