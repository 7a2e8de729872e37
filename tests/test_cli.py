"""The command line: what programs read from it, and every way of asking it for the impossible."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import bneck
from commands import Call, refusal
from simulated_device import SimulatedDevice

COMMANDS = {
    "show": "bneck.count(network)",
    "count": "bneck.count(network, task=...)",
    "zoo": "bneck.zoo()",
    "measure": "bneck.measure(...)",
    "choose": "bneck.choose(...)",
    "search": "bneck.search(...)",
    "predict": "bneck.predict(run, images)",
    "report": "bneck.write_report(run)",
    "export": "bneck.export(network)",
    "quantize": "bneck.quantize(network)",
    "table": "bneck.latency_table(network)",
    "import": "bneck.import_weights(file)",
    "evaluate": "bneck.evaluate(network, data)",
    "convert": "bneck.convert(data)",
    "train": "bneck.train(network, data, task=...)",
    "runs": "bneck.list_runs(folder)",
    "doctor": "bneck.doctor()",
}


@pytest.fixture
def few(tmp_path: Path, pictures: Path) -> Path:
    """A copy of the pictures that can be spoilt."""
    return Path(shutil.copytree(pictures, tmp_path / "data"))


class TestData:
    def test_no_such_folder(self, call: Call, tmp_path: Path) -> None:
        said = refusal(call("search", "--data", tmp_path / "none", "--out", tmp_path / "run"))
        assert said == f"there is no folder {tmp_path / 'none'}; check the path"
        assert list(tmp_path.iterdir()) == []

    def test_a_file_is_no_folder(self, call: Call, tmp_path: Path) -> None:
        (tmp_path / "data").touch()
        said = refusal(call("search", "--data", tmp_path / "data", "--out", tmp_path / "run"))
        assert "data is not a folder" in said

    def test_an_empty_class(self, call: Call, few: Path, tmp_path: Path) -> None:
        (few / "train" / "triangle").mkdir()
        said = refusal(call("search", "--data", few, "--out", tmp_path / "run"))
        assert said.startswith("class 'triangle' has no images in ")

    def test_a_single_class(self, call: Call, few: Path, tmp_path: Path) -> None:
        for name in ("circle", "square"):
            shutil.rmtree(few / "train" / name)
        said = refusal(call("search", "--data", few, "--out", tmp_path / "run"))
        assert "has one class, 'stripes'; at least two are needed" in said

    def test_more_than_one_in_a_hundred_unreadable(
        self, call: Call, few: Path, tmp_path: Path, tiny_file: Path
    ) -> None:
        torn, empty = few / "train" / "circle" / "00.png", few / "val" / "square" / "01.png"
        torn.write_bytes(torn.read_bytes()[:100])
        empty.write_bytes(b"")
        answer = call(
            "search", "--data", few, "--seed-network", tiny_file, "--out", tmp_path / "run"
        )
        said = refusal(answer, after=1)
        assert "\n[1/8] reading images (126)\n" in answer.err  # 3 x (32 + 10)
        assert said.startswith(
            "2 of 126 images (1.6%) cannot be read, more than the allowed 1.0%: "
        )
        assert str(torn) in said
        assert f"{empty} (the file is empty)" in said


class TestSettings:
    @pytest.mark.parametrize(
        ("option", "value", "sentence"),
        [
            ("--repeats", -1, "repeats is -1; it must be at least 1 "),
            ("--repeats", 0, "repeats is 0; it must be at least 1 "),
            ("--resolution", 16, "resolution is 16; it must be at least 32"),
            ("--resolution", 0, "resolution is 0; it must be at least 32"),
            ("--resolution", 100_000, "resolution is 100000; it must be at most 8192"),
            ("--steps", 0, "steps is 0; it must be at least 1 "),
            ("--workers", 0, "workers is 0; it must be at least 1 "),
            ("--seed", -1, "seed is -1; it must be at least 0 "),
            ("--seed", 2**40, "seed is 1099511627776; it must be at least 0 and below 2^32"),
            ("--epochs", 0, "epochs is 0.0; it must be a number above 0"),
            ("--epochs", "nan", "epochs is nan; it must be a number above 0"),
            ("--epochs", "inf", "epochs is inf; it must be a number above 0"),
            ("--delta", 0, "delta is 0.0; it must be a share above 0 and below 0.5"),
            ("--delta", "nan", "delta is nan; it must be a share above 0 and below 0.5"),
            ("--device", "pixel-9", "there is no device 'pixel-9'; known are local"),
            ("--target", "5", "the target is '5'; write a time with its unit, as 5ms, or a part"),
            ("--target", "fast", "the target is 'fast'; write a time with its unit"),
            ("--target", "-5ms", "the target is '-5ms'; write a time with its unit"),
            ("--target", "0%", "the target is '0%'; write a time with its unit"),
        ],
    )
    def test_values_that_cannot_be_are_refused_before_a_folder_is_made(
        self, call: Call, tmp_path: Path, option: str, value: object, sentence: str
    ) -> None:
        method = ("--method", "netadapt") if option in ("--steps", "--delta") else ()
        answer = call("search", option, value, *method, "--out", tmp_path / "run")
        assert refusal(answer).startswith(sentence)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("target", "sentence"),
        [
            ("120%", "tiny at 32 px already runs in "),
            ("1us", "0.001 ms cannot be reached from tiny at 32 px: its fastest version runs "),
        ],
    )
    def test_targets_that_need_no_search_or_no_search_can_reach(
        self,
        call: Call,
        simulated: SimulatedDevice,
        pictures: Path,
        tiny_file: Path,
        tmp_path: Path,
        target: str,
        sentence: str,
    ) -> None:
        answer = call(
            "search", "--device", simulated.name, "--data", pictures, "--seed-network", tiny_file,
            "--target", target, "--out", tmp_path / "run",
        )  # fmt: skip
        assert refusal(answer, after=1).startswith(sentence)  # "reading images" came before


class TestFolders:
    def test_out_must_be_new_or_empty_and_is_left_alone(
        self, call: Call, tmp_path: Path, pictures: Path
    ) -> None:
        (tmp_path / "precious").write_text("mine")
        said = refusal(call("search", "--data", pictures, "--out", tmp_path))
        assert said == f"{tmp_path} exists and is not an empty folder; choose another --out"
        assert [p.name for p in tmp_path.iterdir()] == ["precious"]

    def test_out_cannot_be_a_file_or_lie_below_one(self, call: Call, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "is not an empty folder" in refusal(call("search", "--out", tmp_path / "file"))
        said = refusal(call("search", "--out", tmp_path / "file" / "run"))
        assert "cannot be made: Not a directory; choose another --out" in said

    def test_a_run_is_not_begun_in_another_runs_folder(self, call: Call, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text("{}")
        said = refusal(call("search", "--out", tmp_path))
        assert f"{tmp_path} holds a run already; go on with --resume {tmp_path}" in said

    @pytest.mark.parametrize("name", [".", "none"])
    @pytest.mark.parametrize("command", [("search", "--resume"), ("report",)])
    def test_what_is_no_run_is_refused_and_left_alone(
        self, call: Call, tmp_path: Path, name: str, command: tuple[str, ...]
    ) -> None:
        said = refusal(call(*command, tmp_path / name))
        assert said == f"{tmp_path / name} is not a run folder: it has no run.json"
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("command", [("search", "--resume"), ("report",)])
    def test_a_run_of_another_version(
        self, call: Call, tmp_path: Path, command: tuple[str, ...]
    ) -> None:
        (tmp_path / "run.json").write_text('{"format": 99, "kind": "search"}')
        said = refusal(call(*command, tmp_path))
        assert "was written by another version of bneck in run format 99" in said

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"kind": "search"}', "\x00\x01"])
    def test_a_damaged_record(self, call: Call, tmp_path: Path, text: str) -> None:
        (tmp_path / "run.json").write_text(text)
        assert "run.json cannot be read as a run's record" in refusal(
            call("search", "--resume", tmp_path)
        )

    @pytest.mark.parametrize("settings", ["{}", "[]", '"x"', '{"data": null, "training": 1}'])
    def test_a_record_without_settings(self, call: Call, tmp_path: Path, settings: str) -> None:
        (tmp_path / "run.json").write_text(f'{{"format": 1, "settings": {settings}}}')
        assert "lacks the settings of a search" in refusal(call("search", "--resume", tmp_path))

    def test_two_processes_do_not_work_on_one_run(self, call: Call, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text('{"format": 1}')
        other = subprocess.Popen(
            [sys.executable, "-c", LOCK, str(tmp_path / ".lock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert other.stdin is not None
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == b"locked\n"
            said = refusal(call("search", "--resume", tmp_path))
            assert said.startswith(f"another process works on {tmp_path}; wait for it or choose")
        finally:
            other.kill()
            other.communicate()
        # A killed process lets go.
        assert "lacks the settings" in refusal(call("search", "--resume", tmp_path))


LOCK = """
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any
from bneck.records.files import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


