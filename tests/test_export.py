"""Exporting: the file answers as the module does, or there is no file; and what predict makes of it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor

import bneck
from bneck.data.batches import eval_batches
from bneck.data.pack import Packed
from bneck.devices.runtimes import EngineError, runtime
from bneck.nets.build import Net, build
from bneck.nets.fold import folded_weights
from bneck.records.run import RunFolder
from bneck.runs import files
from bneck.runs.files import write_file
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text
from bneck.specs.zoo import network
from bneck.tasks.checks import ExportError
from bneck.tasks.classify.files import compare
from bneck.tasks.classify.task import ClassifyOptions
from bneck.tasks.registry import task
from bneck.training.settings import Settings
from learning import train

CLASSES = ("circle", "square", "stripes")


@pytest.fixture(scope="module")
def net(tiny: NetSpec, image_data: Any) -> Net:
    """Trained for a moment, so that its batch norms and its answers are not all alike."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = Settings(epochs=8, batch=16, lr=0.005, average=0.9, bn_momentum=0.1)
    trained: Net = train(build(tiny), image_data, settings)
    torch.set_num_threads(threads)
    return trained.eval()


def export_file(net: Net, path: Path, images: Tensor) -> dict[str, Any]:
    return write_file(
        task("classify"), net, path, images, record={"classes": CLASSES}, options=ClassifyOptions()
    )


@pytest.fixture(scope="module")
def images(packed: Packed) -> Tensor:
    indices = np.arange(len(packed.val.labels))
    return next(iter(eval_batches(packed.val, indices, resolution=32, batch=len(indices))))[0]


