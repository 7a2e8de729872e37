"""Networks as a search finds them: what a latency table is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from bneck.costs.count import count
from bneck.costs.table import RowShape
from bneck.nas.allocation.drawn import as_searched, smallest
from bneck.nas.allocation.narrowing import Array
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck
from bneck.specs.wrapper import PLAIN, Wrapper
from bneck.specs.zoo import V3_SMALL


class Products:
    """A row takes 1 and a millionth of its positions' products of neighboring widths."""

    wrapper: Wrapper = PLAIN

    def estimate_ms(self, spec: NetSpec) -> float:
        rows = [row for row in spec.rows if isinstance(row, Bneck)]
        return len(rows) + count(spec).madds / 1e6

    def rows_ms(self, shape: RowShape, axes: Sequence[Sequence[int]]) -> Array:
        widths = np.meshgrid(*axes, indexing="ij")
        products = sum((a * b for a, b in pairwise(widths)), np.zeros(widths[0].shape))
        return np.asarray((shape.kind == "bneck") + shape.height * shape.width * products / 1e6)


@pytest.fixture(scope="module")
def drawn() -> list[NetSpec]:
    return as_searched(V3_SMALL, Products(), 24)


def test_they_are_of_all_sizes_narrower_than_the_seed(drawn: list[NetSpec]) -> None:
    shares = sorted(count(spec).madds / count(V3_SMALL).madds for spec in drawn)
    assert shares[0] < 0.35
    assert shares[-1] > 0.75
    assert max(np.diff(shares)) < 0.15


def test_they_are_uneven_near_the_floors_and_lack_rows(drawn: list[NetSpec]) -> None:
    assert len({spec.digest() for spec in drawn}) == 24
    assert min(len(spec.rows) for spec in drawn) < len(V3_SMALL.rows)
    narrow = [min(row.expanded for row in spec.rows if isinstance(row, Bneck)) for spec in drawn]
    assert sum(width <= 16 for width in narrow) > 12
    assert {row.out % 8 for spec in drawn for row in spec.rows if isinstance(row, Bneck)} == {0}


def test_they_are_the_same_at_every_call(drawn: list[NetSpec]) -> None:
    assert as_searched(V3_SMALL, Products(), 24) == drawn
    others = as_searched(V3_SMALL, Products(), 24, draw=1)
    assert not {spec.digest() for spec in others} & {spec.digest() for spec in drawn}


def test_the_smallest_has_as_few_channels_as_are_allowed_and_no_row_that_can_go() -> None:
    for least in (8, 16):
        spec = smallest(V3_SMALL, PLAIN, least)
        bnecks = [row for row in spec.rows if isinstance(row, Bneck)]
        # Table 2 has 11, and residuals add to 3, 5, 6, 8, 10 and 11.
        assert len(bnecks) == 5
        assert {row.out for row in bnecks} == {least}
        # One equal to the input would lose its convolution.
        assert {row.expanded for row in bnecks} <= {least, least + 8}
