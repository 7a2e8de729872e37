"""Machines over ssh: one long-lived agent there (`places.agent`), started through the system's client."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from bneck.devices.places import agent
from bneck.devices.places.answers import AskedPlace, rubbish
from bneck.devices.places.channel import Channel
from bneck.devices.places.contract import DeviceError, Lost
from bneck.devices.places.shipped import shipment, started_by
from bneck.devices.runtimes import RUNTIMES
from bneck.records.measurement import Device

CHATTER = 200  # lines that a login may print before the agent speaks
ADDRESS = re.compile(r"(?:([\w.][\w.-]*)@)?([\w.][\w.-]*|\[[0-9a-fA-F:.]+\])(?::(\d{1,5}))?")


def ssh_command(address: str) -> list[str]:
    """The command that starts the agent at [USER@]HOST[:PORT].

    The user's ssh configuration and keys are used; nothing is ever asked. BNECK_SSH is the client,
    with options if need be, BNECK_REMOTE_PYTHON the interpreter there.

    Raises:
        DeviceError: no such address.
    """
    match = ADDRESS.fullmatch(address)
    if match is None or int(match[3] or 1) not in range(1, 65536):
        raise DeviceError(
            f"there is no device 'ssh:{address}'; write it as ssh:HOST, ssh:USER@HOST or ssh:USER@HOST:PORT"
        )
    user, host, port = match.groups()
    python = os.environ.get("BNECK_REMOTE_PYTHON", "python3")
    return [
        *shlex.split(os.environ.get("BNECK_SSH", "ssh")),
        *("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
        *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
        *(("-p", port) if port else ()),
        *(("-l", user) if user else ()),
        "--",
        host.strip("[]"),
        "exec " + started_by(shlex.quote(python)),
    ]


class Agent(AskedPlace):
    """A machine that runs an agent which we reach over a pipe; any failure of the pipe is a `Lost`.

    Args:
        name: of the device.
        command: starts an interpreter that runs `shipped.started_by` with its ends in our hands.
        shipped: what it waits for; None takes `shipment`.
        burst_s: time limit of a burst, in seconds; None takes the usual one.

    Raises:
        Lost: it does not start.
        DeviceError: the program is not there, or the other end lacks something.
    """

    runtimes = tuple(RUNTIMES)

    def __init__(
        self, name: str, command: Sequence[str], *, shipped: bytes | None = None, burst_s: float | None = None
    ) -> None:  # fmt: skip
        super().__init__(name)
        self.burst_s = burst_s or self.burst_s
        self._channel = Channel(command)
        try:
            try:
                self._send(shipped or shipment(), self.start_s)
            except Lost:
                # One that refuses ends before it has taken everything, and has said why.
                with suppress(Lost):
                    self._wait_for_hello()
                raise
            self._wait_for_hello()
        except BaseException:
            self.close()
            raise

    def describe(self) -> Device:
        answer = self._ask(self.start_s, do="describe")
        try:
            return Device(**{**answer["device"], "place": self.name})
        except (LookupError, TypeError):
            raise rubbish(answer) from None

    def version(self, runtime: str) -> str:
        answer = self._ask(self.load_s, do="version", runtime=runtime)
        if not isinstance(version := answer.get("version"), str):
            raise rubbish(answer)
        return version

    def close(self) -> None:
        self._channel.close()

    def _exchange(self, request: dict[str, Any], model: bytes, limit_s: float) -> object:
        line = json.dumps({"bytes": len(model), **request}).encode() + b"\n"
        self._send(line + model, limit_s)
        return self._channel.answer(limit_s)

    def _send(self, data: bytes, limit_s: float) -> None:
        self._channel.send(data, limit_s)

    def _wait_for_hello(self) -> None:
        for _ in range(CHATTER):
            line = self._channel.line(self.start_s)
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if isinstance(said, dict) and "refused" in said:
                raise DeviceError(f"{self.name} cannot be used: {said['refused']}")
            if isinstance(said, dict) and said.get("hello") == agent.HELLO:
                return
        raise Lost("prints no end of text and no agent answers")
