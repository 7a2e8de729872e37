"""Engines that run an exported network: load a file, run it at batch 1 with so many threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from bneck.specs.errors import InputError

Array = np.ndarray[Any, np.dtype[Any]]


class EngineError(InputError):
    """A runtime that is not installed or cannot load a file."""


class Session(Protocol):
    """A loaded network."""

    def run(self, image: Array) -> Array:
        """Image (N, C, H, W) float32 -> the first output."""
        ...

    def run_all(self, image: Array) -> list[Array]:
        """Image (N, C, H, W) float32 -> all outputs."""
        ...


class Runtime(Protocol):
    """An engine."""

    name: str
    version: str

    def load(self, model: bytes, *, threads: int) -> Session:
        """Load a model file's bytes."""
        ...


class OnnxRuntime:
    """ONNX Runtime on the CPU, the embedded default."""

    name = "onnxruntime"

    def __init__(self) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise EngineError(
                "the runtime onnxruntime is not installed; install it with: pip install 'bneck[search]'"
            ) from None
        onnxruntime.set_default_logger_severity(3)
        self._engine = onnxruntime
        self.version = str(onnxruntime.__version__)

    def load(self, model: bytes, *, threads: int) -> OnnxSession:
        """Load an ONNX file's bytes, with all graph optimisations.

        Raises:
            InputError: the bytes are no ONNX model that this runtime can run.
        """
        options = self._engine.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            session = self._engine.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the engine raises its own unrelated kinds
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise EngineError(f"onnxruntime cannot load this file: {reason}") from None
        return OnnxSession(session)


class OnnxSession:
    """A network loaded into ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self.outputs = [str(output.name) for output in session.get_outputs()]
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)

    def run(self, image: Array) -> Array:
        """Image (N, C, H, W) float32 -> the first output."""
        return self.run_all(image)[0]

    def run_all(self, image: Array) -> list[Array]:
        """Image (N, C, H, W) float32 -> all outputs, in the file's order."""
        results: list[Array] = self._session.run(None, {self._input: image})
        return results


RUNTIMES: dict[str, Callable[[], Runtime]] = {"onnxruntime": OnnxRuntime}


def runtime(name: str) -> Runtime:
    """The engine of that name.

    Raises:
        InputError: no such engine, or it is not installed.
    """
    if name not in RUNTIMES:
        raise EngineError(f"there is no runtime {name!r}; known are {', '.join(RUNTIMES)}")
    return RUNTIMES[name]()
