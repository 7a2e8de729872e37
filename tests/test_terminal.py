"""What a person sees of a long run: on a terminal, a narrow one, one without colors, and in a file."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bneck.cli.bars import bars
from bneck.cli.ending import print_search, print_shipped, print_training
from bneck.cli.options import new_table, print_table
from bneck.devices.protocol import Protocol
from bneck.records.progress import Silent, about
from bneck.runs.progress import Steps
from bneck.runs.search.course import Course, Trainings
from bneck.runs.search.speed import Speed
from bneck.tasks.registry import task
from commands import Call, refusal

COLOR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|38|9[0-7])[0-9;]*m")
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LONG = "training a network with a name that is much longer than the whole terminal is wide"


def in_terminal(*arguments: str, columns: int, **environment: str) -> str:
    """What `bneck` writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "bneck", *arguments], stdout=theirs, stderr=theirs, stdin=theirs,
        env={**kept, "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # the other side is closed
        pass
    process.wait()
    os.close(ours)
    return written.decode().replace("\r\n", "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    record = {
        "format": 2, "kind": "train", "state": "finished", "task": "classify", "metric": "top-1",
        "version": "0", "started": "2026-11-27T08:00:00+00:00", "name": "v3-large-0.75+relu@192",
        "scores": {"val": {"score": 0.815}},
    }  # fmt: skip
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text(json.dumps(record))
    return tmp_path


class TestTables:
    def test_a_terminal_of_60_columns_has_a_paragraph_per_row(self, folder: Path) -> None:
        wide = in_terminal("runs", str(folder), columns=200)
        assert len(wide.strip().splitlines()) == 3  # heads, a rule, the run
        lines = CODES.sub("", in_terminal("runs", str(folder), columns=60)).splitlines()
        told = [line for line in lines if str(folder)[:20] not in line]
        assert max(map(len, told)) <= 60
        text = " ".join(line.strip() for line in told)
        for words in (
            "kind train",
            "network v3-large-0.75+relu@192",
            "score top-1 81.5%",
            "state finished",
        ):
            assert words in text
        assert " -" not in text  # no target, no latency: not even their names

    def test_in_a_paragraph_lines_end_between_cells_and_a_mark_comes_with_its_row(self) -> None:
        file = io.StringIO()
        console = Console(file=file, force_terminal=True, width=60, _environ={})
        columns = ("", "for", "packages", "install it with")
        rows = [
            (
                "*",
                "several processes, fast JPEG",
                "accelerate, pyarrow",
                "pip install 'bneck[train]'",
            ),
            ("", "photos in HEIC", "-", "pip install 'bneck[heif]'"),
            ("", "weights", "-", "bneck import timm/mobilenetv3_large_100.lamb_in1k"),
        ]
        print_table(new_table("not installed", columns, rows), console)
        assert CODES.sub("", file.getvalue()).splitlines() == [
            "",
            "not installed",
            "* several processes, fast JPEG",
            "  packages accelerate, pyarrow,",
            "  install it with pip install 'bneck[train]'",
            "photos in HEIC",
            "  install it with pip install 'bneck[heif]'",
            "weights",
            "  install it with",
            "  bneck import timm/mobilenetv3_large_100.lamb_in1k",
        ]

    def test_help_cuts_nothing_off(self) -> None:
        said = CODES.sub("", in_terminal("search", "--help", columns=60))
        assert "…" not in said
        assert "--target" in said
        assert "docs/reference/data.md" in said
        assert max(map(len, said.splitlines())) <= 60

    def test_sentences_end_between_words(self) -> None:
        lines = CODES.sub("", in_terminal("count", "v4-huge", columns=60)).splitlines()
        assert len(lines) > 1
        assert max(map(len, lines)) <= 60
        known = " ".join(line.strip() for line in lines)
        assert known.startswith("bneck: there is no network 'v4-huge'")
        assert " A width, variants and a resolution " in known.replace("  ", " ")

    def test_without_colors(self, folder: Path) -> None:
        assert not COLOR.search(in_terminal("runs", str(folder), columns=60, NO_COLOR="1"))

    def test_a_file_has_no_codes_and_whole_rows_whatever_columns_says(self, folder: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "bneck", "runs", str(folder)], capture_output=True, text=True,
            env={**os.environ, "COLUMNS": "60"},
        )  # fmt: skip
        assert "\x1b" not in done.stdout
        assert "v3-large-0.75+relu@192" in done.stdout
        assert len(done.stdout.strip().splitlines()) == 3


