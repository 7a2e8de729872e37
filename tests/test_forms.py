"""What runtimes make of the files: an operator that leaves the fast path fails here."""

from __future__ import annotations

from collections import Counter

import pytest

from bneck.costs.count import count
from bneck.devices.models import network_model
from bneck.devices.runtimes import runtime
from bneck.graphs import forms
from bneck.graphs.forms import form
from bneck.specs.errors import InputError
from bneck.specs.network import layers
from bneck.specs.zoo import network

# h-swish, SE with both gates, ReLU6, a start without a nonlinearity; those of Table 4 among them.
NAMES = (
    "v3-small@64", "v3-large@64", "v2-0.35@64", "mnasnet-a1@64", "v4-conv-small@64", "lcnet@64",
)  # fmt: skip


def operators(name: str, engine: str, precision: str) -> Counter[str]:
    pytest.importorskip({"litert": "ai_edge_litert"}.get(engine, engine))
    loaded = runtime(engine)
    return loaded.load(network_model(network(name), loaded, precision), threads=1).operators()


def convolutions(name: str) -> int:
    return sum({"pool": 0, "squeeze": 2}.get(layer.kind, 1) for layer in layers(network(name)))


def swishes(name: str) -> int:
    return sum(layer.act == "hswish" for layer in layers(network(name)))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", NAMES)
def test_litert_gives_the_whole_graph_to_xnnpack(name: str, precision: str) -> None:
    assert operators(name, "litert", precision) == {"DELEGATE": 1}


def test_the_wrong_form_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 8-bit HARD_SWISH operator cuts the graph at every h-swish: 19 of them in V3-Small."""
    monkeypatch.setitem(forms.FORMS, ("litert", "int8"), "op")
    found = operators("v3-small@64", "litert", "int8")
    assert found["HARD_SWISH"] == swishes("v3-small@64") == 19
    assert found["DELEGATE"] > 10


@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_fuses_every_nonlinearity_into_a_float_convolution(name: str) -> None:
    found = operators(name, "onnxruntime", "fp32")
    assert sum(n for kind, n in found.items() if kind.startswith("Conv")) == convolutions(name)
    assert found["Conv+HardSwish"] == swishes(name)
    assert not set(found) & {"HardSwish", "HardSigmoid", "Relu", "Clip", "BatchNormalization"}


@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_computes_everything_in_8_bits(name: str) -> None:
    found = operators(name, "onnxruntime", "int8")
    assert found["QLinearConv"] == convolutions(name)
    whole = {
        "QLinearConv",
        "QLinearAdd",
        "QLinearMul",
        "QLinearGlobalAveragePool",
        "QLinearSigmoid",
    }
    # At the borders: in, out, to its own layout and back.
    assert set(found) - whole <= {"QuantizeLinear", "DequantizeLinear", "Transpose", "Flatten"}
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1
    assert found["Transpose"] <= 2


@pytest.mark.parametrize("name", NAMES)
def test_openvino_computes_every_convolution_in_8_bits(name: str) -> None:
    found = operators(name, "openvino", "int8")
    assert found["Convolution:u8"] + found["Convolution:i8"] == convolutions(name)
    assert not any(kind.startswith("Convolution:f") for kind in found)


@pytest.mark.parametrize("name", NAMES)
def test_openvino_fuses_every_nonlinearity_in_float(name: str) -> None:
    found = operators(name, "openvino", "fp32")
    behind = sum(
        layer.kind == "conv" and layer.size_in == (1, 1) for layer in layers(network(name))
    )
    assert found["FullyConnected:f32"] == behind
    assert found["Convolution:f32"] == convolutions(name) - behind
    # What is left of Eltwise and Math are the products and gates of SE on small maps.
    squeezes = sum(layer.kind == "squeeze" for layer in layers(network(name)))
    assert found["Eltwise:f32"] + found["Math:f32"] <= 2 * squeezes


@pytest.mark.parametrize("name", ["v4-conv-small@64", "lcnet@64"])
def test_layouts_change_at_the_ends_and_at_squeezes_alone(name: str) -> None:
    """A squeeze's two small convolutions see one pixel, which needs no layout of its own.

    ONNX Runtime's own layout holds channels in eights or sixteens, and all widths of these two are such.
    """
    squeezes = sum(layer.kind == "squeeze" for layer in layers(network(name)))
    found = operators(name, "onnxruntime", "fp32")
    assert found["ReorderInput"] <= squeezes
    assert found["ReorderOutput"] <= 1 + 2 * squeezes
    assert found["Transpose"] == 0
    for precision, inside in (("fp32", 2 * squeezes), ("int8", 0)):
        found = operators(name, "openvino", precision)
        assert sum(n for kind, n in found.items() if kind.startswith("Reorder:")) <= 2 + inside
        assert not any(kind.startswith("Transpose") for kind in found)


@pytest.mark.slow  # lowering takes seconds for a network
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", NAMES)
def test_executorch_gives_the_whole_graph_to_xnnpack(name: str, precision: str) -> None:
    """In float a hard sigmoid leaves the conversion of its two numbers outside, one value each."""
    found = operators(name, "executorch", precision)
    gates = sum(layer.kind == "squeeze" for layer in layers(network(name)))
    hard = precision == "fp32" and network(name).se_gate == "hsigmoid"
    numbers = {"dim_order_ops::_to_dim_order_copy": 2 * gates} if hard and gates else {}
    assert found == {"DELEGATE": 1, **numbers}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_half_precision_weights_run_as_float_ones(engine: str) -> None:
    for name in NAMES[:2]:
        assert operators(name, engine, "fp16") == operators(name, engine, "fp32")


@pytest.mark.parametrize("engine", ["onnxruntime", "litert", "openvino"])
def test_half_precision_halves_the_file(engine: str) -> None:
    pytest.importorskip({"litert": "ai_edge_litert"}.get(engine, engine))
    spec, kind = network("v3-small@64"), runtime(engine)
    whole, half = (len(network_model(spec, kind, precision)) for precision in ("fp32", "fp16"))
    weights = count(spec).params
    assert half < whole - 1.9 * weights
    assert half > 2 * weights


def test_the_separate_operators_of_the_paper_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Table 5's comparison: each h-swish outside its convolution, add, cut-off and two products."""
    monkeypatch.setitem(forms.FORMS, ("onnxruntime", "fp32"), "split")
    found = operators("v3-small@64", "onnxruntime", "fp32")
    squeezes = sum(layer.kind == "squeeze" for layer in layers(network("v3-small@64")))
    assert found["Clip"] == swishes("v3-small@64")
    assert found["Mul"] == 2 * swishes("v3-small@64") + squeezes


def test_the_table_knows_every_pair_or_says_what_runs() -> None:
    assert form("litert", "int8") == "split"
    with pytest.raises(
        InputError, match=r"litert does not run precision 'int4'; it runs fp32, fp16, int8"
    ):
        form("litert", "int4")
    with pytest.raises(InputError, match=r"abacus does not run precision 'fp32'; it runs none"):
        form("abacus", "fp32")
