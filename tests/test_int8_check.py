"""The check of an int8 file refuses what is broken and what is worse than chance, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from torch import Tensor

import bneck
from bneck.devices.models import network_model
from bneck.devices.runtimes import Session, runtime
from bneck.graphs.forms import form
from bneck.nets.batch_norm import reestimate
from bneck.nets.build import Net, build
from bneck.nets.calibrate import calibrate
from bneck.nets.quantize import Quantized, emulation
from bneck.runs.files import write_file
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import Normalisation
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.text import to_text
from bneck.tasks.checks import (
    MOST_ROUNDINGS,
    ExportError,
    Gaps,
    advice,
    check_mean,
    probes,
    roundings,
)
from bneck.tasks.classify.files import compare
from bneck.tasks.classify.task import ClassifyOptions
from bneck.tasks.registry import task
from commands import Call

pytestmark = pytest.mark.usefixtures("one_thread")
ENGINES = ["onnxruntime", "litert", "openvino"]
SPEC = NetSpec(
    name="net",
    resolution=32,
    classes=5,
    rows=(
        Conv(3, 16, "hswish", 2),
        Bneck(3, 32, 16, 8, "relu", 1),
        Bneck(5, 48, 24, 0, "hswish", 2),
        Conv(1, 48, "hswish"),
        Pool(),
        Conv(1, 32, "hswish", bn=False),
    ),
)


def photos(count: int, seed: int) -> Tensor:
    """Smooth colours, normalised."""
    colours = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(colours, (32, 32), mode="bilinear") - 0.45) / 0.226


def spread_out(spec: NetSpec = SPEC) -> Net:
    """A net whose outputs follow its images, as a trained one's do."""
    net = build(spec)
    for one in net.modules():
        if isinstance(one, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(one.weight, generator=torch.Generator().manual_seed(1))
    reestimate(net, [photos(32, 1)])
    return net.eval()


def dark(images: Tensor) -> Tensor:
    """Other pictures than the net will see: of little contrast."""
    return images * 0.3 - 1.2


def session(
    spec: NetSpec, engine_name: str, quantized: Quantized, change: Callable[[bytes], bytes] = bytes
) -> Session:
    engine = runtime(engine_name)
    model = network_model(spec, engine, "int8", weights=quantized.weights, ranges=quantized.ranges)
    return engine.load(change(model), threads=1)


def zero_point_off(point: str, by: int) -> Callable[[bytes], bytes]:
    """An ONNX file that reads the integers of a point with another zero than it writes them with."""

    def change(model: bytes) -> bytes:
        loaded = onnx.load_from_string(model)
        (zero,) = [i for i in loaded.graph.initializer if i.name == f"{point}.read.zero"]
        zero.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(zero) + np.uint8(by), zero.name)
        )
        return bytes(loaded.SerializeToString())

    return change


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fitting", [True, False])
def test_whole_files_are_kept_whatever_they_were_calibrated_on(engine: str, fitting: bool) -> None:
    net, images = spread_out(), photos(16, 2)
    calibrating = photos(32, 3) if fitting else dark(photos(32, 3))
    quantized = calibrate(net, [calibrating], form(engine, "int8"))
    check = compare(net, session(SPEC, engine, quantized), images, quantized, "int8")
    assert 0 < check["roundings"] < 1
    assert check["chance"] == pytest.approx(1 / 5)
    assert (check["label_agreement"] > 0.85) == fitting  # of the float network's
    assert fitting or advice(check, "label_agreement")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fitting", [True, False])
@pytest.mark.parametrize("name", ["rows.0.weight", "rows.2.depthwise.weight"])
def test_a_transposed_weight_is_refused(engine: str, fitting: bool, name: str) -> None:
    net, images = spread_out(), photos(16, 2)
    calibrating = photos(32, 3) if fitting else dark(photos(32, 3))
    whole = calibrate(net, [calibrating], form(engine, "int8"))
    turned = np.ascontiguousarray(whole.weights[name].transpose(0, 1, 3, 2))
    broken = replace(whole, weights={**whole.weights, name: turned})
    with pytest.raises(ExportError, match=r"times as far from the simulated .*so it is broken; no"):
        compare(net, session(SPEC, engine, broken), images, whole, "int8")


