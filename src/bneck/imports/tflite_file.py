"""TFLite files: float, float16, or int8 dequantized; batch norm is folded in them already.

A file lists its operators in the order of execution, and in these networks that order is a chain:
the n-th convolution of the file is the n-th of the network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import isclose, prod
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
# Operators with weights: the class of their options, and where the format has what torch has as
# (out, in, height, width).
WEIGHTED = {
    "CONV_2D": ("Conv2DOptions", (0, 3, 1, 2)),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (3, 0, 1, 2)),
    "FULLY_CONNECTED": ("FullyConnectedOptions", (0, 1)),
}
NUMBERS = {
    "FLOAT32": "<f4", "FLOAT16": "<f2", "UINT8": "u1", "INT8": "i1", "INT16": "<i2", "INT32": "<i4",
    "INT64": "<i8",
}  # fmt: skip
# Operators that hand on the first tensor's values.
HANDED_ON = (
    "ADD",
    "AVERAGE_POOL_2D",
    "DEQUANTIZE",
    "MEAN",
    "PAD",
    "PADV2",
    "QUANTIZE",
    "RESHAPE",
    "SQUEEZE",
)
TAKEN = ("float32", "uint8", "int8")

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """An operator with weights: (out, in, kernel, kernel), bias (out,), and what it clips.

    `fused` is the nonlinearity in it ("none", "relu", "relu6"). `floored` says that an int8 output
    cannot be below 0, which stands for a ReLU that the converter dropped.
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
        InputError: the package tflite is not installed, the file is damaged, or its graph has no
            convolutions, or some with unknown padding.
    """
    try:
        import tflite
    except ImportError:
        raise InputError(
            "TFLite files need the package tflite; install it with: pip install 'bneck[tflite]'"
        ) from None
    try:
        graph = _Graph(tflite, path.read_bytes())
        found = list(graph.convolutions())
        left = tuple(graph.other_constants())
        normalisation, resolution = graph.normalisation(), graph.resolution()
        takes, softmax = graph.takes(), "SOFTMAX" in graph.kinds
        if graph.metadata().get("input") == "pixels":
            raise InputError(
                f"{path} was made by bneck export --pixels, which folds the input's normalization into the "
                "weights; import the run's folder that it is from, or a file of bneck export without --pixels"
            )
    except InputError:
        raise
    except Exception as error:  # flatbuffers has no check of its own: a torn file fails anywhere
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} is not a whole TFLite file: {reason}; fetch it again") from None
    if not found:
        raise InputError(f"{path} has no convolution with weights in it, so nothing to import")
    notes = ["weights dequantized to float"] if graph.quantised else []
    if normalisation is None:
        notes.append(
            "the file does not say how its input is normalized; from -1 to 1 is taken, as TensorFlow's "
            "own networks have it"
        )
    return Source(
        layout="tflite",
        filters=tuple(tuple(c.weight.shape) for c in found),
        named=lambda spec: _named(spec, found, left, path),
        padding=_padding(found, path),
        normalisation=normalisation or MINUS_ONE_TO_ONE,
        resolution=resolution,
        notes=tuple(notes),
        takes=takes,
        softmax=softmax,
        rounded=graph.quantised,
    )


def _named(spec: NetSpec, found: list[Convolution], left: tuple[str, ...], path: Path) -> Named:
    wanted = places(spec)
    tensors: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for number, place in enumerate(wanted):
        if number >= len(found):
            origin |= dict.fromkeys(place.names(), f"(convolution {number + 1})")
            continue
        own = found[number]
        origin |= dict.fromkeys(place.names(), own.name)
        # Converters fold hard sigmoid's 3 into the bias before relu6.
        hard_gate = place.part == "gate" and spec.se_gate == "hsigmoid"
        shift = 3.0 if hard_gate and own.fused == "relu6" else 0.0
        tensors |= folded(place, own.weight, own.bias - shift, spec.bn_eps)
    if [place.shape for place in wanted] == [tuple(own.weight.shape) for own in found]:
        for place, own in zip(wanted, found, strict=True):
            _check_nonlinearity(place, own, spec, path)
    surplus = tuple(own.name for own in found[len(wanted) :])
    return Named(tensors=tensors, origin=origin, left=(*surplus, *left))


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
        codes = vars(schema.BuiltinOperator).items()
        names = {code: name for name, code in codes if isinstance(code, int)}
        self.kinds = [names[self._code(operator)] for operator in self.operators]
        # Tensor -> the operator that makes it.
        self.makers = {
            int(tensor): number
            for number, operator in enumerate(self.operators)
            for tensor in operator.OutputsAsNumpy()
        }
        self.quantised = False
        self._used: set[int] = set()  # tensors that are weights or biases
        self.gains = self._gains()

    def _code(self, operator: Any) -> int:
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        # Old readers find small codes in the old field.
        return int(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))

    def _name(self, tensor: int) -> str:
        name: bytes = self.graph.Tensors(tensor).Name()
        return name.decode("utf-8", "replace")

    def convolutions(self) -> Iterator[Convolution]:
        """All operators with weights, in order of execution."""
        for number, (operator, kind) in enumerate(zip(self.operators, self.kinds, strict=True)):
            if kind in WEIGHTED:
                yield self._convolution(number, operator, kind)

    def _convolution(self, number: int, operator: Any, kind: str) -> Convolution:
        entering, weight_at, *rest = (int(i) for i in operator.InputsAsNumpy())
        name, weight = self._name(weight_at), self.constant(weight_at)
        if weight is None:
            raise InputError(f"the operator {number} ({kind}) has no stored weights ({name})")
        options_class, axes = WEIGHTED[kind]
        # A gate without its 1/6 hands on six times what it stands for; these weights make up for it.
        weight = weight.transpose(axes) * self.gains.get(entering, 1.0)
        weight = weight.reshape(*weight.shape[:2], *(weight.shape[2:] or (1, 1)))
        bias = self.constant(rest[0]) if rest and rest[0] >= 0 else None
        self._used |= {weight_at, *(rest[:1])}
        options = self._options(operator, options_class)
        kinds = self.schema.ActivationFunctionType
        fused = {kinds.NONE: "none", kinds.RELU: "relu", kinds.RELU6: "relu6"}
        one_pixel = weight.shape[2] == 1
        return Convolution(
            name=name,
            weight=_tensor(weight),
            bias=_tensor(np.zeros(len(weight)) if bias is None else bias),
            fused=fused.get(options.FusedActivationFunction(), "another"),
            floored=self._floored(int(operator.Outputs(0))),
            padding=None if one_pixel else self._padding(entering, weight.shape[2], options),
        )

    def _gains(self) -> dict[int, float]:
        """How many times a tensor is what it stands for: h-swish and hard sigmoid may lack their 1/6."""
        found: dict[int, float] = {}
        for operator, kind in zip(self.operators, self.kinds, strict=True):
            entering = [int(i) for i in operator.InputsAsNumpy()]
            computed = [i for i in entering if i >= 0 and not self._stored(i)]
            out = int(operator.Outputs(0))
            if kind == "MUL":
                gain = prod(found.get(i, 1.0) for i in computed)
                gain *= prod(self._number(i) for i in entering if i not in computed)
            elif kind in HANDED_ON and computed:
                gain = found.get(computed[0], 1.0)
            else:
                gain = 1.0
            if self._clips_to_six(operator, kind) and self._opens(out):
                gain = 6.0
            # Stored numbers are rounded, 1/6 among them. A sixth of what is not clipped in the open is one of
            # what its 8-bit range clips.
            exact = ((1.0, 1.0), (6.0, 6.0), (1 / 6, 1.0))
            found[out] = next((to for near, to in exact if isclose(gain, near, rel_tol=0.02)), gain)
        return found

    def _clips_to_six(self, operator: Any, kind: str) -> bool:
        options_class = {"ADD": "AddOptions"} | {k: v for k, (v, _) in WEIGHTED.items()}
        if kind not in options_class:
            return kind == "RELU6"
        if operator.BuiltinOptions() is None:
            return False
        fused = self._options(operator, options_class[kind]).FusedActivationFunction()
        return bool(fused == self.schema.ActivationFunctionType.RELU6)

    def _opens(self, tensor: int) -> bool:
        """Whether a tensor multiplies another one, as a gate does."""
        for operator, kind in zip(self.operators, self.kinds, strict=True):
            entering = [int(i) for i in operator.InputsAsNumpy()]
            if tensor not in entering:
                continue
            if kind == "MUL" and not any(self._stored(i) for i in entering):
                return True
            if kind in (*HANDED_ON, "MUL") and self._opens(int(operator.Outputs(0))):
                return True
        return False

    def _stored(self, tensor: int) -> bool:
        if self.model.Buffers(self.graph.Tensors(tensor).Buffer()).DataLength():
            return True
        maker = self.makers.get(tensor)
        return (
            maker is not None
            and self.kinds[maker] == "DEQUANTIZE"
            and self._stored(int(self.operators[maker].Inputs(0)))
        )

    def _number(self, tensor: int) -> float:
        used = set(self._used)
        values = self.constant(tensor)
        self._used = used  # whether it is a weight is said elsewhere
        return 1.0 if values is None or values.size != 1 else float(values.reshape(-1)[0])

    def _options(self, operator: Any, name: str) -> Any:
        options, table = getattr(self.schema, name)(), operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options

    def _floored(self, tensor: int) -> bool:
        held = self.graph.Tensors(tensor)
        lowest = {self.schema.TensorType.UINT8: 0, self.schema.TensorType.INT8: -128}
        quantisation = held.Quantization()
        if held.Type() not in lowest or quantisation is None or not quantisation.ZeroPointLength():
            return False
        return int(quantisation.ZeroPoint(0)) == lowest[held.Type()]

    def _padding(self, entering: int, kernel: int, options: Any) -> str | None:
        half, stride = kernel // 2, options.StrideH()
        if options.Padding() == self.schema.Padding.SAME:
            return "same" if stride > 1 else None  # with stride 1, SAME is symmetric
        maker = self.makers.get(entering)
        if maker is None or self.kinds[maker] not in ("PAD", "PADV2"):
            return "odd"
        padded, by = (int(self.operators[maker].Inputs(i)) for i in range(2))
        pads = self.constant(by)
        if pads is None:
            return "odd"
        sides = pads.reshape(-1, 2)[1:3].tolist()
        if all(side == [half, half] for side in sides):
            return "symmetric" if stride > 1 else None
        before = self.graph.Tensors(padded).ShapeAsNumpy()[1:3]
        same = [_same_pads(int(size), kernel, stride) for size in before]
        return "same" if sides == same else "odd"

    def constant(self, index: int) -> Array | None:
        """A stored tensor as real numbers; None for one that is computed."""
        tensor = self.graph.Tensors(index)
        buffer = self.model.Buffers(tensor.Buffer())
        if buffer is None or not buffer.DataLength():
            maker = self.makers.get(index)
            if maker is None or self.kinds[maker] != "DEQUANTIZE":
                return None
            source = int(self.operators[maker].Inputs(0))
            self._used.add(source)
            return self.constant(source)
        shape = tensor.ShapeAsNumpy() if tensor.ShapeLength() else ()
        known = {getattr(self.schema.TensorType, name): text for name, text in NUMBERS.items()}
        if tensor.Type() not in known:
            raise ValueError(f"a tensor of type {tensor.Type()} is not read")
        stored = np.frombuffer(buffer.DataAsNumpy().tobytes(), known[tensor.Type()])
        values: Array = stored.reshape(shape)
        quantisation = tensor.Quantization()
        if quantisation is None or not quantisation.ScaleLength():
            return values
        self.quantised = True
        along = [1] * values.ndim
        scale, zero = quantisation.ScaleAsNumpy(), quantisation.ZeroPointAsNumpy()
        if len(scale) > 1:
            along[quantisation.QuantizedDimension()] = len(scale)
        real: Array = values.astype(np.float64) - np.resize(zero, len(scale)).reshape(along)
        real *= scale.astype(np.float64).reshape(along)
        return real

    def other_constants(self) -> Iterator[str]:
        """Names of stored numbers that are no weights: a scaling, a batch norm that was not folded.

        Sizes, axes and paddings are none, nor single numbers inside the graph (h-swish's 3 and 1/6).
        """
        begun = False
        for operator, kind in zip(self.operators, self.kinds, strict=True):
            begun = begun or kind in WEIGHTED
            if kind == "DEQUANTIZE":
                continue
            for index in (int(i) for i in operator.InputsAsNumpy()):
                if index < 0 or index in self._used:
                    continue
                values = self.constant(index)
                if values is None or values.dtype.kind == "i" or (begun and values.size == 1):
                    continue
                yield self._name(index)

    def normalisation(self) -> Normalisation | None:
        """From the input's quantization, or what bneck's own files say; None if neither says."""
        told = self.metadata()
        if "mean" in told and "std" in told:
            return Normalisation(tuple(json.loads(told["mean"])), tuple(json.loads(told["std"])))
        tensor = self.graph.Tensors(int(self.graph.Inputs(0)))
        quantisation = tensor.Quantization()
        if quantisation is None or not quantisation.ScaleLength():
            return None
        # A uint8 input is the pixel from 0 to 255, an int8 one that less 128.
        shift = 128 if tensor.Type() == self.schema.TensorType.INT8 else 0
        scale, zero = float(quantisation.Scale(0)), int(quantisation.ZeroPoint(0)) + shift
        mean, std = zero / 255, 1 / (255 * scale)
        return Normalisation((mean, mean, mean), (std, std, std))

    def metadata(self) -> dict[str, str]:
        """What the file says of itself, as bneck's own do."""
        entries = (self.model.Metadata(i) for i in range(self.model.MetadataLength()))
        held = {entry.Name().decode(): self.model.Buffers(entry.Buffer()) for entry in entries}
        return {
            name: buffer.DataAsNumpy().tobytes().decode("utf-8", "replace")
            for name, buffer in held.items()
            if buffer.DataLength()
        }

    def takes(self) -> str | None:
        """The kind of number of the input; None for another than float32, uint8 and int8."""
        kind = self.graph.Tensors(int(self.graph.Inputs(0))).Type()
        known = {getattr(self.schema.TensorType, name.upper()): name for name in TAKEN}
        return known.get(kind)

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
