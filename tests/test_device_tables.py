"""Latency tables of other devices: kept apart, and complete and equal whatever breaks off.

The devices are agents in processes of this machine, mostly with a made-up clock.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from agents import COMMAND, made_up_shipment
from bneck.costs.table_file import read_table
from bneck.devices.deployment import Deployment
from bneck.devices.fill import fill_table
from bneck.devices.places import DeviceError, ssh, steady
from bneck.devices.places.channel import Channel
from bneck.devices.places.ssh import Agent
from bneck.devices.places.steady import Steady
from bneck.runs.search.main import search
from bneck.runs.search.latency import known_table, measured_ms, table_path
from bneck.runs.search.tables import latency_table
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from commands import Call
from conftest import fill_quickly, measure_quickly
from test_fill import assert_complete

KILLS = 20


class Killer:
    """Counts what is sent to the device and kills it at some of these times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = self.kills = 0
        self.doomed: Callable[[int], bool] = lambda count: False
        self.rng = random.Random(0)
        send = Channel.send

        def watched(channel: Channel, data: bytes, limit_s: float) -> None:
            self.sent += 1
            if not self.doomed(self.sent):
                send(channel, data, limit_s)
                return
            self.kills += 1
            # Before it heard anything, in the middle of a request, or busy with the whole of it.
            send(channel, data[: self.rng.choice([0, len(data) // 2, len(data)])], limit_s)
            os.killpg(channel.pid, signal.SIGKILL)

        monkeypatch.setattr(Channel, "send", watched)


def made_up_device(monkeypatch: pytest.MonkeyPatch) -> Steady:
    monkeypatch.setattr(ssh, "shipment", made_up_shipment)
    monkeypatch.setattr(steady, "PAUSES_S", (0.0, 0.0, 0.0))
    return Steady("ssh:here", Agent.runtimes, lambda: Agent("ssh:here", COMMAND))


@pytest.fixture(scope="module")
def unbroken(tiny: NetSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int]:
    """A table that nothing disturbed, and how often something was sent for it."""
    path = tmp_path_factory.mktemp("unbroken") / "table.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        fill_quickly(patch)
        killer = Killer(patch)
        with made_up_device(patch) as device:
            fill_table(tiny, path, place=device)
    return path.read_bytes(), killer.sent


@pytest.mark.usefixtures("quick_fill")
class TestKills:
    def test_twenty_kills_leave_a_table_that_is_complete_and_equal(
        self,
        tiny: NetSpec,
        unbroken: tuple[bytes, int],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        whole, sent = unbroken
        doomed = set(random.Random(1).sample(range(5, sent), KILLS))
        killer = Killer(monkeypatch)
        killer.doomed = lambda count: count in doomed
        with made_up_device(monkeypatch) as device:
            fill_table(tiny, tmp_path / "table.jsonl", place=device)
        assert killer.kills == KILLS
        assert killer.sent > sent
        assert_complete(tiny, tmp_path / "table.jsonl")
        assert (tmp_path / "table.jsonl").read_bytes() == whole

    def test_a_device_that_stays_away_is_named_and_the_table_goes_on_later(
        self,
        tiny: NetSpec,
        unbroken: tuple[bytes, int],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        (whole, sent), path = unbroken, tmp_path / "table.jsonl"
        killer = Killer(monkeypatch)
        killer.doomed = lambda count: count >= sent // 2
        with made_up_device(monkeypatch) as device:
            with pytest.raises(
                DeviceError, match=r"^ssh:here broke off, 4 times in a row; what was"
            ):
                fill_table(tiny, path, place=device)
            kept = path.read_bytes()
            assert 1 < kept.count(b"\n") < whole.count(b"\n")
            killer.doomed = lambda count: False
            fill_table(tiny, path, place=device)
        assert path.read_bytes().startswith(kept)
        assert path.read_bytes() == whole


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a device that is a process of this machine, with a made-up clock."""
    monkeypatch.setattr(ssh, "ssh_command", lambda address: COMMAND)
    monkeypatch.setattr(ssh, "shipment", made_up_shipment)
    return "ssh:here"


@pytest.mark.usefixtures("quick_fill")
class TestKeptApart:
    def test_every_device_has_a_table_of_its_own(self, tiny: NetSpec, here: str) -> None:
        names = ["local", here, "ssh:there"]
        assert len({table_path(tiny, Deployment(device=name)) for name in names}) == 3
        found = latency_table(tiny, device=here)
        assert (found["device"], found["runtime"]) == (here, "onnxruntime")
        assert Path(found["file"]) == table_path(tiny, Deployment(device=here))
        table = known_table(tiny, Deployment(device=here))
        assert table is not None
        assert table.header["place"] == here
        assert (table.header["processor"], table.header["runtime_version"]) == ("made up", "1.0")
        assert known_table(tiny, Deployment(device="ssh:there")) is None

    def test_a_table_of_another_device_is_refused(
        self, tiny: NetSpec, here: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "table.jsonl"
        fill_table(tiny, path, place=here)
        with pytest.raises(InputError) as caught:
            fill_table(tiny, path)
        assert str(caught.value) == (
            f"{path} is a latency table for onnxruntime in fp32 on 1 thread of ssh:here; this is for "
            "onnxruntime in fp32 on 1 thread, name another file"
        )

    def test_a_search_measures_there(self, tiny: NetSpec, here: str) -> None:
        # A made-up time is 1 to 2 ms, and the same at every call.
        first = measured_ms(tiny, [tiny], None, Deployment(device=here))
        assert 1 <= first[0] < 2
        assert measured_ms(tiny, [tiny], None, Deployment(device=here)) == first

    def test_the_command_fills_one(
        self, tiny_file: Path, here: str, tmp_path: Path, call: Call
    ) -> None:
        answer = call("table", tiny_file, "--device", here, "--out", tmp_path / "t.jsonl")
        assert answer.code == 0, answer.err
        assert " rows of tiny in onnxruntime fp32 on ssh:here, the network itself 1." in answer.out

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
def test_a_whole_search_is_measured_on_another_device(
    tiny_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "ssh_command", lambda address: COMMAND)
    measure_quickly(monkeypatch)
    out, name = tmp_path / "run", "ssh:slow-search"
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
    )
    assert record["state"] == "finished"
    assert record["settings"]["device"] == name
    assert record["device"]["place"] == name
    assert record["found"]["measurement"]["device"]["place"] == name
    assert read_table(out / "table.jsonl").header["place"] == name
    assert name in (out / "report.md").read_text()
