"""TFLite's flatbuffer under construction: tensors, constants, operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bneck.graphs.quantization import Array, Scale
from bneck.specs.errors import InputError

ALIGNMENT = 16  # bytes; vector units read weights straight from the file
# Least operator versions whose definition covers what is written, (float32, 8-bit).
VERSIONS = {
    "ADD": (1, 2),
    "ARG_MAX": (1, 2),
    "AVERAGE_POOL_2D": (1, 2),
    "CONCATENATION": (1, 2),
    "CONV_2D": (1, 3),
    "DEPTHWISE_CONV_2D": (1, 3),
    "DEQUANTIZE": (3, 2),
    "FULLY_CONNECTED": (1, 4),
    "HARD_SWISH": (1, 1),
    "LOGISTIC": (1, 2),
    "MEAN": (1, 2),
    "MUL": (1, 2),
    "PAD": (1, 2),
    "QUANTIZE": (1, 1),
    "RESHAPE": (1, 1),
    "RESIZE_BILINEAR": (1, 2),
}
_OPTIONS = {
    "ADD": "AddOptions",
    "ARG_MAX": "ArgMaxOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
}
_FUSED = {"linear": "NONE", "relu": "RELU", "relu6": "RELU6"}
_KINDS = {
    "float16": "FLOAT16",
    "float32": "FLOAT32",
    "int8": "INT8",
    "uint8": "UINT8",
    "int32": "INT32",
}


class Flatbuffer:
    """A file's one graph. Tensors are named and referred to by index.

    Raises:
        InputError: the package that knows the format is not installed.
    """

    def __init__(self) -> None:
        try:
            import flatbuffers
            from ai_edge_litert import schema_py_generated as schema
        except ImportError:
            raise InputError(
                "writing TFLite files needs LiteRT, which is not installed; install it with: "
                "pip install 'bneck[litert]'"
            ) from None
        self._flatbuffers = flatbuffers
        self._schema = schema
        self._tensors: list[Any] = []
        self._buffers: list[bytes] = [b""]  # the first is empty in every file
        self._operators: list[Any] = []
        self._codes: dict[tuple[str, int], int] = {}
        self._constants: dict[tuple[str, bytes], int] = {}
        self.inputs: list[int] = []
        self.outputs: list[int] = []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        *,
        kind: str | None = None,
        scale: Scale | None = None,
    ) -> int:
        """An activation: float32, or int8 where it has a scale, or of another `kind`."""
        tensor = self._schema.TensorT()
        tensor.name = name
        tensor.shape = np.asarray(shape, np.int32)
        tensor.type = self.kind(kind or ("int8" if scale else "float32"))
        tensor.buffer = 0
        if scale is not None:
            tensor.quantization = self._quantization(np.array([scale.step]), scale.zero, 0)
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def constant(
        self,
        name: str,
        value: Array,
        *,
        scale: Scale | None = None,
        steps: Array | None = None,
        axis: int = 0,
    ) -> int:
        """A tensor with a value; `steps` are those of the channels along `axis`."""
        value = np.ascontiguousarray(value)
        key = (repr((value.dtype, value.shape, scale)), value.tobytes())
        if steps is None and key in self._constants:
            return self._constants[key]
        index = self.tensor(name, value.shape, kind=value.dtype.name, scale=scale)
        tensor = self._tensors[index]
        if steps is not None:
            tensor.quantization = self._quantization(steps, 0, axis)
        tensor.buffer = len(self._buffers)
        self._buffers.append(value.tobytes())
        if steps is None:
            self._constants[key] = index
        return index

    def operator(
        self,
        name: str,
        inputs: list[int],
        outputs: list[int],
        *,
        fused: str = "linear",
        same: bool = True,
        stride: int = 1,
        dilation: int = 1,
        **settings: Any,
    ) -> None:
        """Append an operator; what its kind has no use for is left out. `settings` are the format's own."""
        schema, operator = self._schema, self._schema.OperatorT()
        eight_bit = self._tensors[outputs[0]].type == schema.TensorType.INT8
        code = (name, VERSIONS[name][eight_bit])
        operator.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        operator.inputs = np.asarray(inputs, np.int32)
        operator.outputs = np.asarray(outputs, np.int32)
        if name in _OPTIONS:
            options = getattr(schema, f"{_OPTIONS[name]}T")()
            if hasattr(options, "fusedActivationFunction"):
                kinds = schema.ActivationFunctionType
                options.fusedActivationFunction = getattr(kinds, _FUSED[fused])
            if hasattr(options, "padding"):
                options.padding = schema.Padding.SAME if same else schema.Padding.VALID
                options.strideH = options.strideW = stride
                if hasattr(options, "dilationHFactor"):
                    options.dilationHFactor = options.dilationWFactor = dilation
            if name == "DEPTHWISE_CONV_2D":
                options.depthMultiplier = 1
            if name == "MEAN":
                options.keepDims = True
            for setting, value in settings.items():
                setattr(options, setting, value)
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, _OPTIONS[name])
            operator.builtinOptions = options
        self._operators.append(operator)

    def pack(self, title: str, metadata: Mapping[str, str]) -> bytes:
        """The file's bytes."""
        schema, model = self._schema, self._schema.ModelT()
        model.version = 3
        model.description = title
        model.operatorCodes = [self._code(*code) for code in self._codes]
        graph = schema.SubGraphT()
        graph.name = "main"
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs = np.asarray(self.inputs, np.int32)
        graph.outputs = np.asarray(self.outputs, np.int32)
        model.subgraphs = [graph]
        buffers = list(self._buffers)
        model.metadata = []
        for key, text in metadata.items():
            entry = schema.MetadataT()
            entry.name, entry.buffer = key, len(buffers)
            buffers.append(text.encode())
            model.metadata.append(entry)
        model.buffers = [_Buffer(schema, data) for data in buffers]
        builder = self._flatbuffers.Builder(sum(map(len, buffers)) + 65_536)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _code(self, name: str, version: int) -> Any:
        code = self._schema.OperatorCodeT()
        code.builtinCode = getattr(self._schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        return code

    def _quantization(self, steps: Array, zero: int, axis: int) -> Any:
        quantization = self._schema.QuantizationParametersT()
        quantization.scale = steps.astype(np.float32)
        quantization.zeroPoint = np.full(len(steps), zero, np.int64)
        quantization.quantizedDimension = axis
        return quantization

    def kind(self, name: str) -> Any:
        """The format's own number of a kind of numbers."""
        return getattr(self._schema.TensorType, _KINDS[name])


class _Buffer:
    """Bytes at an aligned place of the file, which the schema's own class does not see to."""

    def __init__(self, schema: Any, data: bytes) -> None:
        self._schema, self._data = schema, data

    def Pack(self, builder: Any) -> Any:  # the schema's classes call it by this name
        schema = self._schema
        if not self._data:
            schema.BufferStart(builder)
            return schema.BufferEnd(builder)
        builder.StartVector(1, len(self._data), ALIGNMENT)
        builder.head -= len(self._data)
        builder.Bytes[builder.head : builder.head + len(self._data)] = self._data
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def metadata_of(model: bytes) -> dict[str, str]:
    """The metadata of a TFLite file's bytes.

    Raises:
        InputError: they are no TFLite file.
    """
    from ai_edge_litert import schema_py_generated as schema

    if model[4:8] != b"TFL3":
        raise InputError("these bytes are no TFLite file; give one that bneck export has written")
    root = schema.Model.GetRootAs(model, 0)
    found = {}
    for i in range(root.MetadataLength()):
        entry = root.Metadata(i)
        data = root.Buffers(entry.Buffer()).DataAsNumpy()
        found[entry.Name().decode()] = b"" if isinstance(data, int) else data.tobytes()
    return {name: data.decode() for name, data in found.items() if isinstance(data, bytes)}
