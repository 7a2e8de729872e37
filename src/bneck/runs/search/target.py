"""The target of a search: refused where it cannot be, settled in milliseconds of this device."""

from __future__ import annotations

from bneck.costs.table import LatencyTable
from bneck.nas.netadapt import narrowest
from bneck.runs.search.finals import Handover
from bneck.runs.search.latency import Latencies, known_table, measured_ms
from bneck.runs.search.run import Run
from bneck.runs.search.settings import target_ms
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import resolve
from bneck.specs.transforms import with_classes, with_resolution


def check_targets(run: Run, seed: NetSpec) -> None:
    """Refuse targets that are met already or out of reach, by measuring, before anything long.

    Relative to the device's table where there is one, as the whole search is.

    Raises:
        InputError: it is one of them; a better way is named.
    """
    if run.ledger.find(event="target checked"):
        return
    on = run.settings.deployment
    table = known_table(seed, on, run.wrapper)
    fastest = narrowest(seed, kinds=run.settings.kinds)
    seed_ms, fastest_ms = measured_ms(seed, [seed, fastest], table, on, run.wrapper)
    for target in run.settings.targets:
        limit_ms = target_ms(target, seed_ms)
        if seed_ms <= limit_ms:
            raise InputError(
                f"{seed.name} at {seed.resolution} px already runs in {seed_ms:.3f} ms here, so a target of "
                f"{limit_ms:.3f} ms is met without a search; {_larger(run, seed, limit_ms, table)}"
            )
        if fastest_ms > limit_ms:
            raise InputError(
                f"{limit_ms:.3f} ms cannot be reached from {seed.name} at {seed.resolution} px: its narrowest "
                f"version runs in {fastest_ms:.3f} ms; choose a target above that, a smaller --resolution or "
                "a smaller --seed-network"
            )
    run.ledger.append({"event": "target checked"})


def _larger(run: Run, seed: NetSpec, limit_ms: float, table: LatencyTable | None) -> str:
    """Advice for a loose target: the smallest network of the zoo that is slower than it."""
    names = [f"{family}{width}" for family in ("v3-small", "v3-large") for width in ("", "-1.25")]
    specs = [
        with_resolution(with_classes(resolve(n), seed.classes), seed.resolution) for n in names
    ]
    times = measured_ms(seed, specs, table, run.settings.deployment, run.wrapper)
    timed = sorted(zip(times, names, strict=True))
    slower = [(ms, name) for ms, name in timed if ms > limit_ms]
    if slower:
        return f"search from --seed-network {slower[0][1]} ({slower[0][0]:.3f} ms) or set a lower target"
    ms, name = timed[-1]
    return f"even {name} runs in {ms:.3f} ms: train that one as it is, or set a lower target"


def settle_target(
    run: Run, seed: NetSpec, latencies: Latencies, target: str, given: Handover | None = None
) -> float:
    """A target in milliseconds, relative to the table's reference."""
    if given is None:
        seed_ms = latencies.verified_ms(seed)
        limit_ms = target_ms(target, seed_ms)
    else:
        seed_ms, limit_ms = given.measured_ms, given.limit_ms
    run.record["target"], run.record["target_ms"] = target, limit_ms
    known = run.record.get("seed_network", {})
    run.record["seed_network"] = {**known, **run.network_record(seed, latencies.table)}
    run.record["seed_network"]["measured_ms"] = seed_ms
    run.save()
    return limit_ms
