"""NetAdapt: every proposal saves enough and no more, the choice is the paper's, the search is repeatable."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bneck.costs.count import count
from bneck.nas.netadapt import (
    ALL,
    Estimate,
    Proposal,
    Step,
    Trial,
    Unreachable,
    adapt,
    choose,
    narrowest,
    propose,
)
from bneck.nets.shrink import shrink
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.transforms import (
    fix_skips,
    stages,
    with_classes,
    with_expanded,
    with_out,
    with_resolution,
)
from bneck.specs.zoo import V3_LARGE, V3_SMALL, network
from drawn import assert_narrower, expands, skips, specs
from test_shrink import trained

GOLDEN = Path(__file__).parent / "golden" / "netadapt.json"


@cache
def madds(spec: NetSpec) -> float:
    """Multiply-adds in millions, in place of milliseconds."""
    return count(spec).madds / 1e6


@cache
def smooth(spec: NetSpec) -> float:
    """A made-up device: a row takes longer the more it computes and holds, at a falling rate."""
    rows = count(spec).rows
    times = (0.01 + (row.madds + 3 * row.activation_bytes) ** 0.7 / 1e4 for row in rows)
    return float(sum(times))


def fake_accuracy(spec: NetSpec) -> float:
    """Worse for fewer parameters, with a deviation that only the digest decides."""
    return 0.5 + 0.1 * count(spec).params / 1e6 + int(spec.digest()[:4], 16) / 16**4 / 50


def judge(number: int, spec: NetSpec, proposals: Sequence[Proposal]) -> list[Trial]:
    return [Trial(p, fake_accuracy(p.spec)) for p in proposals]


def search(seed: NetSpec, share: float, estimate: Estimate = madds, **settings: Any) -> list[Step]:
    plan = {"accuracy": 0.7, "delta_ms": 0.01 * estimate(seed), "judge": judge, **settings}
    return list(adapt(seed, target_ms=share * estimate(seed), estimate=estimate, **plan))


def widths(spec: NetSpec) -> list[tuple[int, ...]]:
    rows = [row for row in spec.rows if not isinstance(row, Pool)]
    return [(row.expanded, row.out) if isinstance(row, Bneck) else (row.out,) for row in rows]


# Expansions of 32 and 12 behind an input of 16: a quarter of all three, rounded, is 8.
TIGHT = NetSpec(
    name="tight",
    resolution=16,
    classes=4,
    rows=(
        Conv(3, 16, "relu", 2),
        Bneck(3, 64, 16, 0, "relu"),
        Bneck(3, 32, 16, 8, "relu"),
        Bneck(3, 12, 24, 0, "relu"),
        Bneck(3, 24, 24, 0, "relu", 2),
        Pool(),
    ),
)
# Its squeeze width of 4 means nothing at 24 channels, but at 16, on the way, is a quarter of the input.
BY_CHANCE = NetSpec(
    name="by chance",
    resolution=1,
    classes=1,
    rows=(
        Conv(1, 24, "linear"),
        Bneck(1, 24, 24, 0, "linear"),
        Bneck(1, 24, 24, 4, "linear"),
        Pool(),
    ),
)


class TestPropose:
    @pytest.mark.parametrize("estimate", [madds, smooth])
    def test_v3_large_has_14_expansions_and_6_bottlenecks_to_narrow(
        self, estimate: Estimate
    ) -> None:
        spec = fix_skips(with_resolution(V3_LARGE, 96))
        proposals = propose(spec, 0.01 * estimate(spec), estimate, seed=spec)
        expansions = [p.rows for p in proposals if p.kind == "expansion"]
        bottlenecks = [p.rows for p in proposals if p.kind == "bottleneck"]
        # Row 1 has no expand convolution; the stages are those that residuals tie (Table 1).
        assert expansions == [(i,) for i in range(2, 16)]
        assert bottlenecks == [(0, 1), (2, 3), (4, 5, 6), (7, 8, 9, 10), (11, 12), (13, 14, 15)]
        assert [p.kind for p in proposals] == ["expansion"] * 14 + ["bottleneck"] * 6

    def test_the_tail_is_left_alone_unless_asked_for(self) -> None:
        spec = fix_skips(with_resolution(V3_LARGE, 96))
        paper = propose(spec, 0.01 * madds(spec), madds, seed=spec)
        everything = propose(spec, 0.01 * madds(spec), madds, seed=spec, kinds=ALL)
        tail = everything[len(paper) :]
        assert everything[: len(paper)] == paper
        assert [(p.kind, p.rows, p.before) for p in tail] == [
            ("tail", (16,), 960),
            ("tail", (18,), 1280),
        ]
        assert propose(spec, 0.01 * madds(spec), madds, seed=spec, kinds=ALL[2:]) == tail
        for p in tail:
            assert p.spec == with_out(spec, p.rows, p.after)
            assert madds(p.spec) <= 0.99 * madds(spec) < madds(with_out(spec, p.rows, p.after + 8))

    def test_one_proposal_by_hand(self) -> None:
        # Stem: 5 x 5 pixels of 8. Row 1 costs 8 x 64 + 64 x 9 + 64 x 8 = 25 x 64 a pixel, so 25 x 25 =
        # 625 for each channel of its expansion; 10,000 are saved by 16 channels, 10,001 need 24.
        spec = NetSpec(
            name="x", resolution=5, channels=1, classes=1,
            rows=(Conv(1, 8, "relu"), Bneck(3, 64, 8, 0, "relu", skip="no"), Pool()),
        )  # fmt: skip

        def single(delta: int) -> Proposal:
            return next(iter(propose(spec, delta, lambda s: count(s).madds, seed=spec)))

        assert (single(10_000).before, single(10_000).after) == (64, 48)
        assert (single(10_001).before, single(10_001).after) == (64, 40)
        assert single(10_000).estimated_ms == count(spec).madds - 16 * 625
        assert str(single(10_000)) == "expansion of row 1: 64 -> 48"

    def test_a_width_that_is_no_multiple_of_8_falls_to_the_next_one(self) -> None:
        rows = (
            Conv(3, 20, "relu"),
            Bneck(3, 60, 20, 0, "relu"),
            Bneck(3, 61, 20, 0, "relu", 2),
            Pool(),
        )
        spec = fix_skips(NetSpec(name="x", resolution=8, rows=rows))
        found = propose(spec, 1e-9, madds, seed=spec)
        assert [(p.before, p.after) for p in found] == [(60, 56), (61, 56), (20, 16), (20, 16)]

    @pytest.mark.parametrize("estimate", [madds, smooth])
    @pytest.mark.parametrize("share", [0.002, 0.01, 0.05])
    @pytest.mark.parametrize("seed", [V3_LARGE, V3_SMALL, network("v3-small-0.5"), TIGHT])
    def test_every_proposal_is_as_wide_as_it_can_be(
        self, seed: NetSpec, share: float, estimate: Estimate
    ) -> None:
        spec = fix_skips(seed)
        limit = estimate(spec) - share * estimate(spec)
        for p in propose(spec, share * estimate(spec), estimate, seed=seed):
            assert p.estimated_ms == estimate(p.spec) <= limit
            assert p.after % 8 == 0 or p.after == widths(narrowest(seed))[p.rows[0]][0]
            assert p.after < p.before
            for wider in range(p.after // 8 * 8 + 8, p.before, 8):
                edited = edit(spec, p, wider)
                assert estimate(edited) > limit or expands(edited) != expands(spec)

    @pytest.mark.parametrize(
        "seed",
        [
            V3_LARGE,
            V3_SMALL,
            TIGHT,
            network("v4-conv-small"),
            network("v4-conv-medium"),
            network("lcnet"),
        ],
        ids=lambda seed: seed.name,
    )
    def test_a_proposal_changes_one_row_or_one_stage_and_what_follows_it(
        self, seed: NetSpec
    ) -> None:
        spec = fix_skips(seed)
        for p in propose(spec, 0.01 * madds(spec), madds, seed=seed):
            changed = {i for i, row in enumerate(p.spec.rows) if row != spec.rows[i]}
            behind = {i + 1 for i in p.rows if isinstance(spec.rows[i + 1], Bneck)}
            followers = {i for i in behind if not expands(spec)[i]}
            assert changed == set(p.rows) | (followers if p.kind == "bottleneck" else set())
            assert p.spec == edit(spec, p, p.after)
            assert p.rows in stages(seed) if p.kind == "bottleneck" else len(p.rows) == 1
            assert_narrower(spec, p.spec)

    def test_a_change_that_cannot_save_enough_is_left_out(self) -> None:
        spec = fix_skips(V3_SMALL)
        few = propose(spec, 0.1 * madds(spec), madds, seed=spec)
        assert 0 < len(few) < len(propose(spec, 0.01 * madds(spec), madds, seed=spec))
        assert propose(spec, madds(spec), madds, seed=spec) == []

    def test_the_narrowest_network_has_nothing_left_to_give(self) -> None:
        for seed in (V3_SMALL, V3_LARGE, TIGHT):
            assert propose(narrowest(seed), 0.0, madds, seed=seed) == []

    def test_widths_stay_above_a_quarter_of_the_seeds(self) -> None:
        # A quarter of 16, 72, 24, 88, 40, 96 ... rounded to 8 as widths are: 40 / 4 = 10 becomes 16, and
        # 24 / 4 = 6 becomes 8. The stem is no bottleneck, and the 576 conv no stage with one.
        assert widths(narrowest(V3_SMALL)) == [
            (16,), (16, 8), (24, 8), (24, 8), (24, 16), (64, 16), (64, 16),
            (32, 16), (40, 16), (72, 24), (144, 24), (144, 24), (576,), (1024,),
        ]  # fmt: skip
        assert widths(narrowest(V3_SMALL, kinds=ALL))[-2:] == [(144,), (256,)]

    def test_no_expansion_falls_to_its_input_even_where_their_floors_meet(self) -> None:
        # Inputs of 16 fall to 8. The expansions of 32 and 12 may not: 16, and 12 as it was.
        assert widths(narrowest(TIGHT)) == [(8,), (16, 8), (16, 8), (12, 8), (8, 8)]
        assert expands(narrowest(TIGHT)) == expands(TIGHT)
        between = with_expanded(
            fix_skips(TIGHT), 2, 24
        )  # the input is 16: the next width is 8 or none
        assert [p.after for p in propose(between, 0.0, madds, seed=TIGHT) if p.rows == (2,)] == []

    @settings(max_examples=40, deadline=None)
    @given(specs())
    def test_any_network_keeps_its_residuals_and_operators(self, spec: NetSpec) -> None:
        assert_narrower(spec, narrowest(spec))
        for p in propose(fix_skips(spec), 0.01 * madds(spec), madds, seed=spec):
            assert_narrower(spec, p.spec)


def edit(spec: NetSpec, proposal: Proposal, width: int) -> NetSpec:
    """The proposal's change, to another width."""
    if proposal.kind == "expansion":
        return with_expanded(spec, proposal.rows[0], width)
    return with_out(spec, proposal.rows, width)


