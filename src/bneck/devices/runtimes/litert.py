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
    usage = (
        "from ai_edge_litert.interpreter import Interpreter",
        'net = Interpreter("{file}"); net.allocate_tensors()\n'
        'net.set_tensor(net.get_input_details()[0]["index"], image.transpose(0, 2, 3, 1)); net.invoke()\n'
        'outputs = [net.get_tensor(one["index"]) for one in net.get_output_details()]',
    )

    def __init__(self) -> None:
        self._engine = self.needs("ai_edge_litert.interpreter")
        self.version = str(self.needs("ai_edge_litert").__version__)

    def load(self, model: bytes, *, threads: int) -> LiteRtSession:
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

    def run_all(self, image: Array) -> list[Array]:
        self.prepare(image)()
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def reals(self, image: Array) -> Array:
        """One image -> the first output as real numbers, also where it is stored in 8 bits.

        Raises:
            EngineError: the file cannot be run.
        """
        try:
            found: Array = self.run_all(image)[0]
        except RuntimeError as error:
            raise EngineError(f"litert cannot run the file: {str(error).splitlines()[0]}") from None
        scale, zero = self._interpreter.get_output_details()[0]["quantization"]
        return (found.astype(np.float64) - zero) * scale if scale else found

    def prepare(self, image: Array) -> Callable[[], Any]:
        interpreter = self._interpreter
        # Pixels are NHWC already.
        nhwc = image[:1] if image.dtype == np.uint8 else image[:1].transpose(0, 2, 3, 1)
        laid_out = np.ascontiguousarray(nhwc)

        def run() -> Any:
            try:
                interpreter.set_tensor(self._input, laid_out)
            except ValueError as error:
                raise EngineError(f"litert cannot take this image: {error}") from None
            interpreter.invoke()
            return interpreter.get_tensor(self._outputs[0])

        return run

    def operators(self) -> Counter[str]:
        """DELEGATE for every part that XNNPACK took whole, and the operators left between."""
        details = self._interpreter._get_ops_details()
        taken = _taken(details)
        return Counter(d["op_name"] for d in details if d["index"] not in taken)


def _taken(details: list[dict[str, Any]]) -> set[int]:
    """Indices of the operators inside delegates: between their inputs and outputs."""
    delegates = [detail for detail in details if detail["op_name"] == "DELEGATE"]
    makers = {
        int(tensor): detail
        for detail in details
        if detail["op_name"] != "DELEGATE"
        for tensor in detail["outputs"]
    }
    taken: set[int] = set()
    for delegate in delegates:
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
