"""The agent as text: those modules of this package that it needs, and how they start elsewhere.

They travel over the same pipe as everything else and live in the other interpreter's memory, so
that nothing is installed or left behind on the device.
"""

from __future__ import annotations

import ast
import json
import zlib
from base64 import b64encode
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[2]  # the package
AGENT = "bneck.devices.places.agent"

# These import everything, when they are asked to; the agent asks for one place alone.
FACADES = ("bneck", "bneck.devices.places")
# Must run on old interpreters too, to say that they are.
START = f"""
import json, sys
def refuse(text):
    print(json.dumps({{'refused': text}}))
    sys.exit()
if sys.version_info < (3, 11):
    refuse('its python3 is ' + sys.version.split()[0] + ', at least 3.11 is needed')
import base64, importlib.util, zlib
sources = json.loads(zlib.decompress(base64.b64decode(sys.stdin.buffer.readline())))
class Sent:
    def find_spec(self, name, path=None, target=None):
        if name in sources:
            return importlib.util.spec_from_loader(name, self, is_package=sources[name][0])
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        name = module.__name__
        exec(compile(sources[name][1], name, 'exec'), module.__dict__)
sys.meta_path.insert(0, Sent())
try:
    from {AGENT} import main
except ImportError as error:
    refuse('it lacks ' + str(error.name) + '; install it there with: pip install ' + str(error.name)
        + ', or set BNECK_REMOTE_PYTHON to a Python there that has it')
main()
"""


def started_by(python: str) -> str:
    """The command for a shell, of whatever kind, that starts the agent; it waits for `shipment`."""
    return f"{python} -c \"import base64;exec(base64.b64decode('{b64encode(START.encode()).decode()}'))\""


@lru_cache(maxsize=1)
def shipment() -> bytes:
    """The modules, as the line that `START` waits for."""
    packed = zlib.compress(json.dumps(sources(AGENT)).encode(), 9)
    return b64encode(packed) + b"\n"


def sources(module: str) -> dict[str, tuple[bool, str]]:
    """(is a package, its source) of a module of this package and of all that it imports from it.

    Facades are empty.
    """
    found: dict[str, tuple[bool, str]] = dict.fromkeys(FACADES, (True, ""))
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if name in found or path is None:
            continue
        source = path.read_text(encoding="utf-8")
        found[name] = (path.name == "__init__.py", source)
        waiting += [name.rpartition(".")[0], *_imported(source)]
    return found


def _file(module: str) -> Path | None:
    """Where a module lies; None for what is none of this package."""
    top, *parts = module.split(".")
    if top != "bneck":
        return None
    path = ROOT.joinpath(*parts)
    for candidate in (path / "__init__.py", path.parent / f"{path.name}.py"):
        if candidate.is_file():
            return candidate
    return None


def _imported(source: str) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names
