"""Write a spec as an ONNX graph, straight from the walk over its layers.

The same writer makes the file that ships and the files that fill a latency table, so a table is
made of exactly the operators that a shipped network runs. Batch norm is folded by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bneck.graphs.forms import HSwish
from bneck.graphs.quantization import Ranges
from bneck.graphs.traverse import Traversal
from bneck.specs.network import Gate, Layer, NetSpec, Padding, Size, as_size, layers
from bneck.specs.normalisation import Normalisation
from bneck.specs.rows import Act

OPSET = 18  # HardSwish needs 14, ReduceMean's axes input 18
IR_VERSION = 9

Array = np.ndarray[Any, np.dtype[np.floating[Any]]]
Weights = Mapping[str, Array]
"""float32; float16 stays so in the file, and the runtime makes float32 of it when it loads."""


def weight_shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one operator's folded weights; every convolution has a bias."""
    if layer.kind == "pool":
        return {}
    if layer.kind == "squeeze":
        return {
            f"{layer.name}.reduce.weight": (layer.mid, layer.out, 1, 1),
            f"{layer.name}.reduce.bias": (layer.mid,),
            f"{layer.name}.gate.weight": (layer.out, layer.mid, 1, 1),
            f"{layer.name}.gate.bias": (layer.out,),
        }
    inputs = 1 if layer.kind == "depthwise" else layer.width_in
    return {
        f"{layer.name}.weight": (layer.out, inputs, layer.kernel, layer.kernel),
        f"{layer.name}.bias": (layer.out,),
    }


def random_weights(walk: Iterable[Layer], rng: np.random.Generator) -> dict[str, Array]:
    """Weights that keep activations of ordinary size, for timing; zeros would be too easy."""
    weights = {}
    for layer in walk:
        for name, shape in weight_shapes(layer).items():
            fan_in = max(1, int(np.prod(shape[1:])))
            scale = 0.1 if len(shape) == 1 else (2 / fan_in) ** 0.5
            weights[name] = rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
    return weights


def halved(weights: Weights) -> dict[str, Array]:
    """Kernels in half precision, the largest half where they exceed it; biases as they are."""
    most = np.finfo(np.float16).max
    return {
        name: value if value.ndim == 1 else np.clip(value, -most, most).astype(np.float16)
        for name, value in weights.items()
    }


def network_graph(
    spec: NetSpec,
    weights: Weights,
    resolution: Size | None = None,
    *,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
    pixels: Normalisation | None = None,
    metadata: Mapping[str, str] | None = None,
    one_image: bool = False,
) -> onnx.ModelProto:
    """The whole network: input `image` (N, channels, H, W) float32, output `scores` (N, classes).

    Args:
        spec: what to write.
        weights: as `weight_shapes` names them, batch norm folded.
        resolution: side or (height, width) in pixels; None takes the spec's own.
        hswish: the form of h-swish; "fused" is one operator where there are no `ranges`.
        ranges: of all points, see `graphs.quantization`, for 8 bits inside; None writes float32.
        pixels: the normalisation to fold in: the input is (N, H, W, channels) uint8 RGB then.
        metadata: goes into the file as it is.
        one_image: N is 1, and what stands behind the pool are matrix products.

    Raises:
        KeyError: `weights` or `ranges` lacks a name.
    """
    size = as_size(spec.resolution if resolution is None else resolution)
    graph = graph_of(weights, spec.padding, spec.se_gate, hswish, ranges)
    graph.products = one_image and ranges is None
    x = graph.through(layers(spec, size), graph.image(spec.channels, pixels))
    graph.node("Flatten", [x], "scores", axis=1)
    batch = 1 if one_image else "batch"
    planes = [batch, spec.channels, *size]
    return graph.model(
        name=spec.name,
        image=("image", [batch, *size, spec.channels] if pixels else planes),
        outputs=[("scores", [batch, spec.classes])],
        metadata=metadata,
        kind=TensorProto.UINT8 if pixels else TensorProto.FLOAT,
    )


def layers_graph(
    walk: Sequence[Layer],
    weights: Weights,
    *,
    padding: Padding,
    gate: Gate,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
) -> onnx.ModelProto:
    """A run of layers alone, batch 1: input `image` and output `scores` are maps (1, C, H, W)."""
    graph = graph_of(weights, padding, gate, hswish, ranges)
    out = graph.through(walk, graph.image(walk[0].width_in, None))
    return graph.model(
        name="layers",
        image=("image", [1, walk[0].width_in, *walk[0].size_in]),
        outputs=[(out, [1, walk[-1].out, *walk[-1].size_out])],
    )


def graph_of(
    weights: Weights, padding: Padding, gate: Gate, hswish: HSwish, ranges: Ranges | None
) -> Graph:
    """A graph to build on: float32, or 8-bit where there are ranges."""
    if ranges is None:
        return Graph(weights, padding, gate, hswish)
    from bneck.graphs.onnx_qdq import QdqGraph

    return QdqGraph(weights, padding, gate, hswish, ranges)


