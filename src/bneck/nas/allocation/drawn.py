"""Networks as a search finds them, before anything is trained: what a latency table is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bneck.costs.table import RowShape, row_keys
from bneck.nas.allocation.allocator import Allocator
from bneck.nas.allocation.narrowing import Array, RowCosts
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Pool
from bneck.specs.transforms import fix_skips, stages
from bneck.specs.wrapper import Wrapper

LEAST, MOST = 0.25, 0.9  # of the seed's latency
# Standard deviations of the logarithm: of a trained V3-Small's channels, 1 to 2.2 within a group.
CHANNELS, GROUPS = 1.5, 1.5


def as_searched(seed: NetSpec, costs: RowCosts, count: int, *, draw: int = 0) -> list[NetSpec]:
    """Narrower versions of `seed` by the allocator, the same at every call with the same `costs` and `draw`.

    Their importances are random, their targets from a quarter to nine tenths of the seed's latency;
    so they are uneven, near the floors, without some rows, and such that `costs` flatters them.
    """
    seed, rng = fix_skips(seed), np.random.default_rng(draw)
    seed_ms, found = costs.estimate_ms(seed), list[NetSpec]()
    for number in range(count):
        allocator = Allocator(seed, random_importance(seed, rng), costs)
        # Targets in a shuffled order, for those that calibrate and those that judge alike.
        share = LEAST + (MOST - LEAST) * (number * 0.618034 % 1)
        target_ms = max(share * seed_ms, allocator.fastest_ms() * 1.001)
        found.append(allocator.greedy(target_ms).spec)
    return found


def smallest(seed: NetSpec, wrapper: Wrapper, least: int) -> NetSpec:
    """The version with `least` channels wherever there are more, without any row that can be left out."""
    importance = random_importance(seed, np.random.default_rng(0))
    return Allocator(seed, importance, _Widths(wrapper), least=least).at_price(np.inf).spec


@dataclass(frozen=True, slots=True)
class _Widths:
    """Costs of networks that rise with every width and every row."""

    wrapper: Wrapper

    def estimate_ms(self, spec: NetSpec) -> float:
        return float(sum(1 + sum(widths) for _, widths in row_keys(spec, self.wrapper)))

    def rows_ms(self, shape: RowShape, axes: Sequence[Sequence[int]]) -> Array:
        widths = np.meshgrid(*axes, indexing="ij")
        return np.asarray(1.0 + np.sum(widths, axis=0), np.float64)


def random_importance(seed: NetSpec, rng: np.random.Generator) -> dict[str, Array]:
    """Importance as `nets.importance.Importance` holds it, log-normal by channel and by group."""
    widths = {}
    tails = [(i,) for i in range(seed.pool_at + 1, len(seed.rows))]
    for group in [*stages(seed), *tails]:
        row = seed.rows[group[0]]
        assert not isinstance(row, Pool)
        widths[f"rows.{group[0]}.out"] = row.out
    for i, row in enumerate(seed.rows):
        if isinstance(row, Bneck) and seed.expands(i):
            widths[f"rows.{i}.expanded"] = row.expanded
        if seed.has_skip(i):
            widths[f"rows.{i}.branch"] = 1
    return {
        key: rng.lognormal(0.0, GROUPS) * _of_sum_1(rng.lognormal(0.0, CHANNELS, width))
        for key, width in widths.items()
    }


def _of_sum_1(values: Array) -> Array:
    found: Array = values / values.sum()
    return found
