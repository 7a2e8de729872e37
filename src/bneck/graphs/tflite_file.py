"""TFLite's flatbuffer under construction: tensors, constants, operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bneck.graphs.quantization import Array, Scale
from bneck.specs.errors import InputError

ALIGNMENT = 16  # bytes; vector units read weights straight from the file
# The least versions whose definition covers what is written, in float32 and int8; the class of its options.
OPERATORS = {
    "ADD": (1, 2, "AddOptions"),
    "ARG_MAX": (1, 2, "ArgMaxOptions"),
    "AVERAGE_POOL_2D": (1, 2, "Pool2DOptions"),
    "CONCATENATION": (1, 2, "ConcatenationOptions"),
    "CONV_2D": (1, 3, "Conv2DOptions"),
    "DEPTHWISE_CONV_2D": (1, 3, "DepthwiseConv2DOptions"),
    "DEQUANTIZE": (3, 2, ""),
    "FULLY_CONNECTED": (1, 4, "FullyConnectedOptions"),
    "HARD_SWISH": (1, 1, ""),
    "LOGISTIC": (1, 2, ""),
    "MEAN": (1, 2, "ReducerOptions"),
    "MUL": (1, 2, "MulOptions"),
    "PAD": (1, 2, ""),
    "QUANTIZE": (1, 1, ""),
    "RESHAPE": (1, 1, ""),
    "RESIZE_BILINEAR": (1, 2, "ResizeBilinearOptions"),
}
# What an operator with such an option gets unless told otherwise.
_USUAL = {
    **dict.fromkeys(
        ("strideH", "strideW", "dilationHFactor", "dilationWFactor", "depthMultiplier"), 1
    ),
    "keepDims": True,
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
        self._flatbuffers, self._schema = flatbuffers, schema
        self._tensors: list[Any] = []
        self._buffers: list[bytes] = [b""]  # the first is empty in every file
        self._operators: list[Any] = []
        self._codes: dict[tuple[str, int], int] = {}
        self._constants: dict[tuple[str, bytes], int] = {}
        self.inputs: list[int] = []
        self.outputs: list[int] = []

    def kind(self, name: str) -> Any:
        """The format's number for a kind of numbers, by numpy's name for it."""
        return getattr(self._schema.TensorType, name.upper())

    def tensor(
        self, name: str, shape: Sequence[int], *, kind: str = "", scale: Scale | None = None
    ) -> int:
        """An activation: float32, int8 if it has a scale, or another `kind`."""
        tensor = self._schema.TensorT()
        tensor.name = name
        tensor.shape = np.asarray(shape, np.int32)
        tensor.type = self.kind(kind or ("int8" if scale else "float32"))
        tensor.buffer = 0
        if scale is not None:
            tensor.quantization = self._quantization(np.array([scale.step]), scale.zero)
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def constant(
        self, name: str, value: Array, *, scale: Scale | None = None, steps: Array | None = None, axis: int = 0
    ) -> int:  # fmt: skip
        """A tensor with a value; `steps` are those of the channels along `axis`."""
        value = np.ascontiguousarray(value)
        key = (repr((value.dtype, value.shape, scale)), value.tobytes())
        if steps is None and key in self._constants:
            return self._constants[key]
        index = self.tensor(name, value.shape, kind=value.dtype.name, scale=scale)
        tensor = self._tensors[index]
        tensor.buffer = len(self._buffers)
        self._buffers.append(key[1])
        if steps is None:
            self._constants[key] = index
        else:
            tensor.quantization = self._quantization(steps, 0, axis)
        return index

    def operator(
        self, name: str, inputs: list[int], outputs: list[int], *, fused: str = "linear", same: bool = True,
        **settings: Any,
    ) -> None:  # fmt: skip
        """Append an operator. `settings` are the format's own; what it has no use for is left out."""
        schema, operator = self._schema, self._schema.OperatorT()
        *versions, kind = OPERATORS[name]
        eight_bit = self._tensors[outputs[0]].type == schema.TensorType.INT8
        operator.opcodeIndex = self._codes.setdefault((name, versions[eight_bit]), len(self._codes))
        operator.inputs = np.asarray(inputs, np.int32)
        operator.outputs = np.asarray(outputs, np.int32)
        if kind:
            options = getattr(schema, f"{kind}T")()
            none = "NONE" if fused == "linear" else fused.upper()
            padding = schema.Padding.SAME if same else schema.Padding.VALID
            function = getattr(schema.ActivationFunctionType, none)
            known = {**_USUAL, "fusedActivationFunction": function, "padding": padding, **settings}
            for setting, value in known.items():
                if hasattr(options, setting):
                    setattr(options, setting, value)
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self._operators.append(operator)

    def pack(self, title: str, metadata: Mapping[str, str]) -> bytes:
        """The file's bytes."""
        schema, model, graph = self._schema, self._schema.ModelT(), self._schema.SubGraphT()
        model.version = 3
        model.description = title
        model.operatorCodes = [self._code(*code) for code in self._codes]
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

    def _quantization(self, steps: Array, zero: int, axis: int = 0) -> Any:
        quantization = self._schema.QuantizationParametersT()
        quantization.scale = steps.astype(np.float32)
        quantization.zeroPoint = np.full(len(steps), zero, np.int64)
        quantization.quantizedDimension = axis
        return quantization


class _Buffer:
    """Bytes at an aligned place of the file, which the schema's own class does not see to."""

    def __init__(self, schema: Any, data: bytes) -> None:
        self._schema, self._data = schema, data

    def Pack(self, builder: Any) -> Any:  # the schema's classes call it by this name
        schema, size = self._schema, len(self._data)
        if size:
            builder.StartVector(1, size, ALIGNMENT)
            builder.head -= size
            builder.Bytes[builder.head : builder.head + size] = self._data
            data = builder.EndVector()
        schema.BufferStart(builder)
        if size:
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
    for entry in (root.Metadata(i) for i in range(root.MetadataLength())):
        data = root.Buffers(entry.Buffer()).DataAsNumpy()
        # The schema gives 0 for a buffer without bytes.
        found[entry.Name().decode()] = (
            "" if isinstance(data, int) else data.tobytes().decode("utf-8", "replace")
        )
    return found
