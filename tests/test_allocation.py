"""Widths by importance and latency: against all choices there are, and what must hold of any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bneck.costs.table import RowShape, row_keys
from bneck.nas.allocation.allocator import Allocation, Allocator
from bneck.nas.allocation.uniform import uniform_width, width_multiplier
from bneck.nas.netadapt import Unreachable
from bneck.nets.build import Net, WrappedNet
from bneck.nets.importance import Importance, channels
from bneck.nets.shrink import shrink_into
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.transforms import (
    fix_skips,
    scale_width,
    squeezed_like,
    stages,
    with_classes,
    with_expanded,
    with_out,
)
from bneck.specs.wrapper import PLAIN, Wrapped, Wrapper
from bneck.specs.zoo import V3_SMALL, WIDTH_RULES, network, width_rule
from bneck.tasks.detect.head import Ssdlite
from bneck.tasks.detect.module import DetectorNet
from bneck.tasks.segment.head import Aspp
from bneck.tasks.segment.module import SegmentNet
from drawn import specs
from test_shrink import UNIVERSAL

TINY = NetSpec(
    name="tiny",
    classes=4,
    resolution=32,
    rows=(
        Conv(3, 16, "hswish", 2),
        Bneck(3, 24, 16, 8, "relu"),  # tied to the stem
        Bneck(3, 32, 24, 0, "relu", 2),
        Bneck(5, 40, 24, 16, "hswish"),
        Pool(),
        Conv(1, 20, "hswish", bn=False),  # not on the grid
    ),
)


@dataclass(frozen=True)
class Steps:
    """Costs of rows: a product of the widths in blocks of 16, and something for every row."""

    wrapper: Wrapper = PLAIN
    least: int = 0  # nothing is known of expansions below

    def rows_ms(self, shape: RowShape, axes: Sequence[Sequence[int]]) -> Any:
        blocks = [np.ceil(np.array(axis) / 16) for axis in axes]
        total = np.full([len(axis) for axis in axes], 2.0)
        for pair in ((0, 1), (1, 2)) if len(axes) == 3 else ((0, len(axes) - 1),):
            one = np.ones([1] * len(axes))
            for axis in set(pair):
                one = one * np.expand_dims(blocks[axis], [a for a in range(len(axes)) if a != axis])
            total = total + one * shape.height**0.5
        if self.least and len(axes) == 3:
            total[:, np.array(axes[1]) < self.least] = np.inf
        return total

    def estimate_ms(self, spec: NetSpec) -> float:
        rows = row_keys(spec, self.wrapper)
        return 3.0 + sum(
            float(self.rows_ms(shape, [[w] for w in widths]).item()) for shape, widths in rows
        )


def important(wrapped: Wrapped, seed: int = 0) -> dict[str, Any]:
    """Random importance of every group."""
    rng, spec = np.random.default_rng(seed), wrapped.network
    found = channels(wrapped)
    keys = [key for key in (*found.reads.values(), *found.behind.values()) if key is not None]
    groups = {}
    for key in keys:
        _, row, part = key.split(".")
        groups[key] = rng.exponential(size=getattr(spec.rows[int(row)], part)) ** 2
    return groups | {key: 20 * rng.random(1) for key in found.branches.values()}


def allocator(spec: NetSpec, costs: Steps | None = None, seed: int = 0, **how: Any) -> Allocator:
    costs = costs or Steps()
    spec, how = fix_skips(spec), {"tail": 1.0, **how}
    return Allocator(spec, important(costs.wrapper.around(spec), seed), costs, **how)


def everything(
    importance: Mapping[str, Any], costs: Steps, *, least: int = 8
) -> Iterator[tuple[float, float, NetSpec]]:
    """(milliseconds, importance lost, network) of all narrower versions of TINY there are."""
    seed = fix_skips(TINY)

    def lost(key: str, width: int) -> float:
        values = np.sort(importance[key])
        return float(values[: len(values) - width].sum())

    def options(width: int) -> list[int]:
        return sorted({w for w in range(8, width, 8) if w >= least} | {width})

    for stem, first, second, stage, third, head in product(*map(options, (16, 24, 32, 24, 40, 20))):
        if first == stem or second == stem or third == stage:
            continue  # an expand convolution would be lost
        spec = with_out(with_out(with_out(seed, (0, 1), stem), (2, 3), stage), (5,), head)
        for i, width in ((1, first), (2, second), (3, third)):
            spec = with_expanded(spec, i, width)
        spec = squeezed_like(spec, seed)
        fixed = lost("rows.0.out", stem) + lost("rows.2.out", stage) + lost("rows.5.out", head)
        fixed += lost("rows.2.expanded", second)
        for gone in ((), (1,), (3,), (1, 3)):
            total = fixed
            for i, width in ((1, first), (3, third)):
                branch = float(importance[f"rows.{i}.branch"][0])
                total += branch if i in gone else lost(f"rows.{i}.expanded", width)
            kept = replace(spec, rows=tuple(r for i, r in enumerate(spec.rows) if i not in gone))
            yield costs.estimate_ms(kept), total, kept


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_path_is_the_best_of_all_at_every_price(seed: int) -> None:
    own = allocator(TINY, seed=seed)
    versions = list(everything(important(PLAIN.around(fix_skips(TINY)), seed), Steps()))
    ms, lost = np.array([v[0] for v in versions]), np.array([v[1] for v in versions])
    for price in (0.0, 0.01, 0.1, 0.5, 1.0, 3.0, 10.0, 1000.0):
        found = own.at_price(price)
        assert found.lost + price * found.estimated_ms == pytest.approx((lost + price * ms).min())
        assert found.estimated_ms == pytest.approx(Steps().estimate_ms(found.spec))
    assert own.fastest_ms() == pytest.approx(ms.min())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_width_is_left_that_the_target_would_still_allow(seed: int) -> None:
    own = allocator(TINY, seed=seed)
    versions = list(everything(important(PLAIN.around(fix_skips(TINY)), seed), Steps()))
    low, high = min(v[0] for v in versions), max(v[0] for v in versions)
    for target in np.linspace(low, high, 9) + 1e-9:
        for found in (own.path(target), own.greedy(target)):
            best = min(lost for ms, lost, _ in versions if ms <= target)
            assert found.lost >= best - 1e-9
            for ms, lost, spec in versions:
                if len(spec.rows) == len(found.spec.rows) and differences(spec, found.spec) == 1:
                    assert ms > target or lost >= found.lost - 1e-9


def differences(a: NetSpec, b: NetSpec) -> int:
    """How many widths and rows differ."""
    own, other = (
        [w for rows in (*stages(s), (s.pool_at + 1,)) for w in [s.rows[rows[0]].out]]  # type: ignore[union-attr]
        + [x for row in s.rows if isinstance(row, Bneck) for x in (row.expanded, row.kernel)]
        for s in (a, b)
    )
    return sum(x != y for x, y in zip(own, other, strict=True))


def check(
    found: Allocation, seed: NetSpec, target_ms: float, costs: Steps, least: int, grid: int
) -> None:
    """What must hold of any allocation."""
    assert found.estimated_ms <= target_ms
    assert costs.estimate_ms(found.spec) == pytest.approx(found.estimated_ms)
    gone = {int(cut.key.split(".")[1]) for cut in found.cuts if not cut.after}
    rows = [row for i, row in enumerate(seed.rows) if i not in gone]
    assert len(rows) == len(found.spec.rows)
    assert all(seed.has_skip(i) for i in gone)
    for i, (was, now) in enumerate(zip(rows, found.spec.rows, strict=True)):
        if isinstance(was, Pool) or isinstance(now, Pool):
            continue
        assert now.out == was.out or (now.out < was.out and now.out % grid == 0)
        assert now.out >= min(was.out, least)
        if isinstance(now, Bneck) and isinstance(was, Bneck) and found.spec.expands(i):
            assert now.expanded <= was.expanded
            assert now.expanded == was.expanded or now.expanded % grid == 0
            assert now.expanded >= min(was.expanded, least)
    assert found.lost == pytest.approx(sum(cut.lost for cut in found.cuts))


@settings(max_examples=40, deadline=None)
@given(
    specs(),
    st.integers(0, 3),
    st.floats(0.0, 1.0),
    st.sampled_from([8, 16]),
    st.sampled_from([8, 16]),
    st.booleans(),
)
def test_any_network_at_any_target(
    spec: NetSpec, seed: int, share: float, least: int, grid: int, rows: bool
) -> None:
    spec, costs = fix_skips(spec), Steps()
    own = allocator(spec, costs, seed, least=least, grid=grid, rows=rows)
    low, high = own.fastest_ms(), costs.estimate_ms(spec)
    target = low + share * (high - low) + 1e-9
    for found in (own.path(target), own.greedy(target)):
        check(found, spec, target, costs, least, grid)
        assert rows or len(found.spec.rows) == len(spec.rows)
    groups = important(PLAIN.around(spec), seed)
    shrink_into(Net(spec), Net(found.spec), Importance(groups, 1))


@pytest.mark.parametrize("form", ["path", "greedy"])
def test_a_higher_target_loses_no_more(form: str) -> None:
    own = allocator(V3_SMALL)
    low, high = own.fastest_ms(), Steps().estimate_ms(fix_skips(V3_SMALL))
    lost = [getattr(own, form)(low + k / 12 * (high - low)).lost for k in range(13)]
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] == 0 < lost[-2]


@pytest.mark.parametrize("name", ["v4-conv-small@64", "v4-conv-medium@64", "lcnet@64"])
def test_other_families_are_narrowed(name: str) -> None:
    spec = fix_skips(with_classes(network(name), 3))
    own, seed_ms = allocator(spec), Steps().estimate_ms(spec)
    # LCNet has no row that could be left out.
    target = max(0.5 * seed_ms, own.fastest_ms() * 1.1)
    found = own.at(target)
    check(found, spec, target, Steps(), 8, 8)
    groups = important(PLAIN.around(spec))
    net = shrink_into(Net(spec), Net(found.spec), Importance(groups, 1))
    assert net.spec == found.spec
    assert found.estimated_ms > 0.9 * target


def test_a_row_that_is_left_out_may_have_any_widths() -> None:
    """Row 4 goes with an expansion of 16 channels; then 16 enter it, without which it could not be."""
    spec, costs = fix_skips(replace(UNIVERSAL, resolution=32)), Steps()
    importance = {key: np.full(len(v), 1e3) for key, v in important(PLAIN.around(spec)).items()}
    importance["rows.4.expanded"][:32] = 0
    importance["rows.1.out"][:8] = 1e-2
    narrow = with_out(spec, (1, 2, 3, 4), 16)
    narrow = replace(narrow, rows=(*narrow.rows[:4], *narrow.rows[5:]))
    importance["rows.4.branch"][:] = 1e-3
    own = Allocator(spec, importance, costs, tail=1.0)
    found = own.greedy(costs.estimate_ms(narrow))
    assert [str(cut) for cut in found.cuts] == ["rows.1.out: 24 -> 16", "row 4 is left out"]
    assert found.spec.rows == narrow.rows


def test_a_target_that_the_seed_meets_changes_nothing() -> None:
    own, spec = allocator(TINY), fix_skips(TINY)
    for found in (own.path(1e6), own.greedy(1e6)):
        assert found == Allocation(
            spec=spec, estimated_ms=Steps().estimate_ms(spec), lost=0, cuts=()
        )


def test_a_target_below_the_fastest_version_is_refused_and_that_one_named() -> None:
    own = allocator(TINY)
    least = own.fastest_ms()
    for form in (own.path, own.greedy):
        assert form(least).estimated_ms == pytest.approx(least)
        with pytest.raises(Unreachable, match=f"fastest version is estimated at {least:.3f} ms"):
            form(least * 0.99)


def test_what_the_table_does_not_cover_is_not_chosen() -> None:
    costs = Steps(least=24)
    own = allocator(V3_SMALL, costs)
    for found in (own.path(own.fastest_ms()), own.greedy(own.fastest_ms() * 1.01)):
        rows = found.spec.rows
        kept = [
            r.expanded for i, r in enumerate(rows) if isinstance(r, Bneck) and found.spec.expands(i)
        ]
        assert min(kept) >= 24


def test_what_is_worth_nothing_goes_first() -> None:
    spec = fix_skips(TINY)
    groups = {key: np.ones_like(v) for key, v in important(PLAIN.around(spec)).items()}
    groups["rows.3.branch"][:] = 0
    groups["rows.2.expanded"][8:24] = 0
    own = Allocator(spec, groups, Steps())
    target = Steps().estimate_ms(spec) - 25
    for found in (own.path(target), own.greedy(target)):
        assert found.lost == 0
        assert "row 3 is left out" in map(str, found.cuts)
    assert "rows.2.expanded: 32 -> 24" in map(str, own.at_price(0.01).cuts)


def test_the_importance_of_the_tail_counts_more() -> None:
    spec = fix_skips(V3_SMALL)
    groups = important(PLAIN.around(spec))
    one, more = (Allocator(spec, groups, Steps(), tail=tail) for tail in (1.0, 16.0))
    for key, group in one.groups.items():
        times = 16 if key in ("rows.12.out", "rows.14.out") else 1
        assert more.groups[key].lost == pytest.approx(times * group.lost)


def test_the_better_form_is_taken() -> None:
    own = allocator(V3_SMALL)
    high = Steps().estimate_ms(fix_skips(V3_SMALL))
    for share in (0.4, 0.6, 0.8):
        both = [own.path(share * high).lost, own.greedy(share * high).lost]
        assert own.at(share * high).lost == min(both)


def test_another_networks_importance_is_refused() -> None:
    groups = important(PLAIN.around(with_expanded(fix_skips(TINY), 2, 24)))
    with pytest.raises(InputError, match="has 32 channels in tiny and 24 in the importance"):
        Allocator(TINY, groups, Steps())


BACKBONE = NetSpec(
    name="backbone",
    resolution=64,
    rows=(
        Conv(3, 16, "hswish", 2),
        Bneck(3, 16, 16, 8, "relu", 2),  # no expand convolution
        Bneck(3, 24, 16, 8, "hswish"),
        Bneck(3, 40, 24, 8, "hswish", 2),
        Bneck(3, 48, 24, 8, "hswish"),  # a segmenter's head takes its map from here
        Bneck(5, 64, 40, 16, "hswish", 2),
        Bneck(3, 56, 40, 0, "relu"),
        Conv(1, 96, "hswish"),
        Pool(),
        Conv(1, 48, "hswish", bn=False),
    ),
)
TASKS: dict[str, tuple[Wrapper, Any, list[int]]] = {
    "detector": (Ssdlite(classes=3, extras=(24, 16)), DetectorNet, [2, 4, 6]),
    "segmenter": (Aspp(shape=(48, 64), classes=3, filters=16, stride=None), SegmentNet, [2, 6]),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_a_wrapped_network_narrows_with_its_head(task: str, share: float) -> None:
    wrapper, module, removable = TASKS[task]
    spec, costs = fix_skips(BACKBONE), Steps(wrapper)
    own = allocator(spec, costs)
    assert sorted(own.branches) == removable
    low, high = own.fastest_ms(), costs.estimate_ms(spec)
    target = low + share * (high - low) + 1e-9
    groups = important(wrapper.around(spec))
    for found in (own.path(target), own.greedy(target)):
        check(found, spec, target, costs, 8, 8)
        net: WrappedNet = module(wrapper.around(spec))
        for value in net.state_dict().values():
            torch.nn.init.constant_(value, 0.5) if value.is_floating_point() else None
        small = shrink_into(net, module(wrapper.around(found.spec)), Importance(groups, 1))
        with torch.inference_mode():
            small.eval()(torch.zeros(1, 3, 64, 64))
        tied = [len(stage) for stage in stages(found.spec)]
        assert sum(tied) == found.spec.pool_at


def test_a_uniform_width_is_the_widest_at_the_target() -> None:
    spec, costs = fix_skips(V3_SMALL), Steps()
    for share in (0.3, 0.6, 0.9):
        target = share * costs.estimate_ms(spec)
        found = uniform_width(spec, target, costs.estimate_ms)
        assert 0.99 * target <= costs.estimate_ms(found) <= target
    narrowest = uniform_width(spec, 1.0, costs.estimate_ms)
    assert costs.estimate_ms(narrowest) > 1.0
    assert all(isinstance(row, Pool) or row.out <= 16 for row in narrowest.rows)


def test_the_width_multiplier_keeps_the_layer_after_the_pool() -> None:
    spec, costs = fix_skips(V3_SMALL), Steps()
    for share in (0.5, 0.9):
        target = share * costs.estimate_ms(spec)
        found = width_multiplier(spec, target, costs.estimate_ms)
        assert 0.98 * target <= costs.estimate_ms(found) <= target
        assert found.rows[-1] == spec.rows[-1]
        # The widest of the family's that is as fast, in hundredths, and no width of it is narrower.
        scaled = [scale_width(spec, n / 100, width_rule("v3-small")) for n in range(5, 100)]
        widest = max((s for s in scaled if costs.estimate_ms(s) <= target), key=costs.estimate_ms)
        for mine, least in zip(found.rows, widest.rows, strict=True):
            assert isinstance(mine, Pool) or mine.out >= least.out
    with pytest.raises(Unreachable, match=r"^no width multiplier takes v3-small to 1.000 ms$"):
        width_multiplier(spec, 1.0, costs.estimate_ms)


@pytest.mark.parametrize("family", sorted(WIDTH_RULES))
def test_every_family_has_a_width_multiplier(family: str) -> None:
    """Also where the smallest multipliers make no network, as V4's."""
    spec, costs = fix_skips(network(family)), Steps()
    target = 0.6 * costs.estimate_ms(spec)
    assert 0.97 * target <= costs.estimate_ms(width_multiplier(spec, target, costs.estimate_ms))
