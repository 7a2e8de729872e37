"""The timing protocol: what is repeated, how rounds are mixed, paced, and refused.

Most tests run on a clock of their own, so that their figures can be worked out by hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bneck.devices import protocol
from bneck.devices.machine import Machine
from bneck.devices.protocol import (
    REFERENCE,
    REFERENCE_SHARE,
    REFERENCE_WARMUP,
    Protocol,
    Samples,
    TimingError,
)
from bneck.devices.timing import Burst, Run, RunTimer, Timer, pinned


class Clock:
    """Time that passes only when a run spends it."""

    def __init__(self) -> None:
        self.wall_ns = self.cpu_ns = 0

    def spend(self, cpu_ms: float, wait_ms: float = 0.0) -> None:
        self.cpu_ns += round(cpu_ms * 1e6)
        self.wall_ns += round((cpu_ms + wait_ms) * 1e6)

    def perf_counter(self) -> float:
        return self.wall_ns / 1e9

    def perf_counter_ns(self) -> int:
        return self.wall_ns

    def process_time_ns(self) -> int:
        return self.cpu_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


def race(
    runs: Mapping[str, Run], reference: Run, plan: Protocol, clock: Any = time, **more: Any
) -> dict[str, Samples]:
    """Race what runs in this process."""
    timers = {name: RunTimer(run, plan.threads, clock=clock) for name, run in runs.items()}
    return protocol.race(timers, RunTimer(reference, plan.threads, clock=clock), plan, **more)


def plan(**changes: Any) -> Protocol:
    """No warm-up, bursts of two runs, three rounds, any spread."""
    usual: dict[str, Any] = {
        "rounds": 3, "burst_ms": 0.0, "least_runs": 2, "warmup": 0, "first_warmup": 0, "max_spread": 1e9,
    }  # fmt: skip
    return Protocol(**{**usual, **changes})


class TestDisturbance:
    def test_a_run_that_sleeps_is_repeated_and_the_repeats_are_counted(self) -> None:
        calls = []

        def sleepy() -> None:
            calls.append(1)
            time.sleep(0.003)

        samples = race({"sleepy": sleepy}, lambda: None, plan(max_repeats=2))["sleepy"]
        assert samples.repeated == 3 * 2  # rounds x repeats
        assert len(calls) == 1 + 3 * 3 * 2  # to size the burst; rounds x attempts x runs
        assert len(samples.wall_ms) == len(samples.cpu_ms) == 3 * 2
        assert min(samples.wall_ms) >= 3
        assert sum(samples.wall_ms) > 2 * sum(samples.cpu_ms)

    def test_a_steady_run_is_not_repeated(self, clock: Clock) -> None:
        samples = race(
            {"busy": lambda: clock.spend(4)}, lambda: clock.spend(1), plan(), clock=clock
        )
        assert samples["busy"].repeated == samples[REFERENCE].repeated == 0
        assert samples["busy"].wall_ms == samples["busy"].cpu_ms == [4.0] * 6

    def test_a_busy_run_ends_even_on_a_busy_machine(self) -> None:
        def busy() -> None:
            sum(range(20_000))

        samples = race({"busy": busy}, busy, plan(max_repeats=1))["busy"]
        assert samples.repeated <= 3
        assert len(samples.wall_ms) == 6

    def test_a_disturbed_burst_is_replaced_by_the_quiet_one_behind_it(self, clock: Clock) -> None:
        calls = iter(range(100))

        def disturbed_once() -> None:
            clock.spend(10, wait_ms=7 if next(calls) == 2 else 0)  # 0 sizes the burst, 1 is quiet

        samples = race({"a": disturbed_once}, lambda: clock.spend(1), plan(rounds=1), clock=clock)[
            "a"
        ]
        assert samples.repeated == 1
        assert samples.wall_ms == [10.0, 10.0]

    def test_of_bursts_that_are_all_disturbed_the_least_disturbed_counts(
        self, clock: Clock
    ) -> None:
        waits = iter([0, 5, 5, 2, 2, 4, 4])

        def disturbed() -> None:
            clock.spend(10, wait_ms=next(waits))

        samples = race(
            {"a": disturbed}, lambda: clock.spend(1), plan(rounds=1, max_repeats=2), clock=clock
        )["a"]
        assert samples.repeated == 2
        assert samples.wall_ms == [12.0, 12.0]
        assert samples.cpu_ms == [10.0, 10.0]

    def test_a_wait_of_five_per_cent_is_tolerated(self, clock: Clock) -> None:
        runs = {"within": lambda: clock.spend(100, 5), "above": lambda: clock.spend(100, 6)}
        samples = race(runs, lambda: clock.spend(1), plan(rounds=1, max_repeats=1), clock=clock)
        assert [samples[name].repeated for name in runs] == [0, 1]

    def test_several_threads_cannot_be_judged_by_their_cpu_time(self, clock: Clock) -> None:
        samples = race(
            {"a": lambda: clock.spend(1, 9)}, lambda: clock.spend(1), plan(threads=2), clock=clock
        )
        assert samples["a"].repeated == 0


class TestBursts:
    def test_a_burst_lasts_as_long_as_asked_and_no_fewer_than_the_least_runs(
        self, clock: Clock
    ) -> None:
        runs = {"quick": lambda: clock.spend(4), "slow": lambda: clock.spend(15)}
        samples = race(runs, lambda: clock.spend(5), plan(burst_ms=22.0, rounds=1), clock=clock)
        assert len(samples["quick"].wall_ms) == 5  # 22 / 4
        assert len(samples["slow"].wall_ms) == 2  # 22 / 15, but two at least
        # Before, between and after them: 22 x 0.5 / 5 in each.
        assert REFERENCE_SHARE == 0.5
        assert len(samples[REFERENCE].wall_ms) == 3 * 2

    def test_warm_up_runs_are_not_among_the_samples(self, clock: Clock) -> None:
        calls = iter(range(100))

        def cold_at_first() -> None:
            clock.spend(50 if next(calls) < 5 else 1)  # 4 first warm-ups and the one that sizes

        counted = plan(first_warmup=4, warmup=3, rounds=2)
        samples = race({"a": cold_at_first}, lambda: clock.spend(1), counted, clock=clock)["a"]
        assert samples.wall_ms == [1.0] * 4
        assert next(calls) == 4 + 1 + 2 * (3 + 2)


class TestRounds:
    @staticmethod
    def order(clock: Clock, *, seed: int, rounds: int = 6) -> list[list[str]]:
        """Who ran in each round, in order."""
        seen: list[list[str]] = [[]]

        def run(name: str) -> Callable[[], None]:
            def once() -> None:
                seen[-1].append(name)
                clock.spend(1)

            return once

        race(
            {name: run(name) for name in "abc"},
            run(REFERENCE),
            plan(rounds=rounds),
            seed=seed,
            on_round=lambda done, total: seen.append([]),
            clock=clock,
        )
        sizing = 4  # runs before the first round
        seen[0] = seen[0][sizing:]
        assert seen.pop() == []
        return [[name for name, _ in groupby(names)] for names in seen]

    def test_every_round_runs_every_model_once_between_two_bursts_of_the_reference(
        self, clock: Clock
    ) -> None:
        for names in self.order(clock, seed=0):
            assert names[::2] == [REFERENCE] * 4
            assert Counter(names[1::2]) == {"a": 1, "b": 1, "c": 1}

    def test_the_order_changes_from_round_to_round_and_follows_the_seed(self, clock: Clock) -> None:
        first = self.order(clock, seed=1)
        assert len({tuple(names) for names in first}) > 1
        assert self.order(clock, seed=1) == first
        assert self.order(clock, seed=2) != first

    def test_rounds_are_reported_as_they_end(self, clock: Clock) -> None:
        told: list[tuple[int, int]] = []
        race({}, lambda: clock.spend(1), plan(), on_round=lambda *at: told.append(at), clock=clock)
        assert told == [(1, 3), (2, 3), (3, 3)]


class TestPace:
    @staticmethod
    def slowed(clock: Clock, factors: list[int], nominal_ms: float | None) -> dict[str, Samples]:
        """Race 30 ms against a reference of 10 ms on a machine slowed in some rounds."""
        at = [0]
        runs = {"a": lambda: clock.spend(30 * factors[at[0]])}
        return race(
            runs,
            lambda: clock.spend(10 * factors[at[0]]),
            plan(rounds=len(factors)),
            nominal_ms=nominal_ms,
            on_round=lambda done, total: at.__setitem__(0, done),
            clock=clock,
        )

    def test_a_burst_is_divided_by_the_pace_of_the_reference_beside_it(self, clock: Clock) -> None:
        samples = self.slowed(clock, [1, 2, 1], None)
        assert samples[REFERENCE].round_ms == [10.0, 10.0, 20.0, 20.0, 10.0, 10.0]
        assert samples["a"].round_ms == [30.0, 60.0, 30.0]
        assert samples["a"].pace == [1.0, 2.0, 1.0]  # against the reference's median, 10
        assert samples["a"].paced_ms == [30.0, 30.0, 30.0]
        assert samples[REFERENCE].paced_ms == [10.0] * 6

    def test_the_pace_is_the_mean_of_before_and_behind(self, clock: Clock) -> None:
        # Once to size the burst, then warmed up and timed twice, before and behind.
        cold = [99] * REFERENCE_WARMUP
        times = iter([10, *cold, 10, 10, *cold, 30, 30])
        runs = {"a": lambda: clock.spend(50)}
        samples = race(
            runs, lambda: clock.spend(next(times)), plan(rounds=1), nominal_ms=10.0, clock=clock
        )
        assert samples["a"].pace == [2.0]
        assert samples["a"].paced_ms == [25.0]

    def test_a_nominal_time_of_the_reference_means_pace_one(self, clock: Clock) -> None:
        samples = self.slowed(clock, [1, 4, 1], 5.0)["a"]
        assert samples.pace == [2.0, 8.0, 2.0]
        assert samples.paced_ms == [15.0, 15.0, 15.0]

    def test_what_slows_networks_differently_does_not_show_in_their_fastest_runs(
        self, clock: Clock
    ) -> None:
        at = [0]
        neighbour = [(3, 2), (1, 1), (5, 2)]  # slows the network and the reference so many times
        samples = race(
            {"a": lambda: clock.spend(30 * neighbour[min(at[0], 2)][0])},
            lambda: clock.spend(10 * neighbour[min(at[0], 2)][1]),
            plan(),
            on_round=lambda done, total: at.__setitem__(0, done),
            clock=clock,
        )
        assert samples["a"].beside_ms == [20.0, 10.0, 20.0]
        assert samples["a"].undisturbed_ms(5.0) == 15.0
        assert samples[REFERENCE].undisturbed_ms(5.0) == 5.0
        samples["a"].extend(Samples(wall_ms=[24.0], beside_ms=[6.0]))
        assert samples["a"].undisturbed_ms(5.0) == 20.0

    def test_a_round_counts_by_its_median(self, clock: Clock) -> None:
        times = iter([7, 1, 9, 2, 3, 8, 4])
        runs = {"a": lambda: clock.spend(next(times))}
        samples = race(runs, lambda: clock.spend(1), plan(rounds=2, least_runs=3), clock=clock)["a"]
        assert samples.round_ms == [2.0, 4.0]


class TestSpread:
    def test_absurd_times_are_refused_in_one_sentence(self, clock: Clock) -> None:
        at = [0]
        with pytest.raises(TimingError) as caught:
            race(
                {"v3-odd": lambda: clock.spend([1, 100][at[0] % 2])},
                lambda: clock.spend(1),
                plan(rounds=4, max_spread=0.5),
                on_round=lambda done, total: at.__setitem__(0, done),
                clock=clock,
            )
        # 1, 100, 1, 100: (100 - 1) / 50.5
        assert str(caught.value) == (
            "the times of v3-odd spread by 196% after 0 repeated bursts, so a median would mean "
            "nothing; stop what else runs on the device and measure again"
        )

    def test_real_work_that_jumps_between_rounds_is_refused(self) -> None:
        at = [0]

        def spin() -> None:
            end = time.process_time() + (0.03 if at[0] % 2 else 0.0003)
            while time.process_time() < end:
                pass

        with pytest.raises(TimingError, match=r"^the times of odd spread by \d+%"):
            race(
                {"odd": spin},
                lambda: sum(range(10_000)),
                Protocol(rounds=6, burst_ms=1, max_repeats=1),
                on_round=lambda done, total: at.__setitem__(0, done),
            )

    def test_one_odd_round_in_ten_at_either_end_is_no_reason_to_refuse(self, clock: Clock) -> None:
        at = [0]
        times = [1, 10, 10, 10, 10, 10, 10, 10, 10, 1000]
        samples = race(
            {"a": lambda: clock.spend(times[min(at[0], 9)])},
            lambda: clock.spend(1),
            plan(rounds=10, max_spread=0.5),
            on_round=lambda done, total: at.__setitem__(0, done),
            clock=clock,
        )
        assert samples["a"].round_ms == times


class Told(Timer):
    """A device that tells wall times alone, one for each burst."""

    def __init__(self, ms: float) -> None:
        self.ms = ms
        self.asked: list[tuple[int, int]] = []

    def burst(self, runs: int, warmup: int) -> Burst:
        self.asked.append((runs, warmup))
        return Burst(runs, (self.ms,))


class TestOtherDevices:
    def test_without_cpu_time_nothing_is_judged_by_it(self) -> None:
        timer = Told(4.0)
        asked = plan(rounds=2, burst_ms=20.0, warmup=1, first_warmup=7)
        samples = protocol.race({"a": timer}, Told(2.0), asked)["a"]
        assert samples.repeated == 0
        assert samples.cpu_ms == samples.round_cpu_ms == []
        assert samples.wall_ms == samples.round_ms == [4.0, 4.0]
        # Once to size the burst, then five runs of 4 ms in each of two rounds.
        assert timer.asked == [(1, 7), (5, 1), (5, 1)]
        assert samples.runs == 10


needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system cannot pin"
)


class TestPinning:
    @needs_affinity
    def test_as_many_cores_as_threads_and_afterwards_all_again(self) -> None:
        before = os.sched_getaffinity(0)
        with pinned(1) as can_pin:
            inside = os.sched_getaffinity(0)
        assert can_pin
        assert len(inside) == 1
        assert inside <= before
        assert os.sched_getaffinity(0) == before

    @needs_affinity
    def test_more_threads_than_cores_leave_all_cores(self) -> None:
        before = os.sched_getaffinity(0)
        with pinned(10_000):
            assert os.sched_getaffinity(0) == before

    @needs_affinity
    def test_an_error_inside_gives_the_cores_back_too(self) -> None:
        before = os.sched_getaffinity(0)
        with pytest.raises(KeyError), pinned(1):
            raise KeyError
        assert os.sched_getaffinity(0) == before

    def test_a_system_that_cannot_pin_runs_unpinned(self) -> None:
        with pinned(1, system=SimpleNamespace()) as can_pin:
            assert not can_pin

    def test_a_sandbox_that_forbids_pinning_runs_unpinned(self, tmp_path: Path) -> None:
        def forbid(process: int, cores: object) -> None:
            raise PermissionError("not permitted")

        sandbox = SimpleNamespace(
            sched_getaffinity=lambda process: {0, 1}, sched_setaffinity=forbid
        )
        with pinned(1, Machine(tmp_path), sandbox) as can_pin:
            assert not can_pin


def laid_out(root: Path, clocks_khz: Mapping[int, int]) -> Path:
    """A system's description of its cores."""
    for core, khz in clocks_khz.items():
        folder = root / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "cpuinfo_max_freq").write_text(f"{khz}\n")
    return root


