"""What the workers of test_crew do. Each of them imports this file, so it imports little."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from bneck.specs.errors import InputError

PATIENCE = 60  # seconds until a test gives up on what should happen within one


def wait_until(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.01)


def noted(folder: Path, index: int) -> int:
    """Leave a file for every time that a piece of work is done; return the process."""
    fresh = sum(1 for _ in folder.glob(f"did-{index}-*"))
    (folder / f"did-{index}-{fresh}").touch()
    return os.getpid()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def work(folder: Path, index: int) -> int:
    return noted(folder, index)


def work_or_die_once(folder: Path, index: int, dies: int, first_done: tuple[int, ...]) -> int:
    """Work `dies` kills its worker the first time, once the others are known to be finished."""
    if index == dies and not (folder / "died").exists():
        for other in first_done:
            wait_until(folder / f"heard-{other}")
        (folder / "died").touch()
        die()
    if index not in (dies, *first_done):
        wait_until(folder / "died")
    return noted(folder, index)


def die_always(folder: Path) -> None:
    noted(folder, 0)
    die()


def refuse() -> None:
    raise InputError("the worker does not like this")


def threads() -> int:
    import torch

    return torch.get_num_threads()


def announce(folder: Path, index: int) -> None:
    """Say who works here, then work for ever."""
    (folder / f"worker-{index}.part").write_text(str(os.getpid()))
    (folder / f"worker-{index}.part").rename(folder / f"worker-{index}")
    while True:
        time.sleep(1)
