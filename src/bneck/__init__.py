"""Find, train, shrink and ship the vision network that fits your data and your device.

A complete implementation of "Searching for MobileNetV3". The names here are the package's public
ones; nothing inside the package imports this module, and torch is only loaded by what needs it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bneck.costs.count import Count as Count
    from bneck.recipes.evaluate import evaluate as evaluate
    from bneck.recipes.imports import import_weights as import_weights
    from bneck.recipes.main import resume as resume
    from bneck.recipes.main import search as search
    from bneck.recipes.networks import build as build
    from bneck.recipes.networks import count as count
    from bneck.recipes.networks import measure as measure
    from bneck.recipes.networks import network as network
    from bneck.recipes.networks import zoo as zoo
    from bneck.recipes.predict import predict as predict
    from bneck.report.page import write_report as write_report
    from bneck.specs.errors import InputError as InputError
    from bneck.specs.network import NetSpec as NetSpec
    from bneck.specs.text import from_text as from_text
    from bneck.specs.text import to_text as to_text
    from bneck.specs.transforms import scale_width as scale_width

_HOMES = {
    "Count": "bneck.costs.count",
    "InputError": "bneck.specs.errors",
    "NetSpec": "bneck.specs.network",
    "build": "bneck.recipes.networks",
    "count": "bneck.recipes.networks",
    "evaluate": "bneck.recipes.evaluate",
    "from_text": "bneck.specs.text",
    "import_weights": "bneck.recipes.imports",
    "measure": "bneck.recipes.networks",
    "network": "bneck.recipes.networks",
    "predict": "bneck.recipes.predict",
    "resume": "bneck.recipes.main",
    "scale_width": "bneck.specs.transforms",
    "search": "bneck.recipes.main",
    "to_text": "bneck.specs.text",
    "write_report": "bneck.report.page",
    "zoo": "bneck.recipes.networks",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"bneck has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__


class _Facade(ModuleType):
    """Keeps the function `search` where importing the part of that name would replace it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Facade
