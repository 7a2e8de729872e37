"""TFLite files: float, float16, or 8 bits dequantised; batch norm is folded in them already.

Operators lie in a file in the order of execution, and in these networks that order is a chain:
the n-th convolution of the file is the n-th of the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.imports.source import Named, Place, Source, folded, places
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec, Padding
from bneck.specs.normalisation import MINUS_ONE_TO_ONE, Normalisation

MAGIC = b"TFL3"  # at byte 4

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """An operator with weights: (out, in, kernel, kernel), bias (out,), and what it clips.

    `fused` is the nonlinearity in it ("none", "relu", "relu6"). `floored` says that an 8-bit
    output cannot be below 0, which stands for a ReLU that the converter dropped.
    """

    name: str
    weight: Tensor
    bias: Tensor
    fused: str
    floored: bool
    padding: str | None  # of those with stride 2: "same", "symmetric", or "odd"


def tflite_weights(path: Path) -> Source:
    """What a TFLite file holds; its padding and normalisation are read off its graph.

    Raises:
        InputError: the package tflite is not installed, the file is damaged, or its graph is none
            of convolutions with known padding.
    """
    data = path.read_bytes()
    schema = _schema()
    try:
        graph = _Graph(schema, data)
        found = list(graph.convolutions())
        left = tuple(graph.other_constants())
        normalisation, resolution = graph.normalisation(), graph.resolution()
    except InputError:
        raise
    except Exception as error:  # flatbuffers has no check of its own: a torn file fails anywhere
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} is not a whole TFLite file: {reason}; fetch it again") from None
    if not found:
        raise InputError(f"{path} has no convolution with weights in it, so nothing to import")
    notes = ["weights dequantised to float"] if graph.quantised else []
    if normalisation is None:
        normalisation = MINUS_ONE_TO_ONE
        notes.append(
            "the file does not say how its input is normalised; from -1 to 1 is taken, as TensorFlow's "
            "own networks have it"
        )
    return Source(
        layout="tflite",
        filters=tuple(tuple(c.weight.shape) for c in found),
        named=lambda spec: _named(spec, found, left, path),
        padding=_padding(found, path),
        normalisation=normalisation,
        resolution=resolution,
        notes=tuple(notes),
    )


def _schema() -> ModuleType:
    try:
        import tflite
    except ImportError:
        raise InputError(
            "TFLite files need the package tflite; install it with: pip install 'bneck[tflite]'"
        ) from None
    schema: ModuleType = tflite
    return schema


def _named(spec: NetSpec, found: list[Convolution], left: tuple[str, ...], path: Path) -> Named:
    wanted = places(spec)
    tensors: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for number, place in enumerate(wanted):
        name = found[number].name if number < len(found) else f"(convolution {number + 1})"
        origin |= dict.fromkeys(place.names(), name)
        if number < len(found):
            own = found[number]
            # Converters fold hard sigmoid's 3 into the bias before relu6.
            shift = 3.0 if _is_gate(place, spec) and own.fused == "relu6" else 0.0
            tensors |= folded(place, own.weight, own.bias - shift, spec.bn_eps)
    pairs = list(zip(wanted, found, strict=False))
    if len(wanted) == len(found) and all(p.shape == tuple(c.weight.shape) for p, c in pairs):
        for place, own in pairs:
            _check_nonlinearity(place, own, spec, path)
    surplus = tuple(own.name for own in found[len(wanted) :])
    return Named(tensors=tensors, origin=origin, left=(*surplus, *left))


def _is_gate(place: Place, spec: NetSpec) -> bool:
    return place.part == "gate" and spec.se_gate == "hsigmoid"


def _check_nonlinearity(place: Place, own: Convolution, spec: NetSpec, path: Path) -> None:
    if place.part == "gate":
        return  # its hard sigmoid is fused or not, as the converter liked
    act = "relu" if place.part == "reduce" else place.layer.act
    wanted = act if act.startswith("relu") else "none"  # h-swish is an operator of its own
    if own.fused == wanted or (own.fused == "none" and own.floored and wanted != "none"):
        return
    raise InputError(
        f"{path} is another network than {spec.name}, though its shapes are alike: the nonlinearity in "
        f"{own.name} is {own.fused}, that of {place.conv} is {act}"
    )


def _padding(found: list[Convolution], path: Path) -> Padding:
    kinds = {c.padding: c.name for c in found if c.padding is not None}
    if set(kinds) == {"symmetric"}:
        return "symmetric"
    if set(kinds) <= {"same"}:
        return "same"
    raise InputError(
        f"{path} pads in a way that no network here does, at {kinds.get('odd') or next(iter(kinds.values()))}; "
        "known are SAME everywhere and half a kernel on all sides everywhere"
    )


class _Graph:
    """A file's first graph, read through the schema's own accessors."""

    def __init__(self, schema: ModuleType, data: bytes) -> None:
        self.schema = schema
        self.model = schema.Model.GetRootAs(data, 0)
        self.graph = self.model.Subgraphs(0)
        self.operators = [self.graph.Operators(i) for i in range(self.graph.OperatorsLength())]
        self.kinds = [self._kind(op) for op in self.operators]
        self.quantised = False
        self._used: set[int] = set()  # tensors that are weights or biases

    def _kind(self, operator: Any) -> str:
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        # Small codes stand in the old field, for old readers.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        return self._builtin[number]

    @cached_property
    def _builtin(self) -> dict[int, str]:
        names = vars(self.schema.BuiltinOperator)
        return {code: name for name, code in names.items() if isinstance(code, int)}

    @cached_property
    def producers(self) -> dict[int, int]:
        """Tensor -> the operator that makes it."""
        return {
            int(tensor): number
            for number, operator in enumerate(self.operators)
            for tensor in operator.OutputsAsNumpy()
        }

    def convolutions(self) -> Iterator[Convolution]:
        """All operators with weights, in order of execution."""
        for number, (operator, kind) in enumerate(zip(self.operators, self.kinds, strict=True)):
            if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
                yield self._convolution(number, operator, kind)

    def _convolution(self, number: int, operator: Any, kind: str) -> Convolution:
        entering, weight_at, *rest = (int(i) for i in operator.InputsAsNumpy())
        name = self.graph.Tensors(weight_at).Name().decode("utf-8", "replace")
        weight = self.constant(weight_at)
        if weight is None:
            raise InputError(f"the operator {number} ({kind}) has no stored weights ({name})")
        if kind == "CONV_2D":
            weight = weight.transpose(0, 3, 1, 2)
        elif kind == "DEPTHWISE_CONV_2D":
            weight = weight.transpose(3, 0, 1, 2)
        else:
            weight = weight[:, :, None, None]
        bias = self.constant(rest[0]) if rest and rest[0] >= 0 else None
        self._used |= {weight_at, *(rest[:1])}
        options = self._options(operator, kind)
        return Convolution(
            name=name,
            weight=_tensor(weight),
            bias=_tensor(np.zeros(len(weight)) if bias is None else bias),
            fused=self._fused(options),
            floored=self._floored(int(operator.Outputs(0))),
            padding=self._padding(entering, weight.shape[2], options, kind),
        )

    def _options(self, operator: Any, kind: str) -> Any:
        name = {
            "CONV_2D": "Conv2DOptions",
            "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
            "FULLY_CONNECTED": "FullyConnectedOptions",
        }[kind]
        options = getattr(self.schema, name)()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options

    def _fused(self, options: Any) -> str:
        kinds = self.schema.ActivationFunctionType
        names = {kinds.NONE: "none", kinds.RELU: "relu", kinds.RELU6: "relu6"}
        return names.get(options.FusedActivationFunction(), "another")

    def _floored(self, tensor: int) -> bool:
        held = self.graph.Tensors(tensor)
        lowest = {self.schema.TensorType.UINT8: 0, self.schema.TensorType.INT8: -128}
        quantisation = held.Quantization()
        if held.Type() not in lowest or quantisation is None or not quantisation.ZeroPointLength():
            return False
        return int(quantisation.ZeroPoint(0)) == lowest[held.Type()]

    def _padding(self, entering: int, kernel: int, options: Any, kind: str) -> str | None:
        if kind == "FULLY_CONNECTED" or kernel == 1:
            return None
        half, stride = kernel // 2, options.StrideH()
        if options.Padding() == self.schema.Padding.SAME:
            return "same" if stride > 1 else None  # with stride 1, SAME is symmetric
        maker = self.producers.get(entering)
        if maker is None or self.kinds[maker] not in ("PAD", "PADV2"):
            return "odd"
        pads = self.constant(int(self.operators[maker].Inputs(1)))
        if pads is None:
            return "odd"
        sides = pads.reshape(-1, 2)[1:3].tolist()
        if all(side == [half, half] for side in sides):
            return "symmetric" if stride > 1 else None
        before = self.graph.Tensors(int(self.operators[maker].Inputs(0))).ShapeAsNumpy()[1:3]
        same = [_same_pads(int(size), kernel, stride) for size in before]
        return "same" if sides == same else "odd"

    def constant(self, index: int) -> Array | None:
        """A stored tensor as real numbers; None for one that is computed."""
        tensor = self.graph.Tensors(index)
        buffer = self.model.Buffers(tensor.Buffer())
        if buffer is None or not buffer.DataLength():
            maker = self.producers.get(index)
            if maker is None or self.kinds[maker] != "DEQUANTIZE":
                return None
            source = int(self.operators[maker].Inputs(0))
            self._used.add(source)
            return self.constant(source)
        shape = tensor.ShapeAsNumpy() if tensor.ShapeLength() else ()
        values = np.frombuffer(buffer.DataAsNumpy().tobytes(), self._dtype(tensor)).reshape(shape)
        quantisation = tensor.Quantization()
        if quantisation is None or not quantisation.ScaleLength():
            whole: Array = values
            return whole
        self.quantised = True
        along = [1] * values.ndim
        scale, zero = quantisation.ScaleAsNumpy(), quantisation.ZeroPointAsNumpy()
        if len(scale) > 1:
            along[quantisation.QuantizedDimension()] = len(scale)
        real: Array = values.astype(np.float64) - np.resize(zero, len(scale)).reshape(along)
        real *= scale.astype(np.float64).reshape(along)
        return real

    def _dtype(self, tensor: Any) -> np.dtype[Any]:
        kinds = self.schema.TensorType
        known = {
            kinds.FLOAT32: "<f4", kinds.FLOAT16: "<f2", kinds.UINT8: "u1", kinds.INT8: "i1",
            kinds.INT16: "<i2", kinds.INT32: "<i4", kinds.INT64: "<i8",
        }  # fmt: skip
        if tensor.Type() not in known:
            raise ValueError(f"a tensor of type {tensor.Type()} is not read")
        return np.dtype(known[tensor.Type()])

    def other_constants(self) -> Iterator[str]:
        """Names of stored numbers that are no weights: a scaling, a batch norm that was not folded.

        Sizes, axes and paddings are none, nor single numbers inside the graph (h-swish's 3 and 1/6).
        """
        begun = False
        for operator, kind in zip(self.operators, self.kinds, strict=True):
            begun = begun or kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
            if kind == "DEQUANTIZE":
                continue
            for index in (int(i) for i in operator.InputsAsNumpy()):
                if index < 0 or index in self._used:
                    continue
                values = self.constant(index)
                if values is None or values.dtype.kind == "i" or (begun and values.size == 1):
                    continue
                yield self.graph.Tensors(index).Name().decode("utf-8", "replace")

    def normalisation(self) -> Normalisation | None:
        """From the input's quantisation; None where the input is float."""
        tensor = self.graph.Tensors(int(self.graph.Inputs(0)))
        quantisation = tensor.Quantization()
        if quantisation is None or not quantisation.ScaleLength():
            return None
        # An 8-bit input is the pixel from 0 to 255, or that less 128.
        shift = 128 if tensor.Type() == self.schema.TensorType.INT8 else 0
        scale, zero = float(quantisation.Scale(0)), int(quantisation.ZeroPoint(0)) + shift
        mean, std = zero / 255, 1 / (255 * scale)
        return Normalisation((mean, mean, mean), (std, std, std))

    def resolution(self) -> int | None:
        """The side of a square input."""
        sides = self.graph.Tensors(int(self.graph.Inputs(0))).ShapeAsNumpy().tolist()[1:]
        sides = sides[1:] if sides[:1] == [3] else sides[:2]
        return int(sides[0]) if len(sides) == 2 and sides[0] == sides[1] > 1 else None


def _same_pads(size: int, kernel: int, stride: int) -> list[int]:
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return [total // 2, total - total // 2]


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32, order="C"))
