"""The uniform widths that a search compares with, in two forms.

Narrowed all over, the layers after the pool lose most of their channels, which take little time. The width
multiplier of the family keeps them, and has less time left for the others. Neither is the better one at every
target, and scores before training do not tell which (docs/lab-log.md). So from trained weights both are
trained; from random ones the first alone, next to the same widths trained from random weights for longer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter

from bneck.nas.allocation.uniform import multipliers, uniform_width, width_multiplier
from bneck.nas.netadapt import Estimate, Unreachable
from bneck.runs.search.latency import Latencies
from bneck.runs.search.run import Run
from bneck.specs.network import NetSpec

# Roles of the forms, and their titles.
FORMS = {"uniform": "uniform width", "multiplier": "width multiplier"}


def uniform_widths(
    run: Run, seed: NetSpec, latencies: Latencies, limit_ms: float
) -> dict[str, Callable[[float], NetSpec]]:
    """By role, (estimated milliseconds) -> a uniform width; where none is so fast, the narrowest."""
    estimate = latencies.table.estimate_ms
    found: dict[str, Callable[[float], NetSpec]] = {
        "uniform": partial(uniform_width, seed, estimate=estimate)
    }
    if run.settings.start is None:
        return found
    try:
        multiplied = width_multiplier(seed, limit_ms, estimate)
    except Unreachable as error:
        run.progress.say(f"{error}; the uniform width narrows all layers")
        return found
    if multiplied.digest() != found["uniform"](limit_ms).digest():
        found["multiplier"] = partial(_multiplied, seed, estimate=estimate)
    return found


def _multiplied(seed: NetSpec, aim_ms: float, estimate: Estimate) -> NetSpec:
    try:
        return width_multiplier(seed, aim_ms, estimate)
    except Unreachable:
        return min(multipliers(seed, estimate), key=itemgetter(2))[1]
