"""What runtimes make of the files: an operator that leaves the fast path fails here."""

from __future__ import annotations

from collections import Counter

import onnx
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
# First layers of at most 16 channels, by hand from the tables.
NARROW_LAYERS = {
    "v3-small@64": ["rows.0", "rows.1.depthwise", "rows.1.se", "rows.1.project"],
    "v3-large@64": ["rows.0", "rows.1.depthwise", "rows.1.project"],
    "v2-0.35@64": ["rows.0", "rows.1.depthwise", "rows.1.project"],
    "mnasnet-a1@64": [], "v4-conv-small@64": [], "lcnet@64": ["rows.0"],
}  # fmt: skip


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
def test_onnxruntime_computes_all_but_narrow_first_rows_in_8_bits(name: str) -> None:
    """One pass of an h-swish cuts integers off, the other multiplies: no Add but the residuals' stays."""
    found, walk = operators(name, "onnxruntime", "int8"), list(layers(network(name)))
    narrow = NARROW_LAYERS[name]
    assert [layer.name for layer in walk[: len(narrow)]] == narrow
    inside = walk[len(narrow) :]
    after = sum(layer.kind == "conv" and layer.size_in == (1, 1) for layer in walk)
    assert found["QGemm"] == after  # products of matrices after the pool
    assert found["QLinearConv"] == -after + sum(
        {"pool": 0, "squeeze": 2}.get(layer.kind, 1) for layer in inside
    )
    assert found["Clip"] == sum(layer.act == "hswish" for layer in inside)
    assert found["QLinearAdd"] == sum(layer.adds for layer in inside)
    assert found["QLinearMul"] == found["Clip"] + sum(layer.kind == "squeeze" for layer in inside)
    # At the border between both, one change of layout; at the image and the scores the others.
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1
    assert found["Transpose"] == 2
    assert found["Pad"] == (0 if narrow else 1)  # three colors as four channels


@pytest.mark.parametrize("name", ["v3-large@64", "v3-small-0.35@64"])
def test_every_depthwise_convolution_has_whole_blocks_of_channels(name: str) -> None:
    """ONNX Runtime's kernel for them needs a multiple of 16; V3-Large has 72, 120, 184 and 200."""
    model = onnx.load_from_string(network_model(network(name), runtime("onnxruntime"), "int8"))
    held = {one.name: list(one.dims) for one in model.graph.initializer}
    widths = [dims[0] for key, dims in held.items() if key.endswith("depthwise.weight.whole")]
    assert len(widths) >= 10
    assert all(width % 16 == 0 for width in widths)


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
