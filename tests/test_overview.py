"""What is here: the machine (`bneck doctor`), the runs (`bneck runs`), and the first steps."""

from __future__ import annotations

import fcntl
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

import bneck
from bneck.cli.main import Commands, Stopped, with_notes
from bneck.cli.options import new_table, print_table
from bneck.cli.overview import clocks, machine_lines
from bneck.devices.doctor import caches, cores
from bneck.devices.installed import EXTRAS, distribution, extra_of
from bneck.devices.places import DeviceError
from bneck.devices.protocol import TimingError
from bneck.runs.folder import resumable
from bneck.specs.errors import InputError
from commands import Call, refusal
from forked import Forked
from forked import bneck as run_bneck

ROOT = Path(__file__).parents[1]
COMMON = {"format": 2, "version": "0.1.0", "commit": "abc", "task": "classify", "metric": "top-1"}
SEARCH = {
    **COMMON, "kind": "search", "state": "finished", "started": "2026-11-27T09:00:00+00:00",
    "settings": {"seed_network": "v3-small", "targets": ["50%", "35%"]},
    "seed_network": {"name": "v3-small"}, "found": {"name": "v3-small-narrowed"},
    "target": "50%", "measured_latency_ms": 0.311, "score": 0.76,
    "family": [{
        "target": "35%", "found": {"name": "v3-small-narrowed"}, "measured_latency_ms": 0.219,
        "score": 0.699, "export": {"file": "found-35percent/model.onnx"},
    }],
}  # fmt: skip
BEGUN = {**SEARCH, "state": "running", "started": "2026-11-27T12:00:00+00:00"}
for key in ("seed_network", "found", "target", "measured_latency_ms", "score", "family"):
    del BEGUN[key]
