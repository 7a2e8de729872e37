"""Find, train, shrink and ship the vision network that fits your data and your device.

A complete implementation of "Searching for MobileNetV3". The names here are the package's public
ones; nothing inside the package imports this module, and torch is only loaded by what needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bneck.costs.count import Count as Count
    from bneck.devices.doctor import doctor as doctor
    from bneck.paper.reproduce import reproduce as reproduce
    from bneck.records.listing import list_runs as list_runs
    from bneck.runs.choose.main import choose as choose
    from bneck.runs.choose.resume import resume as resume
    from bneck.runs.compare import compare as compare
    from bneck.runs.data import convert as convert
    from bneck.runs.demo import demo as demo
    from bneck.runs.evaluate import evaluate as evaluate
    from bneck.runs.export import export as export
    from bneck.runs.imports import import_weights as import_weights
    from bneck.runs.measure import measure as measure
    from bneck.runs.networks import build as build
    from bneck.runs.networks import count as count
    from bneck.runs.networks import network as network
    from bneck.runs.networks import zoo as zoo
    from bneck.runs.predict import predict as predict
    from bneck.runs.quantize import quantize as quantize
    from bneck.runs.report import write_report as write_report
    from bneck.runs.search.latency import latency_table as latency_table
    from bneck.runs.search.main import search as search
    from bneck.runs.ship.main import ship as ship
    from bneck.runs.train import train as train
    from bneck.specs.errors import InputError as InputError
    from bneck.specs.network import NetSpec as NetSpec
    from bneck.specs.text import from_text as from_text
    from bneck.specs.text import to_text as to_text
    from bneck.specs.transforms import scale_width as scale_width

_HOMES = {
    "Count": "bneck.costs.count",
    "InputError": "bneck.specs.errors",
    "NetSpec": "bneck.specs.network",
    "build": "bneck.runs.networks",
    "choose": "bneck.runs.choose.main",
    "compare": "bneck.runs.compare",
    "convert": "bneck.runs.data",
    "count": "bneck.runs.networks",
    "demo": "bneck.runs.demo",
    "doctor": "bneck.devices.doctor",
    "evaluate": "bneck.runs.evaluate",
    "export": "bneck.runs.export",
    "from_text": "bneck.specs.text",
    "import_weights": "bneck.runs.imports",
    "latency_table": "bneck.runs.search.latency",
    "list_runs": "bneck.records.listing",
    "measure": "bneck.runs.measure",
    "network": "bneck.runs.networks",
    "predict": "bneck.runs.predict",
    "quantize": "bneck.runs.quantize",
    "reproduce": "bneck.paper.reproduce",
    "resume": "bneck.runs.choose.resume",
    "scale_width": "bneck.specs.transforms",
    "search": "bneck.runs.search.main",
    "ship": "bneck.runs.ship.main",
    "to_text": "bneck.specs.text",
    "train": "bneck.runs.train",
    "write_report": "bneck.runs.report",
    "zoo": "bneck.runs.networks",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"bneck has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
