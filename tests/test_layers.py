"""Imports point down and in no ring, torch stays out of the instant parts, every file is one room."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from pathlib import Path, PurePosixPath

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "bneck"

# Lowest line first. A part imports from lower lines and from itself, never from its neighbours.
LINES = (
    "specs",
    "records",
    "costs graphs",
    "nas report",
    "nets data",
    "devices imports",
    "training",
    "tasks",
    "runs",
    "paper",
    "cli",
)
RANK = {part: rank for rank, line in enumerate(LINES) for part in line.split()}
# Files of `tasks` that say what a task is and what its head is; those next to them may load torch.
WITHOUT_TORCH = {
    "__init__", "boxes", "checks", "contract", "count", "decoding", "graph", "head", "options",
    "registry", "report", "tables", "task",
}  # fmt: skip
TORCH_BELOW = {"nas/controller.py"}  # the one module below `nets, data` that may import torch
VAGUE = {"utils", "util", "misc", "common", "helpers", "helper", "base"}


def violations(path: str, source: str) -> list[str]:
    """What one module may not do but does; `path` is below the package, as in `specs/rows.py`."""
    place = PurePosixPath(path)
    found = [
        f"{path}: {name} says nothing" for name in (*place.parts[:-1], place.stem) if name in VAGUE
    ]
    part = place.parts[0] if len(place.parts) > 1 else ""
    if part and part not in RANK:
        return [*found, f"{path}: the folder {part} has no rank"]
    rank = RANK.get(part, len(LINES))  # the facade and __main__ stand above all parts
    for line, name in imports(place, ast.parse(source)):
        top, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if top == "torch" or name == "safetensors.torch":
            if rank < RANK["nets"] and path not in TORCH_BELOW:
                found.append(f"{path}:{line} imports torch")
        elif top == "bneck" and not target:
            found.append(f"{path}:{line} imports the facade")
        elif top == "bneck" and target != part and RANK.get(target, len(LINES)) >= rank:
            found.append(f"{path}:{line} imports {target}, which is not below {part or 'it'}")
    return found


def imports(place: PurePosixPath, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, absolute name of the module) of every import, wherever it hides."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                package = ["bneck", *place.parts[:-1]]
                base = package[: len(package) + 1 - node.level] if node.level else []
                yield node.lineno, ".".join([*base, *([node.module] if node.module else [])])
            case ast.Call(
                func=ast.Name(id=called) | ast.Attribute(attr=called),
                args=[ast.Constant(value=str(name)), *_],
            ) if called in ("import_module", "__import__"):
                yield node.lineno, name


PLANTED = {
    "upward": ("specs/rows.py", "from bneck.costs.count import count", "imports costs"),
    "upward, as a module": ("costs/table.py", "import bneck.nets.build", "imports nets"),
    "upward, second of two": ("specs/rows.py", "import os, bneck.cli.main", "imports cli"),
    "sibling": ("costs/count.py", "from bneck.graphs.onnx_graph import pads", "imports graphs"),
    "sibling, the other way": ("data/pack.py", "from bneck.nets.ops import F", "imports nets"),
    "hidden in a function": (
        "report/page.py",
        "def f() -> None:\n    if True:\n        from bneck.runs.search.main import search\n",
        "report/page.py:3 imports runs",
    ),
    "hidden in a method": (
        "training/loop.py",
        "class A:\n    def f(self) -> None:\n        import bneck.tasks.registry as e\n",
        "training/loop.py:3 imports tasks",
    ),
    "only for types": (
        "records/run.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bneck.nas.netadapt import Step\n",
        "imports nas",
    ),
    "relative": ("specs/text.py", "from ..costs.count import count", "imports costs"),
    "relative, of a part": ("specs/__init__.py", "from ..costs import count", "imports costs"),
    "relative, of the facade": ("nets/ops.py", "from .. import specs", "imports the facade"),
    "by its name as text": (
        "specs/zoo.py",
        "import importlib\nimportlib.import_module('bneck.nets.build')",
        "imports nets",
    ),
    "facade": ("cli/main.py", "import bneck", "imports the facade"),
    "facade, under another name": ("runs/train.py", "import bneck as b", "imports the facade"),
    "facade, by its content": ("cli/main.py", "from bneck import count", "imports the facade"),
    "facade, by a part of it": (
        "runs/search/run.py",
        "from bneck import specs",
        "imports the facade",
    ),
    "torch too low": ("costs/count.py", "import torch", "imports torch"),
    "torch too low, hidden": (
        "nas/netadapt.py",
        "def f():\n    from torch import nn",
        "imports torch",
    ),
    "torch too low, a part": ("report/page.py", "import torch.nn.functional as F", "imports torch"),
    "torch too low, in disguise": (
        "records/run.py",
        "from safetensors.torch import load_file",
        "torch",
    ),
    "a task, from below": (
        "graphs/onnx_graph.py",
        "from bneck.tasks.detect.head import Detector",
        "imports tasks",
    ),
    "unranked folder": ("quantize/main.py", "", "the folder quantize has no rank"),
    "unranked folder, imported": ("cli/main.py", "import bneck.quantize.main", "imports quantize"),
    "vague module": ("specs/utils.py", "", "utils says nothing"),
    "vague folder": ("common/rows.py", "", "common says nothing"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found(name: str) -> None:
    path, source, message = PLANTED[name]
    assert message in "\n".join(violations(path, source))


LEGAL = {
    "downward": ("nets/build.py", "from bneck.specs.rows import Bneck\nimport torch"),
    "own part": ("specs/text.py", "from bneck.specs import zoo\nfrom bneck.specs.rows import Row"),
    "own part, relative": ("specs/text.py", "from . import zoo\nfrom .rows import Row"),
    "downward, relative": ("costs/count.py", "from ..specs.network import layers"),
    "downward, hidden": ("cli/main.py", "def f():\n    from bneck.runs.search.main import search"),
    "torch in the controller": ("nas/controller.py", "import torch\nfrom torch import nn"),
    "torch above": ("tasks/classify/scoring.py", "import torch"),
    "the facade's own": ("__init__.py", "from bneck.runs.search.main import search"),
    "a foreign name": (
        "specs/rows.py",
        "import torchlight, bneckish.nets\nfrom safetensors import x",
    ),
    "another's utils": ("specs/rows.py", "from elsewhere.utils import base"),
}


@pytest.mark.parametrize("name", LEGAL)
def test_what_is_legal_passes(name: str) -> None:
    assert violations(*LEGAL[name]) == []


def modules() -> list[str]:
    return sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def test_the_package_keeps_the_order() -> None:
    for path in modules():
        assert violations(path, (PACKAGE / path).read_text(encoding="utf-8")) == []


def rings(sources: Mapping[str, str]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others of the group.

    `sources` are the texts of modules by path below the package. Imports inside functions count;
    those under TYPE_CHECKING, which never run, do not.
    """
    known = {name(path) for path in sources}
    above = {
        name(path): known & {*imported(PurePosixPath(path), _running(ast.parse(source)), known)}
        for path, source in sources.items()
    }
    reached = {start: _reachable(start, above) for start in above}
    groups = {
        tuple(sorted(other for other in reached[start] if start in reached[other]))
        for start in above
    }
    return sorted(list(group) for group in groups if group)


