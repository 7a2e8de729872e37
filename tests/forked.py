"""Processes of their own without a start of their own: forked from one that has imported torch.

A fresh interpreter takes two seconds of processor time until it can train, which is more than most tests
need. What a test says about the start itself needs `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Nothing that reads its settings when it is imported, as huggingface_hub does.
PRELOADED = [
    "pytest",
    "torch",
    "bneck.cli.main",
    "bneck.runs.search.main",
    "bneck.runs.search.jobs",
]


class Forked:
    """A process that runs `program`, the leader of a process group, with its output in files.

    Args:
        program: a function of a module.
        folder: where it runs.
        environment: the whole of its environment; None takes this process's.
    """

    def __init__(
        self, program: Callable[..., object], *arguments: Any, folder: Path,
        environment: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._output = Path(tempfile.mkdtemp())
        given = (program, arguments, folder, dict(environment or os.environ), self._output)
        self._process = context.Process(target=_run, args=given)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal's number; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> tuple[int, str, str]:
        """Its exit code, and what it printed to stdout and stderr.

        Raises:
            TimeoutError: it runs on after `timeout` seconds.
        """
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise TimeoutError(self.pid)
        out, err = (
            path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            for path in (self._output / "out", self._output / "err")
        )
        shutil.rmtree(self._output, ignore_errors=True)
        return code, out, err


def _run(
    program: Callable[..., object], arguments: tuple[Any, ...], folder: Path,
    environment: dict[str, str], output: Path,
) -> None:  # fmt: skip
    os.setsid()
    # A shell's background job, as tests may be, ignores Ctrl-C, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "out"), (2, "err")):
        with (output / name).open("wb") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    program(*arguments)


def bneck(*words: str) -> None:
    """The command line."""
    from bneck.cli.main import run

    sys.argv = ["bneck", *words]
    run()