class TestBars:
    def test_a_file_has_a_line_per_stage_with_its_place_and_the_time_left(self) -> None:
        file = io.StringIO()
        with bars(Console(file=file, width=60)) as told:
            told.course(3, 8, 300.0)
            told.stage("measuring rows", 213)
            told.say("latency table: :car: [red]" + "a long sentence " * 10)
            told.stage("training the supernet", 1)
        assert file.getvalue().splitlines() == [
            "[3/8] measuring rows (213), about 5 min left in all",
            "latency table: :car: [red]" + "a long sentence " * 10,
            "[3/8] training the supernet, about 5 min left in all",
        ]

    def test_a_run_that_takes_longer_than_estimated_says_nothing_of_what_is_left(self) -> None:
        file = io.StringIO()
        with bars(Console(file=file)) as told:
            told.course(3, 8, 0.0)
            told.stage("measuring rows", 213)
            told.course(4, 8, 9.0)  # for five parts
            told.stage("training seed", 1)
            told.course(8, 8, 9.0)
            told.stage("scoring val", 100)
        assert file.getvalue().splitlines() == [
            "[3/8] measuring rows (213)",
            "[4/8] training seed",
            "[8/8] scoring val (100), under 10 s left in all",
        ]

    def test_a_long_stage_in_a_file_says_how_far_it_is(self) -> None:
        file = io.StringIO()
        with bars(Console(file=file), say_s=0.0) as told:
            told.stage("training found, uniform", 4)
            told.note("best so far: found with top-1 81.0%")
            told.advance(1.5)
        assert file.getvalue().splitlines() == [
            "training found, uniform (4)",
            "  38 %; best so far: found with top-1 81.0%",
        ]

    @pytest.mark.parametrize("width", [60, 100])
    def test_a_bar_fits_its_terminal_with_place_percent_and_best_so_far(self, width: int) -> None:
        file = io.StringIO()
        console = Console(
            file=file, force_terminal=True, width=width, legacy_windows=False, _environ={}
        )
        with bars(console) as told:
            told.course(7, 8, 3600.0)
            told.stage(LONG, 2)
            told.note("best so far: found with top-1 81.0%")
            told.advance(1)
            told._live.refresh()
        lines = [
            line for line in re.split(r"[\r\n]", CODES.sub("", file.getvalue())) if line.strip()
        ]
        assert max(map(len, lines)) <= width
        bar, below = lines[-2:]
        assert bar.startswith("[7/8] training")
        assert "50%" in bar
        assert below.startswith(
            "about 60 min left in all; best so far: found with top-1 81."[:width]
        )

    def test_a_terminal_that_cannot_move_its_cursor_has_lines(self) -> None:
        file = io.StringIO()
        console = Console(file=file, force_terminal=True, width=60, _environ={"TERM": "dumb"})
        with bars(console) as told:
            told.stage("measuring", 3)
        assert CODES.sub("", file.getvalue()) == "measuring (3)\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2, "under 10 s"), (44, "about 40 s"), (94, "about 90 s"), (96, "about 2 min"), (5400, "about 90 min"),
     (9000, "about 2.5 h"), (3 * 86400, "about 3 days")],
)  # fmt: skip
def test_a_time_as_people_say_it(seconds: float, words: str) -> None:
    assert about(seconds) == words


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.place: tuple[int, int, float | None] = (0, 0, None)

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def course(self, number: int, of: int, left_s: float | None) -> None:
        self.place = number, of, left_s


def test_a_training_says_how_long_it_takes_from_its_first_steps() -> None:
    heard, clock = Heard(), iter([100.0, 100.0, 100.6, 101.2, 101.8])
    steps = Steps(heard, "training tiny", clock=lambda: next(clock))
    for done in range(1, 6):
        steps(done, 103, 0.5)
    # Three steps after the first one took 1.8 s; 99 are left then.
    assert heard.said == ["training tiny: 103 steps, about 60 s left; the first 3 took 600 ms each"]


