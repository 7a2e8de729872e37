"""OpenVINO on the CPU. It reads ONNX files and its own format.

That is two files, an .xml and a .bin; while they are bytes they are one archive.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bneck.devices.runtimes.engine import Array, EngineError, Runtime, Session

KEY = "bneck"  # where metadata stands in a model's runtime information
XML, BIN = "model.xml", "model.bin"


class OpenVino(Runtime):
    """OpenVINO's CPU plugin."""

    name = "openvino"
    extra = "openvino"
    suffix = ".xml"
    lacking = r"No conversion rule found for operations: (\w+)-"
    precisions = ("fp32", "fp16", "int8")
    usage = (
        "import openvino",
        'net = openvino.compile_model("{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})\n'
        "outputs = list(net(image).values())",
    )

    def __init__(self) -> None:
        self._engine = self.needs("openvino")
        self._core = self._engine.Core()
        self.version = str(self._engine.__version__).partition("-")[0]

    def load(self, model: bytes, *, threads: int) -> OpenVinoSession:
        """Load an archive that `converted` has made, or an ONNX file's bytes.

        Raises:
            EngineError: they are not a model that this runtime can run.
        """
        try:
            read = self._unpacked(model)
            # Batches of one, which are fixed shapes: with open ones some fusions are not made.
            shapes = {tensor: tensor.get_partial_shape() for tensor in read.inputs}
            for shape in shapes.values():
                shape[0] = 1
            read.reshape(shapes)
            settings = {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                # Never left to a default: on some processors that is bfloat16.
                "INFERENCE_PRECISION_HINT": "f32",
                "ENABLE_CPU_PINNING": False,
            }
            compiled = self._core.compile_model(read, "CPU", settings)
        except (RuntimeError, OSError, zipfile.BadZipFile, KeyError) as error:
            raise self.refused(error, model) from None
        return OpenVinoSession(compiled, _metadata(read))

    def converted(self, model: bytes, metadata: Mapping[str, str]) -> bytes:
        """ONNX bytes -> an archive with OpenVINO's .xml and .bin, weights as they are.

        Raises:
            EngineError: this runtime lacks one of the operators.
        """
        try:
            read = self._core.read_model(model)
        except RuntimeError as error:
            raise self.refused(error, model) from None
        # As json: line breaks do not survive in the .xml.
        read.set_rt_info(json.dumps(dict(metadata)), [KEY])
        with tempfile.TemporaryDirectory() as folder:
            self._engine.save_model(read, Path(folder) / XML, compress_to_fp16=False)
            return _archive(*((Path(folder) / name).read_bytes() for name in (XML, BIN)))

    def read(self, path: Path) -> bytes:
        """An .xml and the .bin next to it as one archive; an ONNX file as it is."""
        model = super().read(path)
        if path.suffix != self.suffix:
            return model
        return _archive(model, super().read(path.with_suffix(".bin")))

    def write(self, path: Path, model: bytes) -> None:
        """Write the .xml and, before it, the .bin next to it.

        Raises:
            InputError: the disk is full, or the file's name does not end in .xml.
        """
        if path.suffix != self.suffix:
            raise EngineError(f"{path} must end in .xml: openvino looks for the .bin next to it")
        with zipfile.ZipFile(io.BytesIO(model)) as file:
            super().write(path.with_suffix(".bin"), file.read(BIN))
            super().write(path, file.read(XML))

    def _unpacked(self, model: bytes) -> Any:
        if not model.startswith(b"PK"):
            return self._core.read_model(model)
        with zipfile.ZipFile(io.BytesIO(model)) as file:
            return self._core.read_model(file.read(XML), file.read(BIN))


class OpenVinoSession(Session):
    """A network loaded into OpenVINO."""

    def __init__(self, compiled: Any, metadata: dict[str, str]) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self.metadata = metadata

    def run_all(self, image: Array) -> list[Array]:
        self._request.infer([image])
        # Copied: the tensors live in the request's own memory, which the next run overwrites.
        return [result.data.copy() for result in self._request.output_tensors]

    def prepare(self, image: Array) -> Callable[[], Any]:
        return lambda: next(iter(self._request.infer([image]).values()))

    def operators(self) -> Counter[str]:
        """The kinds of nodes in the graph that runs, each with the precision that it runs in."""
        found: Counter[str] = Counter()
        for node in self._compiled.get_runtime_model().get_ops():
            info = node.get_rt_info()
            kind, precision = (info[key].astype(str) for key in ("layerType", "runtimePrecision"))
            found[f"{kind}:{precision}"] += 1
        return found


def _archive(xml: bytes, weights: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in ((XML, xml), (BIN, weights)):
            # A fixed date: the same network gives the same bytes.
            file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return archive.getvalue()


def _metadata(model: Any) -> dict[str, str]:
    if model.has_rt_info([KEY]):
        found: dict[str, str] = json.loads(model.get_rt_info([KEY]).astype(str))
        return found
    # An ONNX file's metadata come to be here when it is read.
    held = model.get_rt_info(["framework"]).value if model.has_rt_info(["framework"]) else {}
    return {str(key): str(text) for key, text in dict(held).items()}
