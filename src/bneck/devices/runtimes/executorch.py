"""ExecuTorch with the XNNPACK kernels: PyTorch's own engine for phones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
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
    lacking = r"Missing operator: \[\d+\] ([\w:.]+)"

    def __init__(self) -> None:
        self._engine = self.needs("executorch.runtime")
        self._library = self.needs("executorch.extension.pybindings.portable_lib")
        self._torch = self.needs("torch")
        self.version = metadata.version("executorch")

    def load(self, model: bytes, *, threads: int) -> ExecuTorchSession:
        """Load a .pte file's bytes.

        Raises:
            EngineError: they are no file that this runtime can run.
        """
        self._library._unsafe_reset_threadpool(threads)
        try:
            program = self._engine.Runtime.get().load_program(model)
            method = program.load_method("forward")
            told = program.load_method(METADATA) if METADATA in program.method_names else None
            found = json.loads(told.execute([])[0]) if told else {}
        except (RuntimeError, ValueError) as error:
            raise self.refused(error) from None
        return ExecuTorchSession(self._torch, model, program, method, found)


class ExecuTorchSession(Session):
    """A network loaded into ExecuTorch."""

    def __init__(
        self, torch: Any, model: bytes, program: Any, method: Any, metadata: dict[str, str]
    ) -> None:
        self._torch = torch
        self._model = model
        self._program = program  # the method reads weights from its memory
        self._method = method
        self.metadata = metadata

    def run(self, image: Array) -> Array:
        """Image (N, C, H, W) float32 -> scores, one image at a time."""
        return np.concatenate([self.prepare(one[None])().numpy().copy() for one in image])

    def prepare(self, image: Array) -> Callable[[], Any]:
        """What runs the network once on this image."""
        if image.dtype != np.float32:
            raise EngineError(f"executorch takes float32 images, not {image.dtype}")
        tensor = self._torch.from_numpy(np.ascontiguousarray(image))
        return lambda: self._method.execute([tensor])[0]

    def operators(self) -> Counter[str]:
        """DELEGATE for every part that XNNPACK took whole, and the operators left between."""
        from executorch.exir._serialize._program import deserialize_pte_binary
        from executorch.exir.schema import DelegateCall, KernelCall

        plan = deserialize_pte_binary(self._model).program.execution_plan
        plan = next(one for one in plan if one.name == "forward")
        found: Counter[str] = Counter()
        for chain in plan.chains:
            for instruction in chain.instructions:
                call = instruction.instr_args
                if isinstance(call, DelegateCall):
                    found["DELEGATE"] += 1
                elif isinstance(call, KernelCall):
                    found[str(plan.operators[call.op_index].name)] += 1
        return found
