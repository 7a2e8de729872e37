"""Ledgers under kill -9 and a lost database: every trial is accounted for, none stands there twice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from bneck.nas.ledger import LedgerError
from killed_search import BATCH, open_study
from test_study import accuracy

KILLS, TRIALS, PATIENCE_S = 10, 80, 600

pytestmark = pytest.mark.slow


class Postgres:
    """A server of our own on a free port of this machine, run as the user postgres."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
        if not found or os.geteuid() != 0 or shutil.which("runuser") is None:
            pytest.skip("needs root and Debian's package postgresql: apt-get install postgresql")
        pytest.importorskip("psycopg")
        self.bin, self.data = found[-1].parent, folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", str(self.data), "-A", "trust", "-U", "postgres")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self.data.parent}"
        log = str(self.data.parent / "log")
        self._run("pg_ctl", "-D", str(self.data), "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = ["runuser", "-u", "postgres", "--", str(self.bin / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    # Not under pytest's own folder, which only its owner may enter.
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    folder.chmod(0o777)
    try:
        server = Postgres(folder)
        try:
            yield server
        finally:
            with suppress(subprocess.CalledProcessError):
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def children(process: int) -> list[int]:
    """Worker processes of a search: its children that run Python."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            after = stat.read_text().rpartition(")")[2].split()
            if int(after[1]) == process:
                found.append(int(stat.parent.name))
    return found


def begin(ledger: str, folder: Path) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("killed_search.py")
    return subprocess.Popen(
        [sys.executable, str(script), ledger, str(folder), str(TRIALS)], stderr=subprocess.DEVNULL
    )


def lines(folder: Path) -> list[str]:
    log = folder / "judged.log"
    return log.read_text().splitlines() if log.exists() else []


def search_and_kill(ledger: str, folder: Path) -> Counter[str]:
    """Run the search to its end, killing it or one of its workers ten times; who was killed how often."""
    rng, killed, end = random.Random(7), Counter[str](), time.monotonic() + PATIENCE_S
    search = begin(ledger, folder)
    try:
        while killed.total() < KILLS:
            # Kills are spread over the search: each waits for a few more judged networks.
            wanted = (killed.total() + 1) * TRIALS // (KILLS + 2)
            while len(lines(folder)) < wanted and search.poll() is None:
                assert time.monotonic() < end
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.2))
            workers = children(search.pid)
            if rng.random() < 0.5 and workers:
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), signal.SIGKILL)
                killed["worker"] += 1
            else:
                search.kill()
                search.wait()
                killed["search"] += 1
                search = begin(ledger, folder)
        while search.wait(PATIENCE_S) != 0:
            search = begin(ledger, folder)
    finally:
        search.kill()
        search.wait()
    return killed


@pytest.mark.parametrize("kind", ["journal", "sqlite", "postgresql"])
def test_ten_kills_lose_no_trial_and_judge_none_into_the_ledger_twice(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "postgresql":
        ledger = request.getfixturevalue("postgres").url
    else:
        ledger = str(tmp_path / "trials.log") if kind == "journal" else f"sqlite:///{tmp_path}/t.db"
    killed = search_and_kill(ledger, tmp_path)
    study = open_study(ledger)
    request.addfinalizer(study.close)
    trials: list[optuna.trial.FrozenTrial] = study._study.get_trials(deepcopy=False)
    judged = [line.split()[1] for line in lines(tmp_path)]
    print(f"{kind}: killed {dict(killed)}, {len(trials)} trials, {len(judged)} judgements")
    assert killed.total() == KILLS
    assert killed["search"] >= 2
    assert killed["worker"] >= 2
    assert [t.number for t in trials] == list(range(len(trials)))
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    assert len(study.trials) == TRIALS
    told = [study.space.decode(t.tokens).digest() for t in study.trials]
    assert len(set(told)) == TRIALS
    assert set(told) <= set(judged)
    for trial in study.trials:
        assert trial.accuracy == pytest.approx(accuracy(study.space.decode(trial.tokens)))
    # What was under way at a kill is judged again, a batch at most; nothing else is.
    assert len(judged) - TRIALS <= KILLS * BATCH


def test_a_lost_database_stops_the_search_cleanly_and_it_goes_on(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(sys.modules["bneck.nas.ledger"], "PAUSES_S", (0.05, 0.1))
    study = open_study(postgres.url)
    request.addfinalizer(study.close)
    before = len(study.trials)
    for _ in range(3):
        asked = study.ask()
        assert asked is not None
        study.tell(asked, accuracy(asked.spec))
    under_way = study.ask()
    assert under_way is not None
    postgres.stop()
    try:
        with pytest.raises(LedgerError, match="cannot be reached; what was told is kept there"):
            study.tell(under_way, 0.5)
        with pytest.raises(LedgerError, match="cannot be reached"):
            open_study(postgres.url)
    finally:
        postgres.start()
    study.tell(under_way, 0.5)  # the same process may go on
    with closing(open_study(postgres.url)) as again:
        assert len(again.trials) == before + 4
