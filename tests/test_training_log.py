"""What a training tells: lines, TensorBoard's points, and when it says that it has stopped learning."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from bneck.specs.errors import InputError
from bneck.training.health import Health
from bneck.training.log import TrainingLog


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every point by name, as TensorBoard shows them."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    return {
        name: [(e.step, e.value) for e in read.Scalars(name)] for name in read.Tags()["scalars"]
    }


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
        assert scalars(tmp_path) == {
            "loss": [(300, 1.5), (70_000, -2.0)],
            "val_top1": [(300, 0.25)],
        }
        told.close()

    def test_resumed_it_drops_what_will_be_done_again(self, tmp_path: Path) -> None:
        told = TrainingLog(tmp_path, batch=1)
        told.begin(0)
        for step in (10, 20, 30):
            told.write(step, loss=float(step))
        again = TrainingLog(tmp_path, batch=1)
        again.begin(20)
        again.write(25, loss=0.5)
        assert [line["step"] for line in lines(tmp_path)] == [10, 20, 25]
        assert scalars(tmp_path) == {"loss": [(10, 10.0), (20, 20.0), (25, 0.5)]}
        told.close()
        again.close()

    def test_killed_before_its_first_checkpoint_it_begins_from_nothing(
        self, tmp_path: Path
    ) -> None:
        for loss in (4.0, 3.0):
            told = TrainingLog(tmp_path, batch=1)
            told.begin(0)
            told.write(1, loss=loss)
        assert scalars(tmp_path) == {"loss": [(1, 3.0)]}

    def test_without_tensorboard_the_lines_are_all(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if not installed
        told = TrainingLog(tmp_path, batch=1)
        told.begin(0)
        told.write(1, loss=1.5)
        told.close()
        assert lines(tmp_path) == [{"step": 1, "loss": 1.5}]
        assert not (tmp_path / "tensorboard").exists()

    def test_importing_it_does_not_import_tensorboard(self) -> None:
        code = "import sys, bneck.training.loop; assert 'tensorboard' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_a_folder_that_cannot_be_made_ends_in_a_sentence(self, tmp_path: Path) -> None:
        pytest.importorskip("tensorboard")
        (tmp_path / "tensorboard").write_text("in the way")
        with pytest.raises(InputError, match=r"tensorboard cannot be written: "):
            TrainingLog(tmp_path, batch=1).begin(0)

    def test_a_full_disk_ends_in_a_sentence(self, tmp_path: Path) -> None:
        told = TrainingLog(tmp_path, batch=1)
        told.begin(0)
        full = Path("/dev/full")
        if not full.exists():
            pytest.skip("needs /dev/full")
        (tmp_path / "training.jsonl").symlink_to(full)
        with pytest.raises(InputError, match=r"cannot be written: No space left on device"):
            told.write(1, loss=1.0)


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
