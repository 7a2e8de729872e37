"""Agents in processes of this machine: the real one, one with a made-up clock, and bad ones."""

from __future__ import annotations

import json
import sys
import zlib
from base64 import b64encode
from typing import Any

from bneck.devices.places.shipped import AGENT, sources, started_by
from bneck.devices.places.ssh import Agent

COMMAND = ["sh", "-c", "exec " + started_by(sys.executable)]

# In place of this machine: every network takes 0.1 ms and a nanosecond for every byte of its file.
MADE_UP = """
from bneck.devices.places.contract import Place
from bneck.devices.timing import Burst, Timer
from bneck.records.measurement import Device

class MadeUp(Timer):
    def __init__(self, model):
        self.ms = 0.1 + len(model) / 1e6

    def burst(self, runs, warmup):
        return Burst(runs, (self.ms,) * runs, (self.ms,) * runs)

class Local(Place):
    def describe(self):
        return Device(place="local", processor="made up", cores=1, system="none", pinned=False)

    def version(self, runtime):
        return "1.0"

    def load(self, model, *, runtime, threads, size):
        return MadeUp(model)
"""


def made_up_shipment() -> bytes:
    """What is sent instead of the real agent's modules."""
    modules = {**sources(AGENT), "bneck.devices.places.local": (False, MADE_UP)}
    return b64encode(zlib.compress(json.dumps(modules).encode())) + b"\n"


def scripted(name: str, script: str, **more: Any) -> Agent:
    """An agent that says hello and then does what a script says; `ask()` reads a request."""
    start = (
        "import json, sys, time\n"
        "def ask():\n"
        "    request = json.loads(sys.stdin.buffer.readline())\n"
        "    sys.stdin.buffer.read(request['bytes'])\n"
        "    return request\n"
        "def say(**answer):\n"
        "    print(json.dumps(answer), flush=True)\n"
        "sys.stdin.buffer.readline()\n"
    )
    return Agent(name, [sys.executable, "-S", "-c", start + script], **more)


HELLO = "say(hello='bneck agent 1')\n"
