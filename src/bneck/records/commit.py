"""Which code wrote a record."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path


@lru_cache(maxsize=1)
def commit() -> str:
    """The last commit that changed the package in its working tree, or the installed version."""
    package = Path(__file__).parents[1]
    try:
        answer = subprocess.run(
            ["git", "-C", str(package), "log", "-1", "--format=%h", "--", "."],
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