class TestPredict:
    def test_refusals(self, call: Call, tmp_path: Path) -> None:
        assert "has no trained weights" in refusal(call("predict", tmp_path, "x.png"))
        (tmp_path / "model.onnx").write_text("nothing")
        assert "onnxruntime cannot load this file" in refusal(call("predict", tmp_path, "x.png"))
        assert refusal(call("predict", tmp_path)) == "Missing argument 'images'; see --help"


class TestProcess:
    """What only a process of its own can show."""

    def test_a_refusal_has_exit_code_2_and_no_traceback(self, tmp_path: Path) -> None:
        for how in ([str(Path(sys.executable).parent / "bneck")], [sys.executable, "-m", "bneck"]):
            done = subprocess.run(
                [*how, "count", "v4-huge"], capture_output=True, text=True, cwd=tmp_path
            )
            assert done.returncode == 2
            assert done.stdout == ""
            assert done.stderr.startswith("bneck: there is no network 'v4-huge'")
            assert done.stderr.count("\n") == 1

    def test_help_and_counting_import_nothing_heavy(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", HELPS, json.dumps([*COMMANDS])],
            capture_output=True,
            text=True,
            check=True,
        )
        told = json.loads(done.stdout)
        for command, twin in COMMANDS.items():
            # Wherever the terminal's width broke its lines.
            assert f"Python: {twin}".replace(" ", "") in "".join(told["helps"][command].split())
        assert told["heavy"] == []

    def test_every_twin_exists(self) -> None:
        for twin in COMMANDS.values():
            name = twin.partition("(")[0].removeprefix("bneck.")
            assert callable(bneck.__getattr__(name))


