"""The ledger of a run: finished trials, one json line each, appended and never changed.

A line is on the disk before the trial counts as finished, so a run can be killed at any instant.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bneck.specs.errors import InputError


class Ledger:
    """Append-only json lines in one file. A last line torn by a kill is left out.

    Reading changes nothing, so a report may look on while a run writes; the first append cuts a
    torn line off.

    Raises:
        InputError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        self._torn_at: int | None = None
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror or error}") from None
        end = data.rfind(b"\n") + 1
        self._torn_at = end if end < len(data) else None
        for line in data[:end].splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # rubbish, from a failing disk or an editor
            if isinstance(entry, dict):
                self.entries.append(entry)

    def append(self, *entries: dict[str, Any]) -> None:
        """Write entries through to the disk, all in one stroke."""
        lines = "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in entries)
        try:
            with self.path.open("ab") as file:
                if self._torn_at is not None:
                    file.truncate(self._torn_at)
                self._torn_at = file.seek(0, os.SEEK_END)  # until all of it is there
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written: {error.strerror or error}; what was finished before "
                "is kept, free some space and resume"
            ) from None
        self._torn_at = None
        self.entries.extend(entries)

    def find(self, **keys: Any) -> dict[str, Any] | None:
        """The first entry whose fields equal `keys`, or None."""
        return next(iter(self.all(**keys)), None)

    def all(self, **keys: Any) -> list[dict[str, Any]]:
        """Every entry whose fields equal `keys`, in the order written."""
        return [e for e in self.entries if all(e.get(key) == value for key, value in keys.items())]
