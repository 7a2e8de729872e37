"""A search from trained weights: widths by importance per millisecond, then recovery by training.

Next to it the same is done with a uniform width, whose channels are chosen by the same importance; the
better of the two ships.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

from bneck.nas.allocation.allocator import Allocation, Allocator, uniform_width
from bneck.nets.importance import IMAGES, Importance, each_image, measure_importance
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
LOW, AIM, HIGH = (
    0.97,
    0.985,
    0.995,
)  # of the target: from the last half percent a clock may say more


def seed_parent(run: Run, seed: NetSpec) -> Parent:
    """The start's weights in the seed network, kept in the run: the start may be gone on resume."""
    weights = run.folder.scratch / "start.safetensors"
    if not weights.is_file():
        assert run.settings.start is not None
        folder = find_start(run.settings.start, seed, run.progress).folder
        net = started(
            run.task, seed, run.wrapper, folder, run.experiment.data, seed=run.settings.seed,
            progress=run.progress,
        )  # fmt: skip
        # The folder's normalisation is what its weights were made for; it belongs to them.
        save_weights(net.state_dict(), weights)
    return Parent(seed, weights, None)


def train_seed(run: Run, seed: NetSpec) -> None:
    """Fine-tune the start on all train images: the parent of every narrower network."""
    with run.stage("train seed"):
        job = job_for(run, seed, "seed-0", 0, parent=seed_parent(run, seed))
        outcome = train_all(run, {"seed-0": job})["seed-0"]
    record: Any = run.record["seed_network"]
    record["scores"], record["loss"] = [outcome["score"]], [outcome["loss"]]
    run.save()


def importance_of(run: Run, seed: NetSpec) -> Parent:
    """The fine-tuned seed with the importance of its channels, measured once."""
    weights, path = (run.folder.scratch / f"{n}.safetensors" for n in ("seed-0", "importance"))
    if not path.is_file():
        with run.stage("importance"):
            run.progress.stage("importance of channels", 1)
            net = run.experiment.load(seed, weights)
            problem = run.experiment.data.problem(net, run.settings.training)
            batches = problem.batches(0, 0)
            measure_importance(net, batches, each_image(problem.loss), images=IMAGES).save(path)  # type: ignore[arg-type]
            run.progress.advance(1)
    return Parent(seed, weights, path)


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
        record: Any = run.record[role]
        repeats = [outcomes[f"{role}-{n}"] for n in range(run.settings.repeats)]
        record["scores"] = [one["score"] for one in repeats]
        record["loss"] = [one["loss"] for one in repeats]
        means[role] = mean(record["scores"])
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