@pytest.mark.parametrize("point", ["rows.0", "rows.1.depthwise", "rows.2.project", "classifier"])
@pytest.mark.parametrize("fitting", [True, False])
def test_a_wrong_zero_point_is_refused(point: str, fitting: bool) -> None:
    net, images = spread_out(), photos(16, 2)
    calibrating = photos(32, 3) if fitting else dark(photos(32, 3))
    whole = calibrate(net, [calibrating], "cut")
    broken = session(SPEC, "onnxruntime", whole, zero_point_off(point, 30))
    with pytest.raises(ExportError, match="so it is broken"):
        compare(net, broken, images, whole, "int8")


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.filterwarnings("error")
def test_a_network_whose_outputs_are_all_zero(classes: int) -> None:
    spec = replace(SPEC, classes=classes)
    net = spread_out(spec)
    with torch.no_grad():
        net.classifier.weight.zero_()
        assert net.classifier.bias is not None
        net.classifier.bias.zero_()
    whole = calibrate(net, [photos(8, 3)], "cut")
    check = compare(net, session(spec, "onnxruntime", whole), photos(8, 2), whole, "int8")
    assert (check["roundings"], check["label_agreement"]) == (pytest.approx(0, abs=0.01), 1)
    wrong = replace(whole, ranges={**whole.ranges, "classifier": (-1.0, 1.0)})
    biased = {**wrong.weights, "classifier.bias": np.ones(classes, np.float32)}
    broken = session(spec, "onnxruntime", replace(wrong, weights=biased))
    with pytest.raises(ExportError):
        compare(net, broken, photos(8, 2), whole, "int8")


@pytest.mark.parametrize("engine", ENGINES)
def test_what_hardly_shows_on_calm_photos_is_refused_by_the_probes(engine: str) -> None:
    """On photos of little contrast a transposed kernel is no farther off than other roundings."""
    net, calm = spread_out(), photos(16, 2) * 0.05
    whole = calibrate(net, [photos(32, 3)], form(engine, "int8"))
    turned = np.ascontiguousarray(whole.weights["rows.0.weight"].transpose(0, 1, 3, 2))
    broken = replace(whole, weights={**whole.weights, "rows.0.weight": turned})
    with torch.inference_mode():
        wanted, other, got = (
            emulation(net, one, dither=seed)(calm)
            for one, seed in ((whole, None), (whole, 0), (broken, None))
        )
    assert (got - wanted).square().mean() < (other - wanted).square().mean()
    with pytest.raises(
        ExportError, match=r"on 6 images: it is .* so it is broken; no file was kept"
    ):
        compare(net, session(SPEC, engine, broken), calm, whole, "int8")
    check = compare(net, session(SPEC, engine, whole), calm, whole, "int8")
    assert check["images"] == 16
    assert check["roundings"] < 1


def test_probes_are_noise_columns_and_rows_of_all_pixels() -> None:
    plain = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    found = probes(torch.zeros(2, 3, 24, 40), plain)
    assert found.shape == (6, 3, 24, 40)
    assert (float(found.min()), float(found.max())) == (0, 1)
    down, across = (found.diff(dim=dim).abs().amax((1, 2, 3)) > 0 for dim in (2, 3))
    assert down.tolist() == [True, False, True] * 2
    assert across.tolist() == [True, True, False] * 2


@pytest.mark.parametrize("engine", ENGINES)
def test_one_class(engine: str) -> None:
    spec = replace(SPEC, classes=1)
    net = spread_out(spec)
    whole = calibrate(net, [photos(32, 3)], form(engine, "int8"))
    check = compare(net, session(spec, engine, whole), photos(8, 2), whole, "int8")
    assert check["roundings"] < MOST_ROUNDINGS
    assert (check["label_agreement"], check["chance"]) == (1, 1)


def test_not_a_number_is_refused() -> None:
    for odd in ("nan", "inf"):
        with pytest.raises(ExportError), np.errstate(invalid="ignore"):
            roundings(Gaps.of(np.zeros((1, 1)), np.array([[float(odd)]])), [gaps([[1.0]])], 1.3)


def gaps(values: list[list[float]]) -> Gaps:
    """Of outputs that are off by so much, an image per row."""
    off = np.array(values)
    return Gaps.of(np.zeros_like(off), off)


def test_how_far_off_by_hand() -> None:
    """Single images: sqrt(3 / 3.5) times as far as the others. In the mean over images: sqrt(0.5 / 0.25)."""
    others = [gaps([[2.0, -2.0], [-1.0, 1.0]]), gaps([[2.0, -2.0], [-3.0, 1.0]])]
    assert [one.sizes().tolist() for one in others] == [[2.5, 0.25], [4.5, 0.25]]
    found = gaps([[2.0, 2.0], [0.0, -2.0]])
    assert found.sizes().tolist() == [3.0, 0.5]
    assert roundings(found, others, 0.93) == pytest.approx((3 / 3.5) ** 0.5)
    with pytest.raises(ExportError, match=r"on 2 images: it is 0\.926 times as far"):
        roundings(found, others, 0.92)
    check_mean(found, others)  # four numbers tell nothing
    with pytest.raises(ExportError, match=r"on 2 images: it is 1\.41 times as far"):
        check_mean(found, others * 8)


