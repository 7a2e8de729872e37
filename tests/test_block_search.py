"""The search from scratch, from end to end on small pictures; killed, resumed, and given wrong input."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

import bneck
from bneck.costs.table_file import read_table
from bneck.nas.blocks import BlockSpace
from bneck.nas.ledger import open_ledger
from bneck.nas.reward import Reward
from bneck.nas.spaces import load_space
from bneck.nas.study import Study
from bneck.nas.trials import tokens_of
from bneck.records.progress import Silent
from bneck.runs.choose.resume import resume
from bneck.runs.search.blocks import _judge_batch, rungs
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.finals import finalists, in_order
from bneck.runs.search.jobs import ProxyJob, TrainJob, proxy_job, train_job
from bneck.runs.search.main import search
from bneck.runs.search.settings import BlockSettings
from bneck.runs.search.workers import WorkerPool
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck
from bneck.specs.text import from_text
from bneck.specs.wrapper import Plain
from bneck.tasks.classify.dataset import ImageData
from bneck.tasks.registry import task
from simulated_device import SimulatedDevice, plugged_in

SPACE = """
space: 1
name: toy
stem: {op: conv, kernel: 3, out: [16, 24], act: hswish, stride: 2}
blocks:
- {stride: 2, op: dconv, kernel: [3, 5], se: [0, 0.25], out: 24, layers: 1}
- {stride: 2, op: [mbconv2, mbconv4], kernel: [3, 5], out: [32, 48], layers: [1, 2], act: [relu, hswish]}
tail: [{op: conv, kernel: 1, out: [128, 256], act: hswish}, {op: pool}]
"""
SMALL: dict[str, Any] = {
    "epochs": 1.0, "steps": 1, "repeats": 1, "delta": 0.2, "workers": 1, "from_scratch": True,
    "trials": 6, "proxy_epochs": 2, "top": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spaces") / "toy.yaml"
    path.write_text(SPACE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def given(
    simulated: SimulatedDevice, pictures: Path, tiny_file: Path, space_file: Path
) -> dict[str, Any]:
    return {
        **SMALL, "device": simulated.name, "data": pictures, "target": "40%",
        "seed_network": str(tiny_file), "space": str(space_file),
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    search(**given, out=path)
    return path


def record(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "run.json").read_text()))


def events(path: Path, name: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (path / "ledger.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["event"] == name]


def study_of(run: Path, space: BlockSpace) -> dict[int, NetSpec]:
    """The networks of a run's trials by number."""
    storage = open_ledger(run / "blocks.log")
    (study,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=study, storage=storage).trials
    return {t.number: space.decode(tokens_of(space.choices, t.params)) for t in trials}


def rows_of(spec: NetSpec) -> list[object]:
    """What a choice of widths leaves alone."""
    return [
        (row.kernel, row.stride, row.act, row.skip, row.se > 0, spec.expands(i))
        if isinstance(row, Bneck)
        else type(row)
        for i, row in enumerate(spec.rows)
    ]


def test_the_found_network_comes_from_the_space_and_was_narrowed(
    run: Path, space_file: Path
) -> None:
    (found,) = events(run, "blocks found")
    sized = replace(load_space(space_file), resolution=32, classes=3)
    blocks = from_text(found["spec"])
    trial = study_of(run, sized)[record(run)["blocks"]["finalists"][0]["number"]]
    assert rows_of(blocks) == rows_of(trial)
    shipped = bneck.network(run)
    assert shipped.name == "toy-blocks-adapted"
    assert len(shipped.rows) == len(blocks.rows)
    for before, after in zip(blocks.rows, shipped.rows, strict=True):
        if isinstance(before, Bneck) and isinstance(after, Bneck):
            assert after.expanded <= before.expanded
            assert after.out <= before.out


def test_the_record_holds_every_trial_once_and_none_above_the_limit(run: Path) -> None:
    blocks = record(run)["blocks"]
    assert len(blocks["trials"]) == 6
    assert len({t["number"] for t in blocks["trials"]}) == 6
    assert all(t["latency_ms"] <= blocks["aim_ms"] for t in blocks["trials"])
    assert blocks["space"] == "toy"
    assert len(blocks["finalists"]) == 2
    assert events(run, "trained")[0]["name"].startswith("block-")
    assert record(run)["state"] == "finished"


def test_the_table_of_the_space_answers_for_all_its_networks(run: Path, space_file: Path) -> None:
    table = read_table(run / "space-table.jsonl")
    toy, rng = replace(load_space(space_file), resolution=32, classes=3), random.Random(0)
    assert all(table.covers(toy.decode(toy.sample(rng))) for _ in range(50))


