"""Which code wrote a record."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit of the working tree that this code lies in, or the installed version."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "log", "-1", "--format=%h", "--", "."],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        if answer.stdout.strip():
            return answer.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    try:
        return metadata.version("bneck")
    except metadata.PackageNotFoundError:
        return "unknown"
