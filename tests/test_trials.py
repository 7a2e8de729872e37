"""Trials read back from a study: each once, sharing their choices, and a bounded view of them."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from bneck.recipes import progress
from bneck.runs.progress import Replaying, Silent
from bneck.search.space import Choice
from bneck.search.trials import Finished, View, distributions, ranked
from test_study import SMALL, accuracy, run, study

CHOICES = [Choice(name, tuple(range(5))) for name in "abc"]
START = datetime(2026, 1, 1)


def trial(number: int, values: list[float], **given: Any) -> FrozenTrial:
    """A finished trial, a second after the one before it."""
    rng = random.Random(number)
    made = create_trial(
        values=values,
        params={c.name: rng.choice(c.options) for c in CHOICES},
        distributions=distributions(CHOICES),
        **given,
    )
    made.number = number
    if made.state.is_finished():
        made.datetime_complete = START + timedelta(seconds=number)
    return made


def of_trials(count: int, directions: list[str], seed: int = 0) -> optuna.Study:
    rng, of = random.Random(seed), optuna.create_study(directions=directions)
    for n in range(count):
        of.add_trial(trial(n, [rng.random() for _ in directions]))
    return of


class TestFinished:
    def test_each_is_read_once_in_the_order_of_finishing(self) -> None:
        begun = [trial(n, [0.5]) for n in range(4)]
        ends = [t.datetime_complete for t in begun]
        read = Finished()
        for t in begun[:3]:
            t.state = TrialState.RUNNING
        begun[2].state, begun[2].datetime_complete = TrialState.COMPLETE, ends[3]
        begun[3].datetime_complete = ends[2]
        assert [t.number for t in read.new(begun)] == [3, 2]
        assert [t.number for t in read.under_way(begun)] == [0, 1]
        begun[0].state = TrialState.COMPLETE
        assert [t.number for t in read.new(begun)] == [0]
        assert [t.number for t in read.under_way(begun)] == [1]
        begun[1].state = TrialState.FAIL
        assert read.new(begun) == []
        assert read.under_way(begun) == []
        begun.append(trial(4, [0.5]))
        assert [t.number for t in read.new(begun)] == [4]


@pytest.mark.parametrize("kind", ["memory", "journal", "sqlite"])
def test_trials_share_their_choices(kind: str, tmp_path: Path) -> None:
    ledger = {"memory": None, "journal": tmp_path / "j.log", "sqlite": f"sqlite:///{tmp_path}/t.db"}
    of = study(ledger=ledger[kind])
    asked = run(of, 6)
    of._read()
    trials: list[Any] = of._study.get_trials(deepcopy=False)
    assert [tuple(t.params.values()) for t in trials] == [
        tuple(c.options[n] for c, n in zip(SMALL.choices, tokens, strict=True)) for tokens in asked
    ]
    assert trials[0].distributions == distributions(SMALL.choices)
    assert all(t.distributions is trials[0].distributions for t in trials)
    again = of.ask()
    assert again is not None
    of.tell(again, accuracy(again.spec))
    of.close()


class TestView:
    def test_up_to_so_many_trials_all_are_shown(self) -> None:
        of = of_trials(50, ["maximize"])
        assert View(most=50, best=10).of(of).get_trials() == of.get_trials()

    def test_beyond_them_the_best_and_an_even_share_of_the_others(self) -> None:
        of = of_trials(400, ["maximize"])
        shown = View(most=50, best=10).of(of).get_trials()
        numbers = [t.number for t in shown]
        assert numbers == sorted(set(numbers))
        assert 40 <= len(numbers) <= 50
        best = sorted(of.get_trials(), key=lambda t: -t.value)[:10]
        assert {t.number for t in best} <= set(numbers)
        others = sorted({*numbers} - {t.number for t in best})
        assert max(b - a for a, b in zip([0, *others], [*others, 399], strict=True)) <= 30

    def test_it_follows_from_the_order_of_finishing_alone(self) -> None:
        of = of_trials(0, ["minimize"])
        slowly, rng = View(most=30, best=5), random.Random(3)
        for n in range(200):
            of.add_trial(trial(n, [rng.random()]))
            shown = slowly.of(of).get_trials()
        assert shown == View(most=30, best=5).of(of).get_trials()

    def test_what_is_under_way_is_shown_and_nothing_is_noted(self) -> None:
        of = of_trials(20, ["maximize"])
        under_way = of.ask(distributions(CHOICES))
        seen = View(most=10, best=5).of(of)
        assert seen.get_trials()[-1].number == under_way.number
        seen._storage.set_trial_system_attr(under_way._trial_id, "noted", 1)
        assert "noted" not in of.get_trials()[-1].system_attrs
        assert seen.directions == of.directions

    def test_of_two_objectives_the_front_is_shown(self) -> None:
        of = of_trials(300, ["maximize", "minimize"])
        shown = {t.number for t in View(most=60, best=30).of(of).get_trials()}
        assert {t.number for t in of.best_trials} <= shown


def test_ranked() -> None:
    maximize, minimize = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    one = [trial(n, [v]) for n, v in enumerate([0.3, 0.9, 0.3, 0.5])]
    one.append(trial(4, [0.95], state=TrialState.PRUNED))
    assert [t.number for t in ranked(one, [maximize])] == [1, 3, 0, 2, 4]
    # Nothing beats 0 and 1; 0 beats 2; all three beat 3.
    two = [
        trial(n, list(v)) for n, v in enumerate([(0.9, 5.0), (0.8, 3.0), (0.85, 6.0), (0.1, 9.0)])
    ]
    assert [t.number for t in ranked(two, [maximize, minimize])] == [0, 1, 2, 3]


@pytest.mark.parametrize("searcher", ["tpe", "gp"])
def test_the_view_bounds_what_optunas_samplers_learn_from(
    searcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = study(searcher)
    view = of._study.sampler.view  # type: ignore[attr-defined]
    view.most, view.count = 8, 4
    sizes: list[int] = []
    whole = view.of

    def seen(one: optuna.Study) -> optuna.Study:
        shown = whole(one)
        sizes.append(len(shown.get_trials(deepcopy=False)))
        return shown  # type: ignore[no-any-return]

    monkeypatch.setattr(view, "of", seen)
    run(of, 14)
    assert max(sizes) <= 8
    assert len(of.trials) == 14


class Heard(Silent):
    """Keeps what was said and noted."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.noted: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def note(self, text: str) -> None:
        self.noted.append(text)


def test_a_long_replay_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    heard = Heard()
    replaying = Replaying(heard)
    for done in range(1, 6):
        replaying(done, 5)
        now[0] += 0.1
    assert (heard.said, heard.noted) == ([], [])  # within 3 s no word
    for done in range(1, 11):
        replaying(done, 10)
        now[0] += 1.0
    # Begun at its first update; 4 s later, at the fifth, five are left.
    assert heard.said == ["the searcher replays the 10 updates of the trials so far, 4 s more"]
    assert heard.noted[0] == "replaying 5 of 10 updates"
    assert heard.noted[-1] == ""
