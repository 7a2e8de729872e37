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
    from bneck.recipes.classify import resume_classify as resume_classify
    from bneck.recipes.classify import train_classify as train_classify
    from bneck.recipes.compare import compare as compare
    from bneck.recipes.convert import convert_voc as convert_voc
    from bneck.recipes.demo import demo as demo
    from bneck.recipes.detect import evaluate_detect as evaluate_detect
    from bneck.recipes.detect import resume_detect as resume_detect
    from bneck.recipes.detect import train_detect as train_detect
    from bneck.recipes.detect_export import export_detect as export_detect
    from bneck.recipes.detect_pictures import detect as detect
    from bneck.recipes.detectors import count_detector as count_detector
    from bneck.recipes.detectors import measure_detectors as measure_detectors
    from bneck.recipes.evaluate import evaluate as evaluate
    from bneck.recipes.export import export as export
    from bneck.recipes.imports import import_weights as import_weights
    from bneck.recipes.main import resume as resume
    from bneck.recipes.main import search as search
    from bneck.recipes.networks import build as build
    from bneck.recipes.networks import count as count
    from bneck.recipes.networks import measure as measure
    from bneck.recipes.networks import network as network
    from bneck.recipes.networks import zoo as zoo
    from bneck.recipes.predict import predict as predict
    from bneck.recipes.quantize import quantize as quantize
    from bneck.recipes.reproduce import reproduce as reproduce
    from bneck.recipes.segment import evaluate_segment as evaluate_segment
    from bneck.recipes.segment import resume_segment as resume_segment
    from bneck.recipes.segment import train_segment as train_segment
    from bneck.recipes.segment_export import export_segment as export_segment
    from bneck.recipes.segment_pictures import paint as paint
    from bneck.recipes.segmenters import named_segmenter as named_segmenter
    from bneck.recipes.tables import latency_table as latency_table
    from bneck.report.page import write_report as write_report
    from bneck.specs.errors import InputError as InputError
    from bneck.specs.network import NetSpec as NetSpec
    from bneck.specs.text import from_text as from_text
    from bneck.specs.text import to_text as to_text
    from bneck.specs.transforms import scale_width as scale_width
    from bneck.tasks.segment.count import count_segmenter as count_segmenter

_HOMES = {
    "resume_classify": "bneck.recipes.classify",
    "train_classify": "bneck.recipes.classify",
    "Count": "bneck.costs.count",
    "InputError": "bneck.specs.errors",
    "NetSpec": "bneck.specs.network",
    "build": "bneck.recipes.networks",
    "compare": "bneck.recipes.compare",
    "convert_voc": "bneck.recipes.convert",
    "count": "bneck.recipes.networks",
    "count_detector": "bneck.recipes.detectors",
    "count_segmenter": "bneck.tasks.segment.count",
    "demo": "bneck.recipes.demo",
    "detect": "bneck.recipes.detect_pictures",
    "evaluate": "bneck.recipes.evaluate",
    "export_detect": "bneck.recipes.detect_export",
    "export_segment": "bneck.recipes.segment_export",
    "evaluate_detect": "bneck.recipes.detect",
    "evaluate_segment": "bneck.recipes.segment",
    "export": "bneck.recipes.export",
    "from_text": "bneck.specs.text",
    "import_weights": "bneck.recipes.imports",
    "latency_table": "bneck.recipes.tables",
    "measure": "bneck.recipes.networks",
    "measure_detectors": "bneck.recipes.detectors",
    "named_segmenter": "bneck.recipes.segmenters",
    "network": "bneck.recipes.networks",
    "paint": "bneck.recipes.segment_pictures",
    "predict": "bneck.recipes.predict",
    "quantize": "bneck.recipes.quantize",
    "reproduce": "bneck.recipes.reproduce",
    "resume": "bneck.recipes.main",
    "resume_detect": "bneck.recipes.detect",
    "resume_segment": "bneck.recipes.segment",
    "scale_width": "bneck.specs.transforms",
    "search": "bneck.recipes.main",
    "to_text": "bneck.specs.text",
    "train_detect": "bneck.recipes.detect",
    "train_segment": "bneck.recipes.segment",
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