def test_both_stages_and_the_baseline_go_by_one_pace_and_one_limit(
    run: Path, tiny: NetSpec
) -> None:
    of_space, narrowed = (read_table(run / name) for name in ("space-table.jsonl", "table.jsonl"))
    assert of_space.header["reference"] == narrowed.header["reference"] == tiny.name
    assert of_space.header["reference_ms"] == narrowed.header["reference_ms"]
    found, (target,) = record(run), events(run, "blocks target")
    assert found["target"] == "40%"
    assert found["target_ms"] == target["limit_ms"]
    assert found["settings"]["targets"] == ["40%"]
    for role in ("seed_network", "found", "uniform"):
        assert found[role]["measurement"]["reference"].startswith(tiny.name)


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def test_blocks_that_meet_the_target_themselves_are_not_narrowed(
    given: dict[str, Any], tmp_path: Path
) -> None:
    heard = Heard()
    search(
        **{**given, "slack": 0.0, "trials": 2, "proxy_epochs": 1, "top": 1},
        out=tmp_path / "run",
        progress=heard,
    )
    found, (blocks,) = record(tmp_path / "run"), events(tmp_path / "run", "blocks found")
    assert blocks["measured_ms"] <= 0.995 * blocks["limit_ms"]
    assert any("NetAdapt is skipped" in sentence for sentence in heard.said)
    assert found["steps"] == []
    assert not events(tmp_path / "run", "trial")
    assert found["found"]["name"] == "toy-blocks-as-found"
    assert found["found"]["digest"] == from_text(blocks["spec"]).digest()
    assert found["seed_network"]["scores"] == found["found"]["scores"]
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "## Block search" in report
    assert "toy-blocks-as-found" in report


def test_the_baseline_is_the_seed_network_at_a_width_within_the_target(run: Path) -> None:
    uniform, (target,) = record(run)["uniform"], events(run, "blocks target")
    spec = from_text(uniform["spec"])
    assert uniform["name"].startswith("tiny-")
    measured = {e["digest"]: e["measured_ms"] for e in events(run, "measured")}
    narrowest = min(measured.values())
    assert measured.get(spec.digest(), narrowest) <= max(target["limit_ms"], narrowest)


def test_the_report_has_the_finalists_and_the_front(run: Path) -> None:
    page, blocks = (run / "report.md").read_text(encoding="utf-8"), record(run)["blocks"]
    assert "## Block search" in page
    section = page.partition("## Block search")[2].partition("\n## ")[0]
    assert "6 networks of the" in section
    assert "space toy" in section
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    numbers = [int(cell) for cell in rows if cell.isdecimal()]
    assert numbers == [e["number"] for e in blocks["finalists"]] + blocks["front"]


def test_a_finished_run_resumes_to_the_same(run: Path) -> None:
    before = record(run)
    resume(run)
    assert record(run) == before


@pytest.mark.slow
def test_the_front_is_trained_and_written(given: dict[str, Any], tmp_path: Path) -> None:
    found = search(**{**given, "objective": "pareto", "trials": 5}, out=tmp_path / "front")
    assert found["state"] == "finished"
    assert len(found["blocks"]["trials"]) == 5
    assert "## Block search" in (tmp_path / "front" / "report.md").read_text(encoding="utf-8")
    files = sorted((tmp_path / "front" / "front").iterdir())
    assert len(files) == len(found["blocks"]["finalists"]) >= 1
    assert all(bneck.network(file).resolution == 32 for file in files)
    numbers = found["blocks"]["front"]  # from the fastest to the most accurate
    trials = {t["number"]: t for t in found["blocks"]["trials"]}
    for what in ("latency_ms", "accuracy"):
        values = [trials[number][what] for number in numbers]
        assert values == sorted(values)


@pytest.mark.slow
def test_a_supernet_judges_the_trials_and_its_ranking_is_compared(
    given: dict[str, Any], tmp_path: Path
) -> None:
    heard = Heard()
    found = search(
        **{**given, "slack": 0.0, "supernet": 8.0, "trials": 9, "top": 1},
        out=tmp_path / "run",
        progress=heard,
    )
    shared = found["blocks"]["supernet"]
    assert shared["epochs"] == 8
    assert -1 <= shared["tau"] <= 1
    assert any(f"Kendall tau {shared['tau']:.2f}" in sentence for sentence in heard.said)
    trials = {t["number"]: t for t in found["blocks"]["trials"]}
    assert len(shared["checked"]) == 8
    for number, inherited, alone in shared["checked"]:
        assert inherited == trials[number]["accuracy"]
        assert 0 < alone < 1
    # From the best to the worst, and no trial was trained.
    ranked = [inherited for _, inherited, _ in shared["checked"]]
    assert ranked == sorted(ranked, reverse=True)
    assert ranked[0] == max(t["accuracy"] for t in trials.values())
    assert not any(t["stopped"] for t in trials.values())
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "trained for 8 epochs" in report