class TestCourse:
    def test_the_time_of_trainings_by_hand(self) -> None:
        speed = Speed(training_s=0.01, output_s=0.002)
        images = {"train": 1000, "val": 500}
        # 3 epochs x 1000 images x (0.5 x 10 ms + 2 ms of the teacher) = 21 s; 500 x 1 ms to score
        assert Trainings(2, 3.0, 0.5, taught=True).seconds(speed, images) == pytest.approx(2 * 21.5)

    def test_a_search_counts_its_parts_and_corrects_its_estimate(self) -> None:
        heard, course = Heard(), made(Heard())
        course.progress = heard
        course.announce("tiny at 32 px")
        assert heard.said[0].startswith(
            "search from tiny at 32 px to 60% and 50% on this machine, in 11 parts: "
        )
        assert "; 6 choose widths (50%); " in heard.said[0]
        for name in ("images", "target"):
            course.enter(name)
            course.leave()
        speed = Speed(training_s=0.001, output_s=0.0)
        course.timed(speed, {"train": 100, "val": 10}, 4.0, {"latency table": 7.0})
        # Seed: 4 epochs x 100 x 1 ms = 0.4 s, importance 0.1 s. Two workers. Each target trains found,
        # uniform and a lower resolution for 8 epochs and one from random weights for 12, at half and 0.6
        # of the seed's size; the seed network goes on for 8 at its own size: 0.5 x 3.6 + 0.8 = 2.6 s.
        expected = 7.0 + 0.4 + 0.1 + max(0.8, 2.6 / 2) + 0.6 * 3.6 / 2
        assert heard.place[:2] == (2, 11)
        assert heard.place[2] == pytest.approx(expected, abs=0.05)
        course.enter("widths")
        assert heard.place[0] == 6
        course.enter("export and measure")
        course.again()  # the target was missed
        course.enter("widths")
        assert heard.place[:2] == (9, 14)
        course.enter("train result")
        course.enter("export and measure")
        course.skip_target()  # another run of the same folder was there
        assert course.now + 1 == 14

    def test_measurements_that_wait_do_not_lengthen_trainings(self) -> None:
        course, now = made(Silent()), [0.0]
        course.clock = lambda: now[0]
        speed = Speed(training_s=0.001, output_s=0.0)
        course.timed(speed, {"train": 100, "val": 10}, 4.0, {"latency table": 7.0})
        course.enter("latency table")
        now[0] = 70.0
        course.leave()
        course.enter("train seed")
        assert course.left_s() == pytest.approx(0.4 + 0.1 + 1.3 + 0.6 * 3.6 / 2, abs=0.05)

    def test_a_deep_cut_from_a_start_is_expected_to_take_its_steps(self) -> None:
        course = made(Silent(), start="start.safetensors")
        speed = Speed(training_s=0.001, output_s=0.0)
        course.timed(speed, {"train": 100, "val": 10}, 4.0, {"widths": 7.0})
        # Importance takes 0.1 s and solving 0.2 s. A step to 70 % has both, which 60 % finds, and each target
        # compares two ways.
        found = [part.seconds for part in course.parts if part.name == "widths"]
        assert found == pytest.approx([7.0 + 0.3 + 2 * 0.2, 7.0 + 2 * 0.2])


def made(progress: Silent, **changed: Any) -> Course:
    """The course of a search with two targets, from random weights."""
    from bneck.runs.search.settings import SearchSettings, proposals, tuning

    chosen = task("classify")
    training = chosen.recipe(None, images=100, epochs=4.0, started=False, seed=0)
    recovery = chosen.recipe(None, images=100, epochs=8.0, started=False, seed=0)
    return Course(progress, SearchSettings(
        task="classify", options=chosen.Options(), seed_network="tiny", resolution=32, targets=("60%", "50%"),
        training=training, recovery=recovery, tuning=tuning(training), steps=1, delta=0.01,
        kinds=proposals(tail=True), heldout=0.2, repeats=1, seed=0, workers=2, **changed,
    ))  # fmt: skip


def test_how_long_a_race_takes_by_its_protocol() -> None:
    # 2 loads of 3 rounds; each of 10 models runs for 20 ms after 2 runs of 1 ms, the reference of 2 ms
    # max(3, 10 / 2) + 3 times: 10 x 6 x (22 + 16) ms
    protocol = Protocol(rounds=3, loads=2, burst_ms=20.0)
    assert protocol.seconds(10, 2.0, 1.0) == pytest.approx(2.28)


def searched(**changed: Any) -> dict[str, Any]:
    return {
        "run": "runs/a b", "metric": "top-1", "measured_latency_ms": 0.298, "target_ms": 0.305,
        "meets_target": True, "score": 0.765, "baseline": {"score": 0.68, "latency_ms": 0.3},
        "found": {"name": "v3-small-narrowed", "title": "by importance"},
        "seed_network": {"scores": [0.77, 0.772], "measured_ms": 0.61},
        "settings": {"start": "v3-small", "training": {"epochs": 5.0}}, **changed,
    }  # fmt: skip


