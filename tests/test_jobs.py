"""What workers do with a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bneck.data.folders import list_images
from bneck.data.pack import pack
from bneck.nets.weights import load_weights, save_weights
from bneck.recipes.classify_trainer import ClassifyTrainer
from bneck.recipes.jobs import TrialJob, trial_job
from bneck.recipes.settings import small_data
from bneck.specs.network import NetSpec

pytestmark = pytest.mark.usefixtures("one_thread")
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
