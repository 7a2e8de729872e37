"""The end of a block search: the best are fitted to the limit, trained in full, measured; one is chosen.

Trials are compared at latencies from far below the limit up to it, and the space has few widths. So
the finalists' widths are first fitted by the clock to one latency: what is then compared is blocks
alone, and none of the time that the user grants is left unused.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

from bneck.costs.count import count
from bneck.costs.table import LatencyTable
from bneck.nas.blocks import BlockSpace
from bneck.nas.study import Study, Trial
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.fitting import fit_by_clock
from bneck.runs.search.handover import Handover
from bneck.runs.search.latency import Pace, measured_ms
from bneck.runs.search.pipeline import job_for, train_all
from bneck.runs.search.run import Run
from bneck.runs.search.settings import BlockSettings
from bneck.runs.search.workers import WorkerPool
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text, to_text
from bneck.specs.transforms import rename, scale_width
from bneck.specs.zoo import width_rule

BASELINES = 8  # widths of the baseline that are measured at most


def clocked_ms(run: Run, base: NetSpec, spec: NetSpec, table: LatencyTable) -> float:
    """Milliseconds by the clock, measured once a run."""
    known = run.ledger.find(event="measured", digest=spec.digest())
    if known is None:
        ms = measured_ms(base, [spec], table, run.settings.deployment, run.wrapper)[0]
        known = {"event": "measured", "digest": spec.digest(), "measured_ms": ms}
        run.ledger.append(known)
    return float(known["measured_ms"])


def finalists(
    run: Run,
    base: NetSpec,
    table: LatencyTable,
    study: Study,
    settings: BlockSettings,
    limit_ms: float,
) -> list[dict[str, Any]]:
    """The best trials as networks to train: fitted to `slack` above the limit where a limit is the goal."""
    found = []
    for trial in _best(study, settings):
        spec = study.space.decode(trial.tokens)
        if settings.fits:
            fitted = fit_by_clock(
                spec,
                limit_ms * (1 + settings.slack),
                table,
                lambda s: clocked_ms(run, base, s, table),
            )
            spec = rename(fitted.spec, spec.name)
        found.append(
            {
                "number": trial.number,
                "spec": to_text(spec),
                "estimated_ms": table.estimate_ms(spec),
                "measured_ms": clocked_ms(run, base, spec, table),
                "proxy": trial.accuracy,
            }
        )
    if not found:
        reason = next((trial.failed for trial in study.trials if trial.failed), "stopped early")
        raise InputError(
            f"none of the {len(study.trials)} trials was trained to its end ({reason}); "
            "start a new search with more --trials or other images"
        )
    return found


def train_finalists(
    run: Run, pool: WorkerPool, experiment: Experiment, found: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Every one trained in full with several seeds; the best first. One alone needs no comparison."""
    if len(found) == 1:
        return [{**found[0], "expected": [], "heldout_score": []}]
    jobs = {
        name: job_for(run, experiment, from_text(entry["spec"]), name, n, heldout=True)
        for entry in found
        for n, name in enumerate(_names(run, entry))
    }
    outcomes = train_all(run, pool, jobs)
    ranked = []
    for entry in found:
        own = [outcomes[name] for name in _names(run, entry)]
        ranked.append(
            {
                **entry,
                "expected": [o["expected"] for o in own],
                "heldout_score": [o["score"] for o in own],
            }
        )
    return in_order(ranked)


def _names(run: Run, entry: dict[str, Any]) -> list[str]:
    return [f"block-{entry['number']}-{n}" for n in range(run.settings.repeats)]


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


def _best(study: Study, settings: BlockSettings) -> list[Trial]:
    if settings.objective == "reward":
        return study.best(settings.top)
    front = study.front()
    if len(front) <= settings.top:
        return front
    places = [round(i * (len(front) - 1) / max(1, settings.top - 1)) for i in range(settings.top)]
    return [front[place] for place in dict.fromkeys(places)]


def choose(
    run: Run,
    space: BlockSpace,
    base: NetSpec,
    table: LatencyTable,
    ranked: list[dict[str, Any]],
    limit_ms: float,
) -> Handover:
    """The winner, and the baseline of the base network; everything at the pace of the space's table."""
    winner = ranked[0]
    baseline, width = _baseline(run, base, table, limit_ms)
    found = Handover(
        spec=rename(from_text(winner["spec"]), f"{space.name}-blocks"),
        measured_ms=winner["measured_ms"],
        heldout_score=winner["heldout_score"][0] if winner["heldout_score"] else None,
        limit_ms=limit_ms,
        pace=Pace(base, float(table.header["reference_ms"])),
        baseline=baseline,
        width=width,
    )
    found.write(run)
    left = 1 - limit_ms / found.measured_ms
    run.progress.say(
        f"found blocks: {found.measured_ms:.3f} ms measured, target {limit_ms:.3f} ms"
        + (f", {100 * left:.1f} % left to cut" if left > 0 else "")
    )
    return found


def _baseline(
    run: Run, base: NetSpec, table: LatencyTable, limit_ms: float
) -> tuple[NetSpec, float]:
    """The widest uniform width of the base network that measures within the limit, by bisection."""
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
        within = clocked_ms(run, base, known[middle][1], table) <= limit_ms
        low, high = (middle, high) if within else (low, middle - 1)
    percent, spec = known[low]
    return rename(spec, f"{base.name}-{percent / 100:g}"), percent / 100
