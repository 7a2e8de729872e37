"""ONNX Runtime on the CPU, the embedded default."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from bneck.devices.runtimes.engine import Array, Runtime, Session


class OnnxRuntime(Runtime):
    """ONNX Runtime, with all graph optimisations."""

    name = "onnxruntime"
    extra = "search"
    suffix = ".onnx"
    lacking = r"(?:No Op registered for|an implementation for) (\w+)"
    precisions = ("fp32", "fp16", "int8")
    usage = (
        "import onnxruntime",
        'outputs = onnxruntime.InferenceSession("{file}").run(None, {{"image": image}})',
    )

    def __init__(self) -> None:
        self._engine = self.needs("onnxruntime")
        self._engine.set_default_logger_severity(3)
        self.version = str(self._engine.__version__)

    def load(self, model: bytes, *, threads: int) -> OnnxSession:
        return OnnxSession(self, model, threads)

    def session(self, model: bytes, threads: int, keep: Path | None = None) -> Any:
        """The engine's own session; `keep` is where it writes the graph that it has optimised."""
        options = self._engine.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        if keep:
            options.optimized_model_filepath = str(keep)
        try:
            return self._engine.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the engine raises its own unrelated kinds
            raise self.refused(error, model) from None


class OnnxSession(Session):
    """A network loaded into ONNX Runtime. It takes any number of images at once."""

    def __init__(self, engine: OnnxRuntime, model: bytes, threads: int) -> None:
        self._engine, self._model = engine, model
        self._session = engine.session(model, threads)
        self._input = self._session.get_inputs()[0].name
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, image: Array) -> Array:
        return self.run_all(image)[0]

    def run_all(self, image: Array) -> list[Array]:
        results: list[Array] = self._session.run(None, {self._input: image})
        return results

    def operators(self) -> Counter[str]:
        """The operators of the optimised graph; one with another fused into it as Conv+HardSwish."""
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimised.onnx"
            self._engine.session(self._model, 1, path)
            return Counter(_name(node) for node in onnx.load(path).graph.node)


def _name(node: Any) -> str:
    for attribute in node.attribute:
        if attribute.name == "activation" and attribute.s:
            return f"{node.op_type}+{attribute.s.decode()}"
    return str(node.op_type)
