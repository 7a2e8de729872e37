"""Searching a space: what is asked and told, what a ledger keeps, and what resumes as it was."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pytest

from bneck.costs.count import count
from bneck.nas.latency import fastest
from bneck.nas.ledger import LedgerError, open_ledger
from bneck.nas.reward import Reward
from bneck.nas.searchers import SEARCHERS
from bneck.nas.space import Tokens
from bneck.nas.spaces import space_from_text
from bneck.nas.study import Asked, Study
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec

SMALL = space_from_text(
    """
space: 1
name: small
resolution: 32
classes: 4
stem: {op: conv, kernel: 3, out: 8, act: hswish, stride: 2}
blocks:
- {stride: 2, op: [dconv, mbconv3, mbconv6], kernel: [3, 5], se: [0, 0.25], out: [16, 24], layers: [1, 2]}
- {stride: 2, op: [mbconv3, mbconv6], kernel: [3, 5], se: [0, 0.25], out: [24, 32, 40], layers: [1, 2, 3]}
- {stride: 2, op: [mbconv3, mbconv6], kernel: [3, 5], out: [40, 48], layers: [1, 2]}
tail: [{op: conv, kernel: 1, out: [96, 144], act: hswish}, {op: pool}]
"""
)


@cache
def madds(spec: NetSpec) -> float:
    """Millions of multiply-adds, in place of milliseconds."""
    return count(spec).madds / 1e6


def accuracy(spec: NetSpec) -> float:
    """Better with more parameters at a falling rate, with a deviation that the digest decides."""
    return 0.5 + 0.2 * (count(spec).params / 2e5) ** 0.3 + int(spec.digest()[:4], 16) / 16**4 / 100


REWARD = Reward(kind="paper", target_ms=2.0)


def study(searcher: str = "random", **settings: Any) -> Study:
    given: dict[str, Any] = {"reward": REWARD, "estimate": madds, "seed": 1, **settings}
    return Study(SMALL, searcher=searcher, **given)


def run(of: Study, trials: int) -> list[Tokens]:
    asked = []
    while len(of.trials) < trials and (one := of.ask()):
        of.tell(one, accuracy(one.spec))
        asked.append(one.tokens)
    return asked


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_every_searcher_asks_for_new_networks_and_the_best_is_found_again(searcher: str) -> None:
    of, wanted = study(searcher), 12 if searcher == "gp" else 22
    run(of, wanted)
    assert len(of.trials) == wanted
    assert len({SMALL.decode(t.tokens).digest() for t in of.trials}) == wanted
    best = of.best(3)
    assert [t.reward for t in best] == sorted((t.reward for t in of.trials), reverse=True)[:3]
    spec = SMALL.decode(best[0].tokens)
    assert best[0].reward == REWARD(accuracy(spec), madds(spec))


@pytest.mark.parametrize("searcher", ["predictor", "evolution", "controller-tuned", "random"])
def test_a_search_broken_off_goes_on_as_the_unbroken_one(searcher: str, tmp_path: Path) -> None:
    whole = run(study(searcher), 45)
    ledger = tmp_path / "journal.log"
    first = run(study(searcher, ledger=ledger), 24)
    under_way = study(searcher, ledger=ledger).ask()  # asked for, then killed
    assert under_way is not None
    resumed = study(searcher, ledger=ledger)
    (again,) = resumed.under_way()
    assert (again.tokens, again.spec) == (under_way.tokens, under_way.spec)
    resumed.tell(again, accuracy(again.spec))
    rest = run(resumed, 45)
    assert [*first, again.tokens, *rest] == whole


def test_a_limit_rejects_before_anyone_trains() -> None:
    limit = Reward(kind="paper", target_ms=2.0, limit_ms=1.5)
    for searcher in ("random", "predictor", "controller"):
        of = study(searcher, reward=limit)
        for _ in range(10):
            asked = of.ask()
            assert asked is not None
            assert madds(asked.spec) <= 1.5
            of.tell(asked, accuracy(asked.spec))


def test_the_predictor_beats_random_and_the_front_holds_what_nothing_beats() -> None:
    def best(searcher: str) -> float:
        runs = [study(searcher, seed=seed) for seed in range(3)]
        for of in runs:
            run(of, 50)
        return sum(of.best(1)[0].reward for of in runs) / 3

    assert best("predictor") > best("random")
    of = study("predictor", objective="pareto")
    run(of, 40)
    front = of.front()
    assert len(front) > 3
    for trial in of.trials:
        assert any(f.accuracy >= trial.accuracy and f.latency_ms <= trial.latency_ms for f in front)
    for one in front:
        assert not any(
            t.accuracy >= one.accuracy and t.latency_ms < one.latency_ms for t in of.trials
        )


def test_halving_stops_what_lags_and_a_resumed_trial_is_not_asked_twice(tmp_path: Path) -> None:
    def begin() -> Study:
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
        return study("random", ledger=tmp_path / "j.log", pruner=pruner)

    of, stopped = begin(), []
    for n in range(9):
        asked = of.ask()
        assert asked is not None
        stop = of.report(asked, 0.9 - 0.05 * n, 1)  # every one worse than all before
        stopped.append(stop)
        of.tell(asked, 0.5, stopped=stop)
    assert stopped[0] is False
    assert all(stopped[3:])
    assert len(of.best(20)) == stopped.count(False)

    one = of.ask()
    assert one is not None
    answer = of.report(one, 0.1, 1)
    (again,) = begin().under_way()
    assert again.rungs == {1: 0.1}
    assert again.stops == {1: answer}


def test_a_journal_torn_by_a_kill_loses_its_last_line_only(tmp_path: Path) -> None:
    ledger = tmp_path / "j.log"
    run(study(ledger=ledger), 5)
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:-7])
    of = study(ledger=ledger)
    rest = of.under_way()  # the fifth trial's end is what the kill took
    assert len(of.trials) + len(rest) == 5
    for asked in rest:
        of.tell(asked, accuracy(asked.spec))
    run(of, 8)
    assert len(study(ledger=ledger).trials) == 8


def test_sqlite_is_a_ledger_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    first = run(study(ledger=url), 4)
    assert [t.tokens for t in study(ledger=url).trials] == first


def test_the_whole_space_searched_is_an_end() -> None:
    tiny = space_from_text(
        "{space: 1, name: t, resolution: 8, stem: {op: conv, kernel: 3, out: [8, 16], act: relu, stride: 2},"
        " blocks: [{stride: 1, op: dconv, kernel: [3, 5], out: 8, layers: 1}], tail: [{op: pool}]}"
    )
    of = Study(tiny, reward=REWARD, estimate=madds, searcher="random")
    found = []
    while asked := of.ask():
        found.append(asked.tokens)
        of.tell(asked, 0.5)
    assert sorted(found) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_the_fastest_network() -> None:
    tokens, ms = fastest(SMALL, madds)
    rng = random.Random(0)
    assert ms == madds(SMALL.decode(tokens))
    assert ms <= min(madds(SMALL.decode(SMALL.sample(rng))) for _ in range(200))


class TestWrongInput:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"searcher": "darts"}, "no searcher 'darts'; known are predictor"),
            ({"objective": "both"}, "no objective 'both'; known are reward, pareto"),
            (
                {"searcher": "controller", "objective": "pareto"},
                "controller looks for one network; for --objective pareto take one of predictor",
            ),
            ({"ledger": "nosuchdb://here"}, "cannot be opened"),
        ],
    )
    def test_settings(self, settings: dict[str, Any], said: str) -> None:
        with pytest.raises(InputError, match=said):
            study(**settings)

    @pytest.mark.parametrize(
        "settings",
        [
            {"seed": 2},
            {"searcher": "evolution"},
            {"objective": "pareto"},
            {"reward": Reward(kind="hard", target_ms=2.0)},
        ],
    )
    def test_a_ledger_of_another_search(self, settings: dict[str, Any], tmp_path: Path) -> None:
        ledger = tmp_path / "j.log"
        run(study(ledger=ledger), 2)
        with pytest.raises(LedgerError, match="holds a search with"):
            study(**{"ledger": ledger, **settings})

    def test_a_ledger_of_another_space(self, tmp_path: Path) -> None:
        run(study(ledger=tmp_path / "j.log"), 2)
        wider = SMALL.blocks[0].__class__(
            stride=2, op=("mbconv3",), kernel=(3, 5, 7), out=(16,), layers=(1,)
        )
        other = type(SMALL)(
            name="other", stem=SMALL.stem, blocks=(wider,), tail=SMALL.tail, resolution=32
        )
        with pytest.raises(LedgerError, match="holds a search with space small"):
            Study(other, reward=REWARD, estimate=madds, ledger=tmp_path / "j.log")

    def test_what_is_no_journal(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("hello\n\nthis is no journal\n", encoding="utf-8")
        with pytest.raises(LedgerError, match=r"notes\.txt"):
            study(ledger=path)

    def test_what_was_not_asked_or_is_no_accuracy(self) -> None:
        of = study()
        asked = of.ask()
        assert asked is not None
        with pytest.raises(InputError, match="accuracy is 70; it must be a fraction"):
            of.tell(asked, 70)
        of.tell(asked, 0.7)
        with pytest.raises(InputError, match="not under way"):
            of.tell(asked, 0.7)

    def test_a_limit_that_nothing_meets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.modules["bneck.nas.study"], "MOST_IN_A_ROW", 40)
        for searcher in ("random", "predictor"):
            with pytest.raises(InputError, match=r"40 networks .* none is within 0\.001 ms"):
                study(searcher, reward=Reward(kind="paper", target_ms=1, limit_ms=0.001)).ask()


def test_a_lost_ledger_is_tried_again_then_ends_cleanly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["bneck.nas.ledger"], "PAUSES_S", (0.0, 0.0))
    of = study(ledger=tmp_path / "j.log")
    storage = of._storage
    real, failures = storage.create_new_trial, [OSError("gone"), OSError("gone")]

    def create(*args: Any, **named: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*args, **named)

    monkeypatch.setattr(storage, "create_new_trial", create)
    asked = of.ask()  # there again at the third try
    assert isinstance(asked, Asked)
    of.tell(asked, 0.5)
    failures.extend([OSError("gone")] * 3)
    with pytest.raises(LedgerError, match="cannot be reached; what was told is kept"):
        of.ask()
    assert len(study(ledger=tmp_path / "j.log").trials) == 1


def test_open_ledger_without_a_place_keeps_trials_in_memory() -> None:
    make: Callable[[], Any] = lambda: open_ledger(None)  # noqa: E731
    assert isinstance(make(), optuna.storages.InMemoryStorage)
