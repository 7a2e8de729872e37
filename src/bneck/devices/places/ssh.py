"""Machines over ssh: one long-lived agent there (`places.agent`), started through the system's client."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

from bneck.devices.places import agent
from bneck.devices.places.answers import rubbish, times
from bneck.devices.places.channel import Channel
from bneck.devices.places.contract import DeviceError, ImageSize, Lost, Place
from bneck.devices.places.shipped import shipment, started_by
from bneck.devices.runtimes import RUNTIMES
from bneck.devices.timing import Burst, Timer
from bneck.records.measurement import Device

START_S, LOAD_S, BURST_S = 60.0, 300.0, 120.0  # time limits
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


class Agent(Place):
    """What an agent behind a pipe says and measures; any failure of the pipe is a `Lost`.

    Args:
        name: of the device.
        command: starts an interpreter that runs `shipped.started_by` with its ends in our hands.
        shipped: what it waits for; None takes `shipment`.
        burst_s: time limit of a burst, in seconds.

    Raises:
        Lost: it does not start.
        DeviceError: the program is not there, or the other end lacks something.
    """

    runtimes = tuple(RUNTIMES)

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        shipped: bytes | None = None,
        burst_s: float = BURST_S,
    ) -> None:
        self.name = name
        self._burst_s = burst_s
        self._asked = 0
        self._channel = Channel(command)
        try:
            self._send(shipped or shipment(), START_S)
            self._wait_for_hello()
        except BaseException:
            self.close()
            raise

    def describe(self) -> Device:
        """What the machine there calls itself."""
        answer = self._ask(START_S, do="describe")
        try:
            return Device(**{**answer["device"], "place": self.name})
        except (LookupError, TypeError):
            raise rubbish(answer) from None

    def version(self, runtime: str) -> str:
        """Of a runtime there."""
        answer = self._ask(LOAD_S, do="version", runtime=runtime)
        if not isinstance(version := answer.get("version"), str):
            raise rubbish(answer)
        return version

    def load(self, model: bytes, *, runtime: str, threads: int, size: ImageSize) -> Timer:
        """Send a model file's bytes."""
        number = self._asked + 1
        self._ask(
            LOAD_S, model, do="load", timer=number, runtime=runtime, threads=threads, size=size
        )
        return AgentTimer(self, number)

    def burst(self, timer: int, runs: int, warmup: int) -> Burst:
        """Time a loaded network there."""
        answer = self._ask(self._burst_s, do="burst", timer=timer, runs=runs, warmup=warmup)
        return Burst(runs, times(answer, "wall_ms", runs), times(answer, "cpu_ms", runs))

    def forget(self, timer: int) -> None:
        """Free a loaded network there."""
        self._ask(START_S, do="close", timer=timer)

    def close(self) -> None:
        """End the agent."""
        self._channel.close()

    def _ask(self, limit_s: float, model: bytes = b"", **request: Any) -> dict[str, Any]:
        self._asked += 1
        line = json.dumps({"id": self._asked, "bytes": len(model), **request}).encode() + b"\n"
        self._send(line + model, limit_s)
        answer = self._channel.answer(limit_s)
        if answer.get("id") != self._asked:
            raise rubbish(answer)
        if "missing" in answer:
            raise DeviceError(
                f"{self.name} lacks the runtime {request['runtime']}; install it there with: "
                f"pip install {answer['missing']}"
            )
        if "refused" in answer:
            raise DeviceError(f"{self.name}: {answer['refused']}")
        return answer

    def _send(self, data: bytes, limit_s: float) -> None:
        self._channel.send(data, limit_s)

    def _wait_for_hello(self) -> None:
        for _ in range(CHATTER):
            line = self._channel.line(START_S)
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if isinstance(said, dict) and "refused" in said:
                raise DeviceError(f"{self.name} cannot be used: {said['refused']}")
            if isinstance(said, dict) and said.get("hello") == agent.HELLO:
                return
        raise Lost("prints no end of text and no agent answers")


class AgentTimer(Timer):
    """A network that an agent has loaded."""

    def __init__(self, place: Agent, number: int) -> None:
        self._agent = place
        self._number = number

    def burst(self, runs: int, warmup: int) -> Burst:
        """Run it `warmup` times, then time it `runs` times, there."""
        return self._agent.burst(self._number, runs, warmup)

    def close(self) -> None:
        """Free it there."""
        self._agent.forget(self._number)
