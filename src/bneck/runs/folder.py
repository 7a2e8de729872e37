"""Beginning a training and going on with one: its folder, its lock, its first files."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

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


def begin(folder: RunFolder, spec: NetSpec, record: Record, carry: Carry) -> Record:
    """Begin a run in a new or empty folder and let `carry` take it to its end.

    A run that is refused before anything was learnt leaves no folder.

    Raises:
        InputError: the folder holds something else, or another process works on it.
    """
    check_empty(folder.path)
    with locked(folder.path / ".lock"):
        write_text(_first_spec(folder), to_text(spec))
        write_json(folder.run_json, record)
        try:
            return _carried(folder, record, carry)
        except InputError:
            if not folder.weights.is_file() and not any(folder.scratch.glob("checkpoint*")):
                shutil.rmtree(folder.path)
            raise


def go_on(folder: RunFolder, kind: str, carry: Carry, *, writes: bool = True) -> Record:
    """Let `carry` take a run that was broken off to its end.

    `writes` is false for the processes of a team that write nothing and need no lock.

    Raises:
        InputError: no run of this kind, or one that another process works on.
    """
    record = folder.read()
    if record.get("kind") != kind:
        raise InputError(
            f"{folder.path} is a run of kind {record.get('kind')!r}, not {kind!r}; give the folder of "
            "such a training"
        )
    with locked(folder.path / ".lock") if writes else nullcontext():
        return _carried(folder, record, carry)


def new_record(kind: str, command: str) -> Record:
    """What the record of every training begins with; `command` is that of Python."""
    return {
        "format": FORMAT,
        "kind": kind,
        "state": "running",
        "version": metadata.version("bneck"),
        "commit": commit(),
        "command": command_line(command),
        "started": now(),
    }


def finish(folder: RunFolder, record: Record) -> None:
    """Write the record of a run that is done."""
    record["state"], record["finished"] = "finished", now()
    write_json(folder.run_json, record)


def check_empty(path: Path) -> None:
    """Raise InputError for a folder that holds something else than a run's first traces."""
    if RunFolder(path).run_json.exists():
        raise InputError(
            f"{path} holds a run already; go on with --resume {path} or choose another --out"
        )
    if path.exists() and (not path.is_dir() or any(p.name not in _BEGUN for p in path.iterdir())):
        raise InputError(f"{path} exists and is not an empty folder; choose another --out")


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


def command_line(function: str) -> str:
    """The shell's command, or `function` where Python called."""
    by_shell = Path(sys.argv[0]).name in ("bneck", "__main__.py")
    return shlex.join(["bneck", *sys.argv[1:]]) if by_shell else function
