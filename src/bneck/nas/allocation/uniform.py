"""A uniform width at a latency, in two forms: what an allocation must be better than."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from operator import itemgetter

from bneck.costs.table import TableError
from bneck.nas.fitting import fit_widths
from bneck.nas.netadapt import Estimate, Unreachable
from bneck.specs.network import NetSpec
from bneck.specs.rows import SpecError
from bneck.specs.transforms import fix_skips, rename, scale_width
from bneck.specs.zoo import width_rule

NARROWEST = 0.01  # of a uniform width; the floor of channels is what stops it


def uniform_width(seed: NetSpec, target_ms: float, estimate: Estimate) -> NetSpec:
    """All widths times one factor, at the target; where none is so fast, the narrowest.

    The factor is as large as the target allows; what it leaves goes into single widths, on the grid.
    """
    return fit_widths(seed, target_ms, estimate, widest=seed, least=NARROWEST)


def width_multiplier(seed: NetSpec, target_ms: float, estimate: Estimate) -> NetSpec:
    """The family's width multiplier at the target, the other form of a uniform width.

    It rounds to 8 without losing a tenth, and keeps some layers (V3: those after the pool). It is as large as
    the target allows, in hundredths; what it leaves goes into single widths, on the grid.

    Raises:
        Unreachable: the narrowest is slower.
    """
    within = [(spec, ms) for _, spec, ms in multipliers(seed, estimate) if ms <= target_ms]
    if not within:
        raise Unreachable(f"no width multiplier takes {seed.name} to {target_ms:.3f} ms")
    widest = max(within, key=itemgetter(1))[0]
    kept = width_rule(seed.name).kept(seed, 0.5)
    found = fit_widths(widest, target_ms, estimate, widest=seed, least=1, kept=kept)
    return rename(found, f"{seed.name}-multiplier")


def multipliers(seed: NetSpec, estimate: Estimate) -> Iterator[tuple[int, NetSpec, float]]:
    """The seed times 0.05 to 0.99, in hundredths: (percent, network, estimated milliseconds).

    What makes no network, or is in no table, is left out.
    """
    rule = width_rule(seed.name)
    for percent in range(5, 100):
        with suppress(SpecError, TableError):
            spec = fix_skips(scale_width(seed, percent / 100, rule))
            yield percent, spec, estimate(spec)
