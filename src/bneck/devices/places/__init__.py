"""Places where networks are measured, by name: this machine, ssh, Android over adb, a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from bneck.devices.places.contract import DeviceError as DeviceError
from bneck.devices.places.contract import Place as Place
from bneck.records.measurement import Device


# A place's module is imported when it is opened: the agent on a device has `local` alone.
def _local(name: str) -> Place:
    from bneck.devices.places.local import Local

    if name != Local.name:
        raise _unknown(name)
    return Local()


def _ssh(name: str) -> Place:
    from bneck.devices.places.ssh import Agent, ssh_command
    from bneck.devices.places.steady import Steady

    command = ssh_command(name.removeprefix("ssh:"))
    return Steady(name, Agent.runtimes, lambda: Agent(name, command))


def _adb(name: str) -> Place:
    from bneck.devices.places.adb import Adb
    from bneck.devices.places.steady import Steady

    if not (serial := name.partition(":")[2]):
        raise _unknown(name)
    return Steady(name, Adb.runtimes, lambda: Adb(serial))


def _browser(name: str) -> Place:
    from bneck.devices.places.browser import Browser, port_in
    from bneck.devices.places.steady import Steady

    port = port_in(name)
    return Steady(name, Browser.runtimes, lambda: Browser(name, port))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of place: how its names are written, and what opens the place of such a name."""

    form: str
    open: Callable[[str], Place]


KINDS = {
    "local": Kind("local", _local),
    "ssh": Kind("ssh:[USER@]HOST[:PORT]", _ssh),
    "adb": Kind("adb:SERIAL", _adb),
    "browser": Kind("browser[:PORT]", _browser),
}
"""Every kind by the first word of its names; a kind of your own is one more entry."""


def place(name: str) -> Place:
    """The place of that name; a device is not reached before it is asked something.

    Raises:
        DeviceError: no such kind of place, or the name cannot be.
    """
    kind = KINDS.get(name.partition(":")[0])
    if kind is None:
        raise _unknown(name)
    return kind.open(name)


def _unknown(name: str) -> DeviceError:
    *forms, last = (kind.form for kind in KINDS.values())
    return DeviceError(f"there is no device {name!r}; known are {', '.join(forms)} and {last}")


@contextmanager
def opened(where: str | Place) -> Iterator[Place]:
    """The place of that name, closed at the end; one that is open already stays so."""
    if isinstance(where, Place):
        yield where
    else:
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
    """A device's processor and its version of a runtime, asked once per process.

    Raises:
        DeviceError: no such device, or it has no such runtime.
    """
    with place(name) as made:
        made.check(runtime)
        return made.describe().processor, made.version(runtime)
