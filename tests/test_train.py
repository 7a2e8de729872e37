"""The training loop: reproducible, resumable, and clear about what cannot be trained."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bneck.data.batches import Augment, eval_batches
from bneck.data.pack import Packed
from bneck.nets.build import build
from bneck.nets.weights import load_weights, save_weights
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.transforms import scale_width
from bneck.tasks.classify.dataset import ImageData
from bneck.tasks.classify.scoring import evaluate, loss
from bneck.training.loop import fit
from bneck.training.settings import Settings, TrainingError
from learning import Module, train

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings(
    epochs=2.5, batch=16, lr=0.002, warmup=0.5, average=0.9, bn_momentum=0.1, augment=Augment()
)
STEPS = 15  # 2.5 epochs of 96 / 16


@pytest.fixture(scope="module")
def data(image_data: ImageData) -> ImageData:
    return image_data


@pytest.fixture(scope="module")
def unbroken(tiny: NetSpec, data: ImageData) -> dict[str, Tensor]:
    """Weights of a run that nothing disturbed."""
    torch.manual_seed(1)
    return trained(tiny, data)


def trained(
    spec: NetSpec, data: ImageData, settings: Settings = SETTINGS, **more: Any
) -> dict[str, Tensor]:
    return train(build(spec, seed=3), data, settings, **more).state_dict()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


class Stopped(Exception):
    """Somebody pulled the plug."""


def stop_at(step: int) -> Any:
    def on_step(done: int, total: int, value: float) -> None:
        if done == step:
            raise Stopped

    return on_step


class TestReproducible:
    def test_the_same_seed_gives_the_same_weights_to_the_last_bit(
        self, tiny: NetSpec, data: ImageData, unbroken: dict[str, Tensor]
    ) -> None:
        torch.manual_seed(2)  # whatever else drew numbers in between
        assert_same(trained(tiny, data), unbroken)

    def test_another_seed_gives_other_weights(
        self, tiny: NetSpec, data: ImageData, unbroken: dict[str, Tensor]
    ) -> None:
        other = trained(tiny, data, replace(SETTINGS, seed=1))
        assert not torch.equal(other["classifier.weight"], unbroken["classifier.weight"])

    def test_steps_are_counted_and_the_net_comes_back_ready_to_use(
        self, tiny: NetSpec, data: ImageData
    ) -> None:
        told: list[tuple[int, int]] = []
        net = build(tiny)
        back = train(net, data, SETTINGS, on_step=lambda done, total, _: told.append((done, total)))
        assert told == [(i, STEPS) for i in range(1, STEPS + 1)]
        assert back is net
        assert not net.training


class TestResume:
    @pytest.mark.parametrize("step", [9, 13])  # in the middle of epochs 2 and 3
    def test_a_broken_run_ends_where_an_unbroken_one_does(
        self,
        tiny: NetSpec,
        data: ImageData,
        unbroken: dict[str, Tensor],
        tmp_path: Path,
        step: int,
    ) -> None:
        path = tmp_path / "run.checkpoint"
        with pytest.raises(Stopped):
            trained(tiny, data, checkpoint=path, on_step=stop_at(step))
        told: list[int] = []
        resumed = trained(tiny, data, checkpoint=path, on_step=lambda done, *_: told.append(done))
        assert told[0] == step // 6 * 6 + 1, "finished epochs are not trained again"
        assert_same(resumed, unbroken)

    def test_before_the_first_epoch_ends_it_begins_anew(
        self, tiny: NetSpec, data: ImageData, unbroken: dict[str, Tensor], tmp_path: Path
    ) -> None:
        path = tmp_path / "run.checkpoint"
        with pytest.raises(Stopped):
            trained(tiny, data, checkpoint=path, on_step=stop_at(3))
        assert not path.exists()
        assert_same(trained(tiny, data, checkpoint=path), unbroken)

    def test_a_finished_run_is_not_trained_again(
        self, tiny: NetSpec, data: ImageData, tmp_path: Path
    ) -> None:
        path = tmp_path / "run.checkpoint"
        first = trained(tiny, data, checkpoint=path)
        assert_same(first, trained(tiny, data, checkpoint=path, on_step=stop_at(1)))

    def test_a_checkpoint_of_another_network_is_refused(
        self, tiny: NetSpec, data: ImageData, tmp_path: Path
    ) -> None:
        path = tmp_path / "run.checkpoint"
        trained(scale_width(tiny, 0.5), data, checkpoint=path)
        before = path.read_bytes()
        with pytest.raises(
            InputError, match=r"run\.checkpoint is a checkpoint of another network$"
        ):
            trained(tiny, data, checkpoint=path)
        assert path.read_bytes() == before

    def test_weights_are_no_checkpoint(
        self, tiny: NetSpec, data: ImageData, tmp_path: Path
    ) -> None:
        path = tmp_path / "weights.safetensors"
        save_weights(build(tiny).state_dict(), path)
        with pytest.raises(InputError, match="is a checkpoint of another network"):
            trained(tiny, data, checkpoint=path)

    def test_a_torn_checkpoint_is_refused(
        self, tiny: NetSpec, data: ImageData, tmp_path: Path
    ) -> None:
        path = tmp_path / "run.checkpoint"
        with pytest.raises(Stopped):
            trained(tiny, data, checkpoint=path, on_step=stop_at(7))
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(InputError, match="is not a whole safetensors file"):
            trained(tiny, data, checkpoint=path)


class TestFullDisk:
    def test_it_ends_in_a_sentence_and_keeps_the_last_checkpoint(
        self,
        tiny: NetSpec,
        data: ImageData,
        unbroken: dict[str, Tensor],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        path = tmp_path / "run.checkpoint"
        with pytest.raises(Stopped):
            trained(tiny, data, checkpoint=path, on_step=stop_at(7))
        before = path.read_bytes()
        real = os.replace

        def full(source: object, target: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(InputError, match="No space left on device; free some space") as caught:
            trained(tiny, data, checkpoint=path)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path], "something half-written stayed"
        monkeypatch.setattr(os, "replace", real)
        assert_same(trained(tiny, data, checkpoint=path), unbroken)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_disk_that_is_really_full_leaves_nothing(self, tiny: NetSpec) -> None:
        # /dev is no place for files, and a write that fails there is reported like any other.
        with pytest.raises(InputError, match="cannot be written"):
            save_weights(build(tiny).state_dict(), Path("/dev/full/weights.safetensors"))


class TestRefused:
    def test_a_batch_larger_than_the_set(self, tiny: NetSpec, data: ImageData) -> None:
        net = build(tiny)
        few = replace(data.problem(net, SETTINGS), images=15)
        with pytest.raises(
            TrainingError, match=r"^the batch of 16 is larger than the 15 training images"
        ):
            fit(net, few, SETTINGS)

    def test_a_rate_that_diverges_is_named_with_its_step(
        self, tiny: NetSpec, data: ImageData
    ) -> None:
        wild = replace(SETTINGS, lr=1e30, warmup=0.0)
        # The cosine at 2/6 of 2.5 epochs: (1 + cos 24 degrees) / 2 = 0.957
        with pytest.raises(
            TrainingError,
            match=r"^the loss became (nan|inf) at step 2 with learning rate 9\.57e\+29; train with a",
        ):
            trained(tiny, data, wild)


class TestLearning:
    def test_the_loss_falls_and_the_net_sees_what_it_was_shown(
        self, tiny: NetSpec, data: ImageData, packed: Packed
    ) -> None:
        losses: list[float] = []
        settings = replace(SETTINGS, epochs=8, lr=0.005, smoothing=0.0)
        net = train(build(tiny), data, settings, on_step=lambda *at: losses.append(at[2]))
        assert losses[0] == pytest.approx(np.log(3), abs=0.15)  # three classes, nothing known
        assert np.mean(losses[-6:]) < 0.5 * losses[0]
        indices = np.arange(len(packed.val.labels))
        accuracy = evaluate(Module(net), eval_batches(packed.val, indices, resolution=32, batch=7))
        assert accuracy.n == 30
        assert accuracy.top1 > 0.6  # 1/3 by chance

    def test_the_checkpoint_is_read_without_pickle(
        self, tiny: NetSpec, data: ImageData, tmp_path: Path
    ) -> None:
        trained(tiny, data, replace(SETTINGS, epochs=0.5), checkpoint=tmp_path / "c")
        tensors = load_weights(tmp_path / "c")
        assert int(tensors["steps/done"]) == int(tensors["steps/average"]) == 3


class TestClassify:
    def test_loss_with_and_without_smoothing_by_hand(self) -> None:
        scores, labels = torch.tensor([[0.0, np.log(3.0)]]), torch.tensor([1])
        # Softmax 1/4 and 3/4.
        assert float(loss(scores, labels)) == pytest.approx(-np.log(3 / 4))
        smooth = -(0.95 * np.log(3 / 4) + 0.05 * np.log(1 / 4))  # 0.1 spread over two classes
        assert float(loss(scores, labels, smoothing=0.1)) == pytest.approx(smooth)

    def test_accuracy_by_hand_over_batches_of_unequal_size(self) -> None:
        class Echo(torch.nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.flatten(1)

        images = torch.tensor([[0.0, 0.0], [5.0, -5.0], [-5.0, 5.0]]).reshape(3, 2, 1, 1)
        labels = torch.tensor([0, 0, 0])
        batches = [(images[:2], labels[:2]), (images[2:], labels[2:])]
        accuracy = evaluate(Module(Echo()), batches)
        assert (accuracy.n, accuracy.top1) == (3, 2 / 3)
        wanted = (np.log(2) + np.log1p(np.exp(-10)) + np.log1p(np.exp(10))) / 3
        assert accuracy.loss == pytest.approx(wanted, rel=1e-6)
