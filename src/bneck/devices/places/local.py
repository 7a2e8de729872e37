"""This machine: networks run in this process."""

from __future__ import annotations

import os
import platform
import re
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from bneck.devices.machine import THIS
from bneck.devices.places.contract import ImageSize, Place
from bneck.devices.runtimes import RUNTIMES, Array, Runtime, runtime
from bneck.devices.timing import RunTimer, Timer, pinned
from bneck.records.measurement import Device


class Local(Place):
    """This machine."""

    name = "local"
    runtimes = tuple(RUNTIMES)

    def __init__(self) -> None:
        self._engines: dict[str, Runtime] = {}

    def describe(self) -> Device:
        with pinned(1) as can_pin:
            return Device(
                place=self.name,
                processor=processor(),
                cores=os.cpu_count() or 1,
                system=f"{platform.system()} {platform.machine()}",
                pinned=can_pin,
            )

    def version(self, runtime: str) -> str:
        return self._engine(runtime).version

    def load(self, model: bytes, *, runtime: str, threads: int, size: ImageSize) -> Timer:
        session = self._engine(runtime).load(model, threads=threads)
        channels, height, width = size
        rng = np.random.default_rng(1)
        image: Array = rng.standard_normal((1, *size), dtype=np.float32)
        if session.metadata.get("input") == "pixels":
            image = rng.integers(0, 256, (1, height, width, channels), dtype=np.uint8)
        return RunTimer(session.prepare(image), threads)

    def timing(self, *, alone: bool = False) -> AbstractContextManager[None]:
        return THIS.timing(alone=alone)

    def _engine(self, name: str) -> Runtime:
        if name not in self._engines:
            self._engines[name] = runtime(name)
        return self._engines[name]


def processor() -> str:
    """What this machine calls its processor; boards with ARM cores name themselves in the device tree."""
    found = re.search(r"^model name\s*:(.*)$", _text("/proc/cpuinfo"), re.MULTILINE)
    if found:
        return found[1].strip()
    board = _text("/proc/device-tree/model").strip("\0 \n")
    return board or platform.processor() or platform.machine()


def _text(file: str) -> str:
    path = Path(file)
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