HYBRID = {0: 5_000_000, 1: 5_000_000, 2: 5_200_000, 3: 5_200_000, 4: 3_800_000, 5: 3_800_000}
OTHER = """
import sys
from pathlib import Path
from bneck.devices.machine import Machine
machine = Machine(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@contextmanager
def another_process(folder: Path, cpus: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has done what `script` says, and lives until it is killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", OTHER + script, str(folder), str(cpus)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


class TestCores:
    def test_the_fastest_core_is_taken_whatever_its_number(self, tmp_path: Path) -> None:
        cpus = laid_out(tmp_path / "cpu", HYBRID)
        machine = Machine(tmp_path / "locks", cpus)
        assert machine.cores(1, range(6)) == [3]
        assert machine.cores(1, {0, 4, 5}) == [0], "only what this process may use"
        assert machine.cores(5, range(6)) == [3, 2, 1, 0, 5], "slow cores come last"
        assert machine.cores(9, {0, 4}) == [0, 4]

    def test_a_system_that_tells_no_clocks_gives_the_last_core(self, tmp_path: Path) -> None:
        assert Machine(tmp_path, tmp_path / "nothing").cores(1, range(4)) == [3]
        (tmp_path / "cpu3" / "cpufreq").mkdir(parents=True)
        (tmp_path / "cpu3" / "cpufreq" / "cpuinfo_max_freq").write_text("<unknown>")
        assert Machine(tmp_path, tmp_path).cores(1, range(4)) == [3]

    def test_a_core_that_another_process_claims_is_left_to_it_until_it_dies(
        self, tmp_path: Path
    ) -> None:
        locks, cpus = tmp_path / "locks", laid_out(tmp_path / "cpu", HYBRID)
        claim = "print(machine.cores(1, range(6)), flush=True)\nsys.stdin.read()"
        with another_process(locks, cpus, claim) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == "[3]\n"
            with another_process(locks, cpus, claim) as second:
                assert second.stdout is not None
                assert second.stdout.readline() == "[2]\n"
                ours = Machine(locks, cpus)
                assert ours.cores(1, range(6)) == [1]
                assert ours.cores(1, range(6)) == [1], "the same at every call"
        assert Machine(locks, cpus).cores(1, range(6)) == [3]

    def test_a_fast_core_is_shared_rather_than_a_slow_one_taken(self, tmp_path: Path) -> None:
        locks, cpus = tmp_path / "locks", laid_out(tmp_path / "cpu", HYBRID)
        others = Machine(locks, cpus)
        assert others.cores(4, range(6)) == [3, 2, 1, 0]
        assert Machine(locks, cpus).cores(1, range(6)) == [3]
        assert Machine(locks, cpus).cores(5, range(6)) == [3, 2, 1, 0, 5]


class TestTurns:
    def test_a_process_that_waits_says_so_once_and_goes_on_when_the_other_is_killed(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        hold = "with machine.turn():\n    print('mine', flush=True)\n    sys.stdin.read()"
        with another_process(tmp_path, tmp_path, hold) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "mine\n"
            machine, timed = Machine(tmp_path, tmp_path), list[Burst]()
            timer = RunTimer(lambda: None, machine=machine)
            waiting = threading.Thread(target=lambda: timed.append(timer.burst(2, 0)))
            waiting.start()
            while not caplog.records:
                waiting.join(0.01)
            assert timed == []
            with Machine(tmp_path, tmp_path).turn("adb:1"):
                pass  # another device does not wait
            other.kill()
            waiting.join(60)
        assert [burst.runs for burst in timed] == [2]
        with machine.turn():
            assert caplog.messages == [
                "another bneck process is measuring on this device; the two take turns"
            ]

    def test_turns_come_in_the_order_of_asking(self, tmp_path: Path) -> None:
        """No process starves, although each asks for its next turn the moment its last one ends."""
        log, machine = tmp_path / "log", Machine(tmp_path, tmp_path)
        ask = f"with machine.turn():\n    open({str(log)!r}, 'a').write(NAME)"
        with ExitStack() as others:
            with machine.turn():
                for name in "ab":
                    script = ask.replace("NAME", repr(name))
                    child = others.enter_context(another_process(tmp_path, tmp_path, script))
                    assert child.stderr is not None
                    assert "the two take turns" in child.stderr.readline(), "it waits"
            with machine.turn():
                assert log.read_text() == "ab"

    def test_a_process_that_dies_while_it_waits_holds_up_nobody(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path, tmp_path)
        with machine.turn(), another_process(tmp_path, tmp_path, "with machine.turn(): 1") as child:
            assert child.stderr is not None
            assert "the two take turns" in child.stderr.readline()
        with machine.turn():
            pass

    def test_without_a_place_for_locks_it_times_all_the_same(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").touch()
        machine = Machine(tmp_path / "file" / "locks", tmp_path)
        assert RunTimer(lambda: None, machine=machine).burst(2, 0).runs == 2
        with machine.turn():
            assert len(caplog.messages) == 1
        assert "may time at once and disturb each other" in caplog.text


class TestGivingWay:
    def test_work_waits_while_another_process_times_and_goes_on_when_it_ends(
        self, tmp_path: Path
    ) -> None:
        locks, ours = tmp_path / "locks", Machine(tmp_path / "locks")
        ours.give_way()  # nobody ever timed here
        times = "with machine.timing():\n    print('timing', flush=True)\n    sys.stdin.read()"
        with another_process(locks, tmp_path, times) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "timing\n"
            begun = time.monotonic()
            ours.give_way(longest_s=0.3)
            assert time.monotonic() - begun >= 0.3
            with ours.timing():  # several may time, they take turns
                ours.give_way()  # what a process times itself does not stop it
            threading.Timer(0.5, other.kill).start()
            ours.give_way()
            assert other.wait(10) != 0
        assert time.monotonic() - begun >= 0.8

    def test_one_that_wants_to_time_alone_waits_for_the_others_and_they_for_it(
        self, tmp_path: Path
    ) -> None:
        locks, ours = tmp_path / "locks", Machine(tmp_path / "locks")
        again = (
            "import time\n"
            "for n in range(200):\n"
            "    with machine.timing():\n"
            "        print(time.monotonic(), flush=True)\n"
            "        time.sleep(0.02)\n"
        )
        with another_process(locks, tmp_path, again) as other:
            assert other.stdout is not None
            other.stdout.readline()
            with ours.timing(alone=True):
                begun = time.monotonic()
                time.sleep(0.5)
                ended = time.monotonic()
            times = [float(line) for line in other.stdout]
        assert not [at for at in times if begun < at < ended]
        assert max(times) > ended
