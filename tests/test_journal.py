"""What a training tells: lines, TensorBoard's files, and when it says that it has stopped learning."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from bneck.specs.errors import InputError
from bneck.training import journal
from bneck.training.health import Health
from bneck.training.log import TrainingLog


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


def fields(message: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    """A protocol buffer's fields, by the wire format's public description."""

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    at = 0
    while at < len(message):
        key = number()
        match key & 7:
            case 0:
                yield key >> 3, number()
            case 1:
                yield key >> 3, struct.unpack("<d", message[at : at + 8])[0]
                at += 8
            case 2:
                size = number()
                yield key >> 3, message[at : at + size]
                at += size
            case 5:
                yield key >> 3, struct.unpack("<f", message[at : at + 4])[0]
                at += 4


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    """(step, name, value) of every point in the folder's one event file."""
    (path,) = (folder / "tensorboard").iterdir()
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        (size,) = struct.unpack("<Q", data[at : at + 8])
        event = dict(fields(data[at + 12 : at + 12 + size]))
        at += size + 16
        for _, value in fields(event.get(5, b"")):  # type: ignore[arg-type]
            point = dict(fields(value))  # type: ignore[arg-type]
            found.append((event[2], point[1].decode(), point[2]))  # type: ignore[union-attr]
    assert at == len(data)
    return found  # type: ignore[return-value]


class TestJournal:
    def test_a_line_has_the_steps_since_the_last(self, tmp_path: Path) -> None:
        told = TrainingLog(tmp_path, batch=10)
        told.begin(0)
        for step, loss in enumerate((4.0, 2.0, 3.0), 1):
            told.step(step, loss, 0.1 * step, 0.0)
        told.flush()
        told.flush()  # nothing new
        (line,) = lines(tmp_path)
        assert (line["step"], line["loss"]) == (3, 3.0)
        assert line["lr"] == pytest.approx(0.3)
        assert line["images_per_s"] > 0
        assert line["waiting"] == 0

    def test_tensorboard_gets_the_same_points(self, tmp_path: Path) -> None:
        told = TrainingLog(tmp_path, batch=1)
        told.begin(0)
        told.write(300, loss=1.5, val_top1=0.25)
        told.write(70_000, loss=-2.0)
        assert scalars(tmp_path) == [
            (300, "loss", 1.5),
            (300, "val_top1", 0.25),
            (70_000, "loss", -2.0),
        ]

    def test_resumed_it_drops_what_will_be_done_again(self, tmp_path: Path) -> None:
        told = TrainingLog(tmp_path, batch=1)
        told.begin(0)
        for step in (10, 20, 30):
            told.write(step, loss=float(step))
        again = TrainingLog(tmp_path, batch=1)
        again.begin(20)
        again.write(25, loss=0.5)
        assert [line["step"] for line in lines(tmp_path)] == [10, 20, 25]
        assert [point[0] for point in scalars(tmp_path)] == [10, 20, 25]

    @pytest.mark.parametrize("what", ["training.jsonl", "tensorboard"])
    def test_a_full_disk_ends_in_a_sentence(self, tmp_path: Path, what: str) -> None:
        told = TrainingLog(tmp_path, batch=1)
        told.begin(0)
        full = Path("/dev/full")
        if not full.exists():
            pytest.skip("needs /dev/full")
        if what == "tensorboard":
            told.events.path = full
        else:
            (tmp_path / what).symlink_to(full)
        with pytest.raises(InputError, match=r"cannot be written: No space left on device"):
            told.write(1, loss=1.0)

    def test_the_checksum_is_crc_32c(self) -> None:
        """The check value of the algorithm's catalogue: "123456789" gives E3069283."""
        (masked,) = struct.unpack("<I", journal._checksum(b"123456789"))
        crc = masked - 0xA282EAD8 & 0xFFFFFFFF
        assert (crc << 15 | crc >> 17) & 0xFFFFFFFF == 0xE3069283

    @pytest.mark.slow
    def test_tensorboard_itself_reads_them(self, tmp_path: Path) -> None:
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        told = TrainingLog(tmp_path, batch=1)
        told.begin(0)
        told.write(1, loss=1.5)
        told.write(2, loss=0.5)
        read = EventAccumulator(str(tmp_path / "tensorboard"))
        read.Reload()
        assert [(e.step, e.value) for e in read.Scalars("loss")] == [(1, 1.5), (2, 0.5)]


class TestHealth:
    @pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
    def test_what_is_no_number_is_said_at_once(self, loss: float) -> None:
        assert Health().look(loss) == f"the loss became {loss}"

    def test_a_loss_that_runs_away_is_said_before_it_is_infinite(self) -> None:
        health = Health()
        assert [health.look(2.0) for _ in range(5)] == [None] * 5
        said = [health.look(200.0) for _ in range(3)]
        # 0.9 x 2 + 0.1 x 200 = 21.8 is more than ten times 2.
        assert said[0] == "the loss rose from 2 to 21.8"

    def test_a_single_bad_batch_is_forgiven(self) -> None:
        health = Health()
        assert [health.look(loss) for loss in (2.0,) * 5 + (100.0,) + (2.0,) * 20] == [None] * 26

    def test_a_small_first_loss_may_grow(self) -> None:
        health = Health()
        assert [health.look(loss) for loss in (0.01,) * 5 + (5.0,) * 50] == [None] * 55