HELPS = """
import contextlib, io, json, sys
from bneck.cli.main import run

def told(*arguments):
    sys.argv = ["bneck", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        run()
    return out.getvalue()

helps = {command: told(command, "--help") for command in json.loads(sys.argv[1])}
told("--help")
told("count", "v3-large", "v3-small-0.75@96", "--json")
told("show", "v3-small")
told("zoo")
heavy = {"torch", "onnx", "onnxruntime", "PIL", "loky"} & set(sys.modules)
print(json.dumps({"helps": helps, "heavy": sorted(heavy)}))
"""


def test_the_packages_export_stays_the_function() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import bneck; bneck.export; bneck.export; print(callable(bneck.export))",
        ],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True\n"


class TestTrain:
    def test_a_classifier_is_the_default_task(
        self, call: Call, tiny_file: Path, pictures: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        answer = call("train", tiny_file, "--data", pictures, "--epochs", 1, "--out", out, "--json")
        assert answer.code == 0
        found = json.loads(answer.out)
        assert (found["kind"], found["task"]) == ("train", "classify")
        assert found["scores"]["val"]["images"] == 30
        top1 = found["scores"]["val"]["score"]
        again = call("train", "--resume", out)
        assert again.code == 0
        assert f"top-1 {top1:.1%}" in again.out
        assert call("report", out).out.strip() == str(out / "report.md")
        said = refusal(call("predict", out, next(pictures.rglob("*.png")), "--top", 0))
        assert said == "top is 0; it must be at least 1"
        assert f"top-1 {100 * top1:.1f} %" in (out / "report.md").read_text()

    def test_nothing_to_train(self, call: Call) -> None:
        assert refusal(call("train")).startswith("a network is needed, as in: bneck train")

    def test_a_search_is_not_resumed_as_a_training(self, call: Call, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text('{"format": 1, "kind": "search"}')
        said = refusal(call("train", "--resume", tmp_path))
        assert said == (
            f"{tmp_path} is a run of kind 'search', not a training; resume a search with bneck search "
            "--resume"
        )


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("torch", ("train", "v3-small"), "search"),
        ("onnx", ("measure", "v3-small@32"), "search"),
        ("PIL", ("search", "--data", "photos"), "search"),
    ],
)
def test_what_the_base_install_lacks_is_named_with_its_extra(
    module: str, arguments: tuple[str, ...], extra: str
) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from bneck.cli.main import run; run()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        f"bneck: this needs {module}, which is not installed; install it with: "
        f"pip install 'bneck[{extra}]'\n"
    )


