"""Trials read back from a study, each once, and what Optuna's samplers see of them."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from bneck.nas.samplers import OptunaSearcher
from bneck.nas.space import Choice
from bneck.nas.trials import Finished, distributions
from bneck.records.progress import Silent
from bneck.runs import progress
from bneck.runs.progress import Replaying
from test_study import accuracy, run, study

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
        begun[0].state = TrialState.COMPLETE
        assert [t.number for t in read.new(begun)] == [0]
        begun[1].state = TrialState.FAIL
        assert read.new(begun) == []
        begun.append(trial(4, [0.5]))
        assert [t.number for t in read.new(begun)] == [4]


@pytest.mark.parametrize("searcher", ["tpe", "nsga2", "gp"])
@pytest.mark.parametrize("objective", ["reward", "pareto"])
def test_optunas_searchers_go_on_where_a_killed_search_stopped(
    searcher: str, objective: Any, tmp_path: Path
) -> None:
    whole = run(study(searcher, objective=objective), 16)
    ledger = tmp_path / "j.log"
    first = run(study(searcher, objective=objective, ledger=ledger), 9)
    assert study(searcher, objective=objective, ledger=ledger).ask() is not None  # then killed
    resumed = study(searcher, objective=objective, ledger=ledger)
    (again,) = resumed.under_way()
    resumed.tell(again, accuracy(again.spec))
    assert [*first, again.tokens, *run(resumed, 16)] == whole


class Watching(optuna.samplers.RandomSampler):
    """Keeps what a sampler sees of the other trials, and notes something with its own."""

    seen: ClassVar[list[list[tuple[str, Any]]]] = []

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> Any:
        others = [t for t in study.get_trials() if t.state != TrialState.FAIL and t.params]
        self.seen.append([(t.state.name, t.values) for t in others])
        return {}


def test_optunas_samplers_see_each_trial_once() -> None:
    Watching.seen.clear()
    asking = OptunaSearcher(CHOICES, lambda seed: Watching(seed))
    trials = [trial(n, [0.1 * n]) for n in range(3)]
    trials[1].state = TrialState.RUNNING
    trials[1].values = trials[1].datetime_complete = None
    one = asking.proposal(trials, 3)
    assert asking.proposal(trials, 3) == one  # the same seed for the same number
    trials[1] = trial(1, [0.7])
    asking.proposal(trials, 4)
    under_way = [("COMPLETE", [0.0]), ("COMPLETE", [0.2]), ("RUNNING", None)]
    over = [("COMPLETE", [0.0]), ("COMPLETE", [0.2]), ("COMPLETE", [0.7])]
    assert Watching.seen == [under_way, under_way, over]
    assert sorted(one.params) == ["a", "b", "c"]


def test_nsga2_finds_its_generations_in_the_ledger(tmp_path: Path) -> None:
    of = study("nsga2", ledger=tmp_path / "j.log")
    run(of, 3)
    noted = [t.system_attrs for t in of._study.get_trials()]
    assert all("NSGAIISampler:generation" in one for one in noted)


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
