"""A small writer of TFLite files, so that what is read is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers
import numpy as np
import tflite

from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool

Array = np.ndarray[Any, Any]
FUSED = {"linear": 0, "hswish": 0, "relu": 1, "relu6": 3}  # of the format's ActivationFunctionType
TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int8": 9}  # of its TensorType


class TfliteWriter:
    """A network with folded weights as a TFLite file.

    `weights` are named as `nets.fold.folded_weights` names them. `stored` is "float32", "float16"
    (behind DEQUANTIZE), "uint8" (one scale and zero point a tensor, activations too, ReLUs dropped
    as converters do) or "int8" (one scale a channel). `fused_gate` folds hard sigmoid's 3 into the
    gate's bias. `real` has what the file's weights mean.
    """

    def __init__(
        self,
        spec: NetSpec,
        weights: dict[str, Array],
        *,
        stored: str = "float32",
        fused_gate: bool = False,
    ) -> None:
        self.spec, self.weights, self.stored, self.fused_gate = spec, weights, stored, fused_gate
        self.b = flatbuffers.Builder(1 << 16)
        self.tensors: list[int] = []
        self.buffers: list[bytes] = [b""]
        self.operators: list[int] = []
        self.codes: list[int] = []
        self.real: dict[str, Array] = {}

    def write(self) -> bytes:
        spec, size = self.spec, self.spec.resolution
        eight = self.stored == "uint8"
        at = first = self.tensor(
            "input", (1, size, size, 3), "uint8" if eight else "float32",
            scale=[1 / 127.5] if eight else None, zero=[128],
        )  # fmt: skip
        at = self.before(at)
        into = 3
        for i, row in enumerate(spec.rows):
            if isinstance(row, Pool):
                at, size = self.mean(at, into), 1
            elif isinstance(row, Conv):
                at = self.conv(f"rows.{i}", at, row.act, size, row.kernel, row.stride)
                size = -(-size // row.stride)
                into = row.out
            else:
                at = self.bneck(i, row, at, into, size)
                size, into = -(-size // row.stride), row.out
        last = self.conv("classifier", at, "linear", size)
        return self.finish(first, last)

    def before(self, at: int) -> int:
        """A place for operators before the first convolution."""
        return at

    def bneck(self, i: int, row: Bneck, at: int, into: int, size: int) -> int:
        enters, wide = at, row.expanded
        if wide != into:
            at = self.conv(f"rows.{i}.expand", at, row.act, size)
        at = self.conv(
            f"rows.{i}.depthwise", at, row.act, size, row.kernel, row.stride, depthwise=True
        )
        size = -(-size // row.stride)
        if row.se:
            pooled = self.mean(at, wide)
            gate = self.conv(f"rows.{i}.se.reduce", pooled, "relu", 1)
            name = f"rows.{i}.se.gate"
            if self.fused_gate:
                self.weights[f"{name}.bias"] = self.weights[f"{name}.bias"] + 3
            gate = self.conv(name, gate, "relu6" if self.fused_gate else "linear", 1)
            if self.fused_gate:
                self.weights[f"{name}.bias"] = self.weights[f"{name}.bias"] - 3
            else:
                gate = self.simple("ADD", [gate, self.constant("three", np.float32(3))], wide, 1)
                gate = self.simple("RELU6", [gate], wide, 1)
            gate = self.simple("MUL", [gate, self.constant("sixth", np.float32(1 / 6))], wide, 1)
            at = self.simple("MUL", [at, gate], wide, size)
        at = self.conv(f"rows.{i}.project", at, "linear", size)
        if row.stride == 1 and row.out == into:
            at = self.simple("ADD", [at, enters], into, size)
        return at

    def conv(
        self, name: str, at: int, act: str, size: int, kernel: int = 1, stride: int = 1,
        *, depthwise: bool = False,
    ) -> int:  # fmt: skip
        weight = self.weights[f"{name}.weight"]
        padding = tflite.Padding.SAME
        if kernel > 1 and self.spec.padding == "symmetric":
            half, padding = kernel // 2, tflite.Padding.VALID
            pads = self.constant(
                "pads", np.array([[0, 0], [half, half], [half, half], [0, 0]], np.int32)
            )
            at = self.simple("PAD", [at, pads], weight.shape[0], size + 2 * half)
        layout = weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)
        held = self.weight(f"{name}.weight", layout, axis=3 if depthwise else 0)
        bias = self.bias(f"{name}.bias")
        out, after = weight.shape[0], -(-size // stride)
        drops = self.stored == "uint8" and act.startswith("relu")
        fused = 0 if drops else FUSED[act]
        made = self.activation(name, out, after, floored=drops)
        self.operator(
            "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", [at, held, bias], [made],
            lambda: self.conv_options(depthwise, padding, stride, fused),
        )  # fmt: skip
        return self.simple("HARD_SWISH", [made], out, after) if act == "hswish" else made

    def activation(self, name: str, out: int, size: int, *, floored: bool = False) -> int:
        if self.stored != "uint8":
            return self.tensor(name, (1, size, size, out), "float32")
        zero = 0 if floored else 128
        return self.tensor(name, (1, size, size, out), "uint8", scale=[0.1], zero=[zero])

    def weight(self, name: str, values: Array, axis: int) -> int:
        if self.stored == "float32":
            self.real[name] = values
            return self.constant(name, values)
        if self.stored == "float16":
            half = self.constant(f"{name}/half", values.astype(np.float16))
            self.real[name] = values.astype(np.float16).astype(np.float32)
            made = self.tensor(name, values.shape, "float32")
            self.operator("DEQUANTIZE", [half], [made])
            return made
        if self.stored == "uint8":
            low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
            scale, zero = (high - low) / 255, round(-low / ((high - low) / 255))
            held = np.clip(np.round(values / scale) + zero, 0, 255).astype(np.uint8)
            self.real[name] = (held.astype(np.float64) - zero) * np.float32(scale)
            return self.constant(name, held, scale=[scale], zero=[zero])
        others = tuple(i for i in range(4) if i != axis)
        scales = np.abs(values).max(others, keepdims=True) / 127
        held = np.round(values / scales).astype(np.int8)
        flat = scales.reshape(-1).astype(np.float32)
        self.real[name] = held * flat.reshape(scales.shape).astype(np.float64)
        return self.constant(name, held, scale=flat, zero=[0] * len(flat), axis=axis)

    def bias(self, name: str) -> int:
        values = self.weights[name]
        if self.stored not in ("uint8", "int8"):
            self.real[name] = values
            return self.constant(name, values.astype(np.float32))
        held = np.round(values / 1e-4).astype(np.int32)
        self.real[name] = held * np.float64(np.float32(1e-4))
        return self.constant(name, held, scale=[1e-4], zero=[0])

    def mean(self, at: int, out: int) -> int:
        """Over height and width."""
        made = self.activation("MEAN", out, 1)
        axes = self.constant("axes", np.array([1, 2], np.int32))
        self.operator("MEAN", [at, axes], [made], self.keeps_sides)
        return made

    def keeps_sides(self) -> tuple[int, int]:
        tflite.ReducerOptionsStart(self.b)
        tflite.ReducerOptionsAddKeepDims(self.b, True)
        return tflite.ReducerOptionsEnd(self.b), tflite.BuiltinOptions.ReducerOptions

    def simple(self, kind: str, inputs: Sequence[int], out: int, size: int) -> int:
        """An operator without options."""
        made = self.activation(kind, out, size)
        self.operator(kind, list(inputs), [made])
        return made

    def constant(self, name: str, values: Any, **quantisation: Any) -> int:
        values = np.asarray(values)
        self.buffers.append(np.ascontiguousarray(values).tobytes())
        return self.tensor(
            name, values.shape, str(values.dtype), len(self.buffers) - 1, **quantisation
        )

    def tensor(
        self, name: str, shape: Sequence[int], kind: str, buffer: int = 0, *,
        scale: Any = None, zero: Any = (0,), axis: int = 0,
    ) -> int:  # fmt: skip
        b, text = self.b, self.b.CreateString(name)
        sizes = b.CreateNumpyVector(np.array(shape, np.int32))
        quantised = 0
        if scale is not None:
            scales = b.CreateNumpyVector(np.array(scale, np.float32))
            zeros = b.CreateNumpyVector(np.array(zero, np.int64))
            tflite.QuantizationParametersStart(b)
            tflite.QuantizationParametersAddScale(b, scales)
            tflite.QuantizationParametersAddZeroPoint(b, zeros)
            tflite.QuantizationParametersAddQuantizedDimension(b, axis)
            quantised = tflite.QuantizationParametersEnd(b)
        tflite.TensorStart(b)
        tflite.TensorAddShape(b, sizes)
        tflite.TensorAddType(b, TYPES[kind])
        tflite.TensorAddBuffer(b, buffer)
        tflite.TensorAddName(b, text)
        if quantised:
            tflite.TensorAddQuantization(b, quantised)
        self.tensors.append(tflite.TensorEnd(b))
        return len(self.tensors) - 1

    def conv_options(
        self, depthwise: bool, padding: int, stride: int, fused: int
    ) -> tuple[int, int]:
        b, name = self.b, "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
        make = lambda part: getattr(tflite, f"{name}{part}")  # noqa: E731
        make("Start")(b)
        make("AddPadding")(b, padding)
        make("AddStrideH")(b, stride)
        make("AddStrideW")(b, stride)
        make("AddFusedActivationFunction")(b, fused)
        if depthwise:
            make("AddDepthMultiplier")(b, 1)
        return make("End")(b), getattr(tflite.BuiltinOptions, name)

    def operator(
        self, kind: str, inputs: list[int], outputs: list[int],
        options: Callable[[], tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        b, code = self.b, getattr(tflite.BuiltinOperator, kind)
        if code not in self.codes:
            self.codes.append(code)
        taken = b.CreateNumpyVector(np.array(inputs, np.int32))
        made = b.CreateNumpyVector(np.array(outputs, np.int32))
        held = options() if options else None
        tflite.OperatorStart(b)
        tflite.OperatorAddOpcodeIndex(b, self.codes.index(code))
        tflite.OperatorAddInputs(b, taken)
        tflite.OperatorAddOutputs(b, made)
        if held:
            tflite.OperatorAddBuiltinOptionsType(b, held[1])
            tflite.OperatorAddBuiltinOptions(b, held[0])
        self.operators.append(tflite.OperatorEnd(b))

    def finish(self, first: int, last: int) -> bytes:
        b = self.b
        ins, outs = (b.CreateNumpyVector(np.array([t], np.int32)) for t in (first, last))
        tensors, operators = self.vector(self.tensors), self.vector(self.operators)
        tflite.SubGraphStart(b)
        tflite.SubGraphAddTensors(b, tensors)
        tflite.SubGraphAddInputs(b, ins)
        tflite.SubGraphAddOutputs(b, outs)
        tflite.SubGraphAddOperators(b, operators)
        graphs = self.vector([tflite.SubGraphEnd(b)])
        codes = []
        for code in self.codes:
            tflite.OperatorCodeStart(b)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(b, min(code, 127))
            tflite.OperatorCodeAddBuiltinCode(b, code)
            codes.append(tflite.OperatorCodeEnd(b))
        buffers = []
        for data in self.buffers:
            held = b.CreateByteVector(data) if data else 0
            tflite.BufferStart(b)
            if held:
                tflite.BufferAddData(b, held)
            buffers.append(tflite.BufferEnd(b))
        code_vector, buffer_vector = self.vector(codes), self.vector(buffers)
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddOperatorCodes(b, code_vector)
        tflite.ModelAddSubgraphs(b, graphs)
        tflite.ModelAddBuffers(b, buffer_vector)
        b.Finish(tflite.ModelEnd(b), b"TFL3")
        return bytes(b.Output())

    def vector(self, offsets: Sequence[int]) -> int:
        self.b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.b.PrependUOffsetTRelative(offset)
        return self.b.EndVector()
