"""Beginning a run and resuming one: its folder, its lock, its first files."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bneck.devices.places.contract import DeviceError
from bneck.devices.protocol import TimingError
from bneck.records.commit import commit
from bneck.records.files import locked, write_json, write_text
from bneck.records.run import FORMAT, RunFolder
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import to_text

Record = dict[str, Any]
Carry = Callable[[RunFolder, Record], Record]

# What a run that was killed before its record was written may leave.
_BEGUN = (".lock", "scratch")
# What the command of each kind resumes.
_RESUMED = {"train": "a training", "search": "a search", "choose": "a choice"}


@contextmanager
def new_folder(path: Path, learned: Callable[[], bool]) -> Iterator[None]:
    """Keep a new or empty folder for a run; one that is refused before it `learned` anything is removed.

    Raises:
        InputError: the folder holds something else, cannot be made, or another process works on it.
    """
    check_empty(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the run's folder {path} cannot be made: {error.strerror}; choose another --out"
        ) from None
    with locked(path / ".lock"), resumable(path):
        try:
            yield
        except InputError:
            if not learned():
                shutil.rmtree(path)
            raise


@contextmanager
def resumable(path: Path) -> Iterator[None]:
    """Note which command resumes the run, once there is one, if it was stopped or could not measure."""
    try:
        yield
    except (KeyboardInterrupt, TimingError, DeviceError) as stop:
        if how := resumption(path):
            # A choice's trainings and searches are runs too: the outermost one is resumed.
            stop.__notes__ = [how]
        raise


def resumption(path: Path) -> str | None:
    """The command that resumes the run in a folder, in words; None where there is none to resume."""
    kind = RunFolder(path).kind()
    if kind not in _RESUMED:
        return None
    return f"resume it with: bneck {kind} --resume {shlex.quote(str(path))}"


def begin(folder: RunFolder, spec: NetSpec, record: Record, carry: Carry) -> Record:
    """Begin a training in a new or empty folder and let `carry` take it to its end.

    Raises:
        InputError: see `new_folder`.
    """

    def learned() -> bool:
        return folder.weights.is_file() or any(folder.scratch.glob("checkpoint*"))

    with new_folder(folder.path, learned):
        write_text(_first_spec(folder), to_text(spec))
        write_json(folder.run_json, record)
        return _carried(folder, record, carry)


def resumed(folder: RunFolder, carry: Carry, *, writes: bool = True) -> Record:
    """Let `carry` take a training that was interrupted to its end.

    `writes` is false for the processes of a group that write nothing and need no lock.

    Raises:
        InputError: not a training, or one that another process works on.
    """
    record = record_of(folder, "train")
    with locked(folder.path / ".lock") if writes else nullcontext(), resumable(folder.path):
        return _carried(folder, record, carry)


def record_of(folder: RunFolder, kind: str) -> Record:
    """The record of a run of one kind, "train", "search" or "choose".

    Raises:
        InputError: no run, or one of another kind.
    """
    record = folder.read()
    found = record.get("kind", "search")
    if found == kind:
        return record
    how = (
        f"resume {_RESUMED[found]} with bneck {found} --resume"
        if found in _RESUMED
        else "it has nothing to resume"
    )
    raise InputError(f"{folder.path} is a run of kind {found!r}, not {_RESUMED[kind]}; {how}")


def new_record(kind: str, command: str) -> Record:
    """What the record of every run begins with; `command` is that of Python."""
    by_shell = Path(sys.argv[0]).name in ("bneck", "__main__.py")
    return {
        "format": FORMAT,
        "kind": kind,
        "state": "running",
        "version": metadata.version("bneck"),
        "commit": commit(),
        "command": shlex.join(["bneck", *sys.argv[1:]]) if by_shell else command,
        "started": now(),
    }


def finish(folder: RunFolder, record: Record) -> None:
    """Write the record of a run that is done."""
    record["state"], record["finished"] = "finished", now()
    write_json(folder.run_json, record)


def check_empty(path: Path, begun: Collection[str] = _BEGUN) -> None:
    """Raise InputError for a folder that holds anything but a run's first traces, `begun`."""
    if begun and RunFolder(path).run_json.exists():
        raise InputError(
            f"{path} holds a run already; go on with --resume {path} or choose another --out"
        )
    if path.exists() and (not path.is_dir() or any(p.name not in begun for p in path.iterdir())):
        raise InputError(f"{path} exists and is not an empty folder; choose another --out")


def check_file(path: Path, suffix: str, *, replaces: bool = True, option: str = "--out") -> None:
    """Raise InputError for an output that is not named as its kind is, and so may be anybody's file.

    `replaces` is false for a kind of file that is nobody's to write over.
    """
    if path.is_dir() or path.suffix.lower() != suffix:
        raise InputError(f"{option} is {path}; name a file that ends in {suffix}")
    if path.exists() and not replaces:
        raise InputError(f"{path} is there already; choose another {option}")


def fresh_folder(task: str) -> Path:
    """Where a run goes that was given no folder."""
    return Path("runs") / f"{task}-{datetime.now():%Y%m%d-%H%M%S}"


def now() -> str:
    """The time, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _first_spec(folder: RunFolder) -> Path:
    # Not its place yet: a folder with a spec.yaml and no record could be anybody's.
    return folder.scratch / "spec.yaml"


def _carried(folder: RunFolder, record: Record, carry: Carry) -> Record:
    if _first_spec(folder).is_file():
        os.replace(_first_spec(folder), folder.spec)
    return carry(folder, record)
