"""What a search by importance compares its network with, besides the uniform width by the same importance.

Each simpler way to the same latency is trained as long in all: the seed network at a lower resolution,
where it was trained from random weights also the uniform width from random weights, and the networks
that the user names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

from bneck.runs.search.experiment import Experiment
from bneck.runs.search.jobs import Parent, TrainJob
from bneck.runs.search.latency import Latencies
from bneck.runs.search.run import Run
from bneck.runs.search.trials import job_for
from bneck.runs.search.widths.seed import begun, teacher_of
from bneck.runs.start import comparable, find_start
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.transforms import rename, with_resolution
from bneck.training.settings import Settings

PIXELS, LEAST_PIXELS = 8, 32  # steps of a lower resolution, and the lowest


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network at the target's latency, and how it is trained; `role` is its key in the record.

    A `teacher` is a network that was trained before it.
    """

    role: str
    title: str
    spec: NetSpec
    parent: Parent | None
    settings: Settings
    experiment: Experiment
    teacher: Parent | None = None

    @property
    def name(self) -> str:
        """Of its trainings, less their number."""
        return f"{self.role}-{self.spec.digest()[:8]}"

    def first_job(self, run: Run) -> TrainJob:
        """The first of its trainings."""
        return next(iter(self.jobs(run).values()))

    def jobs(self, run: Run) -> dict[str, TrainJob]:
        """Its trainings, which another target or another round of the run finds again."""
        names = [f"{self.name}-{n}" for n in range(run.settings.repeats)]
        return {
            name: job_for(
                run, self.spec, name, n, parent=self.parent, teacher=self.teacher,
                settings=self.settings, experiment=self.experiment,
            )
            for n, name in enumerate(names)
        }  # fmt: skip


def simpler_ways(
    run: Run, parent: Parent, latencies: Latencies, limit_ms: float, uniform: NetSpec
) -> list[Candidate]:
    """All but the uniform width by importance."""
    found = [_lower_resolution(run, parent, latencies, limit_ms)]
    if run.settings.start is None:
        found.append(Candidate(
            role="scratch", title="uniform width from random weights", spec=uniform, parent=None,
            settings=run.settings.whole, experiment=run.experiment,
        ))  # fmt: skip
    teacher = teacher_of(run, parent.spec)
    for number, start in enumerate(run.settings.also, 1):
        found.append(_another(run, start, f"also-{number}", latencies, limit_ms, teacher))
    return [one for one in found if one is not None]


def _lower_resolution(
    run: Run, parent: Parent, latencies: Latencies, limit_ms: float
) -> Candidate | None:
    """The seed network at the highest resolution that measures within the limit; None where there is none."""
    seed, tried = parent.spec, dict[int, float]()
    wrapper = run.wrapper
    if wrapper.size(with_resolution(seed, LEAST_PIXELS)) == wrapper.size(seed):
        run.progress.say("no lower resolution is compared: the size of the input is the task's")
        return None

    def at(side: int) -> NetSpec:
        return rename(with_resolution(seed, side), f"{seed.name.partition('@')[0]}@{side}")

    def fits(side: int) -> bool:
        if side not in tried:
            tried[side] = latencies.measured_ms(at(side))
        return tried[side] <= limit_ms

    share = sqrt(limit_ms / latencies.verified_ms(seed))
    side = max(LEAST_PIXELS, int(seed.resolution * share) // PIXELS * PIXELS)
    try:
        while side + PIXELS < seed.resolution and fits(side) and fits(side + PIXELS):
            side += PIXELS
        while not fits(side):
            side -= PIXELS
            if side < LEAST_PIXELS:
                raise InputError(f"{LEAST_PIXELS} px are too slow for the target")
    except InputError as error:  # a head may need more pixels
        run.progress.say(f"no lower resolution is compared: {error}")
        return None
    # Without a teacher: the seed network's answers at a lower resolution are poor.
    return Candidate(
        role="resolution", title=f"seed network at {side} px", spec=at(side), parent=parent,
        settings=run.settings.recovery, experiment=run.experiment_at(at(side)),
    )  # fmt: skip


def _another(
    run: Run, start: str, role: str, latencies: Latencies, limit_ms: float, teacher: Parent | None
) -> Candidate | None:
    """A network that the user named, fine-tuned as long as the found one in all; None if it is too slow."""
    task, settings = run.task, run.settings
    dataset = task.find(run.data, settings.options, seed=settings.seed)
    folder = find_start(start, None, run.progress).folder
    spec = comparable(task, settings.options, dataset, run.wrapper, settings.resolution, folder)
    ms = latencies.measured_ms(spec)
    if ms > limit_ms:
        run.progress.say(
            f"--also {start}: {spec.name} runs in {ms:.3f} ms, above the target of {limit_ms:.3f} ms, "
            "and is not compared"
        )
        return None
    known: Any = begun(run, spec, start, role)
    return Candidate(
        role=role, title=f"{spec.name} from {start}", spec=spec, parent=known,
        settings=replace(settings.recovery, epochs=settings.whole.epochs), experiment=run.experiment,
        teacher=teacher,
    )  # fmt: skip
