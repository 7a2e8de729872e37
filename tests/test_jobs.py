"""What workers do with a network, and what a search makes of trainings that diverge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bneck.nas.spaces import space_from_text
from bneck.nets.weights import load_weights, save_weights
from bneck.records.ledger import Ledger
from bneck.records.progress import Silent
from bneck.runs.report import write_report
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.jobs import (
    Parent,
    ProxyJob,
    TrainJob,
    TrialJob,
    outcome_of,
    proxy_job,
    train_job,
    trial_job,
)
from bneck.runs.search.pipeline import run_search
from bneck.runs.search.run import new_run
from bneck.runs.search.settings import SearchSettings, proposals, tuning
from bneck.runs.search.supernet import shared_weights
from bneck.runs.search.trials import train_all
from bneck.runs.search.workers import WorkerPool
from bneck.specs.network import NetSpec
from bneck.specs.wrapper import Plain
from bneck.tasks.classify.dataset import ImageData
from bneck.tasks.registry import task
from search_run import Run
from simulated_device import SimulatedDevice

pytestmark = pytest.mark.usefixtures("one_thread")
TOO_FAST = 1e6  # a learning rate that no network survives
TRAINING = task("classify").recipe(None, images=96, epochs=2.0, started=False, seed=0)
TUNING = tuning(TRAINING)


@pytest.fixture(scope="module")
def experiment(image_data: ImageData) -> Experiment:
    data = replace(image_data, heldout_share=0.2)
    return Experiment(task_name="classify", wrapper=Plain(), data=data)


@pytest.fixture
def trial(tiny: NetSpec, experiment: Experiment, tmp_path: Path) -> dict[str, Any]:
    """The parent tuned as it is, which is what proposals are compared with."""
    parent = tmp_path / "parent.safetensors"
    save_weights(experiment.build(tiny, 0).state_dict(), parent)
    return {
        "spec": tiny, "parent_spec": tiny, "parent_weights": parent, "importance": None,
        "experiment": experiment, "settings": TUNING, "steps": 1,
        "weights": tmp_path / "trial.safetensors",
    }  # fmt: skip


def test_a_tuning_of_one_step_trains(trial: dict[str, Any]) -> None:
    trial_job(TrialJob(**trial))
    before, after = load_weights(trial["parent_weights"]), load_weights(trial["weights"])
    assert all((after[k] != before[k]).any() for k in after if k.endswith(".weight"))


def test_with_a_teacher_alone_a_network_learns_what_the_teacher_says(
    tiny: NetSpec, experiment: Experiment, tmp_path: Path
) -> None:
    teacher = experiment.build(tiny, 1)
    with torch.no_grad():
        teacher.classifier.weight.zero_()
        teacher.classifier.bias.copy_(torch.tensor([0.0, 0.0, 20.0]))  # always the last class
    save_weights(teacher.state_dict(), tmp_path / "teacher")
    job = TrainJob(
        spec=tiny, experiment=experiment, weights=tmp_path / "w", checkpoint=tmp_path / "c",
        mark=tmp_path / "m", heldout=True, settings=replace(TRAINING, epochs=3, lr=0.002, teach=1.0),
        teacher=Parent(tiny, tmp_path / "teacher", None),
    )  # fmt: skip
    train_job(job)
    net = experiment.load(tiny, job.weights)
    images = torch.rand(16, 3, tiny.resolution, tiny.resolution)
    assert (net(images).argmax(1) == 2).all()


def test_a_tuning_that_diverges_scores_0_and_leaves_the_shrunk_weights(
    trial: dict[str, Any],
) -> None:
    trial |= {"settings": replace(TUNING, lr=TOO_FAST), "steps": 8}
    outcome = trial_job(TrialJob(**trial))
    assert (outcome["score"], outcome["expected"], outcome["loss"]) == (0.0, 0.0, None)
    assert "the loss" in outcome["failed"]
    assert "learning rate" in outcome["failed"]
    before, after = load_weights(trial["parent_weights"]), load_weights(trial["weights"])
    assert all(torch.equal(after[k], before[k]) for k in before)


def test_weights_that_the_last_step_ruined_are_a_failure(trial: dict[str, Any]) -> None:
    outcome = trial_job(TrialJob(**{**trial, "settings": replace(TUNING, lr=1e38)}))
    assert outcome["score"] == 0.0
    assert "not finite" in outcome["failed"]


def test_outputs_that_are_not_finite_are_a_failure(tiny: NetSpec, experiment: Experiment) -> None:
    net = experiment.build(tiny, 0)
    with torch.no_grad():
        net.classifier.bias.copy_(torch.tensor([3e38, -3e38, -3e38]))  # apart by infinity
    assert "outputs" in outcome_of(net, experiment)["failed"]


def test_a_proxy_training_that_diverges_scores_0(
    tiny: NetSpec, experiment: Experiment, tmp_path: Path
) -> None:
    settings = replace(TRAINING, lr=TOO_FAST, warmup=0.0)
    outcome = proxy_job(
        ProxyJob(
            spec=tiny, experiment=experiment, settings=settings, until=2, checkpoint=tmp_path / "c"
        )
    )
    assert outcome["score"] == 0.0
    assert "the loss" in outcome["failed"]


SPACE = space_from_text(
    """
