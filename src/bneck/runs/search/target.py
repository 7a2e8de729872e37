"""The target of a search: refused where it cannot be, settled in milliseconds of this device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from bneck.costs.laws import BLOCK
from bneck.nas.allocation.allocator import GRID
from bneck.nas.allocation.drawn import smallest
from bneck.nas.netadapt import narrowest
from bneck.runs.search.finals import Handover
from bneck.runs.search.latency import Latencies, clock_seconds, glanced_ms, known_table, measured_ms
from bneck.runs.search.run import Run
from bneck.runs.search.settings import target_ms
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import resolve
from bneck.specs.transforms import with_classes, with_resolution

CLEAR = 1.5  # a factor that a glance is never off by

Measure: TypeAlias = Callable[[Sequence[NetSpec]], list[float]]


def check_targets(run: Run, seed: NetSpec) -> None:
    """Refuse targets that are met already or out of reach, by measuring, before anything long.

    A glance decides what is clear, and takes seconds also while the device is busy. Times are relative to
    the device's table where there is one, as in the whole search.

    Raises:
        InputError: one is; a better way is named.
    """
    if run.ledger.find(event="target checked"):
        return
    on = run.settings.deployment
    table = known_table(seed, on, run.wrapper)

    def glanced(specs: Sequence[NetSpec]) -> list[float]:
        seed_ms, *times = glanced_ms([seed, *specs], on, run.wrapper)
        nominal_ms = float(table.header["reference_ms"]) if table else seed_ms
        return [ms / seed_ms * nominal_ms for ms in times]

    def carefully(specs: Sequence[NetSpec]) -> list[float]:
        return measured_ms(seed, specs, table, on, run.wrapper)

    fastest = _fastest(run, seed)
    for measure, clear in ((glanced, CLEAR), (carefully, 1.0)):
        seed_ms, *others = measure([seed, *fastest])
        times = seed_ms, min(others), clear
        certain = [_is_clear(run, seed, target, *times, measure) for target in run.settings.targets]
        if all(certain):
            break
    run.ledger.append({"event": "target checked", "seed_ms": seed_ms})


def _is_clear(
    run: Run, seed: NetSpec, target: str, seed_ms: float, fastest_ms: float, clear: float, measure: Measure
) -> bool:  # fmt: skip
    """Whether a target is within reach for certain; refused where it certainly is not."""
    limit_ms = target_ms(target, seed_ms)
    if seed_ms * clear <= limit_ms:
        raise InputError(
            f"{seed.name} at {seed.resolution} px already runs in {seed_ms:.3f} ms here, so a target of "
            f"{limit_ms:.3f} ms is met without a search; {_larger(seed, limit_ms, measure)}"
        )
    if fastest_ms > limit_ms * clear:
        which = "narrowest" if run.settings.method == "netadapt" else "fastest"
        raise InputError(
            f"{limit_ms:.3f} ms cannot be reached from {seed.name} at {seed.resolution} px: its {which} "
            f"version runs in {fastest_ms:.3f} ms; choose a target above that, a smaller --resolution "
            "or a smaller --seed-network"
        )
    return fastest_ms * clear <= limit_ms <= seed_ms / clear


def _fastest(run: Run, seed: NetSpec) -> list[NetSpec]:
    """What no version that the search may choose is faster than, one or the other."""
    if run.settings.method == "netadapt":
        return [narrowest(seed, kinds=run.settings.kinds)]
    # A runtime may take longer for 8 channels than for a whole block of them.
    return [smallest(seed, run.wrapper, least) for least in (GRID, BLOCK)]


def _larger(seed: NetSpec, limit_ms: float, measure: Measure) -> str:
    """Advice for a loose target: the smallest network of the zoo that is slower than it."""
    names = [f"{family}{width}" for family in ("v3-small", "v3-large") for width in ("", "-1.25")]
    specs = [
        with_resolution(with_classes(resolve(n), seed.classes), seed.resolution) for n in names
    ]
    timed = sorted(zip(measure(specs), names, strict=True))
    slower = [(ms, name) for ms, name in timed if ms > limit_ms]
    if slower:
        return f"search from --seed-network {slower[0][1]} ({slower[0][0]:.3f} ms) or set a lower target"
    ms, name = timed[-1]
    return f"even {name} runs in {ms:.3f} ms: train that one as it is, or set a lower target"


def say_how_long(
    run: Run, seed: NetSpec, given: Handover | None, measured: Mapping[str, int]
) -> None:
    """Time the first steps of the seed network, and say how long the search takes.

    `measured` says how many networks a stage measures.
    """
    checked = run.ledger.find(event="target checked") or {}
    seed_ms = checked.get("seed_ms") if given is None else given.reference_ms
    if seed_ms is not None:  # runs that were begun before did not write it down
        seed_ms = float(seed_ms)
        run.say_how_long(seed, seed_ms, clock_seconds(run, seed, seed_ms, measured))


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
