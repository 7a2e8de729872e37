"""How much memory there is to keep decoded images in."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

MOST = 2 << 30  # bytes that one set keeps, however much memory there is


def room(sets: int, processes: int, *, available: int | None = None) -> int:
    """Bytes that each of `sets` sets of images in each of `processes` processes may keep.

    The rule: half of the memory that is available now, in equal parts, and 2 GB at most. The other half
    is for training itself and for what else runs on the machine.
    """
    free = available_bytes() if available is None else available
    return min(MOST, free // 2 // (sets * processes))


def available_bytes(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int:
    """Memory that this process may still take: the machine's, or less where a container has a limit."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # where nothing is said
    with suppress(OSError, ValueError, KeyError):
        free = 1024 * _numbers(meminfo)["MemAvailable:"]
    with suppress(OSError, ValueError, KeyError):
        limit = int((cgroup / "memory.max").read_text("ascii"))  # "max" is no limit
        taken = int((cgroup / "memory.current").read_text("ascii"))
        # Files that were read count as taken, and are given up when memory runs short.
        free = min(free, limit - taken + _numbers(cgroup / "memory.stat")["inactive_file"])
    return max(0, free)


def _numbers(path: Path) -> dict[str, int]:
    lines = [line.split() for line in path.read_text("ascii").splitlines()]
    return {words[0]: int(words[1]) for words in lines}
