"""The tasks by name. A task is a folder here and a line in `TASKS`, or one in an installed package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from bneck.specs.errors import InputError
from bneck.tasks.contract import Task

# Name -> where its object is; imported when it is asked for.
TASKS = {
    "classify": "bneck.tasks.classify.task:Classify",
    "detect": "bneck.tasks.detect.task:Detect",
    "segment": "bneck.tasks.segment.task:Segment",
}
DEFAULT = "classify"
GROUP = "bneck.tasks"
"""The entry points of other packages' tasks, in the form of `TASKS`; these names are taken."""


def homes() -> dict[str, EntryPoint]:
    """The entry point of each task's object, by name: those here, then those of installed packages."""
    here = {name: EntryPoint(name, home, GROUP) for name, home in TASKS.items()}
    others = {one.name: one for one in entry_points(group=GROUP)}
    return here | {name: others[name] for name in sorted(others.keys() - here.keys())}


def task(name: str) -> Task:
    """A task by its name.

    Raises:
        InputError: there is no such task, the known are named; or its package cannot be imported.
    """
    if name in TASKS:  # looking into the installed packages takes some ms
        return _loaded(EntryPoint(name, TASKS[name], GROUP))
    known = homes()
    if name not in known:
        raise InputError(f"there is no task {name!r}; known are {', '.join(known)}")
    try:
        return _loaded(known[name])
    except Exception as error:  # whatever the other package's code raises
        raise InputError(f"{_fault(known[name], error)}; mend or uninstall that package") from error


def tasks() -> Iterator[Task]:
    """All of them, except for those of packages that cannot be imported: a line on stderr names each."""
    for name, home in homes().items():
        try:
            found = _loaded(home)
        except (
            Exception
        ) as error:  # one broken package must not break the commands of the other tasks
            if name in TASKS:
                raise
            _warn(_fault(home, error))
        else:
            yield found


def _loaded(home: EntryPoint) -> Task:
    found: Task = home.load()()
    return found


def _fault(home: EntryPoint, error: Exception) -> str:
    package = home.dist.name if home.dist else home.module
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return f"the task {home.name} of the package {package} cannot be imported ({reason})"


@cache  # a command asks for all tasks several times
def _warn(fault: str) -> None:
    print(f"bneck: {fault}; it is left out", file=sys.stderr)
