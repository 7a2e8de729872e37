"""Latency tables: milliseconds of fused rows on one device, and estimates of whole networks.

A row (expand, depthwise, squeeze-and-excite, project) is one entry, keyed by its shape and its
widths. Between measured widths an entry is interpolated; sums of rows are calibrated on whole
networks, and the error on networks left out of that is kept with the table.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec, Padding
from bneck.specs.rows import Act, Bneck, Conv, Pool, squeeze_width

Widths: TypeAlias = tuple[int, ...]


class TableError(InputError):
    """A latency table that cannot answer; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class RowShape:
    """What a row is apart from its widths; rows of one shape are interpolated among themselves.

    Widths that go with it: a conv (in, out); a bneck (in, expanded, out), or (expanded, out) where
    it has no expand convolution; a pool (in,); a "context" (in,), see `devices.fill`. `se` is ""
    for none, "quarter" for the paper's squeeze width, or another width as digits.
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


@lru_cache(maxsize=4096)
def _shape_of(
    row: Bneck | Conv, height: int, width: int, padding: Padding, gate: str, expands: bool
) -> RowShape:
    se = ""
    if isinstance(row, Bneck) and row.se:
        se = "quarter" if row.se == squeeze_width(row.expanded) else str(row.se)
    return RowShape(
        kind=row.op,
        height=height,
        width=width,
        kernel=row.kernel,
        stride=row.stride,
        dilation=row.dilation if isinstance(row, Bneck) else 1,
        act=row.act,
        se=se,
        gate=gate if se else "",
        padding=padding if row.kernel > 1 else "symmetric",
        expands=expands,
    )


def row_keys(spec: NetSpec) -> Iterator[tuple[RowShape, Widths]]:
    """Shape and widths of every row of a network, classifier included, in order."""
    height = width = spec.resolution
    channels = spec.channels
    for row in spec.rows:
        if isinstance(row, Pool):
            yield RowShape("pool", height, width), (channels,)
            height = width = 1
            continue
        expands = isinstance(row, Bneck) and row.expanded != channels
        shape = _shape_of(row, height, width, spec.padding, spec.se_gate, expands)
        if isinstance(row, Conv):
            yield shape, (channels, row.out)
        elif expands:
            yield shape, (channels, row.expanded, row.out)
        else:
            yield shape, (row.expanded, row.out)
        channels = row.out
        height, width = -(-height // row.stride), -(-width // row.stride)
    yield RowShape("conv", height, width), (channels, spec.classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableError95:
    """How far estimates were from measured networks that calibrated nothing, as shares of 1."""

    networks: int
    median: float
    p95: float

    def __str__(self) -> str:
        return (
            f"error on {self.networks} held-out networks: median {self.median:.1%}, "
            f"95th percentile {self.p95:.1%}"
        )


@dataclass(slots=True)
class LatencyTable:
    """Measured rows of one device, runtime and precision, and whole networks to calibrate them.

    `header` says where and how it was measured. `rows` maps shape -> widths -> milliseconds;
    `networks` holds (sum of row entries, measured milliseconds, held out?) of whole networks.
    """

    header: dict[str, Any]
    rows: dict[RowShape, dict[Widths, float]] = field(default_factory=dict)
    networks: list[tuple[float, float, bool]] = field(default_factory=list)
    _cache: dict[tuple[RowShape, Widths], float] = field(default_factory=dict, repr=False)
    _line: tuple[float, float] | None = field(default=None, repr=False)

    def add_row(self, shape: RowShape, widths: Widths, ms: float) -> None:
        """Enter one measured row."""
        self.rows.setdefault(shape, {})[widths] = ms
        self._cache.clear()

    def add_network(self, rows_ms: float, measured_ms: float, held_out: bool) -> None:
        """Enter one measured network beside the sum of its rows."""
        self.networks.append((rows_ms, measured_ms, held_out))
        self._line = None

    def row_ms(self, shape: RowShape, widths: Widths) -> float:
        """Milliseconds of one row, interpolated between measured widths.

        Raises:
            TableError: the shape was never measured, or the widths lie outside what was.
        """
        key = (shape, widths)
        if key not in self._cache:
            self._cache[key] = _interpolate(shape, self.rows.get(shape, {}), widths)
        return self._cache[key]

    def covers(self, spec: NetSpec) -> bool:
        """Whether every row of `spec` can be answered."""
        try:
            self.sum_rows(spec)
        except TableError:
            return False
        return True

    def sum_rows(self, spec: NetSpec) -> float:
        """Milliseconds of all rows added up, not calibrated."""
        return sum(self.row_ms(shape, widths) for shape, widths in row_keys(spec))

    def line(self) -> tuple[float, float]:
        """(scale, offset in ms): the straight line from sums of rows to whole networks.

        Fitted by least relative error on the networks that are not held out.
        """
        if self._line is None:
            known = [(rows, ms) for rows, ms, held_out in self.networks if not held_out]
            if len(known) < 8:
                raise TableError(
                    f"the latency table is calibrated on {len(known)} networks; it needs 8 or more, "
                    "fill it again"
                )
            sums, measured = np.array(known).T
            design = np.stack([sums, np.ones_like(sums)], 1) / measured[:, None]
            scale, offset = np.linalg.lstsq(design, np.ones_like(sums), rcond=None)[0]
            self._line = (float(scale), float(offset))
        return self._line

    def estimate_ms(self, spec: NetSpec) -> float:
        """Estimated latency of a network at batch 1, in milliseconds.

        Raises:
            TableError: the table does not cover the network or is not calibrated.
        """
        scale, offset = self.line()
        return scale * self.sum_rows(spec) + offset

    def error(self) -> TableError95:
        """Error of the estimates on the held-out networks."""
        scale, offset = self.line()
        held_out = [(rows, ms) for rows, ms, out in self.networks if out]
        if not held_out:
            raise TableError("the latency table has no held-out networks; fill it again")
        errors = [abs(scale * rows + offset - ms) / ms for rows, ms in held_out]
        median, p95 = np.percentile(errors, [50, 95])
        return TableError95(networks=len(errors), median=float(median), p95=float(p95))


def _interpolate(shape: RowShape, known: dict[Widths, float], widths: Widths) -> float:
    """Multilinear between the corners of the grid cell that `widths` lies in."""
    if widths in known:
        return known[widths]
    cells = []
    for axis, width in enumerate(widths):
        grid = sorted({w[axis] for w in known})
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