def _run_in_child(given: dict[str, Any], out: str) -> None:
    with plugged_in(name=given["device"]):
        search(**given, out=out)


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_judges_nothing_twice(
    given: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "killed"
    child = multiprocessing.get_context("spawn").Process(
        target=_run_in_child, args=(given, str(path))
    )
    child.start()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        log = path / "blocks.log"
        if log.is_file() and log.read_text().count("accuracy@1") >= 2:
            break
        time.sleep(0.05)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    found = resume(path)
    assert found["state"] == "finished"
    assert len(found["blocks"]["trials"]) == 6
    lines = [json.loads(line) for line in (path / "blocks.log").read_text().splitlines()]
    noted = [
        (line["trial_id"], key)
        for line in lines
        for key in line.get("user_attr", {})
        if key.startswith("accuracy")
    ]
    assert len(noted) == len(set(noted))


def test_a_proxy_taken_in_two_goes_is_the_training_in_one(
    tiny: NetSpec, pictures: Path, tmp_path: Path
) -> None:
    classify, told = task("classify"), Silent()
    dataset = classify.find(str(pictures), classify.Options(), seed=0)
    spec, wrapper = classify.arrange(tiny, classify.Options(), dataset)
    data = classify.prepare(
        dataset,
        spec,
        wrapper,
        classify.Options(),
        scratch=tmp_path,
        seed=0,
        heldout=0.2,
        progress=told,
    )
    experiment = Experiment(task_name="classify", wrapper=wrapper, data=data)
    settings = task("classify").recipe(None, images=96, epochs=2.0, started=False, seed=0)
    job = {"spec": tiny, "experiment": experiment, "settings": settings}
    for until in (1, 2):
        in_two = proxy_job(ProxyJob(**job, until=until, checkpoint=tmp_path / "two"))
    in_one = train_job(
        TrainJob(
            **job,
            weights=tmp_path / "w",
            checkpoint=tmp_path / "c",
            mark=tmp_path / "m",
            heldout=True,
        )
    )
    assert in_two["expected"] == pytest.approx(in_one["expected"], rel=1e-6)


def test_rungs_triple_and_end_with_the_last_epoch() -> None:
    assert [rungs(n) for n in (1, 2, 3, 9, 10)] == [[1], [1, 2], [1, 3], [1, 3, 9], [1, 3, 9, 10]]


@pytest.mark.parametrize(("answers", "stopped"), [(0.0, 0), (0.3, 8)])
def test_trials_are_stopped_only_where_something_was_learned(
    answers: float, stopped: int, space_file: Path, tmp_path: Path
) -> None:
    toy = replace(load_space(space_file), resolution=32, classes=3)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    reward = Reward(kind="hard", target_ms=1.0)
    study = Study(toy, reward=reward, estimate=lambda spec: 1.0, searcher="random", pruner=pruner)
    batch = [asked for _ in range(9) if (asked := study.ask())]

    class Answering(WorkerPool):
        """The n-th network answers by chance and a bit more, the first one best."""

        def run(self, task: Any, arguments: Any, on_done: Any) -> None:
            for n, (job,) in enumerate(arguments):
                on_done(n, {"expected": 1 / 3 + answers * (1 - n / 10) + 0.01 * job.until})

    run: Any = SimpleNamespace(
        progress=Silent(), folder=SimpleNamespace(scratch=tmp_path), pool=Answering(1),
        experiment=SimpleNamespace(data=SimpleNamespace(chance=1 / 3)),
    )  # fmt: skip
    training = replace(
        task("classify").recipe(None, images=96, epochs=2.0, started=False, seed=0), epochs=2
    )
    _judge_batch(run, study, training, batch)
    assert len(study.trials) == 9
    # The first is compared with nobody, so it goes on; who comes after it is worse.
    assert sum(trial.stopped for trial in study.trials) == stopped


def test_a_trial_that_diverges_is_noted_and_the_others_go_on(
    image_data: ImageData, space_file: Path, tmp_path: Path
) -> None:
    toy = replace(load_space(space_file), resolution=32, classes=3)
    experiment = Experiment(
        task_name="classify", wrapper=Plain(), data=replace(image_data, heldout_share=0.2)
    )
    reward = Reward(kind="hard", target_ms=1.0)

    def study() -> Study:
        return Study(
            toy, reward=reward, estimate=lambda spec: 1.0, searcher="random",
            ledger=tmp_path / "blocks.log",
        )  # fmt: skip

    class TooFast(WorkerPool):
        """Trains in this process, the first network at a learning rate that no network survives."""

        def run(self, task: Any, arguments: Any, on_done: Any) -> None:
            for n, (job,) in enumerate(arguments):
                fast = replace(job.settings, lr=1e6)
                on_done(n, task(replace(job, settings=fast) if job.checkpoint == first else job))

    searched, told = study(), Heard()
    run: Any = SimpleNamespace(
        progress=told, folder=SimpleNamespace(scratch=tmp_path), pool=TooFast(1),
        experiment=experiment,
    )  # fmt: skip
    batch = [asked for _ in range(2) if (asked := searched.ask())]
    first = tmp_path / f"trial-{batch[0].number:05d}.checkpoint"
    training = task("classify").recipe(None, images=96, epochs=2.0, started=False, seed=0)
    _judge_batch(run, searched, training, batch)
    failed, whole = study().trials  # as a resumed search reads them
    assert (failed.accuracy, failed.reward, failed.whole) == (0.0, 0.0, False)
    assert failed.failed is not None
    assert "the loss" in failed.failed
    assert told.said == [f"trial {failed.number} failed: {failed.failed}"]
    assert whole.accuracy > 0
    assert whole.failed is None
    assert study().best(2) == study().front() == [whole]


def test_no_finalist_is_left_of_trials_that_all_diverged(space_file: Path) -> None:
    toy = replace(load_space(space_file), resolution=32, classes=3)
    study = Study(
        toy, reward=Reward(kind="hard", target_ms=1.0), estimate=lambda spec: 1.0, searcher="random"
    )
    asked = study.ask()
    assert asked is not None
    study.tell(asked, 0.0, failed="the loss became nan")
    run: Any = SimpleNamespace(blocks=BlockSettings())
    with pytest.raises(InputError, match=r"none of the 1 trials was trained .*the loss became nan"):
        finalists(run, None, study, 1.0)  # type: ignore[arg-type]


def test_ties_go_to_the_faster() -> None:
    def entry(number: int, expected: list[float], ms: float) -> dict[str, Any]:
        return {"number": number, "expected": expected, "measured_ms": ms}

    # Standard deviations of 0.0141 over two seeds: a standard error of 0.01.
    found = in_order(
        [entry(1, [0.70, 0.72], 3.0), entry(2, [0.695, 0.715], 2.0), entry(3, [0.60, 0.62], 1.0)]
    )
    assert [e["number"] for e in found] == [2, 1, 3]
    single = in_order([entry(1, [0.70], 3.0), entry(2, [0.69], 2.0)])
    assert [e["number"] for e in single] == [1, 2]


class TestWrongInput:
    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"trials": 0}, "trials is 0; it must be from 1"),
            ({"top": 0}, "top is 0"),
            ({"proxy_epochs": 0}, "proxy epochs is 0"),
            ({"searcher": "darts"}, "no searcher 'darts'; known are predictor"),
            ({"objective": "all"}, "no objective 'all'"),
            ({"reward": "soft"}, "no reward 'soft'"),
            ({"exponent": 1.0}, "exponent of the reward is 1.0"),
            ({"space": "v5"}, "no space 'v5'; known are mnasnet"),
            ({"slack": 2.0}, "slack is 2.0; it must be a share"),
            ({"supernet": 0.0}, "supernet is 0.0; it must be a number of epochs above 0"),
            ({"batch": 0}, "batch is 0"),
            ({"cluster": "10.0.0.1"}, "cluster is '10.0.0.1'; write auto .* or ray://HOST:10001"),
            ({"objective": "pareto", "searcher": "evolution"}, "take one of predictor"),
        ],
    )
    def test_is_refused_before_anything_is_made(
        self, given: dict[str, Any], changed: dict[str, Any], said: str, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match=said):
            search(**{**given, **changed}, out=tmp_path / "run")
        assert not (tmp_path / "run" / "run.json").exists()

    def test_a_target_that_nothing_meets_is_told_with_the_fastest_before_training(
        self, given: dict[str, Any], run: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match=r"its fastest, toy-\w+, takes .* ms: choose a higher"):
            search(**{**given, "target": "1us"}, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_slack_is_a_share(self) -> None:
        with pytest.raises(InputError, match="slack is 2"):
            BlockSettings(slack=2).check()
