"""What a training tells while it runs: json lines, TensorBoard scalars, images a second."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bneck.records.files import write_text
from bneck.records.ledger import Ledger
from bneck.specs.errors import InputError

EVERY_S = 1.0  # a line at most so often, and one at the end of an epoch


class TrainingLog:
    """Keeps `training.jsonl` and TensorBoard's event files of one training.

    A line has "step", and of a stretch of steps the mean "loss", the last "lr", "images_per_s" and
    "waiting", the share of the time that was spent waiting for input. Lines of an epoch's end have
    what was found out then. Broken off and resumed, lines of steps that are done again are dropped.
    """

    def __init__(self, folder: Path, *, batch: int) -> None:
        self.folder, self.batch = folder, batch
        self.images_per_s = 0.0
        self.waiting = 0.0

    def begin(self, done: int) -> None:
        """Go on behind step `done`, 0 for a new training."""
        path = self.folder / "training.jsonl"
        kept = [entry for entry in Ledger(path).entries if entry.get("step", 0) <= done]
        if path.exists():
            write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
        self.lines = Ledger(path)
        self.events = EventFile(self.folder / "tensorboard", kept)
        self._done = done
        self.restart()

    def restart(self) -> None:
        """Count time from now, steps from those written down."""
        self._since = time.perf_counter()
        self._from, self._losses, self._waited = self._done, list[float](), 0.0

    def step(self, done: int, loss: float, lr: float, waited_s: float) -> None:
        """Steps up to `done` are over, `waited_s` of their time was spent waiting for images."""
        self._done, self._lr = done, lr
        self._losses.append(loss)
        self._waited += waited_s
        if time.perf_counter() - self._since >= EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write down the steps since the last line."""
        steps = self._done - self._from
        if not steps:
            return
        seconds = max(time.perf_counter() - self._since, 1e-9)
        self.images_per_s = steps * self.batch / seconds
        self.waiting = min(1.0, self._waited / seconds)
        self.write(
            self._done,
            loss=sum(self._losses) / len(self._losses),
            lr=self._lr,
            images_per_s=self.images_per_s,
            waiting=self.waiting,
        )
        self.restart()

    def write(self, done: int, **figures: float) -> None:
        """A line about the net as it is after `done` steps."""
        self.lines.append({"step": done, **figures})
        self.events.write(done, figures)

    def best(self, key: str) -> dict[str, float] | None:
        """The line with the highest value of a key; None where no line has it."""
        found = [line for line in self.lines.entries if key in line]
        return max(found, key=lambda line: float(line[key]), default=None)


class EventFile:
    """Scalars for TensorBoard: length-prefixed protocol buffers with masked CRC-32C checksums.

    A resumed run writes a file of its own, with everything kept from the runs before; older files are
    removed, so that no step shows twice.
    """

    def __init__(self, folder: Path, kept: list[dict[str, float]]) -> None:
        with _disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}.bneck"
        self._append(_double(1, time.time()) + _bytes(3, b"brain.Event:2"))
        for entry in kept:
            figures = {k: v for k, v in entry.items() if k != "step"}
            self.write(int(entry["step"]), figures)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """One point of every scalar."""
        values = b"".join(
            _bytes(1, _bytes(1, name.encode()) + _float(2, value))
            for name, value in figures.items()
        )
        self._append(_double(1, time.time()) + _varint(2, step) + _bytes(5, values))

    def _append(self, record: bytes) -> None:
        length = struct.pack("<Q", len(record))
        with _disk(self.path), self.path.open("ab") as file:
            file.write(length + _checksum(length) + record + _checksum(record))


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}; free some space and go on with "
            "--resume"
        ) from None


def _number(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _varint(field: int, value: int) -> bytes:
    return _number(field << 3) + _number(value)


def _double(field: int, value: float) -> bytes:
    return _number(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _number(field << 3 | 5) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(value)) + value


def _table() -> tuple[int, ...]:
    """Of CRC-32C (Castagnoli), reflected polynomial 0x82F63B78."""
    entries = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        entries.append(value)
    return tuple(entries)


_TABLE = _table()


def _checksum(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    masked = (crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8 & 0xFFFFFFFF
    return struct.pack("<I", masked)
