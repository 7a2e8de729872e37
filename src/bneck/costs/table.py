"""Latency tables: milliseconds of fused rows on one device, and estimates of whole networks.

A row (expand, depthwise, squeeze-and-excite, project) is one entry, keyed by its shape and its
widths. Between measured widths an entry is interpolated; sums of rows are calibrated on whole
networks, and the error on networks left out of that is kept with the table.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec, Padding
from bneck.specs.rows import Act, Bneck, Conv, Pool, squeeze_of_input, squeeze_width
from bneck.specs.wrapper import PLAIN, Placed, Wrapper

Widths: TypeAlias = tuple[int, ...]
Array: TypeAlias = npt.NDArray[np.float64]
Sums: TypeAlias = tuple[float, float]  # interpolated between widths, and at widths rounded up

BLOCK = 16  # channels that a vector unit usually takes at once; the calibration says how far
ROUNDINGS = tuple(step / 4 for step in range(6))
LEAST_NETWORKS = 8


class TableError(InputError):
    """A latency table that cannot answer; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class RowShape:
    """What a row is apart from its widths; rows of one shape are interpolated among themselves.

    Widths that go with it: a conv (in, out); a bneck (in, expanded, out), or (expanded, out) where
    it has no expand convolution; a pool (in,); a "context" (in,), see `devices.fill`. `se` is ""
    for none, "quarter" for the paper's squeeze width, "input" for MnasNet's (see `specs.rows`), or
    another width as digits.
    """

    kind: str
    height: int
    width: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    act: Act = "linear"
    se: str = ""
    gate: str = ""
    padding: Padding = "symmetric"
    expands: bool = False
    out_act: Act = "linear"
    fused: bool = False

    def bneck(self, widths: Widths) -> Bneck:
        """The bneck row of this shape and these widths."""
        expanded, out = widths[-2:]
        by_rule = {"quarter": squeeze_width(expanded), "input": squeeze_of_input(widths[0])}
        se = by_rule[self.se] if self.se in by_rule else int(self.se or 0)
        return Bneck(
            self.kernel, expanded, out, se, self.act, self.stride, self.dilation,
            out_act=self.out_act, fused=self.fused,
        )  # fmt: skip


@lru_cache(maxsize=4096)
def _shape_of(
    row: Bneck | Conv, into: int, size: tuple[int, int], padding: Padding, gate: str, expands: bool
) -> RowShape:
    # Padding is nothing to a 1x1 kernel, nor a gate to a row without squeeze-and-excite: one entry each.
    paddings: Padding = padding if row.kernel > 1 else "symmetric"
    shape = RowShape(row.op, *size, row.kernel, row.stride, act=row.act, padding=paddings)
    if isinstance(row, Conv):
        return shape
    se = str(row.se or "")
    if row.se == squeeze_width(row.expanded):
        se = "quarter"
    elif row.se and row.se == squeeze_of_input(into):
        se = "input"
    return replace(
        shape, dilation=row.dilation, se=se, gate=gate if se else "", expands=expands,
        out_act=row.out_act, fused=row.fused,
    )  # fmt: skip


def row_keys(spec: NetSpec, wrapper: Wrapper = PLAIN) -> Iterator[tuple[RowShape, Widths]]:
    """Shape and widths of every row of a wrapped network in order, what follows it included."""
    for placed in wrapper.rows(spec):
        yield key_of(placed, spec)


