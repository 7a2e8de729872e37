"""Memory that a model file takes in its runtime, told by a fresh process that loads it and runs it once.

python -m bneck.devices.memory RUNTIME FILE CHANNELS HEIGHT WIDTH
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from bneck.devices.runtimes import runtime

LIMIT_S = 300
STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory_mb(path: Path, runtime_name: str, size: tuple[int, int, int]) -> float | None:
    """How far loading a file and running it once raises a process's peak memory, in megabytes (10^6 bytes).

    The runtime itself is loaded before. `size` is (channels, height, width) of its image. None where the
    system does not tell (only Linux does).
    """
    if not PEAK_RESET.exists():
        return None
    command = [sys.executable, "-m", __name__, runtime_name, str(path), *map(str, size)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        return float(done.stdout.split()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return None


def _held(what: str) -> float:
    line = next(one for one in STATUS.read_text().splitlines() if one.startswith(f"{what}:"))
    return int(line.split()[1]) * 1024 / 1e6


def main() -> None:
    """Print the megabytes."""
    name, file, *size = sys.argv[1:]
    engine = runtime(name)
    model = engine.read(Path(file))
    PEAK_RESET.write_text("5")
    before = _held("VmRSS")
    session = engine.load(model, threads=1)
    session.run_all(np.zeros((1, *map(int, size)), np.float32))
    print(_held("VmHWM") - before)


if __name__ == "__main__":
    main()
