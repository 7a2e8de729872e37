"""Worker processes that really die: nothing finished is lost, nothing is done twice, nobody stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bneck.runs.search.workers import (
    MAX_TRIES,
    WorkerPool,
    earliest_end,
    kept_workers,
    local_pool,
)
from bneck.specs.errors import InputError
from conftest import alive, gone
from crew_work import PATIENCE, die_always, refuse, threads, wait_until, work, work_or_die_once


def times_done(folder: Path, index: int) -> int:
    return sum(1 for _ in folder.glob(f"did-{index}-*"))


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


class TestOrder:
    """By hand: of 60, 60, 57, 45, 45, 41 and 41 seconds two workers need 177, three 120 and one all."""

    SECONDS = (45, 45, 41, 41, 60, 60, 57)

    def end(self, order: list[int], workers: int) -> int:
        free = [0] * workers
        for number in order:
            free[free.index(min(free))] += self.SECONDS[number]
        return max(free)

    def test_two_workers_end_earlier_than_with_the_longest_first(self) -> None:
        order = earliest_end(self.SECONDS, 2)
        assert sorted(order) == list(range(7))
        assert self.end([4, 5, 6, 0, 1, 2, 3], 2) == 191
        assert self.end(order, 2) == 177

    def test_where_no_order_is_better_it_is_as_given(self) -> None:
        assert earliest_end(self.SECONDS, 1) == list(range(7))
        assert earliest_end(self.SECONDS, 7) == list(range(7))
        assert earliest_end([], 2) == []

    @given(st.lists(st.floats(0, 100), max_size=12), st.integers(1, 5))
    @settings(max_examples=50, deadline=None)
    def test_no_job_is_lost_and_none_comes_twice(self, seconds: list[float], workers: int) -> None:
        assert sorted(earliest_end(seconds, workers)) == list(range(len(seconds)))


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


class TestKept:
    """Workers that the next pool takes over, unless something is wrong with them."""

    @staticmethod
    def workers(folder: Path, count: int) -> set[int]:
        heard = list[int]()
        with local_pool(count) as pool:
            jobs = [(folder, i) for i in range(count)]
            pool.run(work, jobs, lambda index, process: heard.append(process))
        return set(heard)

    def test_they_serve_one_pool_after_the_other_and_end_with_the_block(
        self, tmp_path: Path
    ) -> None:
        with kept_workers():
            first = self.workers(tmp_path, 1)
            assert self.workers(tmp_path, 1) == first
            others = self.workers(tmp_path, 2)
            assert not others & first, "as many as are asked for"
            assert all(gone(process) for process in first)
        assert all(gone(process) for process in others)

    def test_in_another_folder_they_are_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with kept_workers():
            first = self.workers(tmp_path, 1)
            monkeypatch.chdir(tmp_path)
            assert self.workers(Path(), 1) != first
            assert times_done(tmp_path, 0) == 2

    def test_work_that_fails_leaves_none(self, tmp_path: Path) -> None:
        with kept_workers():
            first = self.workers(tmp_path, 1)
            with pytest.raises(InputError), local_pool(1) as pool:
                pool.run(refuse, [()], lambda *at: None)
            assert all(gone(process) for process in first)
            assert self.workers(tmp_path, 1) != first

    def test_one_that_died_in_between_is_replaced(self, tmp_path: Path) -> None:
        with kept_workers():
            (first,) = self.workers(tmp_path, 1)
            os.kill(first, signal.SIGKILL)
            assert self.workers(tmp_path, 1) != {first}
            assert times_done(tmp_path, 0) == 2


def test_a_worker_has_one_thread() -> None:
    heard = list[int]()
    with WorkerPool(1) as pool:
        pool.run(threads, [()], lambda index, count: heard.append(count))
    assert heard == [1]


PARENT = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from crew_work import announce
from bneck.runs.search.workers import WorkerPool
with WorkerPool(2) as pool:
    pool.run(announce, [(Path(sys.argv[2]), i) for i in range(2)], lambda *at: None)
"""


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
