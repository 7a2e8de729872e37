"""Records: a kill loses nothing that was finished, a full disk leaves nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bneck.records.files import locked, write_bytes, write_json, write_text, write_whole
from bneck.records.ledger import Ledger
from bneck.records.measurement import Spread
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError


class TestLedger:
    def test_what_is_appended_is_there_again(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / "l.jsonl")
        assert ledger.entries == []
        ledger.append({"event": "trained", "name": "seed", "score": 0.5})
        ledger.append(
            {"event": "trial", "step": 1}, {"event": "trial", "step": 2, "text": "a\nü\u2028"}
        )
        again = Ledger(tmp_path / "l.jsonl")
        assert again.entries == ledger.entries
        assert len(again.entries) == 3
        assert (tmp_path / "l.jsonl").read_bytes().count(b"\n") == 3

    def test_find_gives_the_first_and_all_gives_all(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / "l.jsonl")
        ledger.append(
            *({"event": "trial", "step": step, "ms": ms} for step, ms in [(1, 5), (2, 4), (2, 3)])
        )
        assert ledger.find(event="trial", step=2) == {"event": "trial", "step": 2, "ms": 4}
        assert [entry["ms"] for entry in ledger.all(step=2)] == [4, 3]
        assert [entry["ms"] for entry in ledger.all(event="trial")] == [5, 4, 3]
        assert ledger.find(event="trial", step=9) is None
        assert ledger.find(absent=1) is None
        assert ledger.all(event="trained") == []

    def test_a_torn_last_line_is_dropped_and_the_file_goes_on(self, tmp_path: Path) -> None:
        path = tmp_path / "l.jsonl"
        Ledger(path).append({"n": 1}, {"n": 2})
        whole = path.read_bytes()
        for torn in (
            b"{",
            b'{"n": 3',
            b'{"n": 3}',
            b"\xff\xfe",
            b"x" * 5000,
        ):  # even one that only lacks its end
            path.write_bytes(whole + torn)
            ledger = Ledger(path)
            assert ledger.entries == [{"n": 1}, {"n": 2}]
            ledger.append({"n": 4})
            assert Ledger(path).entries == ledger.entries == [{"n": 1}, {"n": 2}, {"n": 4}]
            assert path.read_bytes() == whole + b'{"n": 4}\n'

    def test_wherever_a_file_is_cut_its_whole_lines_remain(self, tmp_path: Path) -> None:
        lines, path = b'{"n": 1}\n{"n": 22}\n{"n": 333}\n', tmp_path / "l.jsonl"
        for cut in range(len(lines) + 1):
            path.write_bytes(lines[:cut])
            assert (
                Ledger(path).entries == [{"n": n} for n in (1, 22, 333)][: lines[:cut].count(b"\n")]
            )

    def test_reading_changes_nothing_while_another_writes(self, tmp_path: Path) -> None:
        path = tmp_path / "l.jsonl"
        path.write_bytes(b'{"n": 1}\n{"n": ')
        assert Ledger(path).entries == [{"n": 1}]
        with path.open("ab") as writer:
            writer.write(b"2}\n")
        assert Ledger(path).entries == [{"n": 1}, {"n": 2}]

    def test_rubbish_between_is_passed_over(self, tmp_path: Path) -> None:
        path = tmp_path / "l.jsonl"
        path.write_bytes(b'{"n": 1}\n\xff\x00\n\n[1]\n5\nnull\n{"n": 2}\n')
        assert Ledger(path).entries == [{"n": 1}, {"n": 2}]

    def test_a_number_that_json_lacks_is_not_written(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / "l.jsonl")
        with pytest.raises(ValueError, match="JSON compliant"):
            ledger.append({"n": 1}, {"n": float("nan")})
        assert ledger.entries == []
        assert not ledger.path.exists()

    def test_what_cannot_be_read_or_written_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be read: Is a directory"):
            Ledger(tmp_path)
        with pytest.raises(
            InputError, match=r"l\.jsonl cannot be written: No such file or directory"
        ):
            Ledger(tmp_path / "absent" / "l.jsonl").append({"n": 1})

    def test_a_full_disk_loses_nothing_that_was_finished(self, tmp_path: Path) -> None:
        """A file-size limit stands for the full disk; in a process of its own."""
        program = """
