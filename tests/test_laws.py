"""Laws of rows: what few measured widths say of all others."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bneck.costs.laws import Law
from bneck.specs.rows import squeeze_width

GRID = list(product((8, 16, 32, 64), (8, 16, 48, 128, 256), (8, 16, 32, 64)))


def asked(law: Law, *widths: int) -> float:
    return float(law([np.array(width) for width in widths]))


def sampled(row_ms: Callable[..., float], count: int = 24) -> dict[tuple[int, ...], float]:
    """Few rows of the grid, its corners among them."""
    some = random.Random(0).sample(GRID, count - 2)
    return {w: row_ms(*w) for w in [GRID[0], GRID[-1], *some]}


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 8), st.integers(1, 32), st.integers(1, 8))
def test_a_row_that_costs_what_its_layers_cost_is_answered_everywhere(
    a: int, b: int, c: int
) -> None:
    """Expand, depthwise, project; any width, also between the measured ones."""

    def row_ms(into: int, expanded: int, out: int) -> float:
        return 0.004 + 2e-5 * into * expanded + 1e-4 * expanded + 3e-5 * expanded * out

    law, widths = Law(sampled(row_ms), 0.0), (8 * a, 8 * b, 8 * c)
    assert asked(law, *widths) == pytest.approx(row_ms(*widths), rel=0.02, abs=0.005)


def test_with_rounding_a_width_costs_what_the_next_block_costs() -> None:
    def row_ms(*widths: int) -> float:
        into, expanded, out = (-(-width // 16) * 16 for width in widths)
        return 0.01 + 2e-5 * expanded * (into + out)

    law = Law(sampled(row_ms), 1.0)
    for width in (17, 24, 32):
        assert asked(law, 32, 3 * width, 32) == pytest.approx(row_ms(32, 3 * width, 32), rel=0.02)
    assert asked(law, 32, 40, 32) == asked(law, 32, 48, 32)
    assert asked(Law(sampled(row_ms), 0.0), 32, 40, 32) < asked(law, 32, 40, 32)


def test_rows_narrower_than_a_block_may_cost_more_than_a_block() -> None:
    """As in ONNX Runtime, whose blocked kernels do not take them."""
    law = Law({(8,): 0.9, (16,): 0.5, (32,): 0.6, (64,): 0.8, (128,): 1.2}, 1.0)
    assert asked(law, 8) == pytest.approx(0.9, rel=0.02)
    assert asked(law, 16) == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("se", ["quarter", "input", "24"])
def test_squeeze_and_excite_is_counted_by_its_own_width(se: str) -> None:
    def row_ms(into: int, expanded: int, out: int) -> float:
        squeezed = {"quarter": squeeze_width(expanded), "input": max(1, into // 4)}.get(se, 24)
        return 0.01 + 1e-5 * into * expanded + 1e-3 * squeezed + 5e-5 * squeezed * expanded

    law = Law(sampled(row_ms), 0.0, se=se)
    for widths in ((24, 96, 40), (40, 200, 16), (56, 24, 8)):
        assert asked(law, *widths) == pytest.approx(row_ms(*widths), rel=0.03)


def test_wider_never_costs_less_from_a_block_up_however_the_clock_jumps() -> None:
    rng = random.Random(1)
    law = Law(sampled(lambda a, b, c: (1 + a * b + b * c) * rng.uniform(0.5, 1.5)), 0.5)
    widths = [16, 24, 32, 40, 48, 56, 64]
    ms = law([np.array(widths), np.array(96), np.array(32)])
    assert (np.diff(ms) >= 0).all()
    assert (law([np.array(w) for w in zip(*GRID, strict=True)]) >= 0).all()


def test_rows_that_take_no_time_give_none() -> None:
    assert asked(Law({(8,): 0.0, (16,): 0.0}, 1.0), 12) == 0.0
