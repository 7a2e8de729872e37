"""Widths fitted to a latency: next to it, never above it, with rows and residuals as they were."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bneck.costs.count import count
from bneck.costs.table import TableError
from bneck.costs.table_file import read_table
from bneck.nas.fitting import fit_widths
from bneck.nas.netadapt import ALL, narrowest
from bneck.nas.spaces import v3
from bneck.runs.search.fitting import HIGH, LOW, fit_by_clock
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck
from bneck.specs.transforms import fix_skips
from bneck.specs.zoo import network


def madds(spec: NetSpec) -> float:
    """Millions of multiply-adds, in place of milliseconds."""
    return count(spec).madds / 1e6


def shape(spec: NetSpec) -> list[object]:
    """What stays: everything of the rows but widths."""
    rows = [
        (row.kernel, row.stride, row.act, row.skip, spec.expands(i), row.se > 0)
        if isinstance(row, Bneck)
        else type(row)
        for i, row in enumerate(spec.rows)
    ]
    return [spec.name, spec.resolution, spec.classes, *rows]


@pytest.mark.parametrize("share", [0.5, 0.8, 0.97, 1.0, 1.3, 1.9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_comes_within_two_percent_below_and_keeps_the_rows(seed: int, share: float) -> None:
    space = v3("v3-small", resolution=64, classes=10)
    spec = space.decode(space.sample(random.Random(seed)))
    target = madds(spec) * share
    fitted = fit_widths(spec, target, madds)
    assert 0.98 * target <= madds(fitted) <= target
    assert shape(fitted) == shape(spec)


def test_the_published_network_at_its_own_cost_stays_as_it_is() -> None:
    spec = fix_skips(network("v3-small"))
    assert fit_widths(spec, madds(spec), madds).digest() == spec.digest()


def test_out_of_reach_gives_the_narrowest_and_the_widest() -> None:
    spec = network("v3-small")
    slimmest = fit_widths(spec, 1e-9, madds)
    assert madds(slimmest) == pytest.approx(madds(narrowest(spec, kinds=ALL)), rel=0.02)
    widest = fit_widths(spec, 1e9, madds, widest=spec)
    assert widest.digest() == fix_skips(spec).digest()


def test_widths_that_are_not_measured_are_not_proposed() -> None:
    spec = network("v3-small")

    def estimate(spec: NetSpec) -> float:
        if any(row.out > 100 for row in spec.rows[:11] if isinstance(row, Bneck)):
            raise TableError("not measured")
        return madds(spec)

    fitted = fit_widths(spec, 2 * madds(spec), estimate)
    assert estimate(fitted) <= 2 * madds(spec)
    assert max(row.out for row in fitted.rows if isinstance(row, Bneck)) == 96


def test_on_a_table(tiny: NetSpec, made_up_table: Path) -> None:
    table = read_table(made_up_table)
    target = 0.8 * table.estimate_ms(tiny)
    fitted = fit_widths(tiny, target, table.estimate_ms)
    assert 0.98 * target <= table.estimate_ms(fitted) <= target


@pytest.mark.parametrize("bias", [0.8, 1.0, 1.25])
def test_the_clock_corrects_a_table_that_is_wrong(
    tiny: NetSpec, made_up_table: Path, bias: float
) -> None:
    table, measured = read_table(made_up_table), list[str]()
    limit = 0.75 * table.estimate_ms(tiny)

    def clock(spec: NetSpec) -> float:
        measured.append(spec.digest())
        return bias * table.estimate_ms(spec)

    fitted = fit_by_clock(tiny, limit, table, clock)
    assert fitted.hit
    assert LOW * limit <= fitted.measured_ms <= HIGH * limit
    assert len(measured) == len(set(measured)) <= 6


def test_a_clock_that_jumps_does_not_lead_astray(tiny: NetSpec, made_up_table: Path) -> None:
    table = read_table(made_up_table)
    limit, jumps = 0.75 * table.estimate_ms(tiny), iter([1.1, 1.25, 1.08, 1.11, 1.1, 1.1])
    fitted = fit_by_clock(tiny, limit, table, lambda spec: next(jumps) * table.estimate_ms(spec))
    assert fitted.measured_ms <= HIGH * limit
    # 1.1 is the truth of most measurements, and the network is right by it within a few percent.
    assert 0.95 * limit <= 1.1 * table.estimate_ms(fitted.spec) <= 1.02 * limit


def test_where_nothing_measures_within_the_limit_the_nearest_comes_back(
    tiny: NetSpec, made_up_table: Path
) -> None:
    table = read_table(made_up_table)
    fitted = fit_by_clock(tiny, 1e-3, table, table.estimate_ms)
    assert not fitted.hit
    least = table.estimate_ms(narrowest(tiny, kinds=ALL))
    assert fitted.measured_ms == pytest.approx(least, rel=0.01)
