"""The tasks by name. A task is a folder here and a line in `TASKS`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from bneck.specs.errors import InputError
from bneck.tasks.contract import Task

# Name -> where its object is; imported when it is asked for.
TASKS = {
    "classify": "bneck.tasks.classify.task:Classify",
    "detect": "bneck.tasks.detect.task:Detect",
    "segment": "bneck.tasks.segment.task:Segment",
}
DEFAULT = "classify"


def task(name: str) -> Task:
    """A task by its name.

    Raises:
        InputError: there is no such task; the known are named.
    """
    if name not in TASKS:
        raise InputError(f"there is no task {name!r}; known are {', '.join(TASKS)}")
    module, _, kind = TASKS[name].partition(":")
    made: Any = getattr(import_module(module), kind)()
    found: Task = made
    return found


def tasks() -> Iterator[Task]:
    """All of them."""
    return (task(name) for name in TASKS)
