"""The end of a block search: the best are fitted to the limit, trained in full, measured; one is chosen.

Trials are compared at latencies from far below the limit up to it, and the space has few widths. So
the finalists' widths are first fitted to one measured latency: what is then compared is blocks
alone, and none of the time that the user grants is left unused.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, fields
from typing import Any

from bneck.costs.count import count
from bneck.nas.blocks import BlockSpace
from bneck.nas.study import Study, Trial
from bneck.runs.search.fitting import fit_by_clock
from bneck.runs.search.latency import Latencies
from bneck.runs.search.run import Run
from bneck.runs.search.settings import BlockSettings
from bneck.runs.search.trials import job_for, train_all
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text, to_text
from bneck.specs.transforms import rename, scale_width
from bneck.specs.zoo import width_rule

BASELINES = 8  # widths of the baseline that are measured at most
_FOUND = "blocks found"
_SPECS = ("spec", "reference", "baseline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What a finished block search (section 4.1) hands to NetAdapt (4.2).

    `spec` measures `measured_ms` and had `heldout_score` in its first full training, if it had to be
    compared with others; the target is `limit_ms`. All milliseconds of the run are relative to
    `reference`, which took `reference_ms`. `baseline` is the seed network at the uniform `width` that
    is compared with.
    """

    spec: NetSpec
    measured_ms: float
    heldout_score: float | None
    limit_ms: float
    reference: NetSpec
    reference_ms: float
    baseline: NetSpec
    width: float


def handed_over(run: Run) -> Handover | None:
    """What the run's block search found, or None."""
    entry = run.ledger.find(event=_FOUND)
    if entry is None:
        return None
    values = {one.name: entry[one.name] for one in fields(Handover)}
    return Handover(**{**values, **{name: from_text(entry[name]) for name in _SPECS}})


def _write(run: Run, found: Handover) -> None:
    values = {one.name: getattr(found, one.name) for one in fields(Handover)}
    texts = {name: to_text(values[name]) for name in _SPECS}
    run.ledger.append({"event": _FOUND, **values, **texts})


def finalists(
    run: Run, latencies: Latencies, study: Study, limit_ms: float
) -> list[dict[str, Any]]:
    """The best trials as networks to train: fitted to `slack` above the limit where a limit is the goal."""
    found, settings = [], run.blocks
    for trial in _best(study, settings):
        spec = study.space.decode(trial.tokens)
        if settings.fits:
            aim_ms = limit_ms * (1 + settings.slack)
            fitted = fit_by_clock(spec, aim_ms, latencies.table, latencies.measured_ms)
            spec = rename(fitted.spec, spec.name)
        found.append(
            {
                "number": trial.number, "spec": to_text(spec),
                "estimated_ms": latencies.table.estimate_ms(spec),
                "measured_ms": latencies.measured_ms(spec), "proxy": trial.accuracy,
            }
        )  # fmt: skip
    if not found:
        reason = next((trial.failed for trial in study.trials if trial.failed), "stopped early")
        raise InputError(
            f"none of the {len(study.trials)} trials was trained to its end ({reason}); "
            "start a new search with more --trials or other images"
        )
    return found


def _best(study: Study, settings: BlockSettings) -> list[Trial]:
    if settings.objective == "reward":
        return study.best(settings.top)
    front = study.front()
    if len(front) <= settings.top:
        return front
    places = [round(i * (len(front) - 1) / max(1, settings.top - 1)) for i in range(settings.top)]
    return [front[place] for place in dict.fromkeys(places)]


def train_finalists(run: Run, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every one trained in full with several seeds; the best first. One alone needs no comparison."""
    if len(found) == 1:
        return [{**found[0], "expected": [], "heldout_score": []}]
    repeats = range(run.settings.repeats)
    named = [(entry, [f"block-{entry['number']}-{n}" for n in repeats]) for entry in found]
    outcomes = train_all(
        run,
        {
            name: job_for(run, from_text(entry["spec"]), name, n, heldout=True)
            for entry, names in named
            for n, name in enumerate(names)
        },
    )
    return in_order(
        [
            {
                **entry,
                "expected": [outcomes[name]["expected"] for name in names],
                "heldout_score": [outcomes[name]["score"] for name in names],
            }
            for entry, names in named
        ]
    )


def in_order(ranked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By mean accuracy; those within one standard error of the best are tied and go by latency."""
    means = [statistics.mean(r["expected"]) for r in ranked]
    spreads = [statistics.variance(r["expected"]) for r in ranked if len(r["expected"]) > 1]
    error = math.sqrt(statistics.mean(spreads) / len(ranked[0]["expected"])) if spreads else 0.0
    tied = max(means) - error
    pairs = sorted(
        zip(means, ranked, strict=True),
        key=lambda p: (p[0] < tied, p[1]["measured_ms"] if p[0] >= tied else -p[0]),
    )
    return [entry for _, entry in pairs]


def choose(
    run: Run, space: BlockSpace, latencies: Latencies, ranked: list[dict[str, Any]], limit_ms: float
) -> Handover:
    """The winner, and the baseline of the reference network."""
    winner = ranked[0]
    baseline, width = _baseline(latencies, limit_ms)
    found = Handover(
        spec=rename(from_text(winner["spec"]), f"{space.name}-blocks"),
        measured_ms=winner["measured_ms"],
        heldout_score=winner["heldout_score"][0] if winner["heldout_score"] else None,
        limit_ms=limit_ms, reference=latencies.reference,
        reference_ms=float(latencies.table.header["reference_ms"]), baseline=baseline, width=width,
    )  # fmt: skip
    _write(run, found)
    left = 1 - limit_ms / found.measured_ms
    run.progress.say(
        f"found blocks: {found.measured_ms:.3f} ms measured, target {limit_ms:.3f} ms"
        + (f", {100 * left:.1f} % left to cut" if left > 0 else "")
    )
    return found


def _baseline(latencies: Latencies, limit_ms: float) -> tuple[NetSpec, float]:
    """The widest uniform width of the reference network that measures within the limit, by bisection."""
    base = latencies.reference
    widths: dict[str, tuple[int, NetSpec]] = {}
    for percent in range(20, 201):
        spec = scale_width(base, percent / 100, width_rule(base.name))
        widths.setdefault(spec.digest(), (percent, spec))
    known = sorted(widths.values(), key=lambda entry: count(entry[1]).madds)
    low, high = 0, len(known) - 1  # the narrowest is taken if none is within
    for _ in range(BASELINES):
        if low >= high:
            break
        middle = (low + high + 1) // 2
        within = latencies.measured_ms(known[middle][1]) <= limit_ms
        low, high = (middle, high) if within else (low, middle - 1)
    percent, spec = known[low]
    return rename(spec, f"{base.name}-{percent / 100:g}"), percent / 100