@pytest.fixture(scope="module")
def model(net: Net, images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_file(net, path, images)
    return path


def perturbed(name: str, by: float) -> Any:
    """`folded_weights` with one number off."""

    def fold(net: Net) -> dict[str, Any]:
        weights = {key: value.copy() for key, value in folded_weights(net).items()}
        weights[name].flat[0] += by
        return weights

    return fold


class TestExport:
    def test_the_file_answers_as_the_module_does(
        self, net: Net, model: Path, images: Tensor
    ) -> None:
        session = runtime("onnxruntime").load(model.read_bytes(), threads=1)
        check = compare(net, session, images, None, "fp32")
        assert list(check) == ["images", "label_agreement", "largest_difference"]
        assert (check["images"], check["label_agreement"]) == (30, 1.0)
        assert 0 <= check["largest_difference"] <= 1e-4
        assert json.loads(json.dumps(check)) == check

    def test_it_is_a_valid_model_that_takes_batches(
        self, net: Net, model: Path, images: Tensor
    ) -> None:
        onnx.checker.check_model(onnx.load(model), full_check=True)
        session = runtime("onnxruntime").load(model.read_bytes(), threads=1)
        scores = session.run(images.numpy())
        assert scores.shape == (30, 3)
        with torch.inference_mode():
            wanted = net(images).numpy()
        assert np.abs(scores - wanted).max() <= 1e-4 * np.abs(wanted).max()

    def test_it_says_what_it_needs_and_what_it_is(self, net: Net, model: Path) -> None:
        metadata = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
        assert json.loads(metadata["classes"]) == list(CLASSES)
        assert tuple(json.loads(metadata["mean"])) == (0.485, 0.456, 0.406)  # ImageNet's
        assert tuple(json.loads(metadata["std"])) == (0.229, 0.224, 0.225)
        assert metadata["resolution"] == "32"
        assert from_text(metadata["spec"]) == net.spec

    def test_batch_norm_is_folded_away(self, model: Path) -> None:
        operators = {node.op_type for node in onnx.load(model).graph.node}
        assert "BatchNormalization" not in operators
        assert {"Conv", "HardSwish", "HardSigmoid", "GlobalAveragePool"} <= operators

    def test_the_same_net_gives_the_same_bytes(
        self, net: Net, model: Path, images: Tensor, tmp_path: Path
    ) -> None:
        export_file(net, tmp_path / "again.onnx", images)
        assert (tmp_path / "again.onnx").read_bytes() == model.read_bytes()

    def test_a_net_left_in_training_mode_is_exported_as_it_answers_later(
        self, net: Net, model: Path, images: Tensor, tmp_path: Path
    ) -> None:
        net.train()
        export_file(net, tmp_path / "model.onnx", images)
        assert not net.training
        assert (tmp_path / "model.onnx").read_bytes() == model.read_bytes()


class TestRefused:
    @pytest.mark.parametrize("name", ["rows.0.weight", "rows.3.project.bias", "classifier.bias"])
    def test_one_wrong_weight_leaves_no_file(
        self, net: Net, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr(files, "folded_weights", perturbed(name, 1.0))
        with pytest.raises(
            ExportError,
            match=r"does not answer as the network does on 30 images: .*no file was kept$",
        ):
            export_file(net, tmp_path / "model.onnx", images)
        assert list(tmp_path.iterdir()) == []

    def test_scores_may_be_wrong_even_if_every_label_is_right(
        self, net: Net, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "folded_weights", perturbed("classifier.bias", 0.001))
        with pytest.raises(
            ExportError, match=r"labels agree on 100\.0%, scores differ by 0\.\d+ of the"
        ):
            export_file(net, tmp_path / "model.onnx", images)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_scores_that_are_no_numbers_fail(
        self, tiny: NetSpec, images: Tensor, tmp_path: Path, value: float
    ) -> None:
        broken = build(tiny).eval()
        assert broken.classifier.bias is not None
        with torch.no_grad():
            broken.classifier.bias[0] = value  # in the module and in the file alike
        with pytest.raises(ExportError), np.errstate(invalid="ignore"):
            export_file(broken, tmp_path / "model.onnx", images)
        assert list(tmp_path.iterdir()) == []

    def test_a_file_of_another_network_does_not_agree(
        self, tiny: NetSpec, model: Path, images: Tensor
    ) -> None:
        session = runtime("onnxruntime").load(model.read_bytes(), threads=1)
        with pytest.raises(ExportError):
            compare(build(tiny, seed=9), session, images, None, "fp32")

    def test_a_full_disk_leaves_no_file(
        self, net: Net, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(file: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"model\.onnx cannot be written: No space left"):
            export_file(net, tmp_path / "model.onnx", images)
        assert list(tmp_path.iterdir()) == []


class TestPredict:
    def test_real_pictures_get_the_labels_that_the_module_gives(
        self, net: Net, model: Path, images: Tensor, pictures: Path, packed: Packed
    ) -> None:
        # The pack holds the same pictures in the same order.
        files = [pictures / "val" / name.removeprefix("val/") for name in packed.val.names]
        found = bneck.predict(model, files, top=3)
        with torch.inference_mode():
            shares = net(images).softmax(1)
        for one, share in zip(found, shares, strict=True):
            assert one["classes"][0]["label"] == CLASSES[int(share.argmax())]
            assert [best["score"] for best in one["classes"]] == pytest.approx(
                share.sort(descending=True).values.tolist(), abs=1e-3
            )
        right = [
            one["classes"][0]["label"] == file.parent.name
            for one, file in zip(found, files, strict=True)
        ]
        assert np.mean(right) > 0.6

    def test_a_run_folder_is_as_good_as_its_model(
        self, model: Path, pictures: Path, tmp_path: Path
    ) -> None:
        RunFolder(tmp_path).model.write_bytes(model.read_bytes())
        picture = pictures / "val" / "square" / "00.png"
        assert bneck.predict(tmp_path, [picture]) == bneck.predict(str(model), [str(picture)])

    def test_scores_are_best_first_and_as_many_as_asked(self, model: Path, pictures: Path) -> None:
        picture = pictures / "val" / "circle" / "03.png"
        (two,) = bneck.predict(model, [picture], top=2)
        assert two["image"] == str(picture)
        assert two["picture"] is None
        first, second = two["classes"]
        assert first["score"] >= second["score"]
        assert two["line"].startswith(f"{first['label']} {first['score']:.1%}, {second['label']} ")
        (everything,) = bneck.predict(model, [picture], top=99)
        assert {best["label"] for best in everything["classes"]} == set(CLASSES)
        assert sum(best["score"] for best in everything["classes"]) == pytest.approx(1)

    @pytest.mark.parametrize("top", [0, -1])
    def test_fewer_than_one_class_is_refused(self, model: Path, pictures: Path, top: int) -> None:
        with pytest.raises(InputError, match=f"^top is {top}; it must be at least 1"):
            bneck.predict(model, [pictures / "val" / "circle" / "03.png"], top=top)

    def test_no_picture_is_refused(self, model: Path) -> None:
        with pytest.raises(InputError, match=r"^there is no picture; name one"):
            bneck.predict(model, [])

    def test_odd_pictures_are_read(self, model: Path, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 65536, (40, 50), dtype=np.uint16)).save(tmp_path / "16.png")
        rgb = Image.fromarray(rng.integers(0, 256, (33, 77, 3), dtype=np.uint8))
        rgb.convert("CMYK").save(tmp_path / "cmyk.jpg")
        rgb.convert("P").save(tmp_path / "palette.png")
        rgb.resize((5, 5)).save(tmp_path / "small.png")
        found = bneck.predict(model, sorted(tmp_path.iterdir()))
        assert [len(one["classes"]) for one in found] == [3] * 4

    def test_a_model_of_somebody_else_is_refused(self, pictures: Path, tmp_path: Path) -> None:
        from bneck.devices.measure import Candidate

        path = tmp_path / "foreign.onnx"
        path.write_bytes(Candidate(network("v3-small@32")).file(runtime("onnxruntime")))
        with pytest.raises(
            InputError, match=r"foreign\.onnx was not exported by this version of bneck"
        ):
            bneck.predict(path, [pictures / "val" / "square" / "00.png"])

    def test_a_file_that_is_no_model_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.write_text("not a model")
        with pytest.raises(EngineError, match=r"^onnxruntime cannot load this file: "):
            bneck.predict(path, ["any.png"])

    @pytest.mark.parametrize("name", ["nowhere", "."])
    def test_where_there_is_no_model_it_is_said_so(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(
            InputError, match=r"has no trained weights.*; pass the folder of a finished"
        ):
            bneck.predict(tmp_path / name, ["any.png"])

    def test_a_missing_a_truncated_and_an_empty_picture_are_named(
        self, model: Path, pictures: Path, tmp_path: Path
    ) -> None:
        whole = (pictures / "val" / "square" / "00.png").read_bytes()
        (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "empty.png").touch()
        for name, reason in (
            ("missing.png", "there is no such file"),
            ("torn.png", ""),
            ("empty.png", "the file is empty"),
        ):
            with pytest.raises(InputError, match=rf"{name} cannot be used: .*{reason}") as caught:
                bneck.predict(model, [tmp_path / name])
            assert "\n" not in str(caught.value)