import resource, signal, sys
from pathlib import Path
from bneck.records.ledger import Ledger
from bneck.specs.errors import InputError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(Path(sys.argv[1]))
ledger.append({"n": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (15, resource.RLIM_INFINITY))
try:
    ledger.append({"n": 2, "text": "x" * 99})
    sys.exit("written beyond the limit")
except InputError as error:
    assert "cannot be written" in str(error), error
assert Path(sys.argv[1]).stat().st_size == 15
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert ledger.entries == Ledger(Path(sys.argv[1])).entries == [{"n": 1}]
ledger.append({"n": 3})
"""
        path = tmp_path / "l.jsonl"
        run = [sys.executable, "-c", program, str(path)]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert Ledger(path).entries == [{"n": 1}, {"n": 3}]


class TestWriting:
    def test_text_bytes_and_json_are_written_into_new_folders(self, tmp_path: Path) -> None:
        write_text(tmp_path / "a" / "b" / "t.txt", "ü\n")
        write_bytes(tmp_path / "a" / "b.bin", b"\x00\xff")
        write_json(tmp_path / "j.json", {"ms": [1.5, None]})
        assert (tmp_path / "a" / "b" / "t.txt").read_bytes() == "ü\n".encode()
        assert (tmp_path / "a" / "b.bin").read_bytes() == b"\x00\xff"
        assert json.loads((tmp_path / "j.json").read_text(encoding="utf-8")) == {"ms": [1.5, None]}
        assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b", "b.bin", "j.json", "t.txt"]

    def test_a_writer_that_fails_half_way_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "r.txt"
        write_text(path, "old")

        def half(partial: Path) -> None:
            partial.write_text("ne", encoding="utf-8")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(
            InputError, match=r"r\.txt cannot be written: No space left on device; free some"
        ):
            write_whole(path, half)
        assert path.read_text(encoding="utf-8") == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_an_interrupt_leaves_the_old_file_too(self, tmp_path: Path) -> None:
        def half(partial: Path) -> None:
            partial.write_text("ne", encoding="utf-8")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_whole(tmp_path / "r.txt", half)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_is_a_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(
            InputError, match=r"r\.txt cannot be written: (File exists|Not a directory)"
        ):
            write_text(tmp_path / "file" / "r.txt", "new")
        with pytest.raises(InputError, match="cannot be written: Not a directory"):
            write_text(tmp_path / "file" / "deep" / "r.txt", "new")

    def test_a_target_that_is_a_folder_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "r").mkdir()
        with pytest.raises(InputError, match="cannot be written: Is a directory"):
            write_text(tmp_path / "r", "new")
        assert [p.name for p in tmp_path.iterdir()] == ["r"]


class TestLock:
    def test_a_second_handle_is_kept_out_until_the_first_is_done(self, tmp_path: Path) -> None:
        lock = tmp_path / "run" / ".lock"
        with locked(lock):
            with (
                pytest.raises(InputError, match=r"another process works on .*run; wait for it or"),
                locked(lock),
            ):
                pass
            with locked(tmp_path / "other" / ".lock"):
                pass
        with locked(lock):
            pass

    def test_a_second_process_is_kept_out_and_a_killed_one_lets_go(self, tmp_path: Path) -> None:
        program = (
            "import sys; from pathlib import Path; from bneck.records.files import locked\n"
            "with locked(Path(sys.argv[1])):\n"
            "    print('in', flush=True); sys.stdin.read()\n"
        )
        lock = tmp_path / ".lock"
        run = [sys.executable, "-c", program, str(lock)]
        with subprocess.Popen(
            run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "in\n"
            with pytest.raises(InputError, match="another process works on"), locked(lock):
                pass
            other.kill()
        with locked(lock):
            pass

    def test_an_error_inside_lets_go_and_passes_through(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="inside"), locked(tmp_path / ".lock"):
            raise OSError("inside")
        with locked(tmp_path / ".lock", on_wait=lambda: None):
            pass

    def test_a_place_that_cannot_hold_a_lock_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        message = r"\.lock cannot be written: .*; choose another folder"
        with pytest.raises(InputError, match=message), locked(tmp_path / "file" / ".lock"):
            pass


class TestRunFolder:
    def test_what_is_written_reads_back(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path / "run")
        run.write({"format": 2, "state": "running", "target": "5ms"})
        assert run.read() == {"format": 2, "state": "running", "target": "5ms"}
        assert run.run_json == tmp_path / "run" / "run.json"

    def test_a_folder_without_a_run_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"absent is not a run folder: it has no run\.json"):
            RunFolder(tmp_path / "absent").read()
        with pytest.raises(InputError, match="is not a run folder"):
            RunFolder(tmp_path).read()

    def test_another_version_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text('{"format": 7}', encoding="utf-8")
        with pytest.raises(
            InputError,
            match="another version of bneck in run format 7, and this version reads formats up to 2",
        ):
            RunFolder(tmp_path).read()

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"[]", b"[1]", b"5", b"null", b'"x"', b"{}", b"\xff\xfe"]
    )
    def test_rubbish_is_refused_in_one_sentence(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "run.json").write_bytes(content)
        with pytest.raises(InputError, match=r"run\.json cannot be read as a run's record"):
            RunFolder(tmp_path).read()


def test_a_spread_is_the_median_between_two_percentiles() -> None:
    # Eleven samples from 0 to 10: the percentiles are samples themselves.
    assert Spread.of([3, 1, 2, 0, 4, 10, 9, 8, 7, 6, 5]) == Spread(median=5.0, p10=1.0, p90=9.0)
    assert Spread.of([2.5]) == Spread(median=2.5, p10=2.5, p90=2.5)


def test_a_best_score_of_format_1_was_chosen_on_val(tmp_path: Path) -> None:
    record = {"format": 1, "kind": "search", "state": "finished", "best": {"step": 3}}
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert RunFolder(tmp_path).read().get("best") == {"chosen_on": "val", "step": 3}
