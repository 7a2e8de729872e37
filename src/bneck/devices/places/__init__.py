"""Places where networks are measured, by name: this machine, ssh, Android over adb, a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from bneck.devices.places.contract import DeviceError as DeviceError
from bneck.devices.places.contract import Place as Place
from bneck.records.measurement import Device

KNOWN = "local, ssh:[USER@]HOST[:PORT], adb:SERIAL and browser[:PORT]"


def place(name: str) -> Place:
    """The place of that name; a device is not reached before it is asked something.

    Raises:
        DeviceError: no such kind of place, or the name cannot be.
    """
    # Imported by need: the agent on a device has `local` alone.
    from bneck.devices.places.steady import Steady

    kind, _, address = name.partition(":")
    match kind:
        case "local" if name == "local":
            from bneck.devices.places.local import Local

            return Local()
        case "ssh":
            from bneck.devices.places.ssh import Agent, ssh_command

            command = ssh_command(address)
            return Steady(name, Agent.runtimes, lambda: Agent(name, command))
        case "adb" if address:
            from bneck.devices.places.adb import Adb

            return Steady(name, Adb.runtimes, lambda: Adb(address))
        case "browser":
            from bneck.devices.places.browser import Browser, port_in

            port = port_in(name)
            return Steady(name, Browser.runtimes, lambda: Browser(name, port))
    raise DeviceError(f"there is no device {name!r}; known are {KNOWN}")


@contextmanager
def opened(where: str | Place) -> Iterator[Place]:
    """The place of that name, left at the end; one that is open already stays so."""
    if isinstance(where, Place):
        yield where
        return
    with place(where) as made:
        yield made


def describe(name: str) -> Device:
    """What the device of that name is.

    Raises:
        DeviceError: no such device.
    """
    with place(name) as made:
        return made.describe()


def usual_runtime(name: str) -> str:
    """The runtime of a place where none is asked for."""
    return place(name).runtimes[0]


@lru_cache
def identity(name: str, runtime: str) -> tuple[str, str]:
    """A device's processor and its version of a runtime: what a latency table speaks of.

    Asked once a process.

    Raises:
        DeviceError: no such device, or it has no such runtime.
    """
    with place(name) as made:
        made.check(runtime)
        return made.describe().processor, made.version(runtime)