def test_a_task_package_that_cannot_be_imported_costs_one_line(tmp_path: Path) -> None:
    """The commands of the other tasks go on; the task itself is refused with the reason."""
    (tmp_path / "gauges.py").write_text("import nothing_of_this_name\n")
    (info := tmp_path / "gauges-1.0.dist-info").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gauges\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bneck.tasks]\ngauge = gauges:Gauge\n")
    fault = (
        "bneck: the task gauge of the package gauges cannot be imported (ModuleNotFoundError: No module "
        "named 'nothing_of_this_name'); "
    )

    def said(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = (
            f"import sys; sys.path.append({str(tmp_path)!r}); from bneck.cli.main import run; run()"
        )
        command = [sys.executable, "-c", code, "zoo", "v3-small", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    done = said()
    assert (done.returncode, done.stderr) == (0, f"{fault}it is left out\n")
    assert "v3-small" in done.stdout
    done = said("--task", "gauge")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"{fault}mend or uninstall that package"


def test_help_names_the_options_of_the_command_at_hand() -> None:
    """What tasks share is said once; how many classes there are is said only where that is asked for."""
    import typer.main

    from bneck.cli.main import app

    group: Any = typer.main.get_command(app)
    helps = {
        (name, option.opts[0]): option.help
        for name, command in group.commands.items()
        for option in command.params
    }
    assert helps["train", "--resolution"] == (
        "Input side in pixels; default the network's, 48 for the built-in images or 320 for a detector."
    )
    assert helps["count", "--classes"].startswith("Number of classes; default COCO's 90 ids or ")
    assert "ount" not in helps["train", "--classes"]
    assert "list" not in helps["measure", "--classes"]


def test_the_defaults_of_options_are_those_of_the_functions() -> None:
    """A value that equals its default is not handed over, so both must be the same."""
    from bneck.cli.choose import ChooseOptions
    from bneck.cli.pages import CompareOptions, ReproduceOptions
    from bneck.cli.search import SearchOptions
    from bneck.cli.ship import QuantizeOptions
    from bneck.cli.weights import ImportOptions

    pairs: list[tuple[Any, Any]] = [
        (CompareOptions, bneck.compare), (ReproduceOptions, bneck.reproduce), (SearchOptions, bneck.search),
        (QuantizeOptions, bneck.quantize), (ImportOptions, bneck.import_weights),
        (ChooseOptions, bneck.choose),
    ]  # fmt: skip
    for kind, function in pairs:
        parameters = inspect.signature(function).parameters
        shared = [one for one in fields(kind) if one.name in parameters]
        assert len(shared) > 5
        for one in shared:
            assert str(one.default) == str(parameters[one.name].default), one.name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "v3-small", "--data", ""), "the argument after --data is empty; give a value"),
        (("train", "v3-small", "--data="), "the argument --data= is empty; give a value"),
        (("train", "v3-small", "--data", "x" * 5000), "characters, too long for a file; check it"),
    ],
)
def test_what_is_no_path(
    words: tuple[str, ...], said: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of the shell that is not set must not mean the folder that one is in."""
    monkeypatch.chdir(tmp_path)
    assert said in refusal(call(*words))