def trial(estimated_ms: float, accuracy: float, name: str = "x", *, failed: bool = False) -> Trial:
    proposal = Proposal(
        kind="expansion", rows=(2,), before=72, after=64, spec=replace(V3_SMALL, name=name),
        estimated_ms=estimated_ms,
    )  # fmt: skip
    return Trial(proposal, accuracy, failed=failed)


class TestChoose:
    """The network before: accuracy 0.70, 10 ms."""

    def chosen(self, *trials: Trial, **settings: Any) -> Trial:
        return choose(trials, accuracy=0.70, latency_ms=10.0, **settings)

    def test_least_accuracy_lost_a_millisecond_wins(self) -> None:
        a, b = trial(9.0, 0.69), trial(8.0, 0.685)  # -0.01 and -0.0075 a millisecond
        assert self.chosen(a, b) is b

    def test_most_accuracy_gained_a_millisecond_wins(self) -> None:
        a, b = trial(9.0, 0.71), trial(8.0, 0.715)  # 0.01 and 0.0075 a millisecond
        assert self.chosen(a, b) is a

    def test_a_failed_trial_is_kept_only_where_all_failed(self) -> None:
        # By merit the failed one would win: 0.7 over 7 ms against 0.02 over 0.1 ms.
        failed, other = trial(3.0, 0.0, failed=True), trial(9.9, 0.68)
        assert self.chosen(failed, other) is other
        assert self.chosen(trial(9.0, 0.0, failed=True), failed) is failed

    def test_a_gain_beats_any_loss(self) -> None:
        a, b, c = trial(5.0, 0.6999), trial(9.9, 0.7001), trial(2.0, 0.70)
        assert self.chosen(a, b, c) is b
        assert self.chosen(a, c) is c

    def test_the_original_metric_takes_the_most_accurate(self) -> None:
        a, b = trial(9.0, 0.69), trial(8.0, 0.685)
        assert self.chosen(a, b, metric="accuracy") is a

    def test_of_equals_the_larger_cut_wins_then_the_earlier(self) -> None:
        slow, fast, again = trial(9.0, 0.70), trial(8.0, 0.70), trial(8.0, 0.70, "again")
        for metric in ("ratio", "accuracy"):
            assert self.chosen(slow, fast, again, metric=metric) is fast
            assert self.chosen(again, slow, fast, metric=metric) is again

    def test_a_single_trial_is_kept_however_bad(self) -> None:
        bad = trial(9.9, 0.0)
        assert self.chosen(bad) is bad


