"""What of a network may be narrowed: groups of channels, residual rows, and what each width costs.

A group is channels that narrow together, by the keys of `nets.importance.Importance`; a term is a row
of the wrapped network, whose latency depends on the widths of a few groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from bneck.costs.table import RowShape, row_keys
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Pool, SpecError
from bneck.specs.transforms import squeezed_like, stages, with_expanded, with_out
from bneck.specs.wrapper import Wrapper

Array: TypeAlias = npt.NDArray[np.float64]
Keys: TypeAlias = tuple[str, ...]


class RowCosts(Protocol):
    """What networks cost, row by row: a `LatencyTable`, or something of its kind."""

    @property
    def wrapper(self) -> Wrapper:
        """What surrounds every network."""

    def estimate_ms(self, spec: NetSpec) -> float:
        """Milliseconds of a network: a constant and its rows."""

    def rows_ms(self, shape: RowShape, axes: Sequence[Sequence[int]]) -> Array:
        """Milliseconds of one row at every combination of widths; infinite where there is no answer."""


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that narrow together: widths, rising, and the importance lost at each.

    `inside` is the row whose expansion it is; else `rows` put it out.
    """

    key: str
    rows: tuple[int, ...]
    inside: int | None
    widths: tuple[int, ...]
    lost: Array


@dataclass(frozen=True, slots=True)
class Term:
    """A cost, as the milliseconds of a row, by the options of the groups that it depends on, an axis each."""

    keys: Keys
    cost: Array


def find_groups(
    seed: NetSpec, importance: Mapping[str, Array], wrapper: Wrapper, least: int, grid: int
) -> Iterator[Group]:
    there = _rows_in(seed, wrapper)
    tied = [group for group in stages(seed) if group[0] in there]
    tied += [(i,) for i in range(seed.pool_at + 1, len(seed.rows)) if i in there]
    for rows in tied:
        row = seed.rows[rows[0]]
        assert not isinstance(row, Pool)
        key = f"rows.{rows[0]}.out"
        yield _group(key, rows, None, row.out, importance, seed, least, grid)
    for i in sorted(there):
        if seed.expands(i):
            row = seed.rows[i]
            assert isinstance(row, Bneck)
            key = f"rows.{i}.expanded"
            yield _group(key, (i,), i, row.expanded, importance, seed, least, grid)


def _group(
    key: str,
    rows: tuple[int, ...],
    inside: int | None,
    most: int,
    importance: Mapping[str, Array],
    seed: NetSpec,
    least: int,
    grid: int,
) -> Group:
    values = np.sort(_of(importance, key, most, seed))
    gone = np.concatenate([[0.0], np.cumsum(values)])  # by how many channels are gone
    start = -(-max(least, 1) // grid) * grid
    widths = (*range(start, most, grid), most)
    return Group(key, rows, inside, widths, gone[[most - width for width in widths]])


def _of(importance: Mapping[str, Array], key: str, width: int, seed: NetSpec) -> Array:
    values = importance.get(key, np.zeros(0))
    if len(values) != width:
        raise InputError(
            f"{key} has {width} channels in {seed.name} and {len(values)} in the importance; measure the "
            "importance of this network"
        )
    return np.asarray(values, np.float64)


def _rows_in(seed: NetSpec, wrapper: Wrapper) -> set[int]:
    """The network's rows that take part."""
    walk = wrapper.around(seed).layers(wrapper.size(seed))
    return {layer.row for layer in walk if layer.name.startswith("rows.")}


def removable_rows(
    seed: NetSpec, importance: Mapping[str, Array], wrapper: Wrapper
) -> Iterator[tuple[int, float]]:
    """Residual rows with their importance; not those inside which a head takes a map."""
    sources = (source.split(".") for source in wrapper.around(seed).feeds().values())
    tapped = {int(s[1]) for s in sources if s[0] == "rows" and s[2:] not in ([], ["project"])}
    for i in sorted(_rows_in(seed, wrapper) - tapped):
        if seed.has_skip(i):
            yield i, float(_of(importance, f"rows.{i}.branch", 1, seed)[0])


def find_terms(seed: NetSpec, groups: Mapping[str, Group], costs: RowCosts) -> list[Term]:
    """The rows of the wrapped network, each by the groups that its widths follow.

    Which these are shows when one group at a time is narrowed.
    """
    base = list(row_keys(seed, costs.wrapper))
    follows: list[dict[int, str]] = [{} for _ in base]  # axis -> group
    for group in groups.values():
        for (_, now), (_, was), axes in zip(
            _narrowed(seed, group, costs.wrapper, base), base, follows, strict=True
        ):
            axes |= {i: group.key for i in range(len(was)) if now[i] != was[i]}
    terms = []
    for (shape, widths), axes in zip(base, follows, strict=True):
        options = [
            groups[axes[i]].widths if i in axes else (width,) for i, width in enumerate(widths)
        ]
        ms = np.asarray(costs.rows_ms(shape, options))
        if shape.kind == "bneck" and shape.expands and not shape.fused:
            # Where an expansion equals the input its convolution would be lost.
            into, expanded = (np.array(options[axis]) for axis in (0, 1))
            ms = np.where((into[:, None] == expanded)[..., None], np.inf, ms)
        keys = tuple(dict.fromkeys(axes[i] for i in sorted(axes)))
        ms = ms[tuple(slice(None) if i in axes else 0 for i in range(len(widths)))]
        # Input and output of a residual row are one group: the diagonal.
        letters = "".join("abcd"[keys.index(axes[i])] for i in sorted(axes))
        terms.append(Term(keys, np.einsum(f"{letters}->{'abcd'[: len(keys)]}", ms)))
    return terms


def _narrowed(
    seed: NetSpec, group: Group, wrapper: Wrapper, base: Sequence[tuple[RowShape, tuple[int, ...]]]
) -> list[tuple[RowShape, tuple[int, ...]]]:
    """The rows with another width of a group, none of which loses its expand convolution."""
    for width in reversed(group.widths[:-1]):
        try:
            if group.inside is not None:
                spec = with_expanded(seed, group.inside, width)
            else:
                spec = with_out(seed, group.rows, width)
        except SpecError:  # of a row that cannot be without
            continue
        found = list(row_keys(squeezed_like(spec, seed), wrapper))
        if all(len(now) == len(was) for (_, now), (_, was) in zip(found, base, strict=True)):
            return found
    return list(base)
