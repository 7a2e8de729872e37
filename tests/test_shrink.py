"""Shrinking: the narrow net keeps the strongest channels and computes what the wide one did with them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bneck.nets.build import Net, WrappedNet, build
from bneck.nets.importance import Importance, channels
from bneck.nets.ops import BneckRow, ConvBnAct, SqueezeExcite
from bneck.nets.shrink import (
    ShrinkError,
    importance_of_kept,
    shrink,
    shrink_into,
    strength,
    strongest,
)
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.transforms import (
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
from bneck.specs.zoo import V3_LARGE, V3_SMALL
from bneck.tasks.detect.head import Detector
from bneck.tasks.detect.module import build_detector
from bneck.tasks.segment.head import segmenter
from bneck.tasks.segment.module import SegmentNet, build_segmenter
from test_segmenter import LITTLE

N = TypeVar("N", bound=nn.Module)
WIDE = NetSpec(  # every kind of row, two stages of residuals, one of them with the stem
    name="wide",
    classes=7,
    rows=(
        Conv(3, 16, "hswish", 2),
        Bneck(3, 16, 16, 8, "relu"),  # no expand convolution, tied to the stem
        Bneck(3, 64, 24, 0, "relu", 2),
        Bneck(5, 72, 24, 24, "hswish"),
        Bneck(3, 48, 24, 16, "relu6"),
        Bneck(3, 24, 40, 8, "hswish", 2),  # no expand convolution
        Conv(1, 96, "hswish"),
        Pool(),
        Conv(1, 64, "hswish", bn=False),
    ),
)

UNIVERSAL = (
    NetSpec(  # MobileNetV4's bottlenecks, each of the four, and a stride before the expansion
        name="universal",
        classes=7,
        rows=(
            Conv(3, 16, "relu", 2),
            Bneck(5, 48, 24, 0, "relu", 2, start=3),
            Bneck(3, 64, 24, 0, "relu"),
            Bneck(0, 72, 24, 24, "hswish", start=3),
            Bneck(0, 48, 24, 0, "relu"),
            Bneck(0, 96, 40, 0, "relu", 2, start=5),
            Conv(1, 64, "relu"),
            Pool(),
            Conv(1, 48, "relu"),
        ),
    )
)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def trained(spec: NetSpec, seed: int = 0) -> Net:
    """A net whose every number, batch norm's statistics included, differs from every other."""
    return varied(build(spec, seed=seed), seed)


@torch.no_grad()
def varied(net: N, seed: int = 0) -> N:
    """The same of a net that has random weights."""
    rng = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            value.copy_(torch.rand(value.shape, generator=rng) + 0.5)
        elif value.dim() == 1:
            value.copy_(torch.randn(value.shape, generator=rng) / 4)
    return net.eval()


def same_weights(a: Net, b: Net) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(name == other and torch.equal(x, y) for (name, x), (other, y) in pairs)


class TestStrongest:
    def test_the_largest_votes_stay_in_their_old_order(self) -> None:
        assert strongest(torch.tensor([3.0, 1, 5, 4]), 3).tolist() == [0, 2, 3]

    def test_of_equal_votes_the_first_stay(self) -> None:
        assert strongest(torch.tensor([2.0, 2, 2, 2]), 2).tolist() == [0, 1]
        assert strongest(torch.tensor([1.0, 2, 1, 1]), 2).tolist() == [0, 1]

    def test_strength_is_the_filters_norm_through_batch_norm(self) -> None:
        conv = trained(replace(WIDE, bn_eps=0.25)).rows[0]
        assert isinstance(conv, ConvBnAct)
        assert isinstance(conv.bn, nn.BatchNorm2d)
        with torch.no_grad():
            conv.conv.weight[0] = 0
            conv.conv.weight[0, :2, 0, 0] = torch.tensor([3.0, -4.0])  # norm 5
            conv.bn.weight[0] = -2
            conv.bn.get_buffer("running_var")[0] = 0.75  # with eps 0.25: divided by 1
        assert strength(conv)[0].item() == pytest.approx(10)


