"""Write a spec as an ONNX graph, straight from the walk over its layers.

The same writer makes the file that ships and the files that fill a latency table, so a table is
made of exactly the operators that a shipped network runs. Batch norm is folded by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bneck.specs.network import Layer, NetSpec, Padding, Size, as_size, layers
from bneck.specs.rows import Act

OPSET = 18  # HardSwish needs 14, ReduceMean's axes input 18
IR_VERSION = 9

Array = np.ndarray[Any, np.dtype[np.float32]]
Weights = Mapping[str, Array]


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


def network_graph(
    spec: NetSpec,
    weights: Weights,
    resolution: Size | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The whole network: input `image` (N, channels, H, W) float32, output `scores` (N, classes).

    Raises:
        KeyError: `weights` lacks a name of `weight_shapes`.
    """
    size = as_size(spec.resolution if resolution is None else resolution)
    graph = Graph(weights, spec.padding, spec.se_gate)
    x = graph.layers(layers(spec, size), "image")
    graph.node("Flatten", [x], "scores", axis=1)
    return graph.model(
        name=spec.name,
        image=("image", ["batch", spec.channels, *size]),
        outputs=[("scores", ["batch", spec.classes])],
        metadata=metadata,
    )


def layers_graph(
    walk: Sequence[Layer], weights: Weights, *, padding: Padding, gate: str
) -> onnx.ModelProto:
    """A run of layers alone, batch 1: input `image` and output `scores` are maps (1, C, H, W)."""
    graph = Graph(weights, padding, gate)
    out = graph.layers(walk, "image")
    return graph.model(
        name="layers",
        image=("image", [1, walk[0].width_in, *walk[0].size_in]),
        outputs=[(out, [1, walk[-1].out, *walk[-1].size_out])],
    )


class Graph:
    """Nodes and initialisers under construction. `made` names the tensor behind every layer."""

    def __init__(self, weights: Weights, padding: Padding, gate: str) -> None:
        self.weights = weights
        self.padding = padding
        self.gate = gate
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.made: dict[str, str] = {}

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def weight(self, name: str) -> str:
        self.initializers[name] = numpy_helper.from_array(
            np.ascontiguousarray(self.weights[name]), name
        )
        return name

    def layers(self, walk: Iterable[Layer], x: str) -> str:
        """Append a run of layers behind tensor `x`; return the name of what comes out."""
        row, row_input = -1, x
        for layer in walk:
            if layer.row != row:
                row, row_input = layer.row, x
            x = self.layer(layer, x)
            if layer.adds:
                x = self.node("Add", [x, row_input], f"{layer.name}.sum")
            self.made[layer.name] = x
        return x

    def layer(self, layer: Layer, x: str) -> str:
        match layer.kind:
            case "pool":
                return self.node("GlobalAveragePool", [x], layer.name)
            case "squeeze":
                return self.squeeze(layer, x)
            case _:
                return self.act(self.conv(layer, x), layer.act)

    def conv(self, layer: Layer, x: str) -> str:
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
            case "hswish":
                return self.node("HardSwish", [x], f"{x}.hswish")
            case "relu6":
                return self.node(
                    "Clip", [x, self.scalar("zero", 0), self.scalar("six", 6)], f"{x}.relu6"
                )

    def scalar(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, np.float32))

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> str:
        self.initializers[name] = numpy_helper.from_array(value, name)
        return name

    def squeeze(self, layer: Layer, x: str) -> str:
        name = layer.name
        pooled = self.node("GlobalAveragePool", [x], f"{name}.pool")
        reduced = self._pointwise(f"{name}.reduce", pooled)
        gate = self._pointwise(f"{name}.gate", self.node("Relu", [reduced], f"{name}.reduce.relu"))
        if self.gate == "sigmoid":
            gate = self.node("Sigmoid", [gate], f"{name}.gate.sigmoid")
        else:
            gate = self.node("HardSigmoid", [gate], f"{name}.gate.hsigmoid", alpha=1 / 6, beta=0.5)
        return self.node("Mul", [x, gate], name)

    def _pointwise(self, name: str, x: str) -> str:
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
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(image[0], TensorProto.FLOAT, image[1])],
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
