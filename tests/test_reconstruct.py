"""A narrowed net gives what the wide one gave: weights solved anew, and a distance for training to lessen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bneck.nets.batch_norm import reestimate
from bneck.nets.build import Net, WrappedNet, build
from bneck.nets.ops import BneckRow
from bneck.nets.reconstruct import IMAGES, LEAST, PIXELS, reconstruct, solve
from bneck.nets.shrink import kept_channels, shrink, shrink_into
from bneck.specs.network import NetSpec
from bneck.specs.rows import Conv, Pool
from bneck.specs.text import resolve
from bneck.specs.transforms import (
    fix_skips,
    scale_width,
    with_classes,
    with_expanded,
    with_resolution,
)
from bneck.specs.wrapper import PLAIN
from bneck.specs.zoo import V3_SMALL
from bneck.tasks.detect.head import Detector
from bneck.tasks.detect.module import build_detector
from bneck.training.distill import FeatureDistance
from test_shrink import UNIVERSAL, WIDE, important, without

SIDE = 32


def batches(count: int = 16, size: int = 32, side: int = SIDE, seed: int = 0) -> list[Tensor]:
    """Smooth random images: neighbouring pixels are alike, as in photos."""
    made = torch.Generator().manual_seed(seed)
    small = torch.randn(count, size, 3, side // 4, side // 4, generator=made)
    return [nn.functional.interpolate(one, side, mode="bilinear") for one in small]


def settled(net: WrappedNet, side: int = SIDE) -> WrappedNet:
    """With the statistics of images, as a trained net has, and weights that are not at their start."""
    reestimate(net, batches(side=side, seed=1))
    made = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.add_(0.3 * torch.randn(norm.weight.shape, generator=made))
            norm.bias.add_(0.3 * torch.randn(norm.bias.shape, generator=made))
    reestimate(net, batches(side=side, seed=1))
    return net


def distance(wide: nn.Module, narrow: nn.Module, side: int = SIDE) -> float:
    """Between the outputs on images that were not solved on, as a share of the wide net's spread."""
    images = batches(1, 64, side, seed=3)[0]
    with torch.no_grad():
        one, other = wide.eval()(images), narrow.eval()(images)
    pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
    return max(float((a - b).square().mean().sqrt() / a.std()) for a, b in pairs)


def trained(spec: NetSpec) -> Net:
    net = build(with_resolution(spec, SIDE), seed=0)
    settled(net)
    with torch.no_grad():
        net.classifier.weight.mul_(10)
    return net


def test_what_is_not_narrowed_stays_as_it_is() -> None:
    net = trained(WIDE)
    same = shrink(net, net.spec)
    reconstruct(net, same, kept_channels(net, same.wrapped, None), batches())
    assert distance(net, same) < 1e-3


def test_channels_that_others_hold_already_are_lost_without_a_trace() -> None:
    # Each expanded channel stands twice: half of them say all, but with other weights after them.
    net = trained(WIDE)
    row = net.rows[3]
    assert isinstance(row, BneckRow)
    with torch.no_grad():
        for part in ("expand", "depthwise"):
            for value in row.get_submodule(part).state_dict().values():
                if value.ndim:
                    value[36:] = value[:36]
    narrow_spec = with_expanded(net.spec, 3, 36)
    votes = important(net)
    importance = replace(
        votes, groups={**votes.groups, "rows.3.expanded": np.repeat([1.0, 0.0], 36)}
    )
    plain = shrink(net, narrow_spec, importance)
    solved = shrink(net, narrow_spec, importance)
    reconstruct(net, solved, kept_channels(net, solved.wrapped, importance), batches())
    assert distance(net, plain) > 0.05
    assert distance(net, solved) < 0.1 * distance(net, plain)


@pytest.mark.parametrize("spec", [WIDE, UNIVERSAL], ids=lambda spec: spec.name)
def test_a_uniform_width_comes_nearer_to_the_wide_net(spec: NetSpec) -> None:
    net = trained(fix_skips(spec))
    narrow = scale_width(net.spec, 0.75)
    plain, solved = shrink(net, narrow), shrink(net, narrow)
    reestimate(plain, batches())
    reconstruct(net, solved, kept_channels(net, solved.wrapped, None), batches())
    assert distance(net, solved) < 0.8 * distance(net, plain)


@pytest.mark.parametrize("name", ["v1-0.25", "v2-0.35", "lcnet-0.25", "v4-conv-small-0.5"])
def test_any_network_of_the_zoo_can_be_solved(name: str) -> None:
    net = trained(fix_skips(with_classes(resolve(name), 10)))
    solved = shrink(net, scale_width(net.spec, 0.75))
    before = {name: value.clone() for name, value in solved.state_dict().items()}
    assert reconstruct(net, solved, kept_channels(net, solved.wrapped, None), batches(2)) == 64
    after = solved.state_dict()
    assert all(bool(value.isfinite().all()) for value in after.values())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"classifier.weight", "classifier.bias"} <= changed


def test_the_row_before_makes_up_for_one_that_is_left_out() -> None:
    net = trained(WIDE)
    spec = without(net.spec, 4)
    plain, solved = shrink(net, spec), shrink(net, spec)
    reestimate(plain, batches())
    reconstruct(net, solved, kept_channels(net, solved.wrapped, None), batches())
    assert distance(net, solved) < 0.9 * distance(net, plain)