TRAINING = {
    **COMMON, "kind": "train", "state": "finished", "started": "2026-11-27T08:00:00+00:00",
    "name": "v3-large", "scores": {"train": {"score": 0.9}, "val": {"score": 0.815}},
}  # fmt: skip
IMPORT = {
    "format": 2, "kind": "import", "state": "finished", "started": "2026-11-26T23:00:00+00:00", "name": "v2",
}  # fmt: skip
NOTHING: dict[str, Any] = dict.fromkeys(
    ("kind", "task", "network", "target", "latency_ms", "metric", "score", "started", "problem")
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Write a record as the run of that name under `runs`."""

    def written(name: str, record: Any) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(record if isinstance(record, str) else json.dumps(record))
        return folder

    return written


class TestRuns:
    def test_each_run_and_each_network_of_a_family_has_a_line_the_newest_first(
        self, write: Callable[[str, Any], Path], tmp_path: Path
    ) -> None:
        for name, record in (("a", TRAINING), ("b", SEARCH), ("c", BEGUN), ("d", IMPORT)):
            write(name, record)
        (tmp_path / "runs" / "notes").mkdir()  # no run
        found = bneck.list_runs(tmp_path / "runs")
        run = str(tmp_path / "runs") + "/"
        whole = {"kind": "search", "task": "classify", "metric": "top-1"}
        nine = {**NOTHING, **whole, "state": "finished", "started": "2026-11-27T09:00:00+00:00"}
        assert found == [
            {
                **NOTHING, **whole, "run": run + "c", "network": "v3-small", "target": "50%",
                "state": "stopped", "started": "2026-11-27T12:00:00+00:00",
            },
            {
                **nine, "run": run + "b", "network": "v3-small-narrowed", "target": "50%",
                "latency_ms": 0.311, "score": 0.76,
            },
            {
                **nine, "run": run + "b/found-35percent", "network": "v3-small-narrowed",
                "target": "35%", "latency_ms": 0.219, "score": 0.699,
            },
            {
                **NOTHING, "run": run + "a", "kind": "train", "task": "classify", "metric": "top-1",
                "network": "v3-large", "score": 0.815, "state": "finished",
                "started": "2026-11-27T08:00:00+00:00",
            },
            {
                **NOTHING, "run": run + "d", "kind": "import", "network": "v2", "state": "finished",
                "started": "2026-11-26T23:00:00+00:00",
            },
        ]  # fmt: skip

    def test_a_run_is_running_while_a_process_holds_its_lock(
        self, write: Callable[[str, Any], Path]
    ) -> None:
        folder = write("run", BEGUN)
        with (folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert [one["state"] for one in bneck.list_runs(folder)] == ["running"]
        assert [one["state"] for one in bneck.list_runs(folder)] == ["stopped"]
        (folder / ".lock").unlink()
        assert [one["state"] for one in bneck.list_runs(folder)] == ["stopped"]
        assert [path.name for path in folder.iterdir()] == ["run.json"]  # nothing was made

    @pytest.mark.parametrize(
        ("record", "problem"),
        [
            ("{", "cannot be read as a run's record"),
            ('{"format": 99}', "was written by another version of bneck in run format 99"),
            ({**SEARCH, "family": [{}]}, "lacks what its kind has"),
        ],
    )
    def test_a_run_that_cannot_be_read_costs_a_line(
        self, write: Callable[[str, Any], Path], call: Call, record: Any, problem: str
    ) -> None:
        write("good", TRAINING)
        bad = write("bad", record)
        lines = {one["run"]: one for one in bneck.list_runs(bad.parent)}
        assert problem in lines[str(bad)]["problem"]
        assert lines[str(bad)]["state"] == "unreadable"
        answer = call("runs", bad.parent)
        assert answer.code == 0
        assert re.search(
            r"good +train +classify +v3-large +- +- +top-1 81\.5% +finished", answer.out
        )
        assert f"- {bad}: " in answer.out

    def test_none_yet_and_no_such_folder(
        self, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert call("runs").out == "there are no runs in runs yet; begin one with: bneck search\n"
        assert json.loads(call("runs", "--json").out) == []
        assert refusal(call("runs", "elsewhere")) == "there is no folder elsewhere; check the path"


class TestDoctor:
    def test_cores_and_their_clocks(self, tmp_path: Path) -> None:
        """Two fast cores and two slow ones, of which this process may not use the last."""
        for core, clock in enumerate((2_400_000, 2_400_000, 1_800_000, 1_800_000)):
            (folder := tmp_path / f"cpu{core}" / "cpufreq").mkdir(parents=True)
            (folder / "cpuinfo_max_freq").write_text(f"{clock}\n")
        text = "".join(
            f"processor\t: {core}\ncpu MHz\t\t: {1000.4 + core}\n\n" for core in range(4)
        )
        (info := tmp_path / "cpuinfo").write_text(text)
        found = cores(tmp_path, info, allowed=range(3))
        assert found[0] == {"core": 0, "usable": True, "max_mhz": 2400, "mhz": 1000}
        assert found[3] == {"core": 3, "usable": False, "max_mhz": 1800, "mhz": 1003}
        said = "2 cores up to 2.40 GHz, 2 cores up to 1.80 GHz (1 not for this process)"
        assert clocks(found) == said
        assert clocks(cores(tmp_path / "none", info, allowed=range(4))) == "4 cores now at 1.0 GHz"

    def test_caches_count_a_file_once(self, tmp_path: Path) -> None:
        (tables := tmp_path / "own" / "tables").mkdir(parents=True)
        (tables / "a.jsonl").write_bytes(bytes(1_500_000))
        blobs, snapshot = tmp_path / "hub/models--x/blobs", tmp_path / "hub/models--x/snapshots/1"
        for folder in (blobs, snapshot):
            folder.mkdir(parents=True)
        (blobs / "f00").write_bytes(bytes(250_000))
        (snapshot / "model.safetensors").symlink_to(blobs / "f00")
        assert caches(tmp_path / "own", tmp_path / "hub") == [
            {"what": "tables", "folder": str(tables), "files": 1, "size_mb": 1.5},
            {"what": "hub", "folder": str(tmp_path / "hub"), "files": 1, "size_mb": 0.25},
        ]
        assert caches(tmp_path / "none", tmp_path / "neither") == []

    def test_what_is_there_has_its_version_and_what_is_not_its_command(self) -> None:
        code = (
            "import sys; sys.modules['ai_edge_litert'] = None\n"
            "from bneck.cli.main import run; sys.argv[1:] = ['doctor', '--json']; run()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["python"] == ".".join(map(str, sys.version_info[:3]))
        extras = {one["name"]: one["packages"] for one in found["extras"]}
        assert extras["search"]["torch"] == metadata.version("torch")
        runtimes = {one["name"]: one for one in found["runtimes"]}
        assert runtimes["litert"] == {
            "name": "litert", "version": None, "precisions": [], "problem": None,
            "install": "pip install 'bneck[litert]'",
        }  # fmt: skip
        assert runtimes["onnxruntime"]["version"] == metadata.version("onnxruntime")
        assert {one["what"] for one in found["disk"]} == {"runs", "caches"}
        for one in found["missing"]:
            assert one["install"] == f"pip install 'bneck[{one['extra']}]'"

    def test_it_is_said_in_lines(self) -> None:
        found = {
            "bneck": "0.1.0", "commit": "abc", "python": "3.11.7", "system": "Linux x86_64",
            "processor": "Chip",
            "cores": [{"core": 0, "usable": True, "max_mhz": None, "mhz": None}], "memory_gb": 7.6,
            "gpus": [{"name": "H100", "memory_gb": 85.0}], "notes": ["a note"],
            "disk": [{"what": "runs", "free_gb": 1.25, "total_gb": 10.0, "folder": "/here"}],
            "extras": [{"name": "tflite", "packages": {"tflite": "2.18.0"}}],
            "tools": {"ssh": "/bin/ssh", "adb": None},
        }  # fmt: skip
        assert list(machine_lines(found)) == [
            "bneck 0.1.0 (abc), Python 3.11.7, Linux x86_64",
            "processor: Chip, 1 core; 8 GB of memory",
            "GPU: H100, 85 GB",
            "- a note",
            "disk for runs: 1.2 of 10.0 GB free, /here",
            "packages: tflite 2.18.0",
            "for other devices: ssh /bin/ssh, adb not found",
        ]


def extras_of_pyproject() -> dict[str, set[str]]:
    """The packages of each extra, without versions and without bneck itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        name: {re.split(r"[\[<>=]", one)[0].replace("_", "-") for one in packages} - {"bneck"}
        for name, packages in project["optional-dependencies"].items()
    }


