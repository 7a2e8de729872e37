"""A line to a process: json lines both ways, each within a time limit."""

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
LONGEST = 1 << 24  # bytes of an answer; rubbish may have no line breaks


class Channel:
    """A child process that is spoken to over its stdin and stdout.

    Raises:
        DeviceError: there is no such program.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._rest = b""
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for this process; it ends the other one
            )
        except OSError as error:
            self._errors.close()
            raise DeviceError(
                f"the program {command[0]} cannot be started: {error.strerror}; install it"
            ) from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def send(self, data: bytes, limit_s: float) -> None:
        """Write bytes.

        Raises:
            Lost: they were not taken within `limit_s` seconds.
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
                raise self._broken_off() from None

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
                raise self._broken_off()
            self._rest += data
            if len(self._rest) > LONGEST:
                raise Lost("answered without end")
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def answer(self, limit_s: float) -> dict[str, Any]:
        """The next line as json.

        Raises:
            Lost: it is none, or none came in time.
        """
        line = self.line(limit_s)
        with suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
        raise rubbish(line)

    def close(self) -> None:
        """End the process and all that it started."""
        if self._process.poll() is None:
            with suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _broken_off(self) -> Lost:
        """Why: what the process said last."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._errors.seek(0)
        return Lost("broke off" + last_line(self._errors.read()))
