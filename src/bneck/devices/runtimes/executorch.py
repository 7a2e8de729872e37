"""ExecuTorch with the XNNPACK kernels: PyTorch's own engine for phones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from bneck.devices.runtimes.engine import Array, EngineError, Runtime, Session

METADATA = "bneck"  # the method that answers with the metadata


class ExecuTorch(Runtime):
    """ExecuTorch's runtime. The number of threads is one for the whole process."""

    name = "executorch"
    extra = "executorch"
    suffix = ".pte"
    precisions = ("fp32", "int8")
    usage = (
        "import torch\nfrom executorch.runtime import Runtime",
        'program = Runtime.get().load_program("{file}")\n'
        'outputs = program.load_method("forward").execute([torch.from_numpy(image)])',
    )
    lacking = r"Missing operator: \[\d+\] ([\w:.]+)"

    def __init__(self) -> None:
        self._engine = self.needs("executorch.runtime")
        self._library = self.needs("executorch.extension.pybindings.portable_lib")
        self._torch = self.needs("torch")
        self.version = metadata.version("executorch")

    def load(self, model: bytes, *, threads: int) -> ExecuTorchSession:
        self._library._unsafe_reset_threadpool(threads)
        try:
            program = self._engine.Runtime.get().load_program(model)
            method = program.load_method("forward")
            told = program.load_method(METADATA) if METADATA in program.method_names else None
            found = json.loads(told.execute([])[0]) if told else {}
        except (RuntimeError, ValueError) as error:
            raise self.refused(error) from None
        return ExecuTorchSession(self._torch, model, program, method, found)


@dataclass
class ExecuTorchSession(Session):
    """A network loaded into ExecuTorch."""

    _torch: Any
    _model: bytes
    _program: Any  # kept, as the method reads weights from its memory
    _method: Any
    metadata: dict[str, str]

    def run_all(self, image: Array) -> list[Array]:
        return [self.prepare(image)().numpy().copy()]

    def prepare(self, image: Array) -> Callable[[], Any]:
        if image.dtype != np.float32:
            raise EngineError(f"executorch takes float32 images, not {image.dtype}")
        tensor = self._torch.from_numpy(np.ascontiguousarray(image))
        return lambda: self._method.execute([tensor])[0]

    def operators(self) -> Counter[str]:
        """DELEGATE for every part that XNNPACK took whole, and the operators left between."""
        from executorch.exir._serialize._program import deserialize_pte_binary
        from executorch.exir.schema import DelegateCall, KernelCall

        plans = deserialize_pte_binary(self._model).program.execution_plan
        plan = next(one for one in plans if one.name == "forward")
        found: Counter[str] = Counter()
        for call in (one.instr_args for chain in plan.chains for one in chain.instructions):
            if isinstance(call, DelegateCall):
                found["DELEGATE"] += 1
            elif isinstance(call, KernelCall):
                found[str(plan.operators[call.op_index].name)] += 1
        return found
