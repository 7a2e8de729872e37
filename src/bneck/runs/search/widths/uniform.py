"""The uniform width that a search compares with: the better one of two forms of it.

Narrowed all over, the layers after the pool lose most of their channels, which take little time. The width
multiplier of the family keeps them, and has too little time left for the others at a deep cut. So both are
scored before any training, and the better one is trained (docs/lab-log.md).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from bneck.nas.allocation.uniform import NARROWEST, uniform_width, width_multiplier
from bneck.nas.fitting import fit_widths
from bneck.nas.netadapt import Unreachable
from bneck.runs.search.jobs import Parent, TrainJob
from bneck.runs.search.latency import Latencies
from bneck.runs.search.run import Run
from bneck.runs.search.trials import job_for, standing
from bneck.specs.network import NetSpec

FORMS = {"all widths": uniform_width, "width multiplier": width_multiplier}


@dataclass(frozen=True, slots=True)
class Uniform:
    """(Estimated milliseconds) -> the uniform width of a form; where none is so fast, the narrowest.

    `scores` are those of both forms at the target before any training; empty where one alone reaches it, and
    where they are one network.
    """

    propose: Callable[[float], NetSpec]
    scores: dict[str, float]


def uniform(run: Run, parent: Parent, latencies: Latencies, limit_ms: float) -> Uniform:
    """The form of the uniform width that keeps more before training, at a target in milliseconds."""
    seed, estimate = parent.spec, latencies.table.estimate_ms
    share, names, jobs = (
        limit_ms / latencies.verified_ms(seed),
        dict[str, str](),
        dict[str, TrainJob](),
    )
    for number, (form, make) in enumerate(FORMS.items()):
        with suppress(Unreachable):
            spec, names[form] = make(seed, limit_ms, estimate), f"uniform to {share:.3f}, {form}"
            jobs[names[form]] = job_for(run, spec, f"uniform-form-{number}", 0, parent=parent)
    scores = dict[str, float]()
    if len({job.spec.digest() for job in jobs.values()}) > 1:
        said = all(run.ledger.find(event="standing", name=name) for name in jobs)
        known = standing(run, jobs)
        scores = {form: known[name] for form, name in names.items()}
        if not said:
            told = ", ".join(f"{score:.1%} as {form}" for form, score in scores.items())
            run.progress.say(
                f"uniform width, before any training: {run.metric} {told} (held-out images); the better one is "
                "compared with"
            )
    chosen = FORMS[max(scores, key=scores.__getitem__)] if scores else uniform_width

    def propose(aim_ms: float) -> NetSpec:
        try:
            return chosen(seed, aim_ms, latencies.table.estimate_ms)
        except Unreachable:
            return fit_widths(
                seed, aim_ms, latencies.table.estimate_ms, widest=seed, least=NARROWEST
            )

    return Uniform(propose, scores)
