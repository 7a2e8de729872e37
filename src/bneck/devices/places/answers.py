"""Devices that answer numbered requests: asking them, and reading what comes back."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable
from typing import Any, Protocol

from bneck.devices.places.contract import DeviceError, ImageSize, Lost, Place
from bneck.devices.timing import Burst, Timer


class AskedPlace(Place):
    """A device with a program of ours at the other end of a line.

    It knows the networks that it has loaded by the numbers of the requests that brought them.
    """

    start_s, load_s, burst_s = 60.0, 300.0, 120.0  # time limits

    def __init__(self, name: str) -> None:
        self.name = name
        self._asked = 0

    def load(self, model: bytes, *, runtime: str, threads: int, size: ImageSize) -> Timer:
        number = self._asked + 1
        how = {"timer": number, "runtime": runtime, "threads": threads, "size": size}
        self._ask(self.load_s, model, do="load", **how)
        return HeldTimer(self, number)

    def forget(self, held: int) -> None:
        """Free a loaded network there."""
        self._ask(self.start_s, do="close", timer=held)

    def burst(self, held: int, runs: int, warmup: int) -> Burst:
        """Time a loaded network there."""
        answer = self._ask(self.burst_s, do="burst", timer=held, runs=runs, warmup=warmup)
        cpu = times(answer, "cpu_ms", runs) if "cpu_ms" in answer else ()
        return Burst(runs, times(answer, "wall_ms", runs), cpu)

    @abstractmethod
    def _exchange(self, request: dict[str, Any], model: bytes, limit_s: float) -> object:
        """Send a request, and wait for the next answer."""

    def _ask(self, limit_s: float, model: bytes = b"", **request: Any) -> dict[str, Any]:
        self._asked += 1
        request = {"id": self._asked, **request}
        return self._checked(request, self._exchange(request, model, limit_s))

    def _checked(self, request: dict[str, Any], answer: object) -> dict[str, Any]:
        if not isinstance(answer, dict) or answer.get("id") != request["id"]:
            raise rubbish(answer)
        if "missing" in answer:
            raise DeviceError(
                f"{self.name} lacks the runtime {request['runtime']}; install it there with: "
                f"pip install {answer['missing']}, or set BNECK_REMOTE_PYTHON to a Python there that has it"
            )
        if "refused" in answer:
            raise DeviceError(f"{self.name}: {answer['refused']}")
        return answer


class Holds(Protocol):
    """A place that has loaded networks and times them, each under a key."""

    def burst(self, held: Any, runs: int, warmup: int) -> Burst: ...
    def forget(self, held: Any) -> None: ...


class HeldTimer(Timer):
    """Times a network that a place holds under a key."""

    def __init__(self, place: Holds, held: Hashable) -> None:
        self._place, self._held = place, held

    def burst(self, runs: int, warmup: int) -> Burst:
        return self._place.burst(self._held, runs, warmup)

    def close(self) -> None:
        self._place.forget(self._held)


def rubbish(answer: object) -> Lost:
    """An answer that means nothing."""
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)
    return Lost(f"returned invalid data ({text[:60]!r})")


def times(answer: dict[str, Any], key: str, count: int) -> tuple[float, ...]:
    """`count` finite times of an answer, in milliseconds.

    Raises:
        Lost: it has not.
    """
    found = answer.get(key)
    if (
        not isinstance(found, list)
        or len(found) != count
        or not all(isinstance(ms, int | float) and 0 <= ms < math.inf for ms in found)
    ):
        raise rubbish(answer)
    return tuple(map(float, found))


def last_line(said: bytes) -> str:
    """What a program said last, as the end of a sentence: ": why", or nothing."""
    lines = said[-2000:].decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1].strip().rstrip('.')}" if lines else ""