class TestSame:
    @pytest.mark.parametrize(
        "spec", [WIDE, V3_SMALL, replace(WIDE, padding="same", se_gate="sigmoid")]
    )
    def test_the_same_spec_gives_the_same_net(self, spec: NetSpec) -> None:
        net = trained(spec)
        assert same_weights(shrink(net, spec), net)
        assert same_weights(shrink(net, fix_skips(rename(spec, "another"))), net)

    def test_the_mode_is_kept_and_the_wide_net_untouched(self) -> None:
        net = trained(WIDE)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        narrow = shrink(net, with_expanded(WIDE, 2, 32))
        assert not narrow.training
        with torch.no_grad():
            for value in narrow.parameters():
                value.zero_()
        assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
        assert shrink(net.train(), WIDE).training


@torch.no_grad()
def scale_filters(conv: ConvBnAct, votes: list[float]) -> None:
    """Make `votes` the strengths, whatever batch norm says."""
    conv.conv.weight.mul_((torch.tensor(votes) / strength(conv)).view(-1, 1, 1, 1))


class TestKept:
    def test_an_expansion_keeps_its_strongest_channels_everywhere(self) -> None:
        spec = NetSpec(
            name="x", classes=2, rows=(Conv(1, 4, "relu"), Bneck(3, 6, 5, 3, "relu", 2), Pool())
        )
        net = trained(spec)
        wide = net.rows[1]
        assert isinstance(wide, BneckRow)
        scale_filters(wide.get_submodule("expand"), [1, 9, 2, 8, 7, 3])  # type: ignore[arg-type]
        narrow = shrink(net, with_expanded(spec, 1, 3)).rows[1]
        kept = [1, 3, 4]
        for name, old in wide.state_dict().items():
            new = narrow.state_dict()[name]
            if name.startswith(("expand", "depthwise")) and old.dim():
                assert torch.equal(new, old[kept]), name
            elif name in ("project.conv.weight", "se.reduce.weight"):
                assert torch.equal(new, old[:, kept]), name
            elif name.startswith("se.gate"):
                assert torch.equal(new, old[kept]), name
            else:
                assert torch.equal(new, old), name

    def test_a_squeeze_keeps_its_strongest_channels(self) -> None:
        spec = NetSpec(
            name="x", classes=2, rows=(Conv(1, 4, "relu"), Bneck(3, 6, 5, 4, "relu"), Pool())
        )
        net = trained(spec)
        wide: Any = net.get_submodule("rows.1.se")
        with torch.no_grad():
            for i, norm in enumerate([2.0, 5.0, 1.0, 3.0]):
                wide.reduce.weight[i] = norm
        narrow: Any = shrink(
            net, replace(spec, rows=(spec.rows[0], Bneck(3, 6, 5, 2, "relu"), Pool()))
        )
        slim = narrow.get_submodule("rows.1.se")
        assert torch.equal(slim.reduce.weight, wide.reduce.weight[[1, 3]])
        assert torch.equal(slim.reduce.bias, wide.reduce.bias[[1, 3]])
        assert torch.equal(slim.gate.weight, wide.gate.weight[:, [1, 3]])
        assert torch.equal(slim.gate.bias, wide.gate.bias)

    def test_tied_rows_keep_the_channels_that_are_strong_together(self) -> None:
        spec = NetSpec(
            name="x", classes=2,
            rows=(Conv(1, 4, "relu"), Bneck(3, 6, 4, 0, "relu"), Bneck(3, 6, 4, 0, "relu"), Pool()),
        )  # fmt: skip
        net = trained(spec)
        # Sums of squares are 27, 30.25, 32, 24.25; plain sums, or any row alone, would keep channel 0.
        tied = [
            net.rows[0],
            net.get_submodule("rows.1.project"),
            net.get_submodule("rows.2.project"),
        ]
        votes = ([3, 1e-6, 4, 3], [3, 5.5, 1e-6, 3], [3, 1e-6, 4, 2.5])
        for conv, strengths in zip(tied, votes, strict=True):
            scale_filters(conv, strengths)  # type: ignore[arg-type]
        kept = [1, 2]
        narrow = shrink(net, with_out(fix_skips(spec), (0, 1, 2), 2))
        old, new = net.state_dict(), narrow.state_dict()
        assert torch.equal(new["rows.0.conv.weight"], old["rows.0.conv.weight"][kept])
        for i in (1, 2):
            name = f"rows.{i}.project.conv.weight"
            assert torch.equal(new[name], old[name][kept])
            name = f"rows.{i}.project.bn.running_mean"
            assert torch.equal(new[name], old[name][kept])
            name = f"rows.{i}.expand.conv.weight"
            assert torch.equal(new[name], old[name][:, kept])
        assert torch.equal(new["classifier.weight"], old["classifier.weight"][:, kept])
        assert torch.equal(new["classifier.bias"], old["classifier.bias"])

    def test_the_head_is_narrowed_too(self) -> None:
        net = trained(WIDE)
        with torch.no_grad():
            net.get_submodule("rows.8.conv").weight[::2] *= 0.01  # type: ignore[index, operator]
        narrow = shrink(net, with_out(WIDE, (8,), 32))
        old, new = net.state_dict(), narrow.state_dict()
        assert torch.equal(new["rows.8.conv.bias"], old["rows.8.conv.bias"][1::2])
        assert torch.equal(new["classifier.weight"], old["classifier.weight"][:, 1::2])


