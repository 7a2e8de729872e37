"""ONNX Runtime on the CPU, the embedded default."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bneck.devices.runtimes.engine import Array, Runtime, Session


class OnnxRuntime(Runtime):
    """ONNX Runtime."""

    name = "onnxruntime"
    extra = "search"
    suffix = ".onnx"
    lacking = r"(?:No Op registered for|an implementation for) (\w+)"
    precisions = ("fp32", "fp16", "int8")

    def __init__(self) -> None:
        self._engine = self.needs("onnxruntime")
        self._engine.set_default_logger_severity(3)
        self.version = str(self._engine.__version__)

    def load(self, model: bytes, *, threads: int) -> OnnxSession:
        """Load an ONNX file's bytes, with all graph optimisations.

        Raises:
            EngineError: they are no ONNX model that this runtime can run.
        """
        return OnnxSession(self._session(model, threads), lambda: self._optimised(model))

    def _session(self, model: bytes, threads: int, keep: Path | None = None) -> Any:
        options = self._engine.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        if keep:
            options.optimized_model_filepath = str(keep)
        try:
            return self._engine.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the engine raises its own unrelated kinds
            raise self.refused(error, model) from None

    def _optimised(self, model: bytes) -> Counter[str]:
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimised.onnx"
            self._session(model, 1, path)
            nodes = onnx.load(path).graph.node
        return Counter(_name(node) for node in nodes)


def _name(node: Any) -> str:
    """An operator's kind; with what is fused into it, as in Conv+HardSwish."""
    for attribute in node.attribute:
        if attribute.name == "activation" and attribute.s:
            return f"{node.op_type}+{attribute.s.decode()}"
    return str(node.op_type)


class OnnxSession(Session):
    """A network loaded into ONNX Runtime."""

    def __init__(self, session: Any, optimised: Callable[[], Counter[str]]) -> None:
        self._session = session
        self._optimised = optimised
        self._input = session.get_inputs()[0].name
        self.metadata = dict(session.get_modelmeta().custom_metadata_map)

    def run(self, image: Array) -> Array:
        """Image (N, C, H, W) float32 -> the first output; (N, H, W, C) uint8 where pixels go in."""
        return self.run_all(image)[0]

    def run_all(self, image: Array) -> list[Array]:
        """The same image -> all outputs, in the file's order."""
        results: list[Array] = self._session.run(None, {self._input: image})
        return results

    def operators(self) -> Counter[str]:
        """The operators of the optimised graph."""
        return self._optimised()