def test_the_extras_are_those_of_pyproject() -> None:
    """So a module that is missing is named with the extra that brings it."""
    listed = {extra.name: {distribution(one) for one in extra.modules} for extra in EXTRAS}
    declared = extras_of_pyproject()
    assert listed == {name: declared[name] for name in declared if name not in ("dev", "docs")}
    assert extra_of("PIL") == EXTRAS[0]
    assert extra_of("nothing") is None


def train_from_url() -> None:
    """As on a machine without fsspec."""
    sys.modules["fsspec"] = None  # type: ignore[assignment]
    run_bneck("train", "v3-small", "--data", "s3://bucket/photos")


def test_shards_behind_a_url_name_the_extra(tmp_path: Path) -> None:
    code, _, err = Forked(train_from_url, folder=tmp_path).wait()
    assert (code, err) == (
        2,
        "bneck: s3://bucket/photos is read with fsspec, which is not installed; run: pip install "
        "'bneck[train]'\n",
    )


def test_every_extra_that_is_named_exists() -> None:
    known, named = set(extras_of_pyproject()), set[str]()
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        for names in re.findall(r"bneck\[([a-z,]+)\]", path.read_text(encoding="utf-8")):
            named |= set(names.split(","))
    assert named <= known
    assert {"hub", "litert", "heif"} <= named


def test_a_bracket_in_a_table_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(new_table("in [b]", ("name",), [("pip install 'bneck[hub]'",)]))
    said = capsys.readouterr().out
    assert "pip install 'bneck[hub]'" in said
    assert "in [b]" in said


def test_without_a_command_it_says_what_to_do_first(call: Call) -> None:
    answer = call()
    assert (answer.code, answer.err) == (0, "")
    first = answer.out.splitlines()
    assert first[0] == "bneck fits a vision network to your images and your device."
    assert first[3] == "  bneck doctor    see what this machine has and lacks"
    assert max(map(len, first)) <= 60
    assert call("--version").out == f"bneck {metadata.version('bneck')}\n"


def test_a_slip_is_answered_with_the_command_that_was_meant(call: Call) -> None:
    said = refusal(call("searh"))
    assert said == "No such command 'searh'; did you mean 'search'; see --help"


@pytest.mark.parametrize("notes", [(), ("resume it with: bneck train --resume runs/a",)])
def test_ctrl_c_keeps_its_notes(notes: tuple[str, ...]) -> None:
    app = typer.Typer(cls=Commands)

    @app.callback()
    def several() -> None: ...

    @app.command()
    def long() -> None:
        stop = KeyboardInterrupt()
        for note in notes:
            stop.add_note(note)
        raise stop

    with pytest.raises(Stopped) as stopped:
        app(["long"], standalone_mode=False)
    assert stopped.value.args == notes


class TestGoingOn:
    @pytest.mark.parametrize(
        "stop", [KeyboardInterrupt(), TimingError("a spreads"), DeviceError("gone")]
    )
    def test_what_ends_a_run_that_is_kept_names_the_command_that_goes_on(
        self, write: Callable[[str, Any], Path], stop: BaseException
    ) -> None:
        folder = write("a b", BEGUN)
        with pytest.raises(type(stop)) as caught, resumable(folder):
            raise stop
        assert caught.value.__notes__ == [f"resume it with: bneck search --resume '{folder}'"]

    def test_without_a_run_there_is_nothing_to_resume(self, tmp_path: Path) -> None:
        with pytest.raises(TimingError) as caught, resumable(tmp_path):
            raise TimingError("the times of v3-small spread by 50%")
        assert with_notes(caught.value) == "the times of v3-small spread by 50%"

    def test_what_needs_the_weights_of_an_unfinished_search_names_bneck_search(
        self, write: Callable[[str, Any], Path], call: Call
    ) -> None:
        folder = write("begun", BEGUN)
        said = refusal(call("predict", folder, "photo.jpg"))
        assert (
            said
            == f"{folder} has no trained weights; resume it with: bneck search --resume {folder}"
        )

    def test_notes_of_an_error_are_part_of_its_sentence(self) -> None:
        error = InputError("the times of v3-small spread by 50%")
        error.add_note("resume it with: bneck search --resume runs/a")
        assert with_notes(error) == (
            "the times of v3-small spread by 50%; resume it with: bneck search --resume runs/a"
        )
