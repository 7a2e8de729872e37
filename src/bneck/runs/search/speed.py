"""How fast this machine trains: the seed network's first steps, timed in all workers at once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import mean

from bneck.runs.answers import ModuleAnswers
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.workers import WorkerPool
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.training.settings import Settings

STEPS, LEAST_S = 3, 0.2  # timed steps, and their time, both at least
OUTPUTS = 16  # images
MOST_AT_ONCE = 16  # of a large cluster's workers


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds that a worker takes for an image while all workers compute: training on it, and an output."""

    training_s: float
    output_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedJob:
    """Time a network's first steps."""

    spec: NetSpec
    experiment: Experiment
    settings: Settings


class _Enough(Exception):
    """Ends a training that was only to be timed."""


def measured_speed(pool: WorkerPool, job: SpeedJob) -> Speed | None:
    """The mean over the workers; None where the training cannot be timed, which its own run will explain."""
    found: list[Speed | None] = []
    count = min(pool.workers, MOST_AT_ONCE)
    pool.run(speed_job, [(job,)] * count, lambda index, speed: found.append(speed))
    known = [speed for speed in found if speed is not None]
    if not known:
        return None
    return Speed(mean(one.training_s for one in known), mean(one.output_s for one in known))


def speed_job(job: SpeedJob) -> Speed | None:
    """Train a fresh network for a few steps that are then forgotten; the first one only warms up."""
    experiment, settings = job.experiment, job.settings
    net = experiment.build(job.spec, settings.seed)
    times = [time.perf_counter()]

    def on_step(done: int, total: int, loss: float) -> None:
        times.append(time.perf_counter())
        if len(times) > STEPS + 1 and times[-1] - times[1] >= LEAST_S:
            raise _Enough

    try:
        experiment.fit(net, settings, heldout=False, on_step=on_step)
    except _Enough:
        pass
    except InputError:
        return None
    if len(times) > 2:
        del times[0]
    steps = len(times) - 1
    training_s = (times[-1] - times[0]) / (steps * settings.batch)
    images = experiment.data.images(net, "val", OUTPUTS)
    answers = ModuleAnswers(experiment.task, net.eval())
    begun = time.perf_counter()
    answers(images)
    return Speed(training_s, (time.perf_counter() - begun) / len(images))
