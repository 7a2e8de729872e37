"""TFLite files: they compute what the net computes, in the layout and precision that they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from bneck.graphs.weights import pads
from bneck.nets.fold import folded_weights
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec, Padding, layers
from bneck.specs.normalisation import Normalisation
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.zoo import network
from drawn import specs
from test_graphs import VARIED
from test_shrink import trained

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

from bneck.devices.models import network_model  # noqa: E402
from bneck.devices.runtimes import runtime  # noqa: E402
from bneck.graphs import tflite_file  # noqa: E402
from bneck.graphs.tflite_file import Flatbuffer, metadata_of  # noqa: E402


def written(spec: NetSpec, weights: Any, size: Any = None, **how: Any) -> bytes:
    return network_model(spec, runtime("litert"), resolution=size, weights=weights, **how)


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def assert_same(spec: NetSpec, size: tuple[int, int], hswish: str = "op") -> None:
    net = trained(spec).eval()
    model = written(spec, folded_weights(net), size, hswish=hswish)
    image = picture(1, spec.channels, *size)
    with torch.inference_mode():
        wanted = net(torch.from_numpy(image)).numpy()
    got = runtime("litert").load(model, threads=1).run(image)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 2e-5 * max(1.0, float(np.abs(wanted).max()))


def operators(model: bytes) -> list[str]:
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if k.isupper()}
    root = schema.ModelT.InitFromPackedBuf(model, 0)
    return [
        names[root.operatorCodes[o.opcodeIndex].builtinCode] for o in root.subgraphs[0].operators
    ]


class TestSameAsTheNet:
    @settings(max_examples=30, deadline=None)
    @given(specs())
    def test_any_network(self, spec: NetSpec) -> None:
        assert_same(spec, (spec.resolution, spec.resolution))

    @pytest.mark.parametrize("hswish", ["op", "split"])
    @pytest.mark.parametrize("size", [(32, 32), (33, 47)])
    @pytest.mark.parametrize("padding", ["symmetric", "same"])
    def test_v3_in_both_forms(self, padding: Padding, size: tuple[int, int], hswish: str) -> None:
        assert_same(replace(network("v3-small"), padding=padding), size, hswish)

    @pytest.mark.parametrize("hswish", ["op", "split"])
    def test_what_the_zoo_lacks(self, hswish: str) -> None:
        assert_same(VARIED, (17, 24), hswish)

    def test_a_gain_that_no_weights_can_take_is_divided_out(self) -> None:
        """An h-swish behind the projection: what it adds up with has no factor of six."""
        rows = (
            Conv(3, 16, "hswish", 2),
            Bneck(3, 16, 16, 0, "relu", out_act="hswish"),
            Bneck(3, 32, 16, 8, "hswish", out_act="hswish"),
            Pool(),
        )
        assert_same(NetSpec(name="adds", rows=rows, classes=5), (16, 16), "split")


class TestFile:
    @pytest.mark.parametrize("name", ["v3-large@64", "v4-conv-small@64", "lcnet@64"])
    def test_no_transpose_and_padding_only_where_same_does_not_fit(self, name: str) -> None:
        spec = network(name)
        found = operators(written(spec, folded_weights(trained(spec))))
        assert "TRANSPOSE" not in found
        assert "RESHAPE" not in found
        # Symmetric padding at stride 2 and even sizes is no SAME: the stem and the four rows
        # that halve 32, 16, 8 and 4 pixels.
        odd = [x for x in layers(spec) if x.kernel > 1 and pads("same", x) != pads("symmetric", x)]
        assert found.count("PAD") == len(odd) == 5
        same = replace(spec, padding="same")
        assert "PAD" not in operators(written(same, folded_weights(trained(same))))

    def test_weights_lie_at_aligned_places(self) -> None:
        spec = network("v3-small@32")
        model = written(spec, folded_weights(trained(spec)), metadata={"odd": "xyz"})
        root = schema.Model.GetRootAs(model, 0)
        start = np.frombuffer(model, np.uint8).__array_interface__["data"][0]
        places = [
            root.Buffers(i).DataAsNumpy().__array_interface__["data"][0] - start
            for i in range(root.BuffersLength())
            if root.Buffers(i).DataLength()
        ]
        assert len(places) > 50
        assert {place % tflite_file.ALIGNMENT for place in places} == {0}

    def test_metadata_come_back(self) -> None:
        spec = network("v3-small-0.35@32")
        told = {"classes": '["é", "b"]', "spec": "two\nlines", "empty": ""}
        model = written(spec, folded_weights(trained(spec)), metadata=told)
        assert metadata_of(model) == told

    def test_the_same_weights_give_the_same_bytes(self) -> None:
        spec = network("v3-small-0.35@32")
        weights = folded_weights(trained(spec))
        assert written(spec, weights) == written(spec, weights)

    def test_a_missing_weight_is_named(self) -> None:
        with pytest.raises(KeyError, match=r"rows\.0\.weight"):
            written(VARIED, {})

    def test_bytes_of_something_else_are_refused(self) -> None:
        with pytest.raises(InputError, match="no TFLite file"):
            metadata_of(b"something else")

    def test_without_the_package_its_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "flatbuffers", None)
        with pytest.raises(InputError, match=r"pip install 'bneck\[litert\]'"):
            Flatbuffer()


class TestPixels:
    @pytest.mark.parametrize("engine", ["litert", "onnxruntime"])
    def test_raw_pixels_give_what_normalised_ones_give(self, engine: str) -> None:
        spec = network("v3-small@48")
        net = trained(spec).eval()
        how = Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
        loaded = runtime(engine)
        model = network_model(spec, loaded, weights=folded_weights(net), pixels=how)
        pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
        normal = (pixels / 255 - how.mean) / how.std
        with torch.inference_mode():
            wanted = net(torch.from_numpy(normal.transpose(0, 3, 1, 2)).float()).numpy()
        session = loaded.load(model, threads=1)
        got = session.run(pixels)
        assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
        if engine == "litert":
            assert session.operators() == {"DELEGATE": 1}
