"""Worker processes that really die: nothing finished is lost, nothing is done twice, nobody stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bneck.runs.search.workers import MAX_TRIES, WorkerPool
from bneck.specs.errors import InputError
from conftest import alive, gone

PATIENCE = 60  # seconds until a test gives up on what should happen within one


def wait_until(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.01)


def noted(folder: Path, index: int) -> int:
    """Leave a file for every time that a piece of work is done; return the process."""
    fresh = sum(1 for _ in folder.glob(f"did-{index}-*"))
    (folder / f"did-{index}-{fresh}").touch()
    return os.getpid()


def times_done(folder: Path, index: int) -> int:
    return sum(1 for _ in folder.glob(f"did-{index}-*"))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def work(folder: Path, index: int) -> int:
    return noted(folder, index)


def work_or_die_once(folder: Path, index: int, dies: int, first_done: tuple[int, ...]) -> int:
    """Work `dies` kills its worker the first time, once the others are known to be finished."""
    if index == dies and not (folder / "died").exists():
        for other in first_done:
            wait_until(folder / f"heard-{other}")
        (folder / "died").touch()
        die()
    if index not in (dies, *first_done):
        wait_until(folder / "died")
    return noted(folder, index)


def die_always(folder: Path) -> None:
    noted(folder, 0)
    die()


def refuse() -> None:
    raise InputError("the worker does not like this")


class TestResults:
    def test_each_arrives_once_with_its_index_in_the_order_of_finishing(
        self, tmp_path: Path
    ) -> None:
        heard: list[tuple[int, int]] = []
        with WorkerPool(2) as pool:
            pool.run(work, [(tmp_path, i) for i in range(7)], lambda *at: heard.append(at))
            pool.run(work, [(tmp_path, 7)], lambda *at: heard.append((7, at[1])))
            workers = {process for _, process in heard}
            assert os.getpid() not in workers
            assert len(workers) <= 2, "the pool is kept from one run to the next"
        assert sorted(index for index, _ in heard) == list(range(8))
        assert [times_done(tmp_path, i) for i in range(8)] == [1] * 8
        assert all(gone(process) for process in workers)

    def test_no_work_starts_no_worker(self) -> None:
        with WorkerPool(2) as pool:
            pool.run(work, [], lambda *at: None)
            assert pool._pool is None

    def test_an_error_of_the_work_keeps_its_kind_and_sentence(self) -> None:
        with (
            pytest.raises(InputError, match=r"^the worker does not like this$"),
            WorkerPool(1) as pool,
        ):
            pool.run(refuse, [()], lambda *at: None)


class TestDeath:
    def test_a_killed_workers_work_is_done_again_and_nothing_finished_is(
        self, tmp_path: Path
    ) -> None:
        heard: list[int] = []

        def on_done(index: int, process: int) -> None:
            heard.append(index)
            (tmp_path / f"heard-{index}").touch()

        with WorkerPool(2) as pool:
            pool.run(work_or_die_once, [(tmp_path, i, 2, (0, 1)) for i in range(5)], on_done)
        assert (tmp_path / "died").exists()
        assert sorted(heard) == [0, 1, 2, 3, 4]
        assert [times_done(tmp_path, i) for i in (0, 1, 2)] == [1, 1, 1]

    def test_work_that_kills_every_worker_is_given_up(self, tmp_path: Path) -> None:
        with (
            pytest.raises(
                InputError, match="died 3 times over the same work, most likely for want"
            ),
            WorkerPool(1) as pool,
        ):
            pool.run(die_always, [(tmp_path,)], lambda *at: None)
        assert times_done(tmp_path, 0) == MAX_TRIES == 3


PARENT = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_crew import announce
from bneck.runs.search.workers import WorkerPool
with WorkerPool(2) as pool:
    pool.run(announce, [(Path(sys.argv[2]), i) for i in range(2)], lambda *at: None)
"""


def announce(folder: Path, index: int) -> None:
    """Say who works here, then work for ever."""
    (folder / f"worker-{index}.part").write_text(str(os.getpid()))
    (folder / f"worker-{index}.part").rename(folder / f"worker-{index}")
    while True:
        time.sleep(1)


def test_workers_go_when_their_run_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(Path(__file__).parent), str(tmp_path)],
        stderr=subprocess.DEVNULL,
    )
    try:
        for index in range(2):
            wait_until(tmp_path / f"worker-{index}")
        workers = [int((tmp_path / f"worker-{i}").read_text()) for i in range(2)]
        assert all(alive(process) for process in workers)
        parent.send_signal(signal.SIGKILL)
        # Nobody asks after the parent yet: a run's shell may not either.
        end = time.monotonic() + PATIENCE
        while not all(gone(process) for process in workers) and time.monotonic() < end:
            time.sleep(0.05)
        assert all(gone(process) for process in workers)
    finally:
        parent.kill()
        parent.wait()
