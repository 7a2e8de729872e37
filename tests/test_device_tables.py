"""Latency tables of other devices: kept apart, and complete and equal whatever breaks off.

The devices are agents in processes of this machine, mostly with a made-up clock.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest

from agents import COMMAND, made_up_shipment
from bneck.costs.table_file import read_table
from bneck.devices.deployment import Deployment
from bneck.devices.fill import fill_table
from bneck.devices.places import KINDS, DeviceError, Kind
from bneck.devices.places.ssh import Agent
from bneck.devices.places.steady import Steady
from bneck.records.progress import Silent
from bneck.runs.search.latency import known_table, latency_table, measured_ms, seed_plan, table_path
from bneck.runs.search.main import search
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from commands import Call
from simulated_device import SimulatedDevice, plugged_in, work_ms
from test_fill import QUICK, assert_complete

KILLS = 20


FEW = {"count": 16}


class Killer:
    """Counts what is sent to an agent and kills it at some of these times."""

    def __init__(self) -> None:
        self.sent = self.kills = 0
        self.doomed: Callable[[int], bool] = lambda count: False
        self.rng = random.Random(0)

    def device(self) -> Steady:
        """A device whose agents are killed."""
        return Steady("ssh:here", Agent.runtimes, lambda: Doomed(self), wait=lambda seconds: None)


class Doomed(Agent):
    """An agent with a made-up clock, and a killer that listens in."""

    def __init__(self, killer: Killer) -> None:
        self._killer = killer
        super().__init__("ssh:here", COMMAND, shipped=made_up_shipment())

    def _send(self, data: bytes, limit_s: float) -> None:
        killer = self._killer
        killer.sent += 1
        if not killer.doomed(killer.sent):
            super()._send(data, limit_s)
            return
        killer.kills += 1
        # Before it heard anything, in the middle of a request, or busy with the whole of it.
        super()._send(data[: killer.rng.choice([0, len(data) // 2, len(data)])], limit_s)
        os.killpg(self._channel.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def unbroken(tiny: NetSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int]:
    """A table that nothing disturbed, and how often something was sent for it."""
    path, killer = tmp_path_factory.mktemp("unbroken") / "table.jsonl", Killer()
    with killer.device() as device:
        fill_table(tiny, path, plan=seed_plan(tiny, **FEW), place=device, effort=QUICK)
    return path.read_bytes(), killer.sent


class TestKills:
    def test_twenty_kills_leave_a_table_that_is_complete_and_equal(
        self, tiny: NetSpec, unbroken: tuple[bytes, int], tmp_path: Path
    ) -> None:
        whole, sent = unbroken
        doomed = set(random.Random(1).sample(range(5, sent), KILLS))
        path, killer = tmp_path / "table.jsonl", Killer()
        killer.doomed = lambda count: count in doomed
        with killer.device() as device:
            fill_table(tiny, path, plan=seed_plan(tiny, **FEW), place=device, effort=QUICK)
        assert killer.kills == KILLS
        assert killer.sent > sent
        assert_complete(tiny, path)
        assert path.read_bytes() == whole

    def test_a_device_that_stays_away_is_named_and_the_table_goes_on_later(
        self, tiny: NetSpec, unbroken: tuple[bytes, int], tmp_path: Path
    ) -> None:
        (whole, sent), path, killer = unbroken, tmp_path / "table.jsonl", Killer()
        killer.doomed = lambda count: count >= sent // 2
        plan = seed_plan(tiny, **FEW)
        with killer.device() as device:
            with pytest.raises(
                DeviceError, match=r"^ssh:here disconnected, 4 times in a row; what was"
            ):
                fill_table(tiny, path, plan=plan, place=device, effort=QUICK)
            kept = path.read_bytes()
            assert 1 < kept.count(b"\n") < whole.count(b"\n")
            killer.doomed = lambda count: False
            fill_table(tiny, path, plan=plan, place=device, effort=QUICK)
        assert path.read_bytes().startswith(kept)
        assert path.read_bytes() == whole


class TestKeptApart:
    def test_every_device_has_a_table_of_its_own(
        self, tiny: NetSpec, simulated: SimulatedDevice
    ) -> None:
        with plugged_in() as other:
            names = ["local", simulated.name, other.name]
            assert len({table_path(tiny, Deployment(device=name)) for name in names}) == 3
            found = latency_table(tiny, device=simulated.name)
            assert (found["device"], found["runtime"]) == (simulated.name, "onnxruntime")
            assert Path(found["file"]) == table_path(tiny, Deployment(device=simulated.name))
            table = known_table(tiny, Deployment(device=simulated.name))
            assert table is not None
            assert table.header["place"] == simulated.name
            assert (table.header["processor"], table.header["runtime_version"]) == (
                "simulated",
                "1.0",
            )
            assert known_table(tiny, Deployment(device=other.name)) is None

    def test_a_table_of_another_device_is_refused(
        self, tiny: NetSpec, simulated: SimulatedDevice, tmp_path: Path
    ) -> None:
        path, plan = tmp_path / "table.jsonl", seed_plan(tiny, **FEW)
        fill_table(tiny, path, plan=plan, place=simulated.name)
        with pytest.raises(InputError) as caught:
            fill_table(tiny, path, plan=plan)
        assert str(caught.value) == (
            f"{path} is a latency table for onnxruntime in fp32 on 1 thread of {simulated.name}; this is "
            "for onnxruntime in fp32 on 1 thread, name another file"
        )

    def test_a_search_measures_there(self, tiny: NetSpec, simulated: SimulatedDevice) -> None:
        (found,) = measured_ms(tiny, [tiny], None, Deployment(device=simulated.name))
        assert found == pytest.approx(simulated.network_ms(tiny))

    def test_the_command_fills_one(
        self, tiny_file: Path, simulated: SimulatedDevice, tmp_path: Path, call: Call
    ) -> None:
        name = simulated.name
        answer = call("table", tiny_file, "--device", name, "--out", tmp_path / "t.jsonl")
        assert answer.code == 0, answer.err
        assert f" rows of tiny in onnxruntime fp32 on {name}, the network itself 0." in answer.out

    @pytest.mark.parametrize("command", ["measure", "table"])
    def test_unknown_devices_are_refused(
        self, command: str, tiny_file: Path, tmp_path: Path, call: Call
    ) -> None:
        answer = call(command, tiny_file, "--device", "moon")
        assert answer.code == 2
        assert "there is no device 'moon'; known are local, ssh:" in answer.err

    def test_a_search_for_an_unknown_device_leaves_no_folder(
        self, tiny_file: Path, tmp_path: Path, call: Call
    ) -> None:
        out = tmp_path / "run"
        answer = call("search", "--device", "moon", "--seed-network", tiny_file, "--out", out)
        assert answer.code == 2
        assert "there is no device 'moon'; known are local, ssh:" in answer.err
        assert not out.exists()


@pytest.mark.slow
def test_a_whole_search_is_measured_by_an_agent_in_another_process(
    tiny_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "agent:slow-search"

    def opened(name: str) -> Steady:
        shipped = made_up_shipment()
        return Steady(name, Agent.runtimes, lambda: Agent(name, COMMAND, shipped=shipped))

    monkeypatch.setitem(KINDS, "agent", Kind("agent:NAME", opened))
    out = tmp_path / "run"
    record = search(
        pictures,
        "85%",
        device=name,
        seed_network=str(tiny_file),
        out=out,
        workers=1,
        epochs=1.0,
        steps=1,
        repeats=1,
        delta=0.08,
        method="netadapt",
    )
    assert record["state"] == "finished"
    assert record["settings"]["device"] == name
    assert record["device"]["place"] == name
    assert record["found"]["measurement"]["device"]["place"] == name
    assert read_table(out / "table.jsonl").header["place"] == name
    assert name in (out / "report.md").read_text()


HOLDS = """
import select, sys
from pathlib import Path
from bneck.records.files import locked