space: 1
name: shared
resolution: 32
classes: 3
stem: {op: conv, kernel: 3, out: [16, 24], act: hswish, stride: 2}
blocks:
- {stride: 2, op: dconv, kernel: [3, 5], se: 0, out: 24, layers: 1}
tail: [{op: conv, kernel: 1, out: 64, act: hswish}, {op: pool}]
"""
)


class Here(WorkerPool):
    """Works in this process."""

    def run(self, task: Any, arguments: Any, on_done: Any) -> None:
        for n, given in enumerate(arguments):
            on_done(n, task(*given))


def test_a_supernet_that_diverges_is_recorded_once(experiment: Experiment, tmp_path: Path) -> None:
    def run() -> Any:
        return SimpleNamespace(
            ledger=Ledger(tmp_path / "ledger.jsonl"),
            folder=SimpleNamespace(scratch=tmp_path),
            settings=SimpleNamespace(training=replace(TRAINING, lr=TOO_FAST)),
            progress=Silent(), experiment=experiment, pool=Here(1),
        )  # fmt: skip

    first = shared_weights(run(), SPACE, 4.0)
    assert first["epochs"] == 4.0
    assert "the loss" in first["failed"]
    resumed = run()
    assert shared_weights(resumed, SPACE, 4.0) == first
    assert len(resumed.ledger.entries) == 1


def test_a_kill_before_the_ledger_has_the_outcome_costs_no_training(
    tiny: NetSpec, experiment: Experiment, tmp_path: Path
) -> None:
    class Killed(Exception):
        """The run's process is gone."""

    class Crash(Here):
        """Works, and is killed before anyone hears of it."""

        def run(self, task: Any, arguments: Any, on_done: Any) -> None:
            super().run(task, arguments, lambda *done: None)
            assert arguments[0][0].mark.exists()  # what a training leaves with its last step
            raise Killed

    class Watched(Here):
        """Says whether anything was trained."""

        stepped = False

        def run(self, task: Any, arguments: Any, on_done: Any) -> None:
            super().run(task, arguments, on_done)
            self.stepped = arguments[0][0].mark.exists()

    job = TrainJob(
        spec=tiny, experiment=experiment, settings=TRAINING,
        weights=tmp_path / "w", checkpoint=tmp_path / "c", mark=tmp_path / "m", heldout=True,
    )  # fmt: skip

    def run(pool: WorkerPool) -> Any:
        ledger = Ledger(tmp_path / "ledger.jsonl")
        return SimpleNamespace(ledger=ledger, progress=Silent(), metric="top-1", pool=pool)

    with pytest.raises(Killed):
        train_all(run(Crash(1)), {"found-0": job})
    assert run(Here(1)).ledger.entries == []
    weights = job.weights.read_bytes()
    pool = Watched(1)
    outcomes = train_all(run(pool), {"found-0": job})
    assert not pool.stepped
    assert job.weights.read_bytes() == weights
    assert outcomes["found-0"]["score"] > 0
    assert not job.checkpoint.exists()


def test_a_search_goes_on_after_tunings_that_diverge(
    simulated: SimulatedDevice, tiny_file: Path, pictures: Path, tmp_path: Path
) -> None:
    chosen = task("classify")
    options = chosen.Options()
    dataset = chosen.find(str(pictures), options, seed=0)
    spec, wrapper = chosen.arrange(str(tiny_file), options, dataset)
    settings = SearchSettings(
        task="classify", options=options, seed_network=str(tiny_file), resolution=32,
        targets=("92%",), method="netadapt", training=replace(TRAINING, epochs=1.0),
        recovery=replace(TRAINING, epochs=1.0), tuning=replace(TUNING, epochs=1.0, lr=TOO_FAST),
        steps=3, delta=0.08, kinds=proposals(tail=True), heldout=0.2, repeats=1, seed=0, workers=1,
        device=simulated.name,
    )  # fmt: skip
    path = tmp_path / "run"
    run_search(new_run(path, settings, dataset, spec, wrapper, str(pictures), Silent()))
    found = Run(path)
    assert found.record["state"] == "finished"
    assert len(found.record["steps"]) >= 1
    trials = [*found.events("trial"), *found.events("control")]
    assert all(trial["failed"] and trial["score"] == 0.0 for trial in trials)
    write_report(path)
    assert "failed as the loss diverged" in (path / "report.md").read_text(encoding="utf-8")
