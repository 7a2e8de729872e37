"""What bneck's extras bring, which of it is installed, and how to install the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

_DISTRIBUTIONS = {"PIL": "pillow"}  # where a module's package has another name than the module


@dataclass(frozen=True, slots=True)
class Extra:
    """An extra of pyproject.toml: what it is for, and the modules of its packages."""

    name: str
    purpose: str
    modules: tuple[str, ...]

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install 'bneck[{self.name}]'"

    def packages(self) -> dict[str, str | None]:
        """The version of each package; None where it is not installed."""
        return {distribution(one): _version(one) for one in self.modules}


EXTRAS = (
    Extra(
        "search", "search, train, measure, export, report",
        ("loky", "onnx", "onnxruntime", "optuna", "PIL", "safetensors", "scipy", "torch"),
    ),
    Extra("hub", "published weights by name", ("huggingface_hub",)),
    Extra("detect", "mAP of detectors", ("faster_coco_eval",)),
    Extra(
        "train", "several processes, fast JPEG, tables, TensorBoard",
        ("accelerate", "fsspec", "pyarrow", "simplejpeg", "tensorboard"),
    ),
    Extra("litert", "LiteRT and TFLite files", ("ai_edge_litert", "flatbuffers")),
    Extra("openvino", "OpenVINO", ("openvino",)),
    Extra("executorch", "ExecuTorch", ("executorch",)),
    Extra("heif", "photos in HEIC", ("pillow_heif",)),
    Extra("tflite", "import of TFLite files", ("tflite",)),
    Extra("postgresql", "trials in a PostgreSQL database", ("psycopg",)),
    Extra("cluster", "training on a Ray cluster", ("ray",)),
)  # fmt: skip
"""All extras but those for developers (dev, docs)."""


def distribution(module: str) -> str:
    """The name under which pip knows a module's package."""
    return _DISTRIBUTIONS.get(module, module.replace("_", "-"))


def extra_of(module: str) -> Extra | None:
    """The extra that brings a module; None for a module of no extra."""
    return next((extra for extra in EXTRAS if module in extra.modules), None)


def lacking() -> Iterator[tuple[Extra, list[str]]]:
    """Each extra that is not complete, with the packages that it lacks."""
    for extra in EXTRAS:
        if missing := [name for name, version in extra.packages().items() if version is None]:
            yield extra, missing


def _version(module: str) -> str | None:
    try:
        return metadata.version(distribution(module))
    except metadata.PackageNotFoundError:
        # A package may be there under another name, as torch's builds by other people are.
        return "unknown version" if find_spec(module) else None
