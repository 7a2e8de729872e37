"""Lower resolutions of the input, where the user fixed none: fewer pixels may cost less than channels do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bneck.runs.search.jobs import Parent
from bneck.runs.search.latency import Latencies
from bneck.runs.search.run import Run
from bneck.runs.search.trials import standing
from bneck.runs.search.widths.candidates import Candidate
from bneck.runs.search.widths.clocks import AIM, HIGH, LOW
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.transforms import rename, with_resolution

PIXELS = 32  # steps of the resolution, as published weights come
LEAST_PIXELS = 128  # with fewer, every pixel counts; see docs/lab-log.md
TRIES = 5


def free(run: Run, seed: NetSpec) -> bool:
    """Whether the user left the resolution open, and the network's input follows it."""
    lower = with_resolution(seed, LEAST_PIXELS)
    return (
        getattr(run.settings.options, "resolution", seed.resolution) is None
        and seed.resolution > LEAST_PIXELS
        and run.wrapper.size(lower) != run.wrapper.size(seed)
    )


def sides(seed: NetSpec, share: float) -> list[int]:
    """Lower resolutions that leave something of a cut to the widths, the highest first.

    Args:
        seed: the network that is cut.
        share: of its latency that the target is.
    """
    highest = (seed.resolution - 1) // PIXELS * PIXELS
    return [
        side
        for side in range(highest, LEAST_PIXELS - 1, -PIXELS)
        if (side / seed.resolution) ** 2 > share
    ]


def at_lower_resolution(
    run: Run, latencies: Latencies, limit_ms: float, found: Candidate, parent: Parent,
    narrowed: Callable[[float], NetSpec],
) -> tuple[Candidate | None, dict[str, float]]:  # fmt: skip
    """A network by importance at a lower resolution, where that keeps more than `found` before training.

    All of them have the weights that they would be trained from, and are scored on the held-out images;
    the scores by resolution come second, empty where none was tried. The network is None where the seed
    network's resolution is best, or the user fixed it.

    Args:
        run: the search.
        latencies: of its device.
        limit_ms: the target.
        found: the network by importance at the resolution of the seed network.
        parent: the seed network; with fewer pixels a cut is less deep, and needs no steps.
        narrowed: (estimated milliseconds at that resolution) -> widths of the seed network by importance.
    """
    seed = parent.spec
    if not free(run, seed):
        return None, {}
    best, scores = found, dict[int, float]()
    for side in sides(seed, limit_ms / latencies.verified_ms(seed)):
        try:
            spec = _widest_at(side, latencies, limit_ms, narrowed, seed)
        except InputError as error:  # a head may need more pixels
            run.progress.say(f"no resolution of {side} px and below is tried: {error}")
            break
        if not scores:
            scores[seed.resolution] = _score(run, found)
        way = replace(
            found, role="lower", title=f"by importance at {side} px", spec=spec, parent=parent,
            experiment=run.experiment_at(spec),
        )  # fmt: skip
        scores[side] = _score(run, way)
        if scores[side] <= scores[best.spec.resolution]:
            break  # with still fewer pixels it would hardly get better again
        best = way
    if not scores:
        return None, {}
    told = ", ".join(f"{score:.1%} at {side} px" for side, score in scores.items())
    run.progress.say(
        f"by importance, before any training: {run.metric} {told} (held-out images); going on with "
        f"{best.spec.resolution} px"
    )
    return None if best is found else best, {str(side): score for side, score in scores.items()}


def _score(run: Run, one: Candidate) -> float:
    return standing(run, {one.name: one.first_job(run)})[one.name]


def _widest_at(
    side: int, latencies: Latencies, limit_ms: float, narrowed: Callable[[float], NetSpec],
    seed: NetSpec,
) -> NetSpec:  # fmt: skip
    """Widths by importance that measure next below the limit at a resolution."""
    table, within = latencies.table, dict[str, tuple[float, NetSpec]]()
    lower_ms = latencies.measured_ms(with_resolution(seed, side))
    aim_ms = AIM * limit_ms * table.estimate_ms(seed) / lower_ms
    for _ in range(TRIES):
        wide = narrowed(aim_ms)
        spec = rename(with_resolution(wide, side), f"{seed.name.partition('@')[0]}-narrowed@{side}")
        ms = latencies.measured_ms(spec)
        within[spec.digest()] = (ms, spec)
        if LOW * limit_ms <= ms <= HIGH * limit_ms:
            break
        aim_ms = table.estimate_ms(wide) * AIM * limit_ms / ms
    fits = [one for one in within.values() if one[0] <= HIGH * limit_ms]
    best = (
        max(fits, key=lambda one: one[0]) if fits else min(within.values(), key=lambda one: one[0])
    )
    return best[1]
