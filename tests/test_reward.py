"""Rewards by hand, and what follows from their form."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bneck.nas.reward import LARGE, SMALL, Reward
from bneck.specs.errors import InputError

ACCURACY = st.floats(0.01, 1)
MS = st.floats(0.1, 1000)


def test_paper_by_hand() -> None:
    # MnasNet: twice the latency shall be worth 5 % of relative accuracy, 2^-0.07 = 0.9526.
    reward = Reward(kind="paper", target_ms=75, exponent=LARGE)
    assert reward(0.752, 75) == 0.752
    assert reward(0.752, 150) == pytest.approx(0.752 * 0.9526, rel=1e-4)
    assert reward(0.752 / 2**LARGE, 150) == pytest.approx(0.752)
    # w = -0.15 for small models: 2^-0.15 = 0.9013.
    assert Reward(kind="paper", target_ms=22, exponent=SMALL)(0.6, 44) == pytest.approx(
        0.54075, rel=1e-4
    )


def test_hard_by_hand() -> None:
    reward = Reward(kind="hard", target_ms=10)
    assert reward(0.7, 1) == reward(0.7, 10) == 0.7
    assert reward(0.7, 20) == pytest.approx(0.35)


def test_absolute_by_hand() -> None:
    reward = Reward(kind="absolute", target_ms=10, exponent=-0.3)
    assert reward(0.7, 10) == 0.7
    assert reward(0.7, 9) == pytest.approx(0.67)
    assert reward(0.7, 11) == pytest.approx(0.67)


@given(st.lists(st.tuples(ACCURACY, MS), min_size=2, max_size=8), MS, MS, st.floats(-1, -0.01))
def test_the_target_cancels_in_the_papers_reward(
    networks: list[tuple[float, float]], one: float, other: float, w: float
) -> None:
    """(LAT / TAR)^w = LAT^w x TAR^-w: every reward is scaled by the same factor, whatever TAR is."""
    here, there = (Reward(kind="paper", target_ms=t, exponent=w) for t in (one, other))
    factor = (one / other) ** -w
    for accuracy, ms in networks:
        assert here(accuracy, ms) == pytest.approx(there(accuracy, ms) * factor, rel=1e-9)
    best = max(networks, key=lambda n: there(*n))
    assert here(*best) == pytest.approx(max(here(*n) for n in networks), rel=1e-9)


def test_the_target_does_not_cancel_in_the_others() -> None:
    slow, fast = (0.75, 20.0), (0.70, 10.0)
    for kind in ("hard", "absolute"):
        loose, tight = (Reward(kind=kind, target_ms=t) for t in (20, 10))
        assert loose(*slow) > loose(*fast)
        assert tight(*slow) < tight(*fast)


@given(ACCURACY, MS, MS)
def test_faster_is_never_worse_but_for_absolute(accuracy: float, one: float, other: float) -> None:
    fast, slow = sorted((one, other))
    for kind in ("paper", "hard"):
        reward = Reward(kind=kind, target_ms=50)
        assert reward(accuracy, fast) >= reward(accuracy, slow)


def test_a_limit_says_who_may_be_trained() -> None:
    reward = Reward(kind="paper", target_ms=10, limit_ms=12)
    assert reward.allows(12)
    assert not reward.allows(12.001)
    assert Reward(kind="paper", target_ms=10).allows(1e9)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "soft"}, "no reward 'soft'; known are paper, hard, absolute"),
        ({"target_ms": 0}, "target_ms of the reward is 0"),
        ({"target_ms": math.nan}, "target_ms of the reward is nan"),
        ({"limit_ms": -1}, "limit_ms of the reward is -1"),
        ({"exponent": 0.07}, "exponent of the reward is 0.07; it must be from -100 to 0"),
    ],
)
def test_wrong_rewards(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Reward(**{"kind": "paper", "target_ms": 10.0, **settings})


@pytest.mark.parametrize(("accuracy", "ms"), [(0.5, 0), (0.5, -1), (math.nan, 1), (0.5, math.inf)])
def test_what_has_no_reward(accuracy: float, ms: float) -> None:
    with pytest.raises(InputError, match="has no reward"):
        Reward(kind="paper", target_ms=10)(accuracy, ms)