def test_heads_read_what_the_wide_net_gave_them() -> None:
    seed = fix_skips(V3_SMALL)

    def detector(spec: NetSpec) -> WrappedNet:
        return build_detector(Detector(network=spec, classes=2, resolution=96))

    net, narrow = settled(detector(seed), 96), scale_width(seed, 0.75)
    plain, solved = (shrink_into(net, detector(narrow)) for _ in range(2))
    reestimate(plain, batches(8, side=96))
    reconstruct(net, solved, kept_channels(net, solved.wrapped, None), batches(8, side=96))
    assert distance(net, solved, 96) < 0.95 * distance(net, plain, 96)


def test_filters_keep_their_norms_and_batch_norm_has_the_images_statistics() -> None:
    net = trained(WIDE)
    solved = shrink(net, scale_width(fix_skips(net.spec), 0.5))
    parts = [row.get_submodule("project") for row in solved.rows if isinstance(row, BneckRow)]
    norms = [filters(part).flatten(1).norm(dim=1).clone() for part in parts]
    reconstruct(net, solved, kept_channels(net, solved.wrapped, None), batches())
    entered = dict[nn.Module, Tensor]()
    for part in parts:
        norm = part.get_submodule("bn")
        norm.register_forward_pre_hook(lambda it, inputs: entered.update({it: inputs[0]}))
    with torch.no_grad():
        solved.eval()(torch.cat(batches()))
    for was, part in zip(norms, parts, strict=True):
        assert torch.allclose(filters(part).flatten(1).norm(dim=1), was, rtol=1e-4)
        norm = part.get_submodule("bn")
        variance, mean = torch.var_mean(entered[norm], (0, 2, 3))
        assert torch.allclose(norm.get_buffer("running_var"), variance, rtol=0.01)
        assert torch.allclose(norm.get_buffer("running_mean"), mean, atol=0.01)


def filters(part: nn.Module) -> Tensor:
    return part.get_submodule("conv").get_parameter("weight").detach()


def test_a_solved_layer_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(1.0, 2.0, (500, 6)), rng.normal(0.0, 1.0, (500, 3))
    layer = nn.Conv2d(6, 3, 1)
    before = layer.weight.detach().flatten(1).double().numpy().copy()
    as_maps = [torch.tensor(v, dtype=torch.float32).T.reshape(1, -1, 500, 1) for v in (x, y)]
    with torch.no_grad():
        solve(layer, [(as_maps[0], as_maps[1])])
    # Ridge regression as an ordinary one, with a row for each weight: sqrt(ridge) x (w - w before) = 0.
    inputs = x - x.mean(0)
    ridge = (0.01 + 6 / 500) * inputs.var(0).mean() * 500
    extended = np.vstack([inputs, np.sqrt(ridge) * np.eye(6)])
    wanted = np.vstack([y - y.mean(0), np.sqrt(ridge) * before.T])
    expected = np.linalg.lstsq(extended, wanted, rcond=None)[0].T
    assert np.allclose(layer.weight.detach().flatten(1).numpy(), expected, atol=1e-5)
    bias = y.mean(0) - expected @ x.mean(0)
    assert layer.bias is not None
    assert np.allclose(layer.bias.detach().numpy(), bias, atol=1e-5)


@pytest.mark.parametrize(("side", "taken"), [(8, IMAGES), (256, PIXELS // 256**2), (512, LEAST)])
def test_large_images_are_fewer(side: int, taken: int) -> None:
    asked = 0

    def images() -> Iterator[Tensor]:
        nonlocal asked
        while True:
            asked += 8
            yield torch.zeros(8, 3, side, side)

    spec = NetSpec(name="least", classes=2, rows=(Conv(3, 8, "relu", 2), Pool()))
    net = build(spec, seed=0)
    same = shrink(net, spec)
    kept = kept_channels(net, same.wrapped, None)
    assert reconstruct(net, same, kept, images()) == taken == asked


def test_the_distance_of_maps_is_the_mean_share_of_their_variance() -> None:
    net = trained(WIDE)
    spec = without(scale_width(fix_skips(net.spec), 0.5), 4)
    narrow, kept = shrink(net, spec).eval(), kept_channels(net, PLAIN.around(spec), None)
    distance_of_maps = FeatureDistance(narrow, net, kept)
    images = batches(1)[0]
    for one in (narrow, net):
        one(images)
    found = distance_of_maps()
    shares, x, t, source = [], images, images, 0
    with torch.no_grad():
        for index, row in enumerate(narrow.rows):
            x = row(x)
            while source <= kept.rows[index]:
                t, source = net.rows[source](t), source + 1
            taken = t[:, kept.out[index]]
            if list(row.parameters()):
                shares.append(float((x - taken).square().mean() / taken.var()))
    assert float(found.detach()) == pytest.approx(np.mean(shares), rel=1e-4)


def test_the_wide_net_itself_is_at_no_distance() -> None:
    net = trained(WIDE)
    same = shrink(net, net.spec).eval()
    distance_of_maps = FeatureDistance(same, net, kept_channels(net, PLAIN.around(net.spec), None))
    images = batches(1)[0]
    for one in (same, net):
        one(images)
    assert float(distance_of_maps().detach()) < 1e-6