class TestAdapt:
    @pytest.mark.parametrize("estimate", [madds, smooth])
    @pytest.mark.parametrize("seed", [with_resolution(V3_SMALL, 64), TIGHT])
    def test_the_target_is_met_by_steps_that_each_save_enough(
        self, seed: NetSpec, estimate: Estimate
    ) -> None:
        delta, target = 0.04 * estimate(seed), 0.83 * estimate(seed)
        steps = search(seed, 0.83, estimate, delta_ms=delta)
        times = [estimate(seed), *(step.kept.proposal.estimated_ms for step in steps)]
        assert times[-1] <= target < times[-2]
        cuts = [before - after for before, after in pairwise(times)]
        assert all(cut >= 0.999 * delta for cut in cuts[:-1])
        assert cuts[-1] > 0
        assert [step.number for step in steps] == list(range(1, len(steps) + 1))
        for step in steps:
            assert_narrower(seed, step.kept.proposal.spec)
            assert step.kept in step.trials

    def test_a_step_starts_from_the_last_one_kept(self) -> None:
        asked: list[tuple[int, NetSpec]] = []

        def listening(number: int, spec: NetSpec, proposals: Sequence[Proposal]) -> list[Trial]:
            asked.append((number, spec))
            return judge(number, spec, proposals)

        steps = search(V3_SMALL, 0.9, judge=listening, delta_ms=0.03 * madds(V3_SMALL))
        kept = [fix_skips(V3_SMALL), *(step.kept.proposal.spec for step in steps[:-1])]
        assert asked == [(n, spec) for n, spec in enumerate(kept, 1)]

    def test_the_kept_trial_is_the_best_against_the_last_accuracy(self) -> None:
        steps = search(V3_SMALL, 0.9, delta_ms=0.03 * madds(V3_SMALL))
        accuracy, latency = 0.7, madds(V3_SMALL)
        for step in steps:
            assert step.kept is choose(step.trials, accuracy=accuracy, latency_ms=latency)
            accuracy, latency = step.kept.accuracy, step.kept.proposal.estimated_ms

    def test_the_order_of_the_answers_does_not_matter(self) -> None:
        def shuffled(number: int, spec: NetSpec, proposals: Sequence[Proposal]) -> list[Trial]:
            return random.Random(number).sample(judge(number, spec, proposals), len(proposals))

        assert search(V3_SMALL, 0.9, judge=shuffled) == search(V3_SMALL, 0.9)

    def test_the_last_step_cuts_only_what_is_missing(self) -> None:
        (step,) = search(V3_SMALL, 0.995, delta_ms=0.2 * madds(V3_SMALL))
        assert 0.98 < step.kept.proposal.estimated_ms / madds(V3_SMALL) <= 0.995

    def test_a_target_met_already_needs_no_step(self) -> None:
        assert search(V3_SMALL, 1.0) == []

    def test_a_search_may_go_on_from_a_narrower_network(self) -> None:
        whole = search(V3_SMALL, 0.9)
        half = whole[: len(whole) // 2]
        spec, accuracy = half[-1].kept.proposal.spec, half[-1].kept.accuracy
        rest = search(V3_SMALL, 0.9, start=spec, accuracy=accuracy, first=len(half) + 1)
        assert half + rest == whole

    def test_floors_are_the_seeds_wherever_the_search_goes_on(self) -> None:
        seed = fix_skips(V3_SMALL)
        start = with_expanded(with_expanded(seed, 10, 152), 11, 152)  # a quarter of 576 is 144
        steps = search(seed, 0.3, start=start, delta_ms=0.05 * madds(seed))
        found = steps[-1].kept.proposal.spec
        assert_narrower(start, found)
        assert_narrower(found, narrowest(seed))

    def test_an_accuracy_of_a_control_is_compared_with_instead(self) -> None:
        """The network before gains 0.02 by the same fine-tuning, which turns gains into losses."""

        def two(number: int, spec: NetSpec, proposals: Sequence[Proposal]) -> list[Trial]:
            cuts = sorted(proposals, key=lambda p: p.estimated_ms)
            accuracies = {cuts[0]: 0.705, cuts[-1]: 0.7049}  # the largest and the smallest cut
            return [Trial(p, accuracies.get(p, 0.1)) for p in proposals]

        def first(**settings: Any) -> Trial:
            return search(V3_SMALL, 0.98, delta_ms=1e-3, judge=two, **settings)[0].kept

        assert first().accuracy == 0.7049  # both gain: the smaller cut gains more a millisecond
        assert (
            first(control=lambda number, spec: 0.72).accuracy == 0.705
        )  # both lose: the larger loses less

    def test_a_target_out_of_reach_is_refused_before_anything_is_judged(self) -> None:
        def never(number: int, spec: NetSpec, proposals: Sequence[Proposal]) -> list[Trial]:
            raise AssertionError("judged")

        least = madds(narrowest(V3_SMALL))
        with pytest.raises(
            Unreachable, match=r"cannot be reached from v3-small: its narrowest version"
        ) as caught:
            search(V3_SMALL, 0.999 * least / madds(V3_SMALL), judge=never)
        assert f"estimated at {least:.3f} ms" in str(caught.value)
        assert isinstance(caught.value, InputError)

    def test_an_estimate_that_stops_falling_ends_the_search(self) -> None:
        """All are as fast as the seed but the very narrowest, which no single change reaches."""
        bottom = narrowest(V3_SMALL)
        with pytest.raises(Unreachable, match="no single narrower width is estimated to be faster"):
            search(V3_SMALL, 0.5, lambda spec: 1.0 if spec == bottom else 10.0)

    def test_where_no_change_saves_delta_the_steps_get_smaller(self) -> None:
        steps = search(V3_SMALL, 0.9, delta_ms=0.9 * madds(V3_SMALL))
        assert steps[-1].kept.proposal.estimated_ms <= 0.9 * madds(V3_SMALL)

    @pytest.mark.parametrize("seed", [TIGHT, network("v3-small-0.35@32")])
    def test_the_narrowest_network_can_be_reached(self, seed: NetSpec) -> None:
        least = madds(narrowest(seed))
        steps = search(seed, least / madds(seed), delta_ms=(madds(seed) - least) / 5)
        assert steps[-1].kept.proposal.spec == narrowest(seed)

    @settings(max_examples=40, deadline=None)
    @example(BY_CHANCE)
    @given(specs(widths=st.sampled_from([8, 16, 24, 32, 40, 64])))
    def test_the_narrowest_version_of_any_network_can_be_reached(self, seed: NetSpec) -> None:
        for i, row in enumerate(seed.rows):  # below its input, an expansion may block the way
            assume(not isinstance(row, Bneck) or row.expanded >= seed.width_into(i))

        def estimate(spec: NetSpec) -> float:
            return float(count(spec).madds)

        least = estimate(narrowest(seed))
        delta = (estimate(seed) - least) / 4
        steps = list(
            adapt(
                seed, accuracy=0.7, target_ms=least, delta_ms=delta, estimate=estimate, judge=judge
            )
        )
        assert not steps or steps[-1].kept.proposal.estimated_ms == least
        assert all(skips(step.kept.proposal.spec) == skips(seed) for step in steps)


def fingerprint(
    seed: NetSpec, share: float, estimate: Callable[[NetSpec], float], **plan: Any
) -> list[str]:
    steps = search(seed, share, estimate, **plan)
    lines = [f"{step.number}: {step.kept.proposal}, {len(step.trials)} trials" for step in steps]
    return [*lines, f"digest {steps[-1].kept.proposal.spec.digest()}"]


def test_a_seeded_search_gives_the_same_steps_as_ever() -> None:
    """A stored run; BNECK_OVERWRITE_GOLDEN=1 stores a new one, for a change that is meant to change it."""
    small, large = with_resolution(V3_SMALL, 96), with_resolution(V3_LARGE, 96)
    found = {
        "v3-small@96 to 70 % of its multiply-adds": fingerprint(
            small, 0.7, madds, delta_ms=0.02 * madds(small)
        ),
        "v3-small@96 to 80 % on the made-up device": fingerprint(small, 0.8, smooth),
        "v3-large@96 to 85 %, the most accurate first": fingerprint(
            large, 0.85, madds, delta_ms=0.02 * madds(large), metric="accuracy"
        ),
        "v3-small@96 to 80 %, the tail too": fingerprint(
            small, 0.8, madds, delta_ms=0.02 * madds(small), kinds=ALL
        ),
    }
    if os.environ.get("BNECK_OVERWRITE_GOLDEN") == "1":
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["v4-conv-small@32", "lcnet@32"])
def test_other_families_are_narrowed_and_carry_their_weights_along(name: str) -> None:
    seed = with_classes(network(name), 3)
    steps = search(seed, 0.5, delta_ms=0.1 * madds(seed), kinds=ALL)
    found = steps[-1].kept.proposal.spec
    assert madds(found) <= 0.5 * madds(seed)
    assert_narrower(fix_skips(seed), found)
    net = trained(fix_skips(seed))
    for step in steps:
        net = shrink(net, step.kept.proposal.spec)
    assert torch.isfinite(net(torch.randn(1, 3, 32, 32))).all()
