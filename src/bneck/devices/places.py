"""Places where a network can be measured. So far: this machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from bneck.devices.protocol import pinned
from bneck.records.measurement import Device
from bneck.specs.errors import InputError

PLACES = ("local",)


def describe(place: str) -> Device:
    """What the device is.

    Raises:
        InputError: no such place.
    """
    if place not in PLACES:
        raise InputError(f"there is no device {place!r}; known are {', '.join(PLACES)}")
    with pinned(1) as can_pin:
        return Device(
            place="local",
            processor=_processor(),
            cores=os.cpu_count() or 1,
            system=f"{platform.system()} {platform.machine()}",
            pinned=can_pin,
        )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