class TestEndings:
    def test_a_search_ends_with_verdict_files_and_the_next_command(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        print_search(searched())
        assert capsys.readouterr().out.splitlines() == [
            "seed network: top-1 77.1% at 0.610 ms",
            "compared with uniform width: top-1 68.0% at 0.300 ms",
            "v3-small-narrowed (by importance): 0.298 ms measured, meets the target of 0.305 ms; top-1 76.5%",
            "files: runs/a b/report.html, runs/a b/found/model.onnx",
            "next:  bneck ship 'runs/a b'",
        ]

    def test_where_a_point_is_lost_longer_training_is_advised(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Not from random weights, where the seed network gains as much by it."""
        print_search(searched(score=0.76))
        random = {"start": None, "training": {"epochs": 5.0}}
        print_search(searched(score=0.76, settings=random))
        said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("seed ")]
        assert said == [
            "seed network: top-1 77.1% at 0.610 ms; of the 1.1 points lost, longer training may win some back "
            "(--epochs 15)",
            "seed network: top-1 77.1% at 0.610 ms",
        ]

    def test_one_that_misses_its_target_is_measured_again(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        print_search(searched(meets_target=False))
        *_, verdict, _, then = capsys.readouterr().out.splitlines()
        assert "MISSES the target" in verdict
        assert then == "next:  bneck measure 'runs/a b'"

    def test_what_ships_in_another_form_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        shipped = {"file": "found/model-int8.tflite", "precision": "int8", "score": 0.76}
        print_search(searched(shipped=shipped))
        *_, verdict, files, then = capsys.readouterr().out.splitlines()
        assert verdict.endswith("top-1 76.5%; the file is int8, top-1 76.0%")
        assert files.endswith("runs/a b/found/model-int8.tflite")
        assert then == "next:  bneck ship 'runs/a b'"

    def test_ship_ends_with_what_ships(self, capsys: pytest.CaptureFixture[str]) -> None:
        row = {
            "runtime": "litert", "precision": "int8", "epochs": 2.0, "score": 0.769, "loss": 0.6,
            "latency_ms": {"median": 0.194}, "size_mb": 0.71,
        }  # fmt: skip
        found = {
            "rows": [{}, row], "picked": 1, "metric": "top-1", "file": "r/ship/m-int8.tflite",
            "card": "r/ship/model-card.md",
        }  # fmt: skip
        print_shipped(found)
        assert capsys.readouterr().out.splitlines() == [
            "int8 QAT in litert ships: top-1 76.9%, +0.6 points lost to float; 0.194 ms, 0.71 MB",
            "files: r/ship/m-int8.tflite, r/ship/model-card.md",
            "next:  bneck predict r/ship/m-int8.tflite IMAGE.jpg",
        ]
        print_shipped({**found, "file": None, "picked": None})
        assert capsys.readouterr().out == ""

    def test_a_training_is_narrowed_next_with_its_task_and_images(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        record = {
            "run": "runs/det", "task": "detect", "name": "v3-small", "data": {"path": "/photos"},
            "scores": {"val": {"score": 0.324}},
        }  # fmt: skip
        print_training(task("detect"), record)
        assert capsys.readouterr().out.splitlines() == [
            "v3-small: mAP 32.4%",
            "files: runs/det/report.md, runs/det/model.onnx",
            "next:  bneck search --from runs/det --task detect --data /photos --target 50%",
        ]

    def test_the_next_command_has_the_options_of_the_images(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        own = {
            "ignore": [11, 12],
            "size": "90x120",
            "head": "lraspp",
            "balance": True,
            "argmax": True,
        }
        record = {
            "run": "runs/seg", "task": "segment", "name": "v3-small", "data": {"path": "/streets"},
            "scores": {"val": {"score": 0.324}}, "options": {"task": own},
        }  # fmt: skip
        print_training(task("segment"), record)
        assert capsys.readouterr().out.splitlines()[-1] == (
            "next:  bneck search --from runs/seg --task segment --data /streets --ignore 11 --ignore 12 "
            "--size 90x120 --balance --target 50%"
        )


@pytest.mark.parametrize(
    ("wrong", "right"), [("searh", "search"), ("trian", "train"), ("qantize", "quantize")]
)
def test_a_misspelled_command_is_offered_the_right_one(call: Call, wrong: str, right: str) -> None:
    said = refusal(call(wrong))
    assert said == f"No such command '{wrong}'; did you mean '{right}'; see --help"
