"""Graphs: the shipped ONNX file computes what the net computes, with no operator more than it needs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings

from bneck.graphs.onnx_graph import layers_graph, network_graph
from bneck.graphs.onnx_operators import IR_VERSION, OPSET
from bneck.graphs.weights import Array, pads, random_weights, weight_shapes
from bneck.nets.build import Net
from bneck.nets.fold import folded_weights
from bneck.specs.network import Layer, NetSpec, Padding, bneck_layers, layers
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.zoo import network
from drawn import specs
from test_shrink import trained

VARIED = (
    NetSpec(  # what the zoo lacks: ReLU6, a sigmoid gate, dilation, SAME padding, a 1 x 1 stride
        name="varied",
        channels=4,
        classes=6,
        padding="same",
        se_gate="sigmoid",
        rows=(
            Conv(3, 8, "relu6", 2),
            Bneck(3, 24, 16, 6, "relu6", 2),
            Bneck(5, 32, 16, 0, "hswish", dilation=2),
            Bneck(1, 32, 24, 8, "linear", 2),
            Conv(1, 20, "linear"),
            Pool(),
        ),
    )
)


def run(model: onnx.ModelProto, image: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    scores: Array = session.run(None, {"image": image})[0]
    return scores


def picture(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def graph_of(net: Net, size: tuple[int, int]) -> onnx.ModelProto:
    model = network_graph(net.spec, folded_weights(net), size)
    onnx.checker.check_model(model, full_check=True)
    return model


def assert_same(net: Net, size: tuple[int, int]) -> None:
    image = picture(2, net.spec.channels, *size)
    with torch.inference_mode():
        expected = net(torch.from_numpy(image)).numpy()
    scores = run(graph_of(net, size), image)
    assert scores.shape == expected.shape
    assert np.abs(scores - expected).max() <= 1e-5 * max(1.0, float(np.abs(expected).max()))


class TestSameAsTheNet:
    @pytest.mark.parametrize("size", [(32, 32), (33, 47), (50, 31)])
    @pytest.mark.parametrize("padding", ["symmetric", "same"])
    @pytest.mark.parametrize("name", ["v3-small", "v3-large-0.35"])
    def test_zoo(self, name: str, padding: Padding, size: tuple[int, int]) -> None:
        assert_same(trained(replace(network(name), padding=padding)), size)

    @pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 24)])
    @pytest.mark.parametrize("padding", ["symmetric", "same"])
    def test_what_the_zoo_lacks(self, padding: Padding, size: tuple[int, int]) -> None:
        assert_same(trained(replace(VARIED, padding=padding)), size)

    @settings(max_examples=30, deadline=None)
    @given(specs())
    def test_any_network(self, spec: NetSpec) -> None:
        assert_same(trained(spec), (spec.resolution, spec.resolution))

    def test_the_specs_resolution_is_the_default_and_the_batch_is_free(self) -> None:
        model = network_graph(VARIED, folded_weights(trained(VARIED)))
        image = model.graph.input[0].type.tensor_type.shape.dim
        assert (image[0].dim_param, [d.dim_value for d in image[1:]]) == ("batch", [4, 224, 224])
        small = network_graph(replace(VARIED, resolution=16), folded_weights(trained(VARIED)))
        for batch in (1, 3):
            assert run(small, picture(batch, 4, 16, 16)).shape == (batch, 6)


class TestOperators:
    def count(self, spec: NetSpec) -> Counter[str]:
        return Counter(node.op_type for node in graph_of(trained(spec), (32, 32)).graph.node)

    def test_v3_small_has_exactly_the_operators_of_table_2(self) -> None:
        # Convs: stem, 10 rows x 3, row 1 (no expand) x 2, 576, 1024, classifier, and 2 for each of 9 SEs.
        # h-swish: stem, both convs of the 8 rows from 96 on, 576, 1024. ReLU: row 1 once, rows 2 and 3
        # twice, every SE once.
        assert self.count(network("v3-small")) == {
            "Conv": 1 + 10 * 3 + 2 + 3 + 9 * 2,
            "HardSwish": 1 + 8 * 2 + 2,
            "Relu": 1 + 2 * 2 + 9,
            "GlobalAveragePool": 9 + 1,
            "HardSigmoid": 9,
            "Mul": 9,
            "Add": 6,
            "Flatten": 1,
        }

    def test_relu6_is_one_clip_and_a_sigmoid_gate_one_sigmoid(self) -> None:
        # Clips: the stem, both convs of row 1. Adds: row 2.
        assert self.count(VARIED) == {
            "Conv": 1 + 3 + 3 + 3 + 1 + 1 + 2 * 2,
            "Clip": 3,
            "HardSwish": 2,
            "Relu": 2,
            "GlobalAveragePool": 2 + 1,
            "Sigmoid": 2,
            "Mul": 2,
            "Add": 1,
            "Flatten": 1,
        }

    def test_names_versions_and_metadata_are_written(self) -> None:
        spec = network("v3-small@32")
        model = network_graph(spec, folded_weights(trained(spec)), metadata={"classes": "a, b"})
        assert ({e.key: e.value for e in model.metadata_props}) == {"classes": "a, b"}
        assert model.graph.name == "v3-small@32"
        assert (model.opset_import[0].version, model.ir_version) == (OPSET, IR_VERSION)
        names = [node.name for node in model.graph.node]
        assert len(set(names)) == len(names)
        assert ("rows.4.depthwise" in names, "rows.4.se.gate" in names) == (True, True)


def layer(
    kernel: int, stride: int, size_in: tuple[int, int], size_out: tuple[int, int], dilation: int = 1
) -> Layer:
    return Layer(
        name="x", kind="depthwise", row=0, width_in=8, out=8, size_in=size_in, size_out=size_out,
        kernel=kernel, stride=stride, dilation=dilation,
    )  # fmt: skip


class TestPads:
    @pytest.mark.parametrize(
        ("of", "expected"),  # top, left, bottom, right
        [
            (layer(3, 1, (6, 6), (6, 6)), [1, 1, 1, 1]),
            (layer(3, 2, (6, 6), (3, 3)), [0, 0, 1, 1]),  # (3 - 1) x 2 + 3 - 6 = 1, behind
            (layer(3, 2, (5, 5), (3, 3)), [1, 1, 1, 1]),  # (3 - 1) x 2 + 3 - 5 = 2
            (layer(3, 2, (6, 5), (3, 3)), [0, 1, 1, 1]),
            (layer(5, 1, (7, 7), (7, 7)), [2, 2, 2, 2]),
            (layer(5, 2, (6, 6), (3, 3)), [1, 1, 2, 2]),  # (3 - 1) x 2 + 5 - 6 = 3
            (layer(5, 2, (7, 6), (4, 3)), [2, 1, 2, 2]),
            (layer(1, 2, (6, 6), (3, 3)), [0, 0, 0, 0]),  # the last pixel is not even read
            (layer(3, 1, (9, 9), (9, 9), dilation=2), [2, 2, 2, 2]),
            (layer(3, 2, (1, 1), (1, 1)), [1, 1, 1, 1]),
        ],
    )
    def test_same_by_hand(self, of: Layer, expected: list[int]) -> None:
        assert pads("same", of) == expected

    @pytest.mark.parametrize(
        ("kernel", "dilation", "pad"), [(1, 1, 0), (3, 1, 1), (5, 1, 2), (3, 2, 2)]
    )
    @pytest.mark.parametrize("size", [5, 6])
    def test_symmetric_never_looks_at_the_size(
        self, kernel: int, dilation: int, pad: int, size: int
    ) -> None:
        of = layer(kernel, 2, (size, size), (3, 3), dilation)
        assert pads("symmetric", of) == [pad] * 4


class TestWeights:
    @settings(max_examples=30, deadline=None)
    @given(specs())
    def test_folded_weights_are_those_that_a_graph_asks_for(self, spec: NetSpec) -> None:
        asked = {
            name: shape for layer in layers(spec) for name, shape in weight_shapes(layer).items()
        }
        folded = folded_weights(trained(spec))
        assert {name: value.shape for name, value in folded.items()} == asked
        assert {value.dtype for value in folded.values()} == {np.dtype(np.float32)}

    def test_random_weights_follow_their_generator(self) -> None:
        first, again, other = (
            random_weights(layers(VARIED), np.random.default_rng(seed)) for seed in (1, 1, 2)
        )
        assert all(np.array_equal(first[name], again[name]) for name in first)
        assert not np.array_equal(first["classifier.weight"], other["classifier.weight"])

    def test_with_random_weights_activations_stay_of_ordinary_size(self) -> None:
        spec = network("v3-large@64")
        weights = random_weights(layers(spec), np.random.default_rng(0))
        scores = run(network_graph(spec, weights), picture(1, 3, 64, 64))
        assert 1e-3 < np.abs(scores).max() < 1e3

    def test_a_missing_weight_is_named(self) -> None:
        with pytest.raises(KeyError, match=r"rows\.0\.weight"):
            network_graph(VARIED, {})


def test_a_run_of_layers_alone_is_a_piece_of_the_net() -> None:
    net = trained(network("v3-small"))
    row = net.spec.rows[5]
    assert isinstance(row, Bneck)
    walk = list(bneck_layers(5, row, 40, (7, 9), expands=True, skip=True))
    model = layers_graph(walk, folded_weights(net), padding="symmetric", gate="hsigmoid")
    onnx.checker.check_model(model, full_check=True)
    image = picture(1, 40, 7, 9)
    with torch.inference_mode():
        expected = net.rows[5](torch.from_numpy(image)).numpy()
    assert np.allclose(run(model, image), expected, rtol=1e-5, atol=1e-5)
