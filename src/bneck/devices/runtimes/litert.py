"""LiteRT (TensorFlow Lite) with the XNNPACK kernels, as on phones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from bneck.devices.runtimes.engine import Array, EngineError, Runtime, Session
from bneck.graphs.tflite_file import metadata_of


class LiteRt(Runtime):
    """LiteRT's interpreter."""

    name = "litert"
    extra = "litert"
    suffix = ".tflite"
    lacking = r"(?:builtin opcode '|unresolved custom op: )(\w+)"
    precisions = ("fp32", "fp16", "int8")

    def __init__(self) -> None:
        self._engine = self.needs("ai_edge_litert.interpreter")
        self.version = str(self.needs("ai_edge_litert").__version__)

    def load(self, model: bytes, *, threads: int) -> LiteRtSession:
        """Load a TFLite file's bytes.

        Raises:
            EngineError: they are no TFLite file that this runtime can run.
        """
        try:
            interpreter = self._engine.Interpreter(model_content=model, num_threads=threads)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise self.refused(error, model) from None
        return LiteRtSession(interpreter, metadata_of(model))


class LiteRtSession(Session):
    """A network loaded into LiteRT."""

    def __init__(self, interpreter: Any, metadata: dict[str, str]) -> None:
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]["index"]
        self._outputs = [one["index"] for one in interpreter.get_output_details()]
        self.metadata = metadata

    def run(self, image: Array) -> Array:
        """Image (N, C, H, W) float32, or (N, H, W, C) uint8 where pixels go in -> scores."""
        return np.concatenate([self._once(self._laid_out(one)) for one in image])

    def run_all(self, image: Array) -> list[Array]:
        """The same, one image and all of the file's outputs in their order."""
        self._once(self._laid_out(image[0]))
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def prepare(self, image: Array) -> Callable[[], object]:
        """What runs the network once on this image, copied in as an application would."""
        laid_out = self._laid_out(image[0])
        return lambda: self._once(laid_out)

    def operators(self) -> Counter[str]:
        """DELEGATE for every part that XNNPACK took whole, and the operators left between."""
        details = self._interpreter._get_ops_details()
        taken = _taken(details)
        return Counter(d["op_name"] for d in details if d["index"] not in taken)

    def _laid_out(self, image: Array) -> Array:
        """(C, H, W) float32 -> (1, H, W, C); pixels are that already."""
        if image.dtype == np.uint8:
            return np.ascontiguousarray(image[None])
        return np.ascontiguousarray(image.transpose(1, 2, 0)[None])

    def _once(self, laid_out: Array) -> Array:
        interpreter = self._interpreter
        try:
            interpreter.set_tensor(self._input, laid_out)
        except ValueError as error:
            raise EngineError(f"litert cannot take this image: {error}") from None
        interpreter.invoke()
        scores: Array = interpreter.get_tensor(self._outputs[0])
        return scores


def _taken(details: list[dict[str, Any]]) -> set[int]:
    """Indices of the operators that lie inside delegates: between their inputs and outputs."""
    makers = {
        int(tensor): detail
        for detail in details
        if detail["op_name"] != "DELEGATE"
        for tensor in detail["outputs"]
    }
    taken: set[int] = set()
    for delegate in details:
        if delegate["op_name"] != "DELEGATE":
            continue
        borders = {int(tensor) for tensor in delegate["inputs"]}
        waiting = [int(tensor) for tensor in delegate["outputs"]]
        while waiting:
            tensor = waiting.pop()
            maker = makers.get(tensor)
            if tensor in borders or maker is None or maker["index"] in taken:
                continue
            taken.add(maker["index"])
            waiting += [int(source) for source in maker["inputs"]]
    return taken