class Graph(Traversal[str]):
    """Nodes and initialisers under construction; tensors go by their names.

    `made` names the tensor behind every layer that was written.
    """

    def __init__(
        self, weights: Weights, padding: Padding, gate: Gate, hswish: HSwish = "op"
    ) -> None:
        self.weights = weights
        self.padding = padding
        self.gate = gate
        self.hswish = hswish
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.made: dict[str, str] = {}
        self.products = False  # whether convolutions behind the pool are matrix products
        self.pooled = False

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def weight(self, name: str) -> str:
        return self.kept(name, self.weights[name])

    def kept(self, name: str, value: Array) -> str:
        """A constant; from half precision the runtime makes float32."""
        value = np.ascontiguousarray(value)
        if value.dtype != np.float16:
            return self.constant(name, value)
        half = self.constant(f"{name}.half", value)
        return self.node("Cast", [half], name, to=TensorProto.FLOAT)

    def passed(self, layer: Layer, x: str) -> None:
        self.made[layer.name] = x

    def image(self, channels: int, pixels: Normalisation | None) -> str:
        """The input, brought into the form that the layers take."""
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
        if self.pooled:
            name = f"{layer.name}.weight"
            kernel = self.kept(name, self.weights[name][:, :, 0, 0])
            inputs = [x, kernel, self.weight(f"{layer.name}.bias")]
            return self.node("Gemm", inputs, layer.name, transB=1)
        return self.node(
            "Conv",
            [x, self.weight(f"{layer.name}.weight"), self.weight(f"{layer.name}.bias")],
            layer.name,
            kernel_shape=[layer.kernel, layer.kernel],
            strides=[layer.stride, layer.stride],
            dilations=[layer.dilation, layer.dilation],
            pads=pads(self.padding, layer),
            group=layer.out if layer.kind == "depthwise" else 1,
        )

    def act(self, x: str, act: Act) -> str:
        match act:
            case "linear":
                return x
            case "relu":
                return self.node("Relu", [x], f"{x}.relu")
            case "hswish" if self.hswish == "split":
                shifted = self.node("Add", [x, self.scalar("three", 3)], f"{x}.shifted")
                limits = [self.scalar("zero", 0), self.scalar("six", 6)]
                cut = self.node("Clip", [shifted, *limits], f"{x}.cut")
                product = self.node("Mul", [x, cut], f"{x}.product")
                return self.node("Mul", [product, self.scalar("sixth", 1 / 6)], f"{x}.hswish")
            case "hswish":
                return self.node("HardSwish", [x], f"{x}.hswish")
            case "relu6":
                limits = [self.scalar("zero", 0), self.scalar("six", 6)]
                return self.node("Clip", [x, *limits], f"{x}.relu6")

    def scalar(self, name: str, value: float) -> str:
        return self.constant(name, np.float32(value))

    def constant(self, name: str, value: Any) -> str:
        self.initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def pool(self, layer: Layer, x: str) -> str:
        pooled = self.mean(layer.name, x)
        if not self.products:
            return pooled
        self.pooled = True
        return self.node("Flatten", [pooled], f"{layer.name}.flat", axis=1)

    def add(self, layer: Layer, x: str, row_input: str) -> str:
        return self.node("Add", [x, row_input], f"{layer.name}.sum")

    def squeeze(self, layer: Layer, x: str) -> str:
        name = layer.name
        pooled = self.mean(f"{name}.pool", x)
        reduced = self.node(
            "Relu", [self.pointwise(f"{name}.reduce", pooled)], f"{name}.reduce.relu"
        )
        gate = self.opened(replace(layer, name=f"{name}.gate"), reduced, self.gate)
        return self.node("Mul", [x, gate], name)

    def mean(self, name: str, x: str) -> str:
        """The mean over the map."""
        return self.node("GlobalAveragePool", [x], name)

    def opened(self, layer: Layer, x: str, gate: Gate) -> str:
        """A 1x1 convolution and the gate behind it, from 0 to 1."""
        before = self.pointwise(layer.name, x)
        if gate == "sigmoid":
            return self.node("Sigmoid", [before], f"{layer.name}.sigmoid")
        return self.node("HardSigmoid", [before], f"{layer.name}.hsigmoid", alpha=1 / 6, beta=0.5)

    def pointwise(self, name: str, x: str) -> str:
        return self.node(
            "Conv",
            [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")],
            name,
            kernel_shape=[1, 1],
        )

    def model(
        self,
        *,
        name: str,
        image: tuple[str, list[Any]],
        outputs: list[tuple[str, list[Any]]],
        metadata: Mapping[str, str] | None = None,
        whole_numbers: Sequence[str] = (),
        kind: int = TensorProto.FLOAT,
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(image[0], kind, image[1])],
            [
                helper.make_tensor_value_info(
                    key, TensorProto.INT64 if key in whole_numbers else TensorProto.FLOAT, shape
                )
                for key, shape in outputs
            ],
            initializer=list(self.initializers.values()),
        )
        model = helper.make_model(
            graph,
            producer_name="bneck",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, dict(metadata or {}))
        return model


def of_pixels(normalisation: Normalisation) -> tuple[Array, Array]:
    """What is subtracted of a pixel from 0 to 255, and by what it is divided then, by channel."""
    mean, std = (
        np.asarray(values, np.float64) for values in (normalisation.mean, normalisation.std)
    )
    return (mean * 255).astype(np.float32), (std * 255).astype(np.float32)


def pads(padding: Padding, layer: Layer) -> list[int]:
    """(top, left, bottom, right) in pixels: symmetric, or TensorFlow's SAME, which pads low sides less."""
    reach = layer.dilation * (layer.kernel - 1)
    if padding == "symmetric":
        return [reach // 2] * 4
    total = [
        max(0, (out - 1) * layer.stride + reach + 1 - size)
        for size, out in zip(layer.size_in, layer.size_out, strict=True)
    ]
    low = [t // 2 for t in total]
    return [*low, *(t - t_low for t, t_low in zip(total, low, strict=True))]
