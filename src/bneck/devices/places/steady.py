"""A place that may disconnect, made steady: reached again, its networks loaded again, bursts repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from bneck.devices.places.contract import DeviceError, Lost, Place
from bneck.devices.timing import Burst, Timer
from bneck.records.measurement import Device

T = TypeVar("T")

PAUSES_S = (0.5, 2.0, 8.0)  # before another try; a phone takes seconds to come back


class Steady(Place):
    """Hands everything to a place that `connect` makes, and makes it again when it is lost.

    A device that was never reached is an error at once; one that was, after as many further tries
    in a row as there are `pauses_s`, in seconds (None: `PAUSES_S`), each spent in `wait`.
    """

    def __init__(
        self,
        name: str,
        runtimes: tuple[str, ...],
        connect: Callable[[], Place],
        *,
        pauses_s: Sequence[float] | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name, self.runtimes = name, runtimes
        self._connect, self._wait = connect, wait
        self._pauses_s = PAUSES_S if pauses_s is None else pauses_s
        self._place: Place | None = None
        self._met = False

    def describe(self) -> Device:
        return self.reach(lambda place: place.describe())

    def version(self, runtime: str) -> str:
        return self.reach(lambda place: place.version(runtime))

    def load(self, model: bytes, **how: Any) -> Timer:
        timer = SteadyTimer(self, lambda place: place.load(model, **how))
        self.reach(timer.on)
        return timer

    def profile(self, model: bytes, **how: Any) -> str:
        return self.reach(lambda place: place.profile(model, **how))

    def wait(self, seconds: float) -> None:
        self._wait(seconds)

    def close(self) -> None:
        if self._place is not None:
            self._place.close()
            self._place = None

    def reach(self, do: Callable[[Place], T]) -> T:
        """Do something on the device, again on a new connection if it disconnects.

        Raises:
            DeviceError: it did so every time.
        """
        for pause in (*self._pauses_s, None):
            try:
                if self._place is None:
                    self._place = self._connect()
                    self._met = True
                return do(self._place)
            except Lost as lost:
                self.close()
                if not self._met:
                    raise DeviceError(f"{self.name} cannot be used: it {lost}") from None
                if pause is None:
                    raise DeviceError(
                        f"{self.name} {lost}, {len(self._pauses_s) + 1} times in a row; what was finished is "
                        "kept, so see to the device and run the same command again"
                    ) from None
                self._wait(pause)
        raise AssertionError

    def uses(self, place: Place) -> bool:
        """Whether this is the connection in use."""
        return self._place is place


class SteadyTimer(Timer):
    """Times a network on a steady place; loads it again on every new connection."""

    def __init__(self, steady: Steady, load: Callable[[Place], Timer]) -> None:
        self._steady, self._load = steady, load
        self._loaded: tuple[Place, Timer] | None = None

    def on(self, place: Place) -> Timer:
        """The network as that connection knows it."""
        if self._loaded is None or self._loaded[0] is not place:
            self._loaded = (place, self._load(place))
        return self._loaded[1]

    def burst(self, runs: int, warmup: int) -> Burst:
        return self._steady.reach(lambda place: self.on(place).burst(runs, warmup))

    def close(self) -> None:
        if self._loaded is not None and self._steady.uses(self._loaded[0]):
            with suppress(Lost):
                self._loaded[1].close()
        self._loaded = None