@torch.no_grad()
def silence(module: nn.Module, dead: Tensor) -> None:
    """Make channels of a convolution put out zero, before and behind every nonlinearity."""
    if isinstance(module, ConvBnAct):
        silence(module.conv, dead)
        if isinstance(module.bn, nn.BatchNorm2d):
            module.bn.weight[dead] = 0
            module.bn.bias[dead] = 0
    elif isinstance(module, nn.Conv2d):
        module.weight[dead] = 0
        if module.bias is not None:
            module.bias[dead] = 0


def silence_down_to(net: Net, narrow: NetSpec, rng: random.Random) -> None:
    """Silence randomly chosen channels of `net` until no more are heard than `narrow` has."""

    def some(wide: int, keep: int) -> Tensor:
        return torch.tensor(rng.sample(range(wide), wide - keep), dtype=torch.long)

    out: dict[int, Tensor] = {}
    for group in [*stages(net.spec), *((i,) for i in range(net.spec.pool_at + 1, len(net.rows)))]:
        dead = some(net.spec.width_into(group[0] + 1), narrow.width_into(group[0] + 1))
        out |= dict.fromkeys(group, dead)
    for i, row in enumerate(net.rows):
        if isinstance(row, ConvBnAct):
            silence(row, out[i])
        elif isinstance(row, BneckRow):
            parts, slim, wide = dict(row.named_children()), narrow.rows[i], net.spec.rows[i]
            assert isinstance(slim, Bneck)
            assert isinstance(wide, Bneck)
            inner = some(wide.expanded, slim.expanded) if "expand" in parts else out[i - 1]
            for part, dead in (("start", out[i - 1]), ("expand", inner), ("depthwise", inner)):
                silence(parts.get(part, nn.Identity()), dead)
            if isinstance(squeeze := parts.get("se"), SqueezeExcite):
                silence(squeeze.reduce, some(wide.se, slim.se))
            silence(parts["project"], out[i])


