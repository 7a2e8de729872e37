"""Files that are whole or not there: written under another name, then renamed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bneck.specs.errors import InputError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place at one stroke.

    Raises:
        InputError: the disk is full or not writable; nothing half-written is left behind.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}; free some space or choose "
            "another folder, then run the same command again"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    # The name of an image file need not be UTF-8: it is written as Python shows it, with \udc..
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a binary file, whole or not at all."""
    write_whole(path, lambda partial: partial.write_bytes(data))


def write_json(path: Path, value: Any) -> None:
    """Write a json file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def cache_folder(part: str) -> Path:
    """A folder of the user's cache, `$XDG_CACHE_HOME/bneck/PART`; it need not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bneck" / part


@contextmanager
def locked(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Keep other processes out while this one works; a killed process lets go.

    With `on_wait`, which is called then, this waits for a process that holds the lock already.

    Raises:
        InputError: another process holds the lock, or there is no place for it.
    """
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if on_wait is None:
                raise InputError(
                    f"another process works on {path.parent}; wait for it or choose another folder"
                ) from None
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock; nothing is made where there is none."""
    try:
        with path.open() as file:
            # Shared, and let go of at once: a process that asks for the lock meanwhile would be refused.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _opened(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}; choose another folder"
        ) from None
