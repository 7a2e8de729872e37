"""What every runtime offers: load a file, run it at batch 1 with so many threads."""

from __future__ import annotations

import logging
import re
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np

from bneck.graphs.forms import Precision
from bneck.graphs.written import operators_of, place_of
from bneck.records.files import write_bytes
from bneck.specs.errors import InputError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class EngineError(InputError):
    """A runtime that is not installed or cannot load a file."""


class MissingRuntime(EngineError):
    """A runtime that is not installed.

    `install` is the command that installs it, `package` what to install where there is no bneck.
    """

    def __init__(self, name: str, extra: str, module: str) -> None:
        self.install = f"pip install 'bneck[{extra}]'"
        super().__init__(f"the runtime {name} is not installed; install it with: {self.install}")
        self.package = module.partition(".")[0].replace("_", "-")


class Session(ABC):
    """A loaded network. `metadata` is what its file says of it.

    Images are (N, C, H, W) float32, or (N, H, W, C) uint8 if the file takes pixels.
    """

    metadata: dict[str, str]

    def run(self, image: Array) -> Array:
        """Images -> the first output; of classifiers the scores (N, classes)."""
        return np.concatenate([self.run_all(one[None])[0] for one in image])

    @abstractmethod
    def run_all(self, image: Array) -> list[Array]:
        """One image -> all outputs, in the file's order."""

    def prepare(self, image: Array) -> Callable[[], Any]:
        """What runs the network once on this image, copied in as an application would: for timing."""
        return lambda: self.run_all(image)

    @abstractmethod
    def operators(self) -> Counter[str]:
        """What the engine executes after its own fusing, as far as it tells."""


class Runtime(ABC):
    """An engine. `suffix` is that of its files, `precisions` those that it runs."""

    name: ClassVar[str]
    extra: ClassVar[str]
    suffix: ClassVar[str]
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    usage: ClassVar[
        tuple[str, str]
    ]  # imports, and how `image` (NCHW) goes through {file}, for a model card
    lacking: ClassVar[str] = ""  # what its error about an operator that it lacks looks like
    version: str

    @abstractmethod
    def load(self, model: bytes, *, threads: int) -> Session:
        """Load a file's bytes.

        Raises:
            EngineError: they are not a model that this engine can run.
        """

    def converted(self, model: bytes, metadata: Mapping[str, str]) -> bytes:
        """ONNX bytes in the engine's own format; an engine that reads ONNX leaves them as they are."""
        return model

    def read(self, path: Path) -> bytes:
        """A model file's bytes.

        Raises:
            EngineError: no such file.
        """
        if not path.is_file():
            raise EngineError(f"there is no model file {path}; write one with bneck export")
        return path.read_bytes()

    def write(self, path: Path, model: bytes) -> None:
        """Write a model's file, whole or not at all.

        Raises:
            InputError: the disk is full.
        """
        write_bytes(path, model)

    def needs(self, module: str) -> Any:
        """The engine's module.

        Raises:
            EngineError: it is not installed; the message names the extra.
        """
        try:
            with _unheard():
                return import_module(module)
        except ImportError:
            raise MissingRuntime(self.name, self.extra, module) from None

    def refused(self, error: Exception, model: bytes = b"") -> EngineError:
        """The engine's own error about a file as one sentence, which names the row of a missing operator."""
        if self.lacking and (found := re.search(self.lacking, str(error))):
            kind = found[1]
            needs = next((name for one, name in operators_of(model) if one == kind), "")
            named = f"{kind}, which {place_of(needs)} needs" if needs else kind
            return EngineError(
                f"{self.name} {self.version} lacks the operator {named}; a newer version of it, or "
                "another runtime, may have it"
            )
        reason = str(error).strip().partition("\n")[0].strip().rstrip(".") or type(error).__name__
        return EngineError(f"{self.name} cannot load this file: {reason}")


@contextmanager
def _unheard() -> Iterator[None]:
    # What engines warn of while they are imported is about their own parts.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
