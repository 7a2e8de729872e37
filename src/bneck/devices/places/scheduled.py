"""What Linux's scheduler tells of other processes: how long they ran, and waited for a core."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

Times: TypeAlias = Mapping[int, tuple[int, int]]
"""Nanoseconds that the main threads of processes ran, and that they were kept waiting."""

PROC = Path("/proc")


def processes_of(session: int, mark: str) -> list[int]:
    """The processes of a session whose command line has that word; none where there is no /proc."""
    found = []
    for entry in PROC.glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(entry.name)) == session:
                # Processes that rename themselves put spaces between the words.
                words = (entry / "cmdline").read_bytes().replace(b" ", b"\0").split(b"\0")
                if mark.encode() in words:
                    found.append(int(entry.name))
    return found


def times_of(processes: Iterable[int]) -> Times:
    """As the scheduler has them now; those that have ended are left out."""
    found = {}
    for process in processes:
        with suppress(OSError, ValueError):
            text = (PROC / f"{process}/task/{process}/schedstat").read_text(encoding="ascii")
            ran, waited = (int(word) for word in text.split()[:2])
            found[process] = (ran, waited)
    return found


def running_share(before: Times, after: Times) -> float | None:
    """The share of its time in which the busiest of the threads had a core; None: nothing is known."""
    changes = [
        (after[process][0] - ran, after[process][1] - waited)
        for process, (ran, waited) in before.items()
        if process in after
    ]
    ran, waited = max(changes, default=(0, 0))
    return ran / (ran + waited) if ran > 0 else None