def key_of(placed: Placed, spec: NetSpec) -> tuple[RowShape, Widths]:
    """Shape and widths of one row of a network."""
    row, into = placed.row, placed.width_in
    if isinstance(row, Pool):
        return RowShape("pool", *placed.size), (into,)
    shape = _shape_of(row, into, placed.size, spec.padding, spec.se_gate, placed.expands)
    if isinstance(row, Conv):
        return shape, (into, row.out)
    return shape, (into, row.expanded, row.out) if placed.expands else (row.expanded, row.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutError:
    """How far estimates were from measured networks that calibrated nothing, as shares of 1."""

    networks: int
    median: float
    p95: float

    def __str__(self) -> str:
        spread = f"median {self.median:.1%}, 95th percentile {self.p95:.1%}"
        return f"error on {self.networks} held-out networks: {spread}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """How a table is calibrated: from the two sums of a network's rows to its latency.

    Vector units work on blocks of channels, so a width costs up to as much as the next multiple of
    16. With `rounding` 0, widths cost what lies between their neighbors; with 1, what the next
    multiple costs. Then latency = scale x sum of rows + offset.
    """

    rounding: float
    scale: float
    offset_ms: float

    def __call__(self, sums: Sums) -> float:
        """Milliseconds of a network with these (between, rounded up) sums."""
        between, up = sums
        return self.scale * (between + self.rounding * (up - between)) + self.offset_ms


@dataclass(slots=True)
class LatencyTable:
    """Measured rows of one device, runtime and precision, and whole networks to calibrate them.

    `header` says where and how it was measured. `rows` maps shape -> widths -> milliseconds;
    `networks` holds (sums of row entries, measured milliseconds, held out?). `wrapper` surrounds every
    network that it estimates.
    """

    header: dict[str, Any]
    rows: dict[RowShape, dict[Widths, float]] = field(default_factory=dict)
    networks: list[tuple[Sums, float, bool]] = field(default_factory=list)
    wrapper: Wrapper = PLAIN
    _cache: dict[tuple[RowShape, Widths], Sums] = field(default_factory=dict, repr=False)
    _line: Line | None = field(default=None, repr=False)

    def add_row(self, shape: RowShape, widths: Widths, ms: float) -> None:
        """Enter one measured row."""
        self.rows.setdefault(shape, {})[widths] = ms
        self._cache.clear()

    def add_network(self, sums: Sums, measured_ms: float, held_out: bool) -> None:
        """Enter one measured network beside the sums of its rows."""
        self.networks.append((sums, measured_ms, held_out))
        self._line = None

    def row_ms(self, shape: RowShape, widths: Widths) -> Sums:
        """Milliseconds of one row: interpolated between measured widths, and at widths rounded up.

        Raises:
            TableError: the shape was never measured, or the widths lie outside the measured ones.
        """
        key = (shape, widths)
        if key not in self._cache:
            known = self.rows.get(shape, {})
            grids = [sorted({w[axis] for w in known}) for axis in range(len(widths))]
            up = tuple(map(_rounded_up, widths, grids))
            between = _interpolate(shape, known, grids, widths)
            self._cache[key] = between, _interpolate(shape, known, grids, up)
        return self._cache[key]

    def rows_ms(self, shape: RowShape, axes: Sequence[Sequence[int]]) -> Array:
        """Calibrated milliseconds of one row at every combination of widths, one axis a width.

        What these give for all rows of a network adds up to its estimate without the calibration's
        offset. Infinite where the table has no answer.
        """
        known, line = self.rows.get(shape, {}), self.line()
        grids = [sorted({widths[axis] for widths in known}) for axis in range(len(axes))]
        missing = np.full([len(axis) for axis in axes], not known)
        if not known:
            return np.where(missing, np.inf, 0.0)
        points = np.array([known.get(widths, np.nan) for widths in product(*grids)])
        points = points.reshape([len(grid) for grid in grids])
        sums = []
        for up in (False, True):
            value, unknown = np.nan_to_num(points), np.isnan(points).astype(float)
            for axis, (widths, grid) in enumerate(zip(axes, grids, strict=True)):
                asked = [_rounded_up(width, grid) if up else width for width in widths]
                shares = _shares(grid, asked)
                value = np.moveaxis(np.tensordot(shares, value, (1, axis)), 0, axis)
                unknown = np.moveaxis(np.tensordot(shares > 0, unknown, (1, axis)), 0, axis)
            sums.append(value)
            missing |= unknown > 0
        for axis, (widths, grid) in enumerate(zip(axes, grids, strict=True)):
            outside = np.array([not grid[0] <= width <= grid[-1] for width in widths])
            missing |= np.expand_dims(outside, [a for a in range(len(axes)) if a != axis])
        between, up_to = sums
        found = line.scale * (between + line.rounding * (up_to - between))
        return np.where(missing, np.inf, found)

    def covers(self, spec: NetSpec) -> bool:
        """Whether every row of `spec` can be answered."""
        try:
            self.sum_rows(spec)
        except TableError:
            return False
        return True

    def sum_rows(self, spec: NetSpec) -> Sums:
        """Milliseconds of all rows added up, not calibrated; see `row_ms`."""
        rows = [self.row_ms(shape, widths) for shape, widths in row_keys(spec, self.wrapper)]
        return sum(between for between, _ in rows), sum(up for _, up in rows)

    def line(self) -> Line:
        """The calibration: least relative error on the networks that are not held out.

        Raises:
            TableError: fewer than 8 networks to calibrate on.
        """
        if self._line is None:
            known = [(sums, ms) for sums, ms, held_out in self.networks if not held_out]
            if len(known) < LEAST_NETWORKS:
                raise TableError(
                    f"the latency table is calibrated on {len(known)} networks; it needs "
                    f"{LEAST_NETWORKS} or more, fill it again"
                )
            fits = [_fit(known, rounding) for rounding in ROUNDINGS]
            self._line = min(fits, key=lambda fit: fit[0])[1]
        return self._line

    def estimate_ms(self, spec: NetSpec) -> float:
        """Estimated latency of a network at batch 1, in milliseconds.

        Raises:
            TableError: the table does not cover the network or is not calibrated.
        """
        return self.line()(self.sum_rows(spec))

    def error(self) -> HeldOutError:
        """Error of the estimates on the held-out networks."""
        line = self.line()
        held_out = [(sums, ms) for sums, ms, out in self.networks if out]
        if not held_out:
            raise TableError("the latency table has no held-out networks; fill it again")
        errors = [abs(line(sums) - ms) / ms for sums, ms in held_out]
        median, p95 = np.percentile(errors, [50, 95])
        return HeldOutError(networks=len(errors), median=float(median), p95=float(p95))


def _fit(known: Sequence[tuple[Sums, float]], rounding: float) -> tuple[float, Line]:
    """(sum of squared relative errors, line) for one degree of rounding up."""
    measured = np.array([ms for _, ms in known])
    rows = np.array([between + rounding * (up - between) for (between, up), _ in known])
    design = np.stack([rows, np.ones_like(rows)], 1) / measured[:, None]
    solution = np.linalg.lstsq(design, np.ones_like(rows), rcond=None)[0]
    error = float(np.square(design @ solution - 1).sum())
    scale, offset = map(float, solution)
    return error, Line(rounding=rounding, scale=scale, offset_ms=offset)


def _rounded_up(width: int, grid: list[int]) -> int:
    up = min(-(-width // BLOCK) * BLOCK, max(grid, default=width))
    return width if width in grid else up


def _shares(grid: list[int], widths: Sequence[int]) -> Array:
    """How much each grid point counts for each width, for linear interpolation: (widths, grid)."""
    return np.stack([np.interp(widths, grid, row) for row in np.eye(len(grid))], axis=1)


def _interpolate(
    shape: RowShape, known: dict[Widths, float], grids: list[list[int]], widths: Widths
) -> float:
    """Multilinear between the corners of the grid cell that `widths` lies in."""
    if widths in known:
        return known[widths]
    cells = []
    for width, grid in zip(widths, grids, strict=True):
        if not grid or not grid[0] <= width <= grid[-1]:
            measured = f"{grid[0]} to {grid[-1]}" if grid else "nothing"
            raise TableError(
                f"the latency table cannot answer for a {shape.kind} at {shape.height}x{shape.width} "
                f"with widths {widths}: it measured {measured} there; fill it for this network first"
            )
        low = max(0, min(bisect_right(grid, width) - 1, len(grid) - 2))
        high = min(low + 1, len(grid) - 1)
        share = (width - grid[low]) / (grid[high] - grid[low]) if high > low else 0.0
        cells.append([(grid[low], 1 - share), (grid[high], share)])
    total = 0.0
    for corner in product(*cells):
        weight = float(np.prod([share for _, share in corner]))
        if weight:
            point = tuple(w for w, _ in corner)
            if point not in known:
                raise TableError("the latency table is only partly filled; fill it again")
            total += weight * known[point]
    return total
