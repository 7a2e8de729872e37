"""What workers do with a network, and what a search makes of trainings that diverge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bneck.costs.count import count
from bneck.data.folders import list_images
from bneck.data.pack import pack
from bneck.nets.weights import load_weights, save_weights
from bneck.recipes.classify_trainer import ClassifyTrainer
from bneck.recipes.crew import Crew
from bneck.recipes.jobs import ProxyJob, TrainJob, TrialJob, outcome_of, proxy_job, trial_job
from bneck.recipes.progress import Silent
from bneck.recipes.run import new_run
from bneck.recipes.search import run_search, train_all
from bneck.recipes.settings import small_data
from bneck.recipes.sharing import shared_weights
from bneck.records.ledger import Ledger
from bneck.report.page import write_report
from bneck.search.spaces import space_from_text
from bneck.specs.network import NetSpec
from conftest import measure_quickly
from search_run import Run

pytestmark = pytest.mark.usefixtures("one_thread")
TOO_FAST = 1e6  # a learning rate that no network survives
SETTINGS = small_data(resolution=32, images=96, epochs=2.0, steps=1)


@pytest.fixture(scope="module")
def trainer(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> ClassifyTrainer:
    folder = tmp_path_factory.mktemp("jobs") / "pack"
    pack(list_images(pictures), 32, folder)
    return ClassifyTrainer(pack=folder, classes=3, heldout_share=0.2, seed=0)


@pytest.fixture
def trial(tiny: NetSpec, trainer: ClassifyTrainer, tmp_path: Path) -> dict[str, Any]:
    """The parent tuned as it is, which is what proposals are compared with."""
    parent = tmp_path / "parent.safetensors"
    save_weights(trainer.build(tiny, 0).state_dict(), parent)
    return {
        "spec": tiny, "parent_spec": tiny, "parent_weights": parent, "trainer": trainer,
        "settings": SETTINGS.tuning, "steps": 1, "weights": tmp_path / "trial.safetensors",
    }  # fmt: skip


def test_a_tuning_of_one_step_trains(trial: dict[str, Any]) -> None:
    trial_job(TrialJob(**trial))
    before, after = load_weights(trial["parent_weights"]), load_weights(trial["weights"])
    assert all((after[k] != before[k]).any() for k in after if k.endswith(".weight"))


def test_a_tuning_that_diverges_scores_0_and_leaves_the_shrunk_weights(
    trial: dict[str, Any],
) -> None:
    trial |= {"settings": replace(SETTINGS.tuning, lr=TOO_FAST), "steps": 8}
    outcome = trial_job(TrialJob(**trial))
    assert (outcome["score"], outcome["expected"], outcome["loss"]) == (0.0, 0.0, None)
    assert "the loss" in outcome["failed"]
    assert "learning rate" in outcome["failed"]
    before, after = load_weights(trial["parent_weights"]), load_weights(trial["weights"])
    assert all(torch.equal(after[k], before[k]) for k in before)


def test_weights_that_the_last_step_ruined_are_a_failure(trial: dict[str, Any]) -> None:
    outcome = trial_job(TrialJob(**{**trial, "settings": replace(SETTINGS.tuning, lr=1e38)}))
    assert outcome["score"] == 0.0
    assert "not finite" in outcome["failed"]


def test_outputs_that_are_not_finite_are_a_failure(tiny: NetSpec, trainer: ClassifyTrainer) -> None:
    net = trainer.build(tiny, 0)
    with torch.no_grad():
        net.classifier.bias.copy_(torch.tensor([3e38, -3e38, -3e38]))  # apart by infinity
    assert "outputs" in outcome_of(net, trainer)["failed"]


def test_a_proxy_training_that_diverges_scores_0(
    tiny: NetSpec, trainer: ClassifyTrainer, tmp_path: Path
) -> None:
    settings = replace(SETTINGS.training, lr=TOO_FAST, warmup=0.0)
    outcome = proxy_job(
        ProxyJob(spec=tiny, trainer=trainer, settings=settings, until=2, checkpoint=tmp_path / "c")
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


class Here(Crew):
    """Works in this process."""

    def run(self, task: Any, arguments: Any, on_done: Any) -> None:
        for n, given in enumerate(arguments):
            on_done(n, task(*given))


def test_a_supernet_that_diverges_is_recorded_once(
    trainer: ClassifyTrainer, tmp_path: Path
) -> None:
    def run() -> Any:
        return SimpleNamespace(
            ledger=Ledger(tmp_path / "ledger.jsonl"),
            folder=SimpleNamespace(scratch=tmp_path),
            settings=replace(SETTINGS, training=replace(SETTINGS.training, lr=TOO_FAST)),
            progress=Silent(),
        )

    first = shared_weights(run(), Here(1), trainer, SPACE, 4.0)
    assert first["epochs"] == 4.0
    assert "the loss" in first["failed"]
    resumed = run()
    assert shared_weights(resumed, Here(1), trainer, SPACE, 4.0) == first
    assert len(resumed.ledger.entries) == 1


def test_a_kill_before_the_ledger_has_the_outcome_costs_no_training(
    tiny: NetSpec, trainer: ClassifyTrainer, tmp_path: Path
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
        spec=tiny, trainer=trainer, settings=SETTINGS.training,
        weights=tmp_path / "w", checkpoint=tmp_path / "c", mark=tmp_path / "m", heldout=True,
    )  # fmt: skip

    def run() -> Any:
        ledger = Ledger(tmp_path / "ledger.jsonl")
        return SimpleNamespace(ledger=ledger, progress=Silent(), metric="top-1")

    with pytest.raises(Killed):
        train_all(run(), Crash(1), {"found-0": job})
    assert run().ledger.entries == []
    weights = job.weights.read_bytes()
    crew = Watched(1)
    outcomes = train_all(run(), crew, {"found-0": job})
    assert not crew.stepped
    assert job.weights.read_bytes() == weights
    assert outcomes["found-0"]["score"] > 0
    assert not job.checkpoint.exists()


def by_table(seed: NetSpec, specs: list[NetSpec], table: Any, *on: object) -> list[float]:
    return [table.estimate_ms(spec) if table else count(spec).madds for spec in specs]


@pytest.mark.usefixtures("cached_table")
def test_a_search_goes_on_after_tunings_that_diverge(
    tiny_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_quickly(monkeypatch)
    for module in ("search", "verify"):  # the made-up table in place of a busy clock
        monkeypatch.setattr(f"bneck.recipes.{module}.measured_ms", by_table)
    settings = small_data(
        resolution=32, images=96, epochs=1.0, steps=3, delta=0.08, repeats=1, workers=1,
        target="92%", seed_network=str(tiny_file),
    )  # fmt: skip
    settings = replace(settings, tuning=replace(settings.tuning, lr=TOO_FAST))
    run_search(new_run(tmp_path / "run", settings, pictures, Silent(), "test"))
    found = Run(tmp_path / "run")
    assert found.record["state"] == "finished"
    assert len(found.record["steps"]) >= 1
    trials = [*found.events("trial"), *found.events("control")]
    assert all(trial["failed"] and trial["score"] == 0.0 for trial in trials)
    write_report(found.path)
    assert "failed as the loss diverged" in (found.path / "report.md").read_text(encoding="utf-8")
