"""A search from trained weights: widths by importance per millisecond, then recovery by training.

Next to it the same is done with a uniform width, whose channels are chosen by the same importance; the
better of the two ships.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

from bneck.nas.allocation.allocator import Allocation, Allocator, uniform_width
from bneck.nets.importance import Importance, each_image, measure_importance
from bneck.nets.weights import save_weights
from bneck.records.files import write_text
from bneck.runs.search.jobs import Parent, TrainJob
from bneck.runs.search.latency import Latencies
from bneck.runs.search.run import Run
from bneck.runs.search.trials import job_for, train_all
from bneck.runs.start import find_start, started
from bneck.specs.network import NetSpec
from bneck.specs.text import to_text
from bneck.specs.transforms import fix_skips, rename

TRIES = 8
# Fractions of the target: from the last half percent a later measurement may come out above it.
LOW, AIM, HIGH = 0.97, 0.985, 0.995


def trained_seed(run: Run, seed: NetSpec) -> Parent:
    """The start, fine-tuned on all train images, with the importance of its channels, measured once."""
    begin, weights, path = (
        run.folder.scratch / f"{name}.safetensors" for name in ("start", "seed-0", "importance")
    )
    data = run.experiment.data
    with run.stage("train seed"):
        if not begin.is_file():  # a copy: what the run started from may be gone when it is resumed
            assert run.settings.start is not None
            folder = find_start(run.settings.start, seed, run.progress).folder
            net = started(
                run.task, seed, run.wrapper, folder, data, settings=run.settings.training,
                progress=run.progress,
            ).net  # fmt: skip
            save_weights(net.state_dict(), begin)
        job = job_for(run, seed, "seed-0", 0, parent=Parent(seed, begin, None))
        _record_outcomes(run, "seed_network", [train_all(run, {"seed-0": job})["seed-0"]])
    if not path.is_file():
        with run.stage("importance"):
            run.progress.stage("measuring the importance of channels", 1)
            trained: Any = run.experiment.load(seed, weights)
            problem = data.problem(trained, run.settings.training)
            loss = each_image(problem.loss)
            measure_importance(trained, problem.batches(0, 0), loss).save(path)
            run.progress.advance(1)
    return Parent(seed, weights, path)


def _record_outcomes(run: Run, key: str, outcomes: list[dict[str, Any]]) -> None:
    record: Any = run.record[key]  # type: ignore[literal-required]
    record["scores"] = [one["score"] for one in outcomes]
    record["loss"] = [one["loss"] for one in outcomes]
    run.save()


def narrowed_both(
    run: Run, parent: Parent, latencies: Latencies, limit_ms: float
) -> tuple[NetSpec, NetSpec]:
    """The network by importance and the uniform width, both as near below the target as was found."""
    seed, table = parent.spec, latencies.table
    assert parent.importance is not None
    importance = Importance.load(parent.importance)
    with run.stage("widths"):
        allocator, made = Allocator(seed, importance.groups, table), dict[str, Allocation]()

        def by_importance(aim_ms: float) -> NetSpec:
            found = allocator.at(max(aim_ms, allocator.fastest_ms()))
            made[found.spec.digest()] = found
            return found.spec

        spec = _by_clock(latencies, limit_ms, by_importance)
        uniform = _by_clock(
            latencies, limit_ms, lambda ms: uniform_width(seed, ms, table.estimate_ms)
        )
    cuts = [str(cut) for cut in made[spec.digest()].cuts]
    run.progress.say(f"cut by importance: {'; '.join(cuts)}")
    found = rename(spec, f"{seed.name}-narrowed")
    uniform = rename(uniform, f"{seed.name}-uniform")
    run.record["found"] = run.network_record(found, table)
    run.record["uniform"] = run.network_record(uniform, table)
    run.record["uniform"]["width"] = _share_of_widths(uniform, seed)
    run.record["allocation"] = {"cuts": cuts, "images": importance.images}
    run.record["steps"], run.record["overhead_seconds"] = [], 0.0
    run.save()
    return found, uniform


def _by_clock(
    latencies: Latencies, limit_ms: float, propose: Callable[[float], NetSpec]
) -> NetSpec:
    """What measures next below the target, of proposals whose aim follows what was measured."""
    aim_ms, tried = AIM * limit_ms, dict[str, tuple[float, NetSpec]]()
    for _ in range(TRIES):
        spec = propose(aim_ms)
        known = spec.digest() in tried
        ms = latencies.verified_ms(spec)
        tried[spec.digest()] = (ms, spec)
        if LOW * limit_ms <= ms <= HIGH * limit_ms:
            break
        # The estimate of this network is off by a ratio that its neighbours share; a network that comes
        # again needs a push.
        aim_ms = latencies.table.estimate_ms(spec) * AIM * limit_ms / ms * (0.99 if known else 1.0)
    within = [one for one in tried.values() if one[0] <= HIGH * limit_ms]
    chosen = (
        max(within, key=lambda one: one[0]) if within else min(tried.values(), key=lambda x: x[0])
    )
    return chosen[1]


def _share_of_widths(narrow: NetSpec, seed: NetSpec) -> float:
    """The mean ratio of outputs, for a report."""
    pairs = zip(fix_skips(narrow).rows, seed.rows, strict=True)
    return round(mean(a.out / b.out for a, b in pairs if hasattr(a, "out")), 3)  # type: ignore[union-attr]


def recover(run: Run, parent: Parent, found: NetSpec, uniform: NetSpec) -> tuple[str, NetSpec]:
    """Train both from the parent's best channels; role and network of the better one, which ships."""
    jobs: dict[str, TrainJob] = {
        f"{role}-{n}": job_for(run, spec, f"{role}-{n}", n, parent=parent)
        for role, spec in (("found", found), ("uniform", uniform))
        for n in range(run.settings.repeats)
    }
    with run.stage("train result"):
        outcomes = train_all(run, jobs)
    means = {}
    for role in ("found", "uniform"):
        repeats = [outcomes[f"{role}-{n}"] for n in range(run.settings.repeats)]
        _record_outcomes(run, role, repeats)
        means[role] = mean(one["score"] for one in repeats)
    shipped, spec = ("found", found) if means["found"] >= means["uniform"] else ("uniform", uniform)
    if shipped == "uniform":
        run.progress.say(
            f"the uniform width is better ({means['uniform']:.1%} against {means['found']:.1%}): it ships"
        )
        run.record["allocation"]["narrowed"] = run.record["found"]
        run.record["found"] = {**run.record["uniform"]}
    run.record["allocation"]["shipped"] = shipped
    write_text(run.folder.spec, to_text(spec))
    run.save()
    return shipped, spec
