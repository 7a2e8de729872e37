"""Every runtime keeps one contract: load, run, threads, agree with the module, refuse in one line."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bneck.devices.models import network_model
from bneck.devices.runtimes import RUNTIMES, EngineError, Runtime, file_runtimes, runtime
from bneck.nets.fold import folded_weights
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.zoo import network
from test_graphs import VARIED
from test_shrink import trained

MODULES = {
    "onnxruntime": "onnxruntime",
    "litert": "ai_edge_litert",
    "openvino": "openvino",
    "torch": "torch",
    "torch-compiled": "torch",
    "executorch": "executorch",
}
# Compiling and lowering take longer than a default run allows.
SLOW = {"torch-compiled", "executorch"}


def there(name: str) -> bool:
    return importlib.util.find_spec(MODULES[name]) is not None


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in RUNTIMES
    ]
)
def engine(request: pytest.FixtureRequest) -> Runtime:
    if not there(request.param):
        pytest.skip(f"{request.param} is not installed")
    return runtime(request.param)


def picture(spec: NetSpec, count: int = 2) -> np.ndarray[Any, np.dtype[np.float32]]:
    shape = (count, spec.channels, spec.resolution, spec.resolution)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


NETS = {
    "v3-small": lambda: network("v3-small@64"),
    # What it lacks: ReLU6, a sigmoid gate, dilation, TensorFlow's padding at odd sizes.
    "varied": lambda: replace(VARIED, resolution=39),
    "v4-conv-small": lambda: network("v4-conv-small@64"),
    "lcnet": lambda: network("lcnet@32"),
}


@pytest.mark.parametrize("name", NETS)
def test_it_agrees_with_the_module(engine: Runtime, name: str) -> None:
    net = trained(NETS[name]()).eval()
    model = network_model(net.spec, engine, weights=folded_weights(net), metadata={"key": "value"})
    session = engine.load(model, threads=1)
    images = picture(net.spec)
    with torch.inference_mode():
        wanted = net(torch.from_numpy(images)).numpy()
    got = session.run(images)
    assert got.shape == wanted.shape
    assert got.dtype == np.float32
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert session.metadata["key"] == "value"
    assert session.operators().total() > 0


def test_what_is_timed_is_what_runs_and_threads_change_no_answer(engine: Runtime) -> None:
    spec = network("v3-small-0.5@32")
    model = network_model(spec, engine)
    image = picture(spec, 1)
    wanted = engine.load(model, threads=1).run(image)
    session = engine.load(model, threads=2)
    run = session.prepare(image)
    run()
    run()
    assert np.allclose(session.run(image), wanted, rtol=1e-4, atol=1e-5)
    torch.set_num_threads(1)


def test_a_result_is_not_overwritten_by_the_next(engine: Runtime) -> None:
    spec = network("v3-small-0.5@32")
    session = engine.load(network_model(spec, engine), threads=1)
    first, second = picture(spec, 2)[:, None]
    kept = session.run(first)
    copy = kept.copy()
    session.run(second)
    assert np.array_equal(kept, copy)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x09" * 40, b"PK\x03\x04 no archive"])
def test_bytes_that_are_no_model_end_in_one_line(engine: Runtime, data: bytes) -> None:
    with pytest.raises(EngineError, match=f"^{engine.name} cannot load this file: .") as caught:
        engine.load(data, threads=1)
    assert "\n" not in str(caught.value)


def test_a_file_cut_off_ends_in_one_line(engine: Runtime) -> None:
    spec = network("v3-small-0.35@32")
    model = network_model(spec, engine)
    with pytest.raises(EngineError, match=f"^{engine.name} cannot load this file: .") as caught:
        engine.load(model[: len(model) // 3], threads=1)
    assert "\n" not in str(caught.value)


def test_written_and_read_it_is_the_same(engine: Runtime, tmp_path: Path) -> None:
    spec = network("v3-small-0.35@32")
    model = network_model(spec, engine)
    path = tmp_path / f"model{engine.suffix}"
    engine.write(path, model)
    assert engine.name in file_runtimes(path)
    image = picture(spec, 1)
    wanted = engine.load(model, threads=1).run(image)
    assert np.array_equal(engine.load(engine.read(path), threads=1).run(image), wanted)
    with pytest.raises(EngineError, match=r"there is no model file .*nowhere"):
        engine.read(tmp_path / f"nowhere{engine.suffix}")


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_missing_one_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from bneck.devices.runtimes import engine

    def missing(module: str) -> Any:
        raise ImportError(module)

    monkeypatch.setattr(engine, "import_module", missing)
    with pytest.raises(
        InputError, match=rf"{name} is not installed; .*pip install 'bneck\[\w+\]'$"
    ):
        runtime(name)


def test_an_unknown_one_lists_the_known_ones() -> None:
    with pytest.raises(
        InputError, match=r"^there is no runtime 'tensorrt'; known are onnxruntime, "
    ):
        runtime("tensorrt")


@pytest.mark.parametrize("name", ["torch", "torch-compiled"])
def test_a_precision_that_it_does_not_run_is_refused(name: str) -> None:
    if not there(name):
        pytest.skip("torch is not installed")
    with pytest.raises(InputError, match=rf"^{name} does not run precision 'int8'; it runs fp32$"):
        network_model(network("v3-small@32"), runtime(name), "int8")


class TestOperatorsThatARuntimeLacks:
    """Named with the row that they were written for."""

    @pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
    def test_of_an_onnx_file(self, name: str) -> None:
        import onnx

        if not there(name):
            pytest.skip(f"{name} is not installed")
        model = onnx.load_from_string(network_model(network("v3-small@32"), runtime("onnxruntime")))
        node = next(one for one in model.graph.node if one.name == "rows.4.expand.hswish")
        node.op_type = "SoftSwish"
        with pytest.raises(
            EngineError,
            match=rf"^{name} \S+ lacks the operator SoftSwish, which rows\.4\.expand\.hswish in row 4 of",
        ):
            runtime(name).load(model.SerializeToString(), threads=1)

    def test_of_a_tflite_file(self) -> None:
        flatbuffers = pytest.importorskip("flatbuffers")
        schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
        data = network_model(network("v3-small@32"), runtime("litert"))
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        swish = schema.BuiltinOperator.HARD_SWISH
        code = next(one for one in model.operatorCodes if one.builtinCode == swish)
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = b"SoftSwish"
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        with pytest.raises(
            EngineError,
            match=r"^litert \S+ lacks the operator SoftSwish, which rows\.0 in row 0 of",
        ):
            runtime("litert").load(bytes(builder.Output()), threads=1)