def test_the_other_rounding_is_off_by_a_step_at_most_and_right_on_average() -> None:
    net, images = spread_out(), photos(64, 2)
    whole = calibrate(net, [images], "split")
    step = (whole.ranges["image"][1] - whole.ranges["image"][0]) / 255
    seen: dict[str, Tensor] = {}
    with torch.inference_mode():
        for seed in (0, 0, 1):
            other = emulation(net, whole, dither=seed)
            point = other.point("image", images, "image")
            seen[f"{seed}"], before = point, seen.get(f"{seed}")
            assert before is None or torch.equal(before, point)
    inside = (images > whole.ranges["image"][0]) & (images < whole.ranges["image"][1])
    off = (seen["0"] - images)[inside]
    assert float(off.abs().max()) <= 1.001 * step
    assert abs(float(off.mean())) < 0.01 * step
    assert not torch.equal(seen["0"], seen["1"])


def opposite(net: Net, images: Tensor) -> Quantized:
    """An int8 network that gives the worst class instead of the best; its file is as it should be."""
    whole = calibrate(net, [images], "cut")
    turned = {
        name: -value if name.startswith("classifier") else value
        for name, value in whole.weights.items()
    }
    low, high = whole.ranges["classifier"]
    return Quantized(
        weights=turned, ranges={**whole.ranges, "classifier": (-high, -low)}, hswish="cut"
    )


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("scored", [True, False])
def test_worse_than_chance_is_refused_of_a_trained_network(
    tmp_path: Path, trained: bool, scored: bool
) -> None:
    net, images = spread_out(), photos(16, 2)
    how: dict[str, Any] = {
        "record": {"classes": list("abcde")} if trained else {}, "options": ClassifyOptions(),
        "precision": "int8", "quantized": opposite(net, images), "scored": scored,
    }  # fmt: skip
    path = tmp_path / "model.onnx"
    if trained and not scored:
        with pytest.raises(ExportError, match=r"less than by chance \(20\.0%\); no file .*--data"):
            write_file(task("classify"), net, path, images, **how)
    else:
        write_file(task("classify"), net, path, images, **how)
    assert path.is_file() != (trained and not scored)


class TestExport:
    @pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
    @pytest.mark.filterwarnings("error::RuntimeWarning")
    def test_random_weights_make_a_file_that_says_so(
        self, call: Call, pictures: Path, tmp_path: Path, format: str
    ) -> None:
        suffix = {"openvino": "xml"}.get(format, format)
        out = tmp_path / f"random.{suffix}"
        done = call(
            "export", "v2-0.35@32", "--format", format, "--precision", "int8", "--data", pictures,
            "--out", out,
        )  # fmt: skip
        assert "the weights are random" in done.out
        assert out.is_file()

    @pytest.mark.parametrize(
        ("count", "said"),
        [
            (0, "has no pictures; pass a folder of pictures with --data"),
            (1, "int8 is calibrated on at least 8 images, and there is 1 here; pass a folder"),
            (9, "all 9 images to calibrate int8 with are of one color"),
        ],
    )
    def test_bad_pictures_end_in_a_sentence(
        self, tmp_path: Path, tiny: NetSpec, count: int, said: str
    ) -> None:
        folder = tmp_path / "pictures"
        folder.mkdir()
        for shade in range(count):
            Image.new("RGB", (40, 40), (20, 0, 9)).save(folder / f"{shade}.png")
        spec = tmp_path / "tiny.yaml"
        spec.write_text(to_text(tiny), encoding="utf-8")
        with pytest.raises(bneck.InputError, match=said):
            bneck.export(spec, "onnx", precision="int8", data=folder, out=tmp_path / "x.onnx")
        assert not (tmp_path / "x.onnx").exists()

    def test_the_loss_is_told_with_what_improves_it(
        self, call: Call, tmp_path: Path, pictures: Path
    ) -> None:
        from bneck.nets.weights import save_weights
        from bneck.records.run import RunFolder

        folder = RunFolder(tmp_path / "run")
        folder.path.mkdir()
        folder.spec.write_text(to_text(SPEC), encoding="utf-8")
        save_weights(spread_out().state_dict(), folder.weights)
        record = {"format": 2, "kind": "train", "task": "classify", "classes": list("abcde")}
        folder.run_json.write_text(json.dumps(record | {"state": "finished", "wrapper": {}}))
        done = call("export", folder.path, "--precision", "int8", "--data", pictures, "--json")
        found = json.loads(done.out)
        kept = found["label_agreement"]
        assert bool(found["notes"]) == (kept < 0.95)
        assert (folder.path / "model-int8.onnx").is_file()
        worse = advice({"chance": 0.2, "label_agreement": 0.75}, "label_agreement")
        assert "int8 changes 25.0% of the float network's answers" in worse[0]
        assert "bneck quantize RUN --epochs 2" in worse[0]
