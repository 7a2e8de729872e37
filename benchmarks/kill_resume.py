"""Kill a search ten times at random moments, resume it each time, compare with an unbroken one.

Both runs have the same seed and decide by the same latency table. Prints what differs; exits 1 if
the choices do, or if a finished trial was judged twice.

    python benchmarks/kill_resume.py [KILLS]
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import takewhile
from pathlib import Path

ARGUMENTS = [
    "--epochs",
    "1",
    "--steps",
    "2",
    "--repeats",
    "1",
    "--delta",
    "0.02",
]


def start(folder: Path, target: str, *, resume: bool) -> subprocess.Popen[bytes]:
    """A search in a process group of its own."""
    how = (
        ["--resume", str(folder)]
        if resume
        else ["--out", str(folder), "--target", target, *ARGUMENTS]
    )
    return subprocess.Popen(
        [sys.executable, "-m", "bneck", "search", *how],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def finish(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait for a search that must succeed."""
    if process.wait() != 0:
        sys.exit(f"the search in {folder} ended with {process.returncode}")


def choices(folder: Path) -> list[str]:
    """Digests of the accepted steps, then of the result."""
    record = json.loads((folder / "run.json").read_text())
    return [step["digest"] for step in record["steps"]] + [record["found"]["digest"]]


def trials(folder: Path) -> Counter[tuple[int, str]]:
    """How often each finished trial stands in the ledger."""
    entries = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return Counter((e["step"], e["digest"]) for e in entries if e["event"] == "trial")


def main(kills: int) -> None:
    """Run unbroken, then broken, then compare."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        whole, broken = Path(scratch) / "whole", Path(scratch) / "broken"
        begun = time.perf_counter()
        finish(whole, start(whole, "80%", resume=False))
        seconds = time.perf_counter() - begun
        # The broken run finds the device's table filled.
        work = sum(
            stage["seconds"]
            for stage in json.loads((whole / "run.json").read_text())["stages"]
            if stage["name"] != "latency table"
        )
        # Both shall aim at one latency, not each at a share of its own measurement.
        target = f"{json.loads((whole / 'run.json').read_text())['target_ms']:.6f}ms"
        moments = []
        for _ in range(kills):
            process = start(broken, target, resume=(broken / "run.json").exists())
            # Start-up, then a share of the work, small enough on average that all kills land.
            moment = rng.uniform(6, 6 + 1.2 * work / kills)
            try:
                process.wait(moment)
                break
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                moments.append(round(moment, 1))
        finish(broken, start(broken, target, resume=True))
        twice = {key: n for key, n in trials(broken).items() if n > 1}
        ours, theirs = choices(whole), choices(broken)
        same = ours == theirs
        pairs = zip(ours, theirs, strict=False)
        alike = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
        print(f"unbroken run {seconds:.0f} s; killed {len(moments)} times after {moments} s")
        print(
            f"{len(choices(whole)) - 1} steps, {sum(trials(whole).values())} trials unbroken, "
            f"{sum(trials(broken).values())} broken; judged twice: {len(twice)}; same choices: {same} "
            f"(alike for the first {alike})"
        )
        sys.exit(0 if same and not twice else 1)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
