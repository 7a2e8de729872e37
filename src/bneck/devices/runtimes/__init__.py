"""Engines that run an exported network. One small class each; the table of them is here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bneck.devices.runtimes.engine import Array as Array
from bneck.devices.runtimes.engine import EngineError as EngineError
from bneck.devices.runtimes.engine import MissingRuntime as MissingRuntime
from bneck.devices.runtimes.engine import Runtime as Runtime
from bneck.devices.runtimes.engine import Session as Session
from bneck.devices.runtimes.executorch import ExecuTorch
from bneck.devices.runtimes.litert import LiteRt
from bneck.devices.runtimes.onnx import OnnxRuntime as OnnxRuntime
from bneck.devices.runtimes.openvino import OpenVino as OpenVino
from bneck.devices.runtimes.torch import Torch, TorchCompiled

RUNTIMES: dict[str, Callable[[], Runtime]] = {
    kind.name: kind for kind in (OnnxRuntime, LiteRt, OpenVino, ExecuTorch, Torch, TorchCompiled)
}

FORMATS = {
    "onnx": "onnxruntime",
    "tflite": "litert",
    "openvino": "openvino",
    "pte": "executorch",
    "torch": "torch",
}
"""The formats of files and the runtime that each is made for."""

# Which of them read a file; of several the first is taken unless another is asked for.
SUFFIXES = {
    ".onnx": ("onnxruntime", "openvino"),
    ".tflite": ("litert",),
    ".xml": ("openvino",),
    ".pte": ("executorch",),
    ".safetensors": ("torch", "torch-compiled"),
}


def file_runtimes(path: Path) -> tuple[str, ...]:
    """The runtimes that read a file, by its name's ending; none for other files."""
    return SUFFIXES.get(path.suffix.lower(), ())


def runtime(name: str) -> Runtime:
    """The engine of that name.

    Raises:
        InputError: no such engine, or it is not installed.
    """
    if name not in RUNTIMES:
        raise EngineError(f"there is no runtime {name!r}; known are {', '.join(RUNTIMES)}")
    return RUNTIMES[name]()
