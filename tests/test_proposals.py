"""NetAdapt's proposals keep the most important channels, and importance goes along with those that are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bneck.nas.netadapt import Proposal, Step, Trial
from bneck.nets.importance import Importance
from bneck.nets.ops import ConvBnAct
from bneck.nets.shrink import strength, strongest
from bneck.nets.weights import load_weights, save_weights
from bneck.records.ledger import Ledger
from bneck.records.progress import Silent
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.trials import Judge
from bneck.runs.search.workers import WorkerPool
from bneck.specs.network import NetSpec
from bneck.specs.transforms import fix_skips, with_expanded
from bneck.specs.wrapper import Plain
from bneck.tasks.classify.dataset import ImageData
from test_jobs import TRAINING, TUNING, Here

pytestmark = pytest.mark.usefixtures("one_thread")
STILL = replace(TUNING, lr=1e-12)  # what is fine-tuned with it keeps its weights
FIRST, SECOND = 96, 40  # channels inside row 3 after one step and after two, of 192
NAME = "rows.3.expand.conv.weight"


@pytest.fixture
def run(tiny: NetSpec, image_data: ImageData, tmp_path: Path) -> Any:
    """A search whose seed network is trained."""
    data = replace(image_data, heldout_share=0.2)
    experiment = Experiment(task_name="classify", wrapper=Plain(), data=data)
    net = experiment.build(fix_skips(tiny), 0)
    save_weights(net.state_dict(), tmp_path / "seed-heldout.safetensors")
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append({"event": "trained", "name": "seed-heldout", "expected": 0.3, "score": 0.4})
    return opened(experiment, tmp_path, Here(1))


def opened(experiment: Experiment, scratch: Path, pool: WorkerPool) -> Any:
    return SimpleNamespace(
        ledger=Ledger(scratch / "ledger.jsonl"), folder=SimpleNamespace(scratch=scratch),
        settings=SimpleNamespace(training=TRAINING, tuning=STILL, steps=1, seed=0),
        experiment=experiment, wrapper=Plain(), progress=Silent(), metric="top-1", pool=pool,
        record={},
    )  # fmt: skip


def proposal(spec: NetSpec, after: int) -> Proposal:
    narrow = with_expanded(spec, 3, after)
    before = spec.rows[3].expanded  # type: ignore[union-attr]
    return Proposal("expansion", (3,), before, after, narrow, 1.0)


def step(judge: Judge, number: int, spec: NetSpec, after: int) -> NetSpec:
    """One proposal, which is kept; the narrower network."""
    judge(number, spec, [made := proposal(spec, after)])
    judge.keep(Step(number=number, trials=(), kept=Trial(made, 0.5)))
    return made.spec


def expand_weights(judge: Judge) -> torch.Tensor:
    return load_weights(judge.parent)[NAME]


def best(importance: Importance, count: int) -> list[int]:
    return sorted(np.argsort(-importance.groups["rows.3.expanded"])[:count].tolist())


def test_two_steps_keep_the_seeds_most_important_channels(run: Any, tiny: NetSpec) -> None:
    spec = fix_skips(tiny)
    judge = Judge(run, spec)
    seed, before = judge.importance, expand_weights(judge)
    assert seed is not None
    # 78 images are fitted on (32 - 6 of each of three classes): eight batches of nine.
    assert run.record["channels"] == {"keep": "fisher", "images": 72}
    spec = step(judge, 1, spec, FIRST)
    assert torch.allclose(expand_weights(judge), before[best(seed, FIRST)], atol=1e-6)
    assert judge.importance is not None
    kept = seed.groups["rows.3.expanded"][best(seed, FIRST)]
    assert judge.importance.groups["rows.3.expanded"].tolist() == kept.tolist()
    step(judge, 2, spec, SECOND)
    assert torch.allclose(expand_weights(judge), before[best(seed, SECOND)], atol=1e-6)


class Idle(WorkerPool):
    """Has nothing to do."""

    def run(self, task: Any, arguments: Any, on_done: Any) -> None:
        assert not arguments


def test_a_resumed_search_measures_no_importance_again(
    run: Any, tiny: NetSpec, tmp_path: Path
) -> None:
    judge = Judge(run, fix_skips(tiny))
    step(judge, 1, fix_skips(tiny), FIRST)
    file = tmp_path / "importance-heldout.safetensors"
    written = file.stat().st_mtime_ns
    again = Judge(opened(run.experiment, tmp_path, Idle(1)), fix_skips(tiny))
    step(again, 1, fix_skips(tiny), FIRST)
    assert file.stat().st_mtime_ns == written
    assert judge.importance is not None
    assert again.importance is not None
    for key, values in judge.importance.groups.items():
        assert np.array_equal(again.importance.groups[key], values)


def test_a_search_begun_without_importance_goes_on_by_l2_norm(
    run: Any, tiny: NetSpec, tmp_path: Path
) -> None:
    run.ledger.append({"event": "control", "step": 1, "digest": "of another network"})
    judge = Judge(run, fix_skips(tiny))
    assert judge.importance is None
    assert run.record["channels"] == {"keep": "l2"}
    wide = run.experiment.load(fix_skips(tiny), judge.parent).get_submodule("rows.3.expand")
    assert isinstance(wide, ConvBnAct)
    step(judge, 1, fix_skips(tiny), FIRST)
    kept = strongest(strength(wide), FIRST)
    assert torch.allclose(expand_weights(judge), wide.conv.weight[kept], atol=1e-6)
    assert not (tmp_path / "importance-heldout.safetensors").exists()
