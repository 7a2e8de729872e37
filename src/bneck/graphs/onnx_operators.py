"""The operators in ONNX, in float: nodes and initialisers, tensors by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bneck.graphs.forms import HSwish
from bneck.graphs.weights import Array, Weights, of_pixels, pads
from bneck.specs.network import Gate, Layer, Padding
from bneck.specs.normalisation import Normalisation
from bneck.specs.operators import Operators, Pair
from bneck.specs.rows import Act
from bneck.specs.wrapper import Output

OPSET = 18  # HardSwish needs 14, ReduceMean's axes input 18
IR_VERSION = 9
BILINEAR = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}


class Graph(Operators[str]):
    """Nodes and initialisers under construction; tensors go by their names."""

    def __init__(
        self, weights: Weights, padding: Padding, gate: Gate, hswish: HSwish = "op"
    ) -> None:
        self.weights, self.padding, self.gate, self.hswish = weights, padding, gate, hswish
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.products = False  # whether convolutions after the pool are matrix products
        self.pooled = False

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        self.initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def scalar(self, name: str, value: float) -> str:
        return self.constant(name, np.float32(value))

    def weight(self, name: str) -> str:
        return self.kept(name, self.weights[name])

    def kept(self, name: str, value: Array) -> str:
        """A constant; the runtime turns half precision into float32."""
        value = np.ascontiguousarray(value)
        if value.dtype != np.float16:
            return self.constant(name, value)
        half = self.constant(f"{name}.half", value)
        return self.node("Cast", [half], name, to=TensorProto.FLOAT)

    def image(self, channels: int, pixels: Normalisation | None) -> str:
        """The input, in the form that the layers take."""
        if pixels is None:
            return "image"
        planes = self.node("Transpose", ["image"], "image.planes", perm=[0, 3, 1, 2])
        real = self.node("Cast", [planes], "image.real", to=TensorProto.FLOAT)
        offset, spread = (v.reshape(1, channels, 1, 1) for v in of_pixels(pixels))
        centred = self.node("Sub", [real, self.constant("offset", offset)], "image.centred")
        return self.node("Div", [centred, self.constant("spread", spread)], "image.normal")

    def conv(self, layer: Layer, x: str) -> str:
        return self.act(self.convolution(layer, x), layer.act)

    def convolution(self, layer: Layer, x: str) -> str:
        name = f"{layer.name}.weight"
        if self.pooled:
            inputs = [x, self.matrix(name), self.weight(f"{layer.name}.bias")]
            return self.node("Gemm", inputs, layer.name, transB=1)
        return self.node(
            "Conv", [x, self.weight(name), self.weight(f"{layer.name}.bias")], layer.name,
            kernel_shape=[layer.kernel] * 2, strides=[layer.stride] * 2, dilations=[layer.dilation] * 2,
            pads=pads(self.padding, layer), group=layer.out if layer.kind == "depthwise" else 1,
        )  # fmt: skip

    def matrix(self, name: str) -> str:
        return self.kept(name, self.weights[name][:, :, 0, 0])

    def pointwise(self, name: str, x: str) -> str:
        inputs = [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self.node("Conv", inputs, name, kernel_shape=[1, 1])

    def act(self, x: str, act: Act) -> str:
        match act:
            case "linear":
                return x
            case "relu":
                return self.node("Relu", [x], f"{x}.relu")
            case "relu6":
                return self.cut(x, f"{x}.relu6")
            case "hswish" if self.hswish == "split":
                shifted = self.node("Add", [x, self.scalar("three", 3)], f"{x}.shifted")
                product = self.node("Mul", [x, self.cut(shifted, f"{x}.cut")], f"{x}.product")
                return self.node("Mul", [product, self.scalar("sixth", 1 / 6)], f"{x}.hswish")
            case "hswish":
                return self.node("HardSwish", [x], f"{x}.hswish")

    def cut(self, x: str, name: str) -> str:
        limits = [self.scalar("zero", 0), self.scalar("six", 6)]
        return self.node("Clip", [x, *limits], name)

    def pool(self, layer: Layer, x: str) -> str:
        pooled = self.mean(layer.name, x)
        if not self.products:
            return pooled
        self.pooled = True
        return self.node("Flatten", [pooled], f"{layer.name}.flat", axis=1)

    def mean(self, name: str, x: str) -> str:
        return self.node("GlobalAveragePool", [x], name)

    def add(self, layer: Layer, x: str, row_input: str) -> str:
        return self.total(f"{layer.name}.sum", x, row_input)

    def squeeze(self, layer: Layer, x: str) -> str:
        name = layer.name
        reduced = self.reduced(f"{name}.reduce", self.mean(f"{name}.pool", x))
        gate = self.opened(replace(layer, name=f"{name}.gate"), reduced, self.gate)
        return self.product(name, x, gate)

    def reduced(self, name: str, x: str) -> str:
        return self.node("Relu", [self.pointwise(name, x)], f"{name}.relu")

    def opened(self, layer: Layer, x: str, gate: Gate) -> str:
        before = self.pointwise(layer.name, x)
        if gate == "sigmoid":
            return self.node("Sigmoid", [before], f"{layer.name}.sigmoid")
        return self.node("HardSigmoid", [before], f"{layer.name}.hsigmoid", alpha=1 / 6, beta=0.5)

    def product(self, name: str, x: str, gate: str) -> str:
        return self.node("Mul", [x, gate], name)

    def flat(self, name: str, x: str) -> str:
        return self.node("Flatten", [x], name, axis=1)

    def listed(self, name: str, x: str, numbers: int) -> str:
        last = self.node("Transpose", [x], f"{name}.last", perm=[0, 2, 3, 1])
        shape = self.constant(f"by{numbers}", np.array([0, -1, numbers], np.int64))
        return self.node("Reshape", [last, shape], name)

    def joined(self, name: str, parts: Sequence[str]) -> str:
        return self.node("Concat", list(parts), name, axis=1)

    def real(self, x: str) -> str:
        return x  # int8 numbers are dequantized wherever they are read, so names stand for reals

    def windows(self, layer: Layer, x: str, window: Pair, strides: Pair) -> str:
        sides = {"kernel_shape": list(window), "strides": list(strides)}
        return self.node("AveragePool", [x], layer.name, **sides)

    def resized(self, name: str, x: str, size: Pair, have: Pair, gate: Gate | None = None) -> str:
        if have == size:
            return self.node("Identity", [x], name)
        sizes = self.constant(f"{name}.size", np.array(size, np.int64))
        return self.node("Resize", [x, "", "", sizes], name, axes=[2, 3], **BILINEAR)

    def total(self, name: str, x: str, y: str) -> str:
        return self.node("Add", [x, y], name)

    def raised(self, name: str, x: str, by: str) -> str:
        return self.node("Relu", [self.total(f"{name}.total", x, by)], name)

    def best(self, name: str, x: str) -> str:
        return self.node("ArgMax", [x], name, axis=1, keepdims=0)

    def model(
        self, name: str, image: Sequence[int | str], outputs: Sequence[Output], *,
        metadata: Mapping[str, str] | None = None, kind: int = TensorProto.FLOAT,
    ) -> onnx.ModelProto:  # fmt: skip
        """The graph as a model; `image` is the shape of its input, `kind` what its numbers are."""
        described = helper.make_tensor_value_info
        kinds = {False: TensorProto.FLOAT, True: TensorProto.INT64}
        answers = [described(one.name, kinds[one.whole], one.shape) for one in outputs]
        graph = helper.make_graph(
            self.nodes,
            name,
            [described("image", kind, image)],
            answers,
            [*self.initializers.values()],
        )
        model = helper.make_model(
            graph, producer_name="bneck", opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )  # fmt: skip
        helper.set_model_props(model, dict(metadata or {}))
        return model
