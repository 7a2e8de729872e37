"""PyTorch itself: eager, and compiled. What it loads is a safetensors file that says what it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from bneck.devices.runtimes.engine import Array, EngineError, Runtime, Session


class Torch(Runtime):
    """Eager PyTorch, channels last, batch norm folded."""

    name = "torch"
    extra = "search"
    suffix = ".safetensors"

    def __init__(self) -> None:
        self._engine = self.needs("torch")
        self.version = str(self._engine.__version__)

    def load(self, model: bytes, *, threads: int) -> TorchSession:
        """Load a file's bytes. The number of threads is one for the whole process.

        Raises:
            EngineError: bneck export has not written them for torch.
        """
        from bneck.nets.fold import unpack

        try:
            net, metadata = unpack(model)
        except ValueError as error:
            raise self.refused(error) from None
        self._engine.set_num_threads(threads)
        return TorchSession(self._engine, self.compiled(net), metadata)

    def compiled(self, net: Any) -> Any:
        """What runs instead of the net: here the net."""
        return net


class TorchCompiled(Torch):
    """PyTorch through `torch.compile` with frozen weights; needs a C++ compiler on the machine."""

    name = "torch-compiled"

    def compiled(self, net: Any) -> Any:
        """The net, compiled at its first run."""
        return self._engine.compile(net, options={"freezing": True})


class TorchSession(Session):
    """A network in PyTorch. It takes any number of images at once."""

    def __init__(self, engine: Any, net: Any, metadata: dict[str, str]) -> None:
        self._engine = engine
        self._net = net.to(memory_format=engine.channels_last)
        self.metadata = metadata

    def run(self, image: Array) -> Array:
        return self.run_all(image)[0]

    def run_all(self, image: Array) -> list[Array]:
        return [self.prepare(image)().numpy()]

    def prepare(self, image: Array) -> Callable[[], Any]:
        if image.dtype != np.float32:
            raise EngineError(f"torch takes float32 images, not {image.dtype}")
        laid_out = self._engine.from_numpy(image).to(memory_format=self._engine.channels_last)

        def run() -> Any:
            with self._engine.inference_mode():
                return self._net(laid_out)

        return run

    def operators(self) -> Counter[str]:
        """The leaf modules of the net."""
        net = getattr(self._net, "_orig_mod", self._net)
        return Counter(type(part).__name__ for part in net.modules() if not list(part.children()))