CASES: dict[str, Callable[[random.Random], tuple[NetSpec, NetSpec]]] = {
    "every kind of row": lambda rng: (WIDE, with_out(random_widths(WIDE, rng), (8,), 24)),
    "another padding and gate": lambda rng: (
        replace(WIDE, padding="same", se_gate="sigmoid"),
        random_widths(replace(WIDE, padding="same", se_gate="sigmoid"), rng),
    ),
    "v3-small": lambda rng: (V3_SMALL, random_widths(V3_SMALL, rng)),
    "v3-large": lambda rng: (V3_LARGE, random_widths(V3_LARGE, rng)),
    "universal": lambda rng: (UNIVERSAL, with_out(random_widths(UNIVERSAL, rng), (8,), 24)),
    "v3-small by half": lambda rng: (fix_skips(V3_SMALL), scale_width(fix_skips(V3_SMALL), 0.5)),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("case", CASES)
def test_dropping_silent_channels_changes_nothing(case: str, seed: int) -> None:
    """The decisive one: every slice, of every operator, must be the right one."""
    rng = random.Random(seed)
    wide, slim = CASES[case](rng)
    net = trained(wide, seed)
    silence_down_to(net, slim, rng)
    image = numbers(2, 3, 32, 40, seed=seed)
    with torch.inference_mode():
        expected, scores = net(image), shrink(net, slim)(image)
    assert expected.abs().max() > 0.1
    assert torch.allclose(scores, expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("seed", range(4))
def test_any_narrower_net_runs_and_learns(seed: int) -> None:
    spec = random_widths(V3_SMALL, random.Random(seed))
    narrow = shrink(trained(V3_SMALL), spec).train()
    assert narrow.spec == spec
    narrow(numbers(2, 3, 32, 32)).square().sum().backward()
    assert all(value.grad is not None for value in narrow.parameters())


def test_shrinking_twice_is_shrinking_once_where_the_order_of_strength_holds() -> None:
    net = trained(WIDE)
    step, both = with_expanded(WIDE, 2, 48), with_expanded(WIDE, 2, 24)
    assert same_weights(shrink(shrink(net, step), both), shrink(net, both))


def important(net: WrappedNet, seed: int = 0) -> Importance:
    """Random importance of all channels, each one's another."""
    rng, groups = np.random.default_rng(seed), dict[str, Any]()
    for key in channels(net.wrapped).reads.values():
        _, row, part = key.split(".")
        groups[key] = rng.random(getattr(net.spec.rows[int(row)], part))
    groups |= {key: rng.random(1) for key in channels(net.wrapped).branches.values()}
    return Importance(groups, 1)


class TestByImportance:
    def test_with_all_widths_nothing_changes(self) -> None:
        net = trained(WIDE)
        assert same_weights(shrink(net, WIDE, important(net)), net)

    def test_the_most_important_channels_stay_in_their_order(self) -> None:
        net, spec = trained(WIDE), with_out(fix_skips(WIDE), (2, 3, 4), 16)
        spec = with_expanded(with_out(spec, (8,), 32), 3, 40)
        found = important(net)
        narrow = shrink(net, spec, found)

        def best(key: str, count: int) -> list[int]:
            return sorted(np.argsort(-found.groups[key])[:count].tolist())

        old, new = net.state_dict(), narrow.state_dict()
        out, inner = best("rows.2.out", 16), best("rows.3.expanded", 40)
        assert torch.equal(
            new["rows.3.expand.conv.weight"], old["rows.3.expand.conv.weight"][inner][:, out]
        )
        assert torch.equal(
            new["rows.4.project.conv.weight"], old["rows.4.project.conv.weight"][out]
        )
        squeezed = best("rows.3.se", 16)
        assert torch.equal(
            new["rows.3.se.reduce.weight"], old["rows.3.se.reduce.weight"][squeezed][:, inner]
        )
        head = best("rows.8.out", 32)
        assert torch.equal(new["classifier.weight"], old["classifier.weight"][:, head])

    def test_another_networks_importance_is_refused(self) -> None:
        net = trained(WIDE)
        other = important(trained(with_expanded(WIDE, 2, 56)))
        with pytest.raises(ShrinkError, match="has 64 channels in wide and 56 in the"):
            shrink(net, WIDE, other)


def without(spec: NetSpec, *rows: int) -> NetSpec:
    kept = [row for i, row in enumerate(spec.rows) if i not in rows]
    return replace(fix_skips(spec), rows=tuple(r for r in kept))


class TestMissingRows:
    @pytest.mark.parametrize("row", [1, 3, 4])
    def test_a_missing_row_is_the_identity(self, row: int) -> None:
        wide = fix_skips(WIDE)
        net, image = trained(wide), numbers(2, 3, 32, 40)
        slim = shrink(net, without(wide, row), important(net))
        silence(net.get_submodule(f"rows.{row}.project"), torch.arange(wide.width_into(row)))
        with torch.inference_mode():
            assert torch.allclose(slim(image), net(image), atol=1e-6)

    @pytest.mark.parametrize("silent", [4, 5])
    def test_of_equal_rows_the_one_of_least_importance_goes(self, silent: int) -> None:
        wide = fix_skips(V3_SMALL)
        wide = replace(wide, rows=(*wide.rows[:6], *wide.rows[5:]))  # rows 5 and 6 are alike
        net = trained(wide)
        found = important(net)
        branches = {f"rows.{i}.branch": np.array([float(i != silent + 1)]) for i in (5, 6)}
        slim = shrink(net, without(wide, 5), Importance({**found.groups, **branches}, 1))
        other = 5 if silent == 5 else 6
        name = "project.conv.weight"
        assert torch.equal(
            slim.state_dict()[f"rows.5.{name}"], net.state_dict()[f"rows.{other}.{name}"]
        )

    def test_without_importance_the_first_of_equal_rows_stays(self) -> None:
        wide = fix_skips(V3_SMALL)
        wide = replace(wide, rows=(*wide.rows[:6], *wide.rows[5:]))
        net = trained(wide)
        slim, name = shrink(net, without(wide, 6)), "rows.5.project.conv.weight"
        assert torch.equal(slim.state_dict()[name], net.state_dict()[name])

    def test_a_segmenter_keeps_the_row_that_its_head_takes_from(self) -> None:
        rows = (*LITTLE.rows[:3], Bneck(3, 24, 16, 0, "hswish", 1), *LITTLE.rows[3:])
        wide = fix_skips(replace(LITTLE, rows=rows))
        net = varied(build_segmenter(segmenter(wide, classes=3, filters=8)))
        with pytest.raises(ShrinkError, match="keep the row that the head takes"):
            shrink_into(net, SegmentNet(segmenter(without(wide, 3), classes=3, filters=8)))
        rows = (*LITTLE.rows[:2], Bneck(3, 24, 8, 0, "relu"), *LITTLE.rows[2:])
        wide = fix_skips(replace(LITTLE, rows=rows))
        net, image = (
            varied(build_segmenter(segmenter(wide, classes=3, filters=8))),
            numbers(1, 3, 64, 64),
        )
        slim = shrink_into(net, SegmentNet(segmenter(without(wide, 2), classes=3, filters=8)))
        silence(net.get_submodule("rows.2.project"), torch.arange(8))
        with torch.inference_mode():
            assert torch.allclose(slim(image), net(image), atol=1e-6)


SMALL = NetSpec(
    name="small", classes=2,
    rows=(
        Conv(1, 4, "relu"), Bneck(3, 6, 5, 3, "relu", 2), Bneck(3, 4, 5, 0, "relu"), Pool(),
        Conv(1, 3, "relu", bn=False),
    ),
)  # fmt: skip
VALUES = {
    "rows.0.out": [4, 1, 3, 2], "rows.1.expanded": [1, 6, 2, 5, 4, 3], "rows.1.se": [1, 3, 2],
    "rows.1.out": [5, 1, 4, 2, 3], "rows.2.expanded": [1, 2, 4, 3], "rows.2.branch": [7],
    "rows.4.out": [2, 1, 3],
}  # fmt: skip


class TestImportanceOfKept:
    def by_hand(self, slim: NetSpec) -> dict[str, list[float]]:
        wide = fix_skips(SMALL)
        found = Importance({key: np.array(v, float) for key, v in VALUES.items()}, 8)
        kept = importance_of_kept(found, trained(wide).wrapped, trained(slim).wrapped)
        assert kept.images == 8
        assert set(kept.groups) == {*channels(trained(slim).wrapped).reads.values()} | {
            *channels(trained(slim).wrapped).branches.values()
        }
        return {key: values.tolist() for key, values in kept.groups.items()}

    def test_kept_channels_have_what_they_had(self) -> None:
        rows = (
            Conv(1, 3, "relu"), Bneck(3, 4, 2, 2, "relu", 2, skip="no"),
            Bneck(3, 3, 2, 0, "relu", skip="yes"), Pool(), Conv(1, 2, "relu", bn=False),
        )  # fmt: skip
        assert self.by_hand(replace(SMALL, rows=rows)) == {
            "rows.0.out": [4, 3, 2], "rows.1.expanded": [6, 5, 4, 3], "rows.1.se": [3, 2],
            "rows.1.out": [5, 4], "rows.2.expanded": [2, 4, 3], "rows.2.branch": [7],
            "rows.4.out": [2, 3],
        }  # fmt: skip

    def test_a_missing_row_takes_its_importance_with_it(self) -> None:
        assert self.by_hand(without(fix_skips(SMALL), 2)) == {
            **{key: VALUES[key] for key in ("rows.0.out", "rows.1.expanded", "rows.1.se", "rows.1.out")},
            "rows.3.out": [2, 1, 3],
        }  # fmt: skip

    def test_two_steps_by_it_end_where_one_ends(self) -> None:
        net = trained(fix_skips(WIDE))
        found = important(net)
        step = with_expanded(with_out(net.spec, (2, 3, 4), 20), 3, 48)
        both = with_out(with_expanded(with_out(step, (2, 3, 4), 12), 3, 40), (8,), 24)
        first = shrink(net, step, found)
        second = shrink(first, both, importance_of_kept(found, net.wrapped, first.wrapped))
        assert same_weights(second, shrink(net, both, found))
        assert not same_weights(second, shrink(first, both))

    def test_a_detectors_heads_and_taps_are_no_obstacle(self) -> None:
        wide = build_detector(Detector(network=V3_SMALL, classes=2, resolution=96))
        slim = Detector(network=with_expanded(fix_skips(V3_SMALL), 9, 64), classes=2, resolution=96)
        groups = channels(wide.wrapped).behind.values()
        found = important(wide)
        kept = importance_of_kept(found, wide.wrapped, slim).groups
        assert "rows.9.expanded" in groups  # which the heads take
        best = sorted(np.argsort(-found.groups["rows.9.expanded"])[:64].tolist())
        assert kept["rows.9.expanded"].tolist() == found.groups["rows.9.expanded"][best].tolist()
        same = [key for key in found.groups if not key.startswith("rows.9.")]
        assert all(np.array_equal(kept[key], found.groups[key]) for key in same)


def changed(index: int, **columns: Any) -> NetSpec:
    rows = list(WIDE.rows)
    rows[index] = replace(rows[index], **columns)
    return replace(WIDE, name="other", rows=tuple(rows))


REFUSED: dict[str, tuple[NetSpec, str]] = {
    "wider out": (changed(5, out=48), "row 5 of other is not a narrower row 5 of wide"),
    "wider expansion": (changed(2, expanded=72), "row 2 of other is not a narrower row 2 of wide"),
    "wider squeeze": (changed(3, se=32), "row 3 of other is not a narrower row 3 of wide"),
    "wider conv": (changed(6, out=104), "row 6 of other is not a narrower row 6 of wide"),
    "another kernel": (changed(2, kernel=5), "row 2 of other is not a narrower row 2 of wide"),
    "another stride": (changed(2, stride=1), "row 2 of other is not a narrower row 2 of wide"),
    "another dilation": (changed(2, dilation=2), "row 2 of other is not a narrower row 2 of wide"),
    "another nonlinearity": (changed(2, act="hswish"), "row 2 of other is not a narrower row 2 of wide"),
    "no batch norm": (changed(6, bn=False), "row 6 of other is not a narrower row 6 of wide"),
    "no squeeze-and-excite": (changed(3, se=0), "row 3 of other is not a narrower row 3 of wide"),
    "a new squeeze-and-excite": (changed(2, se=1), "row 2 of other is not a narrower row 2 of wide"),
    "a lost residual": (changed(4, skip="no"), "row 4 of other is not a narrower row 4 of wide"),
    "a lost expand conv": (changed(4, expanded=24), "row 4 of other is not a narrower row 4 of wide"),
    "a new expand conv": (changed(5, expanded=16), "row 5 of other is not a narrower row 5 of wide"),
    "a row of another kind": (
        replace(WIDE, name="other", rows=(*WIDE.rows[:6], Bneck(1, 96, 40, 0, "relu"), *WIDE.rows[7:])),
        "row 6 of other is not a narrower row 6 of wide",
    ),
    "fewer rows": (
        replace(WIDE, name="other", rows=WIDE.rows[:-1]),
        "wide has 9 rows and other 8, and not by residual rows alone",
    ),
    "a missing row that is no residual one": (
        replace(WIDE, name="other", rows=(*WIDE.rows[:2], *WIDE.rows[3:])),
        "wide has 9 rows and other 8, and not by residual rows alone",
    ),
    "more rows": (
        replace(WIDE, name="other", rows=(*WIDE.rows[:4], *WIDE.rows[3:])),
        "wide has 9 rows and other 10, and not by residual rows alone",
    ),
    "other classes": (rename(with_classes(WIDE, 8), "other"), "classes is 7 in wide and 8 in other"),
    "other channels": (replace(WIDE, name="other", channels=1), "channels is 3 in wide and 1 in other"),
    "other padding": (replace(WIDE, name="other", padding="same"), "padding is symmetric in wide and same in"),
    "another gate": (replace(WIDE, name="other", se_gate="sigmoid"), "se_gate is hsigmoid in wide and sigmoid"),
    "another eps": (replace(WIDE, name="other", bn_eps=1e-5), "bn_eps is 0.001 in wide and 1e-05 in other"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_narrower_network_is_refused(case: str) -> None:
    other, message = REFUSED[case]
    with pytest.raises(ShrinkError, match="shrinking can only drop channels") as caught:
        shrink(build(WIDE), other)
    assert message in str(caught.value)


def test_resolution_dropout_and_momentum_may_differ() -> None:
    other = replace(with_resolution(WIDE, 96), dropout=0.0, bn_momentum=0.1)
    assert shrink(build(WIDE), other).spec == other
