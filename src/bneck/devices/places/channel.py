"""Processes that stand for a device, and a line to one: json lines both ways, each within a time limit."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from bneck.devices.places.answers import last_line, rubbish
from bneck.devices.places.contract import DeviceError, Lost

CHUNK = 1 << 16
LONGEST = 1 << 24  # bytes of an answer; invalid data may have no line breaks


class Child:
    """A process of ours that speaks to us over `stdout`, if at all, and ends with us.

    Raises:
        DeviceError: there is no such program.
    """

    def __init__(self, command: Sequence[str], stdout: int = subprocess.DEVNULL) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            # A session of its own: Ctrl-C is for this process, which then ends the other one.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=stdout, stderr=self._errors, bufsize=0,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._errors.close()
            raise DeviceError(
                f"the program {command[0]} cannot be started: {error.strerror}; install it"
            ) from None

    @property
    def pid(self) -> int:
        """Of the process and of its group."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def disconnected(self) -> Lost:
        """Why it ended: what the process said last."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._errors.seek(0)
        return Lost("disconnected" + last_line(self._errors.read()))

    def close(self) -> None:
        """End the process and all that it started."""
        if not self.ended:
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


class Channel(Child):
    """A child process that is spoken to over its stdin and stdout.

    Raises:
        DeviceError: there is no such program.
    """

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__(command, subprocess.PIPE)
        self._rest = b""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)

    def send(self, data: bytes, limit_s: float) -> None:
        """Write bytes.

        Raises:
            Lost: the process did not take them within `limit_s` seconds.
        """
        view, end = memoryview(data), time.monotonic() + limit_s
        while view:
            if not select.select([], [self._in], [], max(0.0, end - time.monotonic()))[1]:
                raise Lost(f"took nothing for {limit_s:.0f} s")
            try:
                view = view[os.write(self._in, view[:CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError:
                raise self.disconnected() from None

    def line(self, limit_s: float) -> bytes:
        """The next line, without its end.

        Raises:
            Lost: none came within `limit_s` seconds, or the process has ended.
        """
        end = time.monotonic() + limit_s
        while b"\n" not in self._rest:
            if not select.select([self._out], [], [], max(0.0, end - time.monotonic()))[0]:
                raise Lost(f"did not answer within {limit_s:.0f} s")
            data = os.read(self._out, CHUNK)
            if not data:
                raise self.disconnected()
            self._rest += data
            if len(self._rest) > LONGEST:
                raise Lost("answered without end")
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def answer(self, limit_s: float) -> Any:
        """The next line as json.

        Raises:
            Lost: it is not json, or none came in time.
        """
        line = self.line(limit_s)
        try:
            return json.loads(line)
        except ValueError:
            raise rubbish(line) from None