with locked(Path(sys.argv[1])):
    print("holds it", flush=True)
    select.select([sys.stdin], [], [], 20)
"""


class TestTwoProcesses:
    def test_the_second_says_that_it_waits_and_for_which_file(
        self, tiny: NetSpec, simulated: SimulatedDevice, tmp_path: Path
    ) -> None:
        table = tmp_path / "table.jsonl"
        first = subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(table.with_suffix(".lock"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == b"holds it\n"
        said: list[str] = []

        class Told(Silent):
            """Lets the first process go once the second one has said that it waits."""

            def say(self, sentence: str) -> None:
                if "another process is measuring" in sentence:
                    said.append(sentence)
                    first.communicate()

        found = latency_table(tiny, device=simulated.name, out=table, progress=Told())
        assert first.returncode == 0
        assert len(said) == 1
        assert f"{table}: waiting for it" in said[0]
        assert found["entries"] > 0
        latency_table(tiny, device=simulated.name, out=table, progress=Told())
        assert len(said) == 1  # nothing to wait for


checksum = lru_cache(maxsize=10_000)(zlib.crc32)  # a model runs thousands of times


class Settling(Silent):
    """A device whose files take up to half as long again, by chance, until the table is begun anew."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        if "it is measured once more" in sentence:
            self.said.append(sentence)

    def work(self, model: bytes) -> float:
        """Milliseconds of a model file."""
        return work_ms(model) * (1.0 if self.said else 1 + checksum(model) % 100 / 200)


def test_a_table_that_was_disturbed_is_measured_once_more(tiny: NetSpec, tmp_path: Path) -> None:
    settling, out = Settling(), tmp_path / "table.jsonl"
    with plugged_in(work=settling.work) as device:
        found = latency_table(tiny, device=device.name, out=out, progress=settling)
    assert len(settling.said) == 1
    assert found["error"]["median"] < 0.01
    assert found["seed_ms"] == pytest.approx(device.network_ms(tiny))
    assert read_table(out).error().median == found["error"]["median"]
