"""The process keeps the memory that a step frees, so that the next step need not ask for it again."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's mallopt(3)
_MOST = 32 * 2**20  # bytes, glibc's own limit


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Ask glibc to keep blocks of up to 32 MB for reuse; whether it does."""
    # Otherwise it gives every freed activation back to the system, which zeroes new pages in each step:
    # a quarter of a step's time on CPUs (docs/lab-log.md). Memory at its peak is the same.
    if not sys.platform.startswith("linux"):
        return False
    try:
        tune = ctypes.CDLL(None).mallopt
        return bool(tune(_MMAP_THRESHOLD, _MOST)) and bool(tune(_TRIM_THRESHOLD, 2**31 - 1))
    except (OSError, AttributeError):  # another C library
        return False
