"""What a training must not depend on: kills, pieces, processes. Children are forked, not started."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from bneck.nets.build import build
from bneck.nets.weights import load_weights, save_weights
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.tasks.classify.dataset import ImageData
from bneck.tasks.classify.scoring import divergence, evaluate
from bneck.training.distill import DistillationLoss
from bneck.training.loop import TrainingProblem, fit, in_pieces
from bneck.training.processes import ProcessGroup, SyncedBatchNorm2d, join, synchronise
from bneck.training.settings import Settings, TrainingError
from learning import Module, train

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings(epochs=2.5, batch=16, lr=0.002, warmup=0.5, average=0.9, bn_momentum=0.1)
STEPS = 15


@pytest.fixture(scope="module")
def data(image_data: ImageData) -> ImageData:
    return image_data


@pytest.fixture(scope="module")
def unbroken(tiny: NetSpec, data: ImageData) -> dict[str, Tensor]:
    return train(build(tiny, seed=3), data, SETTINGS).state_dict()


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def forked(work: Callable[[], None]) -> int:
    """Run `work` in a copy of this process; its number. It ends with 0, or 1 after an error."""
    child = os.fork()
    if child:
        return child
    signal.alarm(120)  # rather than hang, whatever happens
    status = 1
    try:
        work()
        status = 0
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    os._exit(status)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class TestMiddleOfAnEpoch:
    @pytest.mark.parametrize("step", [2, 9, 13])
    def test_it_goes_on_behind_the_last_step_that_was_saved(
        self, tiny: NetSpec, data: ImageData, unbroken: dict[str, Tensor], tmp_path: Path, step: int
    ) -> None:
        class Stopped(Exception):
            pass

        def stop(done: int, total: int, loss: float) -> None:
            if done == step:
                raise Stopped

        how: dict[str, Any] = {"checkpoint": tmp_path / "checkpoint", "save_s": 0.0}
        with pytest.raises(Stopped):
            train(build(tiny, seed=3), data, SETTINGS, on_step=stop, **how)
        told: list[int] = []
        net = train(
            build(tiny, seed=3), data, SETTINGS, on_step=lambda done, *_: told.append(done), **how
        )
        assert told == list(range(step, STEPS + 1)), "step was taken, but not yet saved"
        assert differing(net.state_dict(), unbroken) == []

    def test_within_save_s_nothing_is_written(
        self, tiny: NetSpec, data: ImageData, tmp_path: Path
    ) -> None:
        path, seen = tmp_path / "checkpoint", []
        settings = replace(SETTINGS, epochs=1)
        train(
            build(tiny, seed=3), data, settings, checkpoint=path, save_s=1e6,
            on_step=lambda *_: seen.append(path.exists()),
        )  # fmt: skip
        assert seen == [False] * 6
        assert path.exists()


def kill_and_resume(spec: NetSpec, data: ImageData, folder: Path, kills: int) -> dict[str, Tensor]:
    """Kill a training again and again at random moments of its work, then let it end."""
    checkpoint, weights = folder / "checkpoint", folder / "weights.safetensors"

    def work() -> None:
        net = train(build(spec, seed=3), data, SETTINGS, checkpoint=checkpoint, save_s=0.0)
        save_weights(net.state_dict(), weights)

    rng, killed = random.Random(0), 0
    while killed < kills:
        child = forked(work)
        time.sleep(rng.uniform(0.0, 0.25))
        os.kill(child, signal.SIGKILL)
        killed += ended(child) == -signal.SIGKILL
        if weights.exists():  # it was faster: once more from the beginning
            weights.unlink()
            checkpoint.unlink()
    assert ended(forked(work)) == 0
    return load_weights(weights)


class TestKill9:
    def test_three_kills_change_nothing(
        self, tiny: NetSpec, data: ImageData, unbroken: dict[str, Tensor], tmp_path: Path
    ) -> None:
        assert differing(kill_and_resume(tiny, data, tmp_path, 3), unbroken) == []

    @pytest.mark.slow
    def test_twenty_kills_change_nothing(
        self, tiny: NetSpec, data: ImageData, unbroken: dict[str, Tensor], tmp_path: Path
    ) -> None:
        assert differing(kill_and_resume(tiny, data, tmp_path, 20), unbroken) == []


class TestPieces:
    @staticmethod
    def fitted(accumulate: int) -> tuple[dict[str, Tensor], list[float]]:
        """A net without batch norm, which alone could tell pieces from the whole."""
        rng = torch.Generator().manual_seed(0)
        images = torch.randn(48, 3, 4, 4, generator=rng)
        labels = torch.arange(48) % 3
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Flatten(), nn.Linear(32, 3))
        settings = Settings(epochs=3, batch=12, lr=0.01, accumulate=accumulate, average=0.5)
        problem = TrainingProblem(
            images=48,
            batches=lambda epoch, first: [
                (images[i : i + 12], labels[i : i + 12]) for i in range(12 * first, 48, 12)
            ],
            loss=lambda net, batch: nn.functional.cross_entropy(net(batch[0]), batch[1]),
            pieces=in_pieces(settings, ProcessGroup()),
        )
        losses: list[float] = []
        fit(net, problem, settings, on_step=lambda done, total, loss: losses.append(loss))
        return net.state_dict(), losses

    def test_gradients_of_pieces_add_up_to_the_batchs(self) -> None:
        (whole, losses), (pieces, others) = self.fitted(1), self.fitted(4)
        assert others == pytest.approx(losses, abs=1e-5)
        for name, value in whole.items():
            assert torch.allclose(value, pieces[name], atol=1e-5), name

    @pytest.mark.parametrize(
        ("settings", "group", "sentence"),
        [
            ({"accumulate": 3}, ProcessGroup(), "the batch of 16 is not 3 equal pieces"),
            ({"accumulate": 16}, ProcessGroup(), "of two or more images"),
            ({}, ProcessGroup(0, 3), "3 processes, 1 pieces each"),
            ({"accumulate": 0}, ProcessGroup(), "accumulate is 0; it must be at least 1"),
        ],
    )
    def test_unequal_pieces_are_refused(
        self, settings: dict[str, int], group: ProcessGroup, sentence: str
    ) -> None:
        with pytest.raises(TrainingError, match=sentence):
            replace(SETTINGS, **settings).check(group)  # type: ignore[arg-type]

    def test_bfloat16_learns_too(self, tiny: NetSpec, data: ImageData) -> None:
        losses: list[float] = []
        settings = replace(SETTINGS, epochs=4, lr=0.005, precision="bf16", smoothing=0.0)
        net = train(build(tiny), data, settings, on_step=lambda *at: losses.append(at[2]))
        assert np.mean(losses[-6:]) < 0.7 * losses[0]
        assert {value.dtype for value in net.parameters()} == {torch.float32}

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler")
    def test_compiled_it_learns_the_same(self, tiny: NetSpec, data: ImageData) -> None:
        losses: list[list[float]] = [[], []]
        for compiled, found in zip((False, True), losses, strict=True):
            settings = replace(SETTINGS, epochs=1, compile=compiled, smoothing=0.0)
            spec = replace(tiny, dropout=0.0)
            net = build(spec, seed=3)
            train(net, data, settings, on_step=lambda *at, found=found: found.append(at[2]))
        assert losses[1] == pytest.approx(losses[0], abs=2e-3)


def grouped(size: int, work: Callable[[ProcessGroup], None]) -> list[int]:
    """Processes that see each other through gloo; their numbers."""
    place = tempfile.mkdtemp()

    def member(rank: int) -> Callable[[], None]:
        def begin() -> None:
            dist.init_process_group(
                "gloo", init_method=f"file://{place}/meet", rank=rank, world_size=size
            )
            work(ProcessGroup(rank, size))

        return begin

    return [forked(member(rank)) for rank in range(size)]


class TestTeam:
    def test_two_processes_learn_what_one_does(
        self, tiny: NetSpec, data: ImageData, tmp_path: Path
    ) -> None:
        """With synchronised batch norm 1 x 16 and 2 x 8 are one computation, up to rounding."""
        spec = replace(tiny, dropout=0.0)  # whose numbers each process draws for itself
        settings = replace(SETTINGS, epochs=2, sync_bn=True, smoothing=0.0)

        def losses(group: ProcessGroup, path: Path) -> dict[str, Tensor]:
            found: list[float] = []
            net = train(
                build(spec, seed=3),
                data,
                settings,
                group=group,
                on_step=lambda *a: found.append(a[2]),
            )
            state = {"losses": torch.tensor(found), **net.state_dict()}
            save_weights(state, path)
            return state

        alone = losses(ProcessGroup(), tmp_path / "alone")
        children = grouped(2, lambda group: losses(group, tmp_path / str(group.rank)) and None)
        assert [ended(child) for child in children] == [0, 0]
        first, second = (load_weights(tmp_path / name) for name in "01")
        assert differing(first, second) == []
        assert torch.allclose(first["losses"], alone["losses"], atol=2e-4)
        assert first["losses"][-3:].mean() < first["losses"][:3].mean()
        weight = "classifier.weight"
        assert torch.allclose(first[weight], alone[weight], atol=2e-3)

    def test_a_lost_process_ends_the_others_in_a_sentence(
        self, tiny: NetSpec, data: ImageData, unbroken: dict[str, Tensor], tmp_path: Path
    ) -> None:
        said, checkpoint = tmp_path / "said", tmp_path / "checkpoint"

        def work(group: ProcessGroup) -> None:
            def on_step(done: int, total: int, loss: float) -> None:
                if group.rank == 1 and done == 8:
                    os.kill(os.getpid(), signal.SIGKILL)

            how: dict[str, Any] = {"checkpoint": checkpoint, "save_s": 0.0, "on_step": on_step}
            try:
                train(build(tiny, seed=3), data, SETTINGS, group=group, **how)
            except InputError as error:
                said.write_text(str(error))

        assert [ended(child) for child in grouped(2, work)] == [0, -signal.SIGKILL]
        assert said.read_text().startswith("another of the 2 processes of this training ended")
        steps = int(load_weights(checkpoint)["steps/done"])
        assert steps in (7, 8)
        told: list[int] = []

        def resume(group: ProcessGroup) -> None:
            train(
                build(tiny, seed=3), data, SETTINGS, group=group, checkpoint=checkpoint,
                on_step=lambda done, *_: told.append(done),
            )  # fmt: skip
            assert told == list(range(steps + 1, STEPS + 1))

        assert [ended(child) for child in grouped(2, resume)] == [0, 0]

    def test_every_image_is_judged_once(self, tmp_path: Path) -> None:
        def work(group: ProcessGroup) -> None:
            mine = torch.arange(7)[group.rank :: 2]
            scores = nn.functional.one_hot(mine % 3, 3).float()[:, :, None, None]
            batches = [(scores, torch.zeros(len(mine), dtype=torch.int64))]
            found = evaluate(Module(nn.Flatten()), batches, total=group.total)
            # 0, 3 and 6 of seven are of class 0.
            assert (found.n, found.top1) == (7, 3 / 7)

        assert [ended(child) for child in grouped(2, work)] == [0, 0]

    def test_all_have_what_the_first_has_however_long(self) -> None:
        def work(group: ProcessGroup) -> None:
            assert group.share(f"{group.rank}/" + "ä" * 5000) == "0/" + "ä" * 5000

        assert [ended(child) for child in grouped(2, work)] == [0, 0]

    def test_synchronised_batch_norm_is_that_of_the_whole_batch(self) -> None:
        images = torch.randn(8, 5, 3, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1

        def work(group: ProcessGroup) -> None:
            whole, part = nn.BatchNorm2d(5), nn.Sequential(nn.BatchNorm2d(5))
            synchronise(part)
            assert isinstance(part[0], SyncedBatchNorm2d)
            mine = images[4 * group.rank : 4 * group.rank + 4].clone().requires_grad_()
            everything = images.clone().requires_grad_()
            a, b = whole(everything), part(mine)
            assert torch.allclose(a[4 * group.rank : 4 * group.rank + 4], b, atol=1e-5)
            (a**3).sum().backward()
            (b**3).sum().backward()
            assert everything.grad is not None
            assert mine.grad is not None
            expected = everything.grad[4 * group.rank : 4 * group.rank + 4]
            assert torch.allclose(expected, mine.grad, atol=1e-3)
            for name, value in whole.state_dict().items():
                assert torch.allclose(value.float(), part[0].state_dict()[name].float(), atol=1e-5)

        assert [ended(child) for child in grouped(2, work)] == [0, 0]

    def test_without_a_launcher_a_process_is_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        assert (join().rank, join().size, join().first) == (0, 1, True)
        assert join().share("x") == "x"


class TestTeacher:
    def test_the_loss_by_hand(self, tiny: NetSpec) -> None:
        teacher = build(tiny).eval()
        with torch.no_grad():
            teacher.classifier.weight.zero_()
            teacher.classifier.bias.copy_(torch.tensor([0.0, 2 * np.log(2.0), 0.0]))
        taught = DistillationLoss(teacher, teacher.normalisation, 0.25, 2.0, divergence)
        scores = torch.zeros(4, 3)
        # Softened by 2: the teacher says 1/4, 1/2, 1/4, the student a third each.
        apart = 0.5 * np.log(0.25 * 3) + 0.5 * np.log(0.5 * 3)
        wanted = 0.75 * 8.0 + 0.25 * 4 * apart
        found = taught.mixed(torch.tensor(8.0), scores, torch.zeros(4, 3, 32, 32))
        assert float(found) == pytest.approx(wanted, abs=1e-6)

    def test_a_student_that_is_told_nothing_else_answers_as_its_teacher(
        self, tiny: NetSpec, data: ImageData, unbroken: dict[str, Tensor]
    ) -> None:
        teacher = build(tiny)
        teacher.load_state_dict(unbroken)
        gaps = []
        for share in (0.0, 1.0):
            settings = replace(SETTINGS, epochs=6, lr=0.004, teach=share)
            student = train(build(tiny, seed=5), data, settings, teacher=teacher)
            images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(1))
            with torch.inference_mode():
                gap = student(images).softmax(1) - teacher(images).softmax(1)
            gaps.append(float(gap.abs().mean()))
        assert gaps[1] < 0.8 * gaps[0]
