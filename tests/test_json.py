"""What `--json` prints: the fields of every command are those that docs/json.md names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bneck.cli.main import app
from bneck.cli.options import JSON_VERSION
from commands import Call
from simulated_device import SimulatedDevice

DOCS = (Path(__file__).parents[1] / "docs" / "json.md").read_text(encoding="utf-8")
KINDS: dict[str, tuple[type[Any], ...]] = {
    "string": (str,), "number": (int, float), "integer": (int,), "boolean": (bool,), "list": (list,),
    "object": (dict,), "null": (type(None),),
}  # fmt: skip
Field = tuple[str, tuple[type[Any], ...], bool]  # name, types, whether it may be missing


def documented() -> dict[str, dict[str, Field]]:
    """The fields of each command: a heading with its name, then a table of field, type and meaning."""
    found: dict[str, dict[str, Field]] = {}
    for part in re.split(r"^## ", DOCS, flags=re.MULTILINE)[1:]:
        head, _, text = part.partition("\n")
        for command in re.findall(r"`bneck ([a-z]+)`$", head) or [head]:
            fields = found.setdefault(command, {})
            for name, optional, kinds in re.findall(
                r"^\| `(\w+)`(\?)? \| ([a-z, ]+) \|", text, re.MULTILINE
            ):
                types = tuple(t for kind in kinds.split(",") for t in KINDS[kind.strip()])
                fields[name] = (name, types, bool(optional))
    return found


FIELDS = documented()


def check(command: str, printed: str) -> None:
    """Hold what a command printed against the page."""
    value = json.loads(printed)
    values = value if isinstance(value, list) else [value]
    assert values
    for one in values:
        assert one.pop("json_version") == JSON_VERSION
        known = FIELDS[command]
        assert set(one) <= set(known), (
            f"{command}: docs/json.md lacks {sorted(set(one) - set(known))}"
        )
        always = {name for name, (_, _, optional) in known.items() if not optional}
        assert always <= set(one), f"{command} lacks {sorted(always - set(one))}"
        for name, found in one.items():
            types = known[name][1]
            fits = type(found) in types
            assert fits, (
                f"{command}: {name} is {type(found).__name__}, and docs/json.md says {types}"
            )


@pytest.fixture(scope="module")
def trained(tiny_file: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bneck.runs.train import train

    out = tmp_path_factory.mktemp("trained") / "run"
    train(str(tiny_file), pictures, epochs=1.0, out=out)
    return out


def test_every_command_with_json_is_on_the_page() -> None:
    group: Any = typer.main.get_command(app)
    having = {
        name for name, command in group.commands.items() if any("--json" in p.opts for p in command.params)
    }  # fmt: skip
    assert set(FIELDS) - {"Published weights", "Weights to import"} == having
    assert f"`json_version` is {JSON_VERSION}" in DOCS


@pytest.mark.parametrize("arguments", [
    ("show", "v3-small"), ("count", "v3-small"), ("count", "v3-small", "v3-large"), ("zoo", "v3-small"),
    ("zoo", "v3-small", "--published"), ("import", "--list"), ("doctor",),
])  # fmt: skip
def test_of_networks_and_the_machine(call: Call, arguments: tuple[str, ...]) -> None:
    answer = call(*arguments, "--json")
    assert answer.code == 0
    further = {"--published": "Published weights", "--list": "Weights to import"}
    check(further.get(arguments[-1], arguments[0]), answer.out)


def test_of_a_trained_network(
    call: Call, trained: Path, tiny_file: Path, pictures: Path, tmp_path: Path
) -> None:
    image = next(pictures.rglob("*.png"))

    def printed(command: str, *arguments: object) -> None:
        answer = call(command, *arguments, "--json")
        assert answer.code == 0, answer.err
        check(command, answer.out)

    printed("train", tiny_file, "--data", pictures, "--epochs", 1, "--out", tmp_path / "again")
    printed("evaluate", trained)
    printed("predict", trained, image)
    printed("report", trained)
    printed("runs", trained)
    printed("export", trained, "--out", tmp_path / "a.onnx")
    printed("measure", trained, "--rounds", 3)
    printed(
        "import",
        trained / "weights.safetensors",
        "--as",
        tiny_file,
        "--classes",
        3,
        "--out",
        tmp_path / "i",
    )
    printed("compare", trained, "v3-small", "--out", tmp_path / "c.html")
    printed("reproduce", "table1", "--no-measure", "--out", tmp_path / "r")


@pytest.mark.slow
def test_of_long_commands(
    call: Call, trained: Path, simulated: SimulatedDevice, pictures: Path, tmp_path: Path
) -> None:
    def printed(command: str, *arguments: object) -> None:
        answer = call(command, *arguments, "--json")
        assert answer.code == 0, answer.err
        check(command, answer.out)

    common = ("--device", simulated.name)
    printed("table", trained, *common, "--out", tmp_path / "t.jsonl")
    printed("quantize", trained, "--epochs", 0, "--rounds", 3, "--runtime", "onnxruntime")
    printed("ship", trained, *common, "--rounds", 3, "--runtime", "onnxruntime")
    printed("choose", *common)
    printed("search", "--from", trained, "--data", pictures, "--target", "80%", "--epochs", 1, "--repeats", 1,
            "--workers", 1, *common, "--out", tmp_path / "s")  # fmt: skip
