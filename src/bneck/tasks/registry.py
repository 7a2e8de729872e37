"""The tasks by name. A task is a folder here and a line in `TASKS`, or one in an installed package."""

from __future__ import annotations

from collections.abc import Iterator
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


def homes() -> dict[str, str]:
    """Where each task's object is, by name: those here, then those of installed packages."""
    others = {one.name: one.value for one in entry_points(group=GROUP)}
    return TASKS | {name: others[name] for name in sorted(others.keys() - TASKS.keys())}


def task(name: str) -> Task:
    """A task by its name.

    Raises:
        InputError: there is no such task; the known are named.
    """
    home = TASKS.get(name)  # looking into the installed packages takes some ms
    if home is None:
        known = homes()
        if name not in known:
            raise InputError(f"there is no task {name!r}; known are {', '.join(known)}")
        home = known[name]
    found: Task = EntryPoint(name, home, GROUP).load()()
    return found


def tasks() -> Iterator[Task]:
    """All of them."""
    return (task(name) for name in homes())
