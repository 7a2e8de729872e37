"""Devices killed at random points of a table fill, with made-up clock times: no entry lost or doubled."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from agents import COMMAND, made_up_shipment
from bneck.devices.fill import fill_table
from bneck.devices.places import DeviceError, ssh, steady
from bneck.devices.places.channel import Channel
from bneck.devices.places.ssh import Agent
from bneck.devices.places.steady import Steady
from bneck.specs.network import NetSpec
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


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Killer:
    monkeypatch.setattr(steady, "PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(ssh, "shipment", made_up_shipment)
    return Killer(monkeypatch)


@pytest.fixture
def device(killer: Killer) -> Steady:
    with Steady("ssh:here", Agent.runtimes, lambda: Agent("ssh:here", COMMAND)) as made:
        yield made


@pytest.mark.usefixtures("quick_fill")
class TestKills:
    def test_twenty_kills_leave_a_table_that_is_complete_and_equal(
        self, tiny: NetSpec, device: Steady, killer: Killer, tmp_path: Path
    ) -> None:
        fill_table(tiny, tmp_path / "unbroken.jsonl", place=device)
        first, killer.sent = killer.sent, 0
        doomed = set(random.Random(1).sample(range(5, first), KILLS))
        killer.doomed = lambda count: count in doomed
        fill_table(tiny, tmp_path / "killed.jsonl", place=device)
        assert killer.kills == KILLS
        assert killer.sent > first
        assert_complete(tiny, tmp_path / "killed.jsonl")
        unbroken = (tmp_path / "unbroken.jsonl").read_bytes()
        assert (tmp_path / "killed.jsonl").read_bytes() == unbroken

    def test_a_device_that_stays_away_is_named_and_the_table_goes_on_later(
        self, tiny: NetSpec, device: Steady, killer: Killer, tmp_path: Path
    ) -> None:
        path = tmp_path / "table.jsonl"
        fill_table(tiny, tmp_path / "unbroken.jsonl", place=device)
        half, killer.sent = killer.sent // 2, 0
        killer.doomed = lambda count: count >= half
        with pytest.raises(
            DeviceError, match=r"^ssh:here broke off, 4 times in a row; what was fi"
        ):
            fill_table(tiny, path, place=device)
        kept = path.read_bytes()
        assert 1 < kept.count(b"\n") < (tmp_path / "unbroken.jsonl").read_bytes().count(b"\n")
        killer.doomed = lambda count: False
        fill_table(tiny, path, place=device)
        assert path.read_bytes().startswith(kept)
        assert path.read_bytes() == (tmp_path / "unbroken.jsonl").read_bytes()
