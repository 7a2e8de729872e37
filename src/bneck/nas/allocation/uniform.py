"""A uniform width at a latency, in two forms: what an allocation must be better than."""

from __future__ import annotations

from contextlib import suppress

from bneck.costs.table import TableError
from bneck.nas.fitting import fit_widths
from bneck.nas.netadapt import Estimate, Unreachable
from bneck.specs.network import NetSpec
from bneck.specs.rows import SpecError
from bneck.specs.transforms import fix_skips, rename, scale_width
from bneck.specs.zoo import width_rule

NARROWEST = 0.01  # of a uniform width; the floor of channels is what stops it


def uniform_width(seed: NetSpec, target_ms: float, estimate: Estimate) -> NetSpec:
    """All widths times one factor, at the target: what an allocation must be better than.

    The factor is as large as the target allows; what it leaves goes into single widths, on the grid.

    Raises:
        Unreachable: the narrowest is slower.
    """
    found = fit_widths(seed, target_ms, estimate, widest=seed, least=NARROWEST)
    if (ms := estimate(found)) > target_ms:
        raise Unreachable(
            f"{target_ms:.3f} ms cannot be reached from {seed.name} by a uniform width: its narrowest "
            f"version is estimated at {ms:.3f} ms; choose a target above that"
        )
    return rename(found, f"{seed.name}-uniform")


def width_multiplier(seed: NetSpec, target_ms: float, estimate: Estimate) -> NetSpec:
    """The family's width multiplier at the target, the other form of a uniform width.

    It rounds to 8 without losing a tenth, and keeps some layers (V3: those after the pool). It is as large as
    the target allows, in hundredths; what it leaves goes into single widths, on the grid.

    Raises:
        Unreachable: the narrowest is slower.
    """
    rule = width_rule(seed.name)

    timed = list[tuple[float, int, NetSpec]]()
    for percent in range(5, 100):
        # The smallest multipliers of some families make no network, and a table may lack others.
        with suppress(SpecError, TableError):
            spec = fix_skips(scale_width(seed, percent / 100, rule))
            if (ms := estimate(spec)) <= target_ms:
                timed.append((ms, percent, spec))
    if not timed:
        raise Unreachable(f"no width multiplier takes {seed.name} to {target_ms:.3f} ms")
    kept = rule.kept(seed, 0.5)
    found = fit_widths(max(timed)[-1], target_ms, estimate, widest=seed, least=1, kept=kept)
    return rename(found, f"{seed.name}-uniform")
