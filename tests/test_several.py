"""Several runs in one study: every trial is accounted for, none is judged twice, all learn from all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from bneck.nas.ledger import LedgerError
from bneck.nas.study import Study
from bneck.runs.search.main import search
from bneck.specs.errors import InputError
from shared_search import open_study
from simulated_device import SimulatedDevice
from test_ledger_kills import postgres  # noqa: F401  (a fixture)
from test_study import accuracy

RUNS, TRIALS, PATIENCE_S = 3, 60, 300


def judge(of: Study, trials: int) -> list[str]:
    digests = []
    for _ in range(trials):
        asked = of.ask()
        assert asked is not None
        of.tell(asked, accuracy(asked.spec))
        digests.append(asked.spec.digest())
    return digests


def test_one_run_is_told_what_the_other_found(tmp_path: Path) -> None:
    ledger = str(tmp_path / "j.log")
    one, other = open_study(ledger, "one"), open_study(ledger, "other")
    judged = [*judge(one, 5), *judge(other, 5), *judge(one, 5)]
    assert len(set(judged)) == 15
    assert len(one.trials) == 15
    assert len(other.trials) == 10  # as of its last question
    other.refresh()
    assert [t.accuracy for t in other.trials] == [t.accuracy for t in one.trials]


def test_what_another_run_has_under_way_is_its_own(tmp_path: Path) -> None:
    ledger = str(tmp_path / "j.log")
    one, other = open_study(ledger, "one"), open_study(ledger, "other")
    mine, theirs = one.ask(), other.ask()
    assert mine is not None
    assert theirs is not None
    (again,) = open_study(ledger, "one").under_way()
    assert again.number == mine.number
    (again,) = open_study(ledger, "other").under_way()
    assert again.number == theirs.number


def test_of_two_that_propose_one_network_the_later_yields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = str(tmp_path / "j.log")
    one, other = open_study(ledger, "one"), open_study(ledger, "other")
    first = one.ask()
    assert first is not None
    sampler: Any = other._searcher
    real = sampler.propose

    def same_once(history: Any, pending: Any, number: int) -> Any:
        monkeypatch.setattr(sampler, "propose", real)
        return first.tokens

    monkeypatch.setattr(sampler, "propose", same_once)
    second = other.ask()
    assert second is not None
    assert second.spec.digest() != first.spec.digest()
    states = [t.state for t in one._study.get_trials(deepcopy=False)]
    assert states == [TrialState.RUNNING, TrialState.FAIL, TrialState.RUNNING]


def test_runs_judge_by_the_first_ones_reward(tmp_path: Path) -> None:
    ledger = str(tmp_path / "j.log")
    first = open_study(ledger, "one", target_ms=2.0)
    assert open_study(ledger, "other", target_ms=2.1).reward == first.reward
    with pytest.raises(LedgerError, match=r"was begun with .*same target, slack and reward"):
        open_study(ledger, "third", target_ms=3.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_processes_that_share_a_study(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ledger = str(tmp_path / "trials.log")
    if kind == "postgresql":
        ledger = request.getfixturevalue("postgres").url
    script, log = Path(__file__).with_name("shared_search.py"), tmp_path / "judged.log"
    names = [f"run-{n}" for n in range(RUNS)]
    begun = [
        subprocess.Popen([sys.executable, str(script), ledger, str(log), str(TRIALS), name])
        for name in names
    ]
    try:
        assert [process.wait(PATIENCE_S) for process in begun] == [0] * RUNS
    finally:
        for process in begun:
            process.kill()
    lines = [line.split() for line in log.read_text().splitlines()]
    digests = [digest for _, _, digest, _ in lines]
    assert len(set(digests)) == len(digests), "none is judged twice"
    assert {run for run, *_ in lines} == set(names)
    of = open_study(ledger, "run-0")
    request.addfinalizer(of.close)
    assert {of.space.decode(t.tokens).digest() for t in of.trials} == set(digests)
    assert TRIALS <= len(of.trials) < TRIALS + RUNS  # what was under way at the end is told too
    trials = of._study.get_trials(deepcopy=False)
    assert [t.number for t in trials] == list(range(len(trials)))
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    # Each knew more than it had judged itself when it judged its last.
    for name in names:
        own = [int(known) for run, _, _, known in lines if run == name]
        assert own[-1] > len(own)


@pytest.mark.slow
def test_a_second_run_of_a_finished_study_judges_nothing_more(
    simulated: SimulatedDevice, pictures: Path, tiny_file: Path, tmp_path: Path
) -> None:
    from test_block_search import SMALL, SPACE

    (tmp_path / "toy.yaml").write_text(SPACE, encoding="utf-8")
    given: dict[str, Any] = {
        **SMALL, "device": simulated.name, "data": pictures, "target": "40%",
        "seed_network": str(tiny_file), "top": 1,
        "space": str(tmp_path / "toy.yaml"), "slack": 0.0, "study": "together",
        "ledger": f"sqlite:///{tmp_path}/trials.db",
    }  # fmt: skip
    for name in ("one", "other"):
        search(**given, out=tmp_path / name)
    one, other = (
        json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "other")
    )
    assert one["blocks"]["trials"] == other["blocks"]["trials"]
    assert one["blocks"]["aim_ms"] == other["blocks"]["aim_ms"]
    assert one["state"] == other["state"] == "finished"


def test_a_study_needs_a_ledger(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the study 'together' is one that several runs share"):
        search(pictures, from_scratch=True, study="together", out=tmp_path / "run")
