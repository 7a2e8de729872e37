"""`--lose`: the fastest network that loses at most so many points of the seed network's score."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np

from bneck.nas.allocation.allocator import Allocator
from bneck.records.progress import Silent
from bneck.runs.answers import ModuleAnswers
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.jobs import Parent
from bneck.runs.search.latency import Latencies
from bneck.runs.search.run import Run
from bneck.runs.search.trials import job_for, train_all
from bneck.runs.search.widths.seed import keep_longer_seed, longer_seed, teacher_of
from bneck.specs.transforms import rename
from bneck.tasks.data import Array

PROBES = 4
SLOWEST = 0.95  # of the seed's latency: above it there is nothing to gain
SURE, Z = 0.9, 1.2816  # one-sided confidence of the bound, and the normal quantile of it


@dataclass(frozen=True, slots=True)
class Probe:
    """A network at a share of the seed's latency: points lost, and at most so many with confidence `SURE`."""

    share: float
    score: float
    lost: float
    at_most: float


def affordable_target(run: Run, parent: Parent, latencies: Latencies, points: float) -> str:
    """The least share of the seed's latency at which a network loses at most `points`, as a target.

    A few shares are probed by bisection, each with one network that is trained in full.
    """
    known = run.ledger.find(event="affordable")
    if known is None:
        with run.stage("probe"):
            probes = _probed(run, parent, latencies, points)
        fits = [probe for probe in probes if probe.at_most <= points]
        share = min((probe.share for probe in fits), default=SLOWEST)
        known = {
            "event": "affordable", "points": points, "confidence": SURE, "met": bool(fits),
            "target": f"{100 * share:.4g}%", "probes": [asdict(probe) for probe in probes],
        }  # fmt: skip
        run.ledger.append(known)
    if not known["met"]:
        run.progress.say(
            f"no network that was tried loses at most {points:g} points with {SURE:.0%} confidence; going on "
            f"at {known['target']} of the seed network's latency"
        )
    run.record["lose"] = {key: value for key, value in known.items() if key != "event"}
    run.save()
    return str(known["target"])


def _probed(run: Run, parent: Parent, latencies: Latencies, points: float) -> list[Probe]:
    table, seed = latencies.table, parent.spec
    allocator = Allocator(seed, parent.measured().groups, table)
    seed_ms = table.estimate_ms(seed)
    low, high = allocator.fastest_ms() / seed_ms, 1.0
    (longer,) = jobs = longer_seed(run, seed)
    keep_longer_seed(run, train_all(run, jobs))
    choices = _choices(run.experiment, seed, jobs[longer].weights)
    score = float(run.record["seed_network"]["scores"][0])
    probes: list[Probe] = []
    for number in range(PROBES):
        share = 0.5 if not number and low < 0.5 else (low + high) / 2
        spec = rename(allocator.at(share * seed_ms).spec, f"{seed.name}-{100 * share:.0f}")
        name = f"probe-{spec.digest()[:8]}-0"
        job = job_for(
            run, spec, name, 0, parent=parent, teacher=teacher_of(run, seed), settings=run.settings.recovery
        )  # fmt: skip
        found = float(train_all(run, {name: job})[name]["score"])
        other = float(np.mean(choices != _choices(run.experiment, spec, job.weights)))
        lost = 100 * (score - found)
        probes.append(Probe(share, found, lost, upper_bound(lost, other, len(choices))))
        run.progress.say(
            f"at {share:.0%} of the latency: {lost:+.1f} points lost, at most {probes[-1].at_most:.1f} with "
            f"{SURE:.0%} confidence"
        )
        low, high = (low, share) if probes[-1].at_most <= points else (share, high)
    return probes


def upper_bound(lost: float, differs: float, images: int) -> float:
    """Points that are lost at most, with confidence `SURE`.

    The scores of two networks on the same images differ only where their answers do, so the variance of
    an image's difference is at most the share `differs` of such images, less the square of its mean.
    """
    mean = lost / 100
    return lost + 100 * Z * sqrt(max(differs - mean**2, 0.0) / images)


def _choices(experiment: Experiment, spec: Any, weights: Any) -> Array:
    """The class that a trained network gives each val image."""
    answers = ModuleAnswers(experiment.task, experiment.load(spec, weights))
    found = experiment.data.classified(answers, "val", Silent())
    assert found is not None  # tasks that do not classify refuse --lose
    return found.guess
