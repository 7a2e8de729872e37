"""The contract of every place: say what it is, load a network, time bursts of it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Self, TypeAlias

from bneck.devices.timing import Timer
from bneck.records.measurement import Device
from bneck.specs.errors import InputError

ImageSize: TypeAlias = tuple[int, int, int]
"""Channels, height and width of the image that a network is timed on."""


class DeviceError(InputError):
    """A device that cannot be used, or no longer can; the sentence names it."""


class Lost(Exception):
    """A device disconnected, did not answer in time or returned invalid data; another try may help.

    The text follows the device's name in a sentence.
    """


class Place(ABC):
    """Where networks are measured. `name` is as a person writes it.

    `runtimes` are those that it can have, the usual one first.
    """

    name: str
    runtimes: tuple[str, ...]

    @abstractmethod
    def describe(self) -> Device:
        """What the device is."""

    @abstractmethod
    def version(self, runtime: str) -> str:
        """Of a runtime there.

        Raises:
            DeviceError: it is not installed there.
        """

    @abstractmethod
    def load(self, model: bytes, *, runtime: str, threads: int, size: ImageSize) -> Timer:
        """Load a model file's bytes; the timer runs it on one fixed image of that size.

        Raises:
            InputError: the runtime is not there, or cannot load the file.
        """

    def profile(self, model: bytes, *, runtime: str, threads: int, size: ImageSize) -> str:
        """Times of a network's single operators, as the device's own tool prints them.

        Raises:
            DeviceError: this kind of place has no such tool.
        """
        raise DeviceError(f"{self.name} tells no times of single operators; only adb devices do")

    def wait(self, seconds: float) -> None:
        """Let time pass on the device, for what disturbs it to end."""
        time.sleep(seconds)

    def timing(self, *, alone: bool = False) -> AbstractContextManager[None]:
        """Announce that networks are timed here, for what else works here to give way; `alone`: all of it."""
        return nullcontext()

    def close(self) -> None:
        """End what runs for this place."""
        return

    def check(self, runtime: str) -> None:
        """Refuse a runtime that this kind of place never has.

        Raises:
            DeviceError: it is one.
        """
        if runtime not in self.runtimes:
            raise DeviceError(
                f"{self.name} does not run {runtime}; it runs {', '.join(self.runtimes)}, name one with "
                "--runtime"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