def imported(place: PurePosixPath, tree: ast.AST, known: Set[str]) -> Iterator[str]:
    """The modules of `known` that one imports; of `from PACKAGE import MODULE` the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            ((_, base),) = imports(place, node)
            wanted = [f"{base}.{alias.name}" for alias in node.names]
            yield from (name if name in known else base for name in wanted)
        elif isinstance(node, ast.Import | ast.Call):
            yield from (target for _, target in imports(place, node))


def _running(tree: ast.Module) -> ast.Module:
    """Without the bodies of `if TYPE_CHECKING:`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    return tree


def _reachable(start: str, above: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    ahead = [*above[start]]
    while ahead:
        if (module := ahead.pop()) not in seen:
            seen.add(module)
            ahead += above[module]
    return seen


def test_planted_rings_are_found() -> None:
    chain = {"data/a.py": "import bneck.data.b", "data/b.py": "from bneck.data.c import x"}
    closed = {**chain, "data/c.py": "def f():\n    from bneck.data import a"}
    ring = ["bneck.data.a", "bneck.data.b", "bneck.data.c"]
    assert rings({**chain, "data/c.py": ""}) == []
    assert rings(closed) == [ring]
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bneck.data.a import x"
    assert rings({**chain, "data/c.py": typed}) == []
    assert rings({**closed, "data/__init__.py": "", "nets/d.py": "from bneck.data import a"}) == [
        ring
    ]


def test_no_modules_import_each_other() -> None:
    sources = {path: (PACKAGE / path).read_text(encoding="utf-8") for path in modules()}
    assert rings(sources) == []


def test_every_ranked_part_is_there_and_the_check_sees_its_files() -> None:
    folders = {PurePosixPath(path).parts[0] for path in modules() if "/" in path}
    assert folders == set(RANK)


def test_files_stay_under_450_lines_and_functions_under_70() -> None:
    for path in modules():
        source = (PACKAGE / path).read_text(encoding="utf-8")
        assert source.count("\n") <= 450, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                said = (ast.get_docstring(node, clean=False) or "").count("\n")  # is no code
                length = (node.end_lineno or node.lineno) - node.lineno + 1 - said
                assert length <= 70, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_what_must_be_instant_does_not_load_torch() -> None:
    """In a fresh process, since this one has torch from the other tests."""
    low = [path for path in modules() if RANK.get(path.partition("/")[0], 99) < RANK["nets"]]
    low += [
        path
        for path in modules()
        if path.startswith("tasks/") and PurePosixPath(path).stem in WITHOUT_TORCH
    ]
    dotted = ["bneck", "bneck.cli.main", *(name(path) for path in low if path not in TORCH_BELOW)]
    seen = {"bneck.specs.zoo", "bneck.nas.netadapt", "bneck.tasks.detect.head"}
    assert seen <= set(dotted)
    program = (
        "import importlib, sys\n"
        f"for name in {dotted}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name + ' loads torch'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def name(path: str) -> str:
    return "bneck." + path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def unnamed(dotted: list[str]) -> list[str]:
    """Modules that `import bneck.a.b as x` does not give, in a fresh process."""
    program = (
        "import sys\n"
        f"for name in {dotted}:\n"
        "    try:\n"
        "        exec(f'import {name} as module')\n"
        "        assert module is sys.modules[name]\n"
        "    except (AttributeError, ImportError, AssertionError) as error:\n"
        "        print(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_module_can_be_imported_under_another_name() -> None:
    """A function of the facade would hide a part of its name: `import bneck.part.module as x` fails."""
    dotted = [name(path) for path in modules() if not path.endswith("__main__.py")]
    assert unnamed(dotted) == []


def test_no_folder_holds_more_than_20_files() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    crowded = {str(one): n for one in folders if (n := len(list(one.glob("*.py")))) > 20}
    assert crowded == {}


# Words that name a task; `classify` and its like are also plain verbs of prose, so only code counts.
TASK_NAMES = ("classify", "detect", "segment")


def named_tasks(source: str) -> list[int]:
    """Lines of a module that name a task: an import of one, a literal that is exactly its name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Constant(value=value) if value in TASK_NAMES:
                found.append(node.lineno)
            case ast.ImportFrom(module=str(module)) if module.startswith(
                tuple(f"bneck.tasks.{task}" for task in TASK_NAMES)
            ):
                found.append(node.lineno)
    return found


def test_a_planted_name_of_a_task_is_found() -> None:
    assert named_tasks('x = 1\nif task == "detect":\n    pass') == [2]
    assert named_tasks("def f():\n    from bneck.tasks.segment.head import x") == [2]
    assert named_tasks("from bneck.tasks.registry import task") == []


def test_nothing_outside_tasks_names_one() -> None:
    """But the paper's own tables, which are about these tasks, records of a format of old, whose kinds
    were named after them, and the extras, one of which is called as its task is."""
    for path in modules():
        if not path.startswith(("tasks/", "paper/", "records/upgrade.py", "devices/installed.py")):
            assert named_tasks((PACKAGE / path).read_text(encoding="utf-8")) == [], path
