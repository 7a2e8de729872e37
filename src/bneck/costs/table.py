"""Latency tables: milliseconds of fused rows on one device, and estimates of whole networks.

A row (start, expand, depthwise, squeeze-and-excite, project) is one entry, keyed by its shape and its
widths. A law for each shape answers for all widths between the measured ones; sums of rows are
calibrated on whole networks, and the error on networks left out of that is kept with the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bneck.costs.laws import Law
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec, Padding
from bneck.specs.rows import Act, Bneck, Conv, Pool, squeeze_of_input, squeeze_width
from bneck.specs.wrapper import PLAIN, Placed, Wrapper

Widths: TypeAlias = tuple[int, ...]
Array: TypeAlias = npt.NDArray[np.float64]

ROUNDINGS = tuple(step / 4 for step in range(6))
LEAST_NETWORKS = 8
# One load of a network is off by 2 %, the rows of one shape by 10 % of what others are: (0.02 / 0.1)^2.
DAMPING = 0.04
# Of a network that was measured on the way: it is like those that are asked for next.
LEARNED_WEIGHT = 4.0


class TableError(InputError):
    """A latency table that cannot answer; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class RowShape:
    """What a row is apart from its widths; rows of one shape follow one law.

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
    start: int = 0

    def bneck(self, widths: Widths) -> Bneck:
        """The bneck row of this shape and these widths."""
        expanded, out = widths[-2:]
        by_rule = {"quarter": squeeze_width(expanded), "input": squeeze_of_input(widths[0])}
        se = by_rule[self.se] if self.se in by_rule else int(self.se or 0)
        return Bneck(
            self.kernel, expanded, out, se, self.act, self.stride, self.dilation,
            out_act=self.out_act, fused=self.fused, start=self.start,
        )  # fmt: skip


Key: TypeAlias = tuple[RowShape, Widths]


@lru_cache(maxsize=4096)
def _shape_of(
    row: Bneck | Conv, into: int, size: tuple[int, int], padding: Padding, gate: str, expands: bool
) -> RowShape:
    # Padding is nothing to a 1x1 kernel, nor a gate to a row without squeeze-and-excite: one entry each.
    start = row.start if isinstance(row, Bneck) else 0
    paddings: Padding = padding if max(row.kernel, start) > 1 else "symmetric"
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
        out_act=row.out_act, fused=row.fused, start=start,
    )  # fmt: skip


def row_keys(spec: NetSpec, wrapper: Wrapper = PLAIN) -> Iterator[Key]:
    """Shape and widths of every row of a wrapped network in order, what follows it included."""
    for placed in wrapper.rows(spec):
        yield key_of(placed, spec)


def key_of(placed: Placed, spec: NetSpec) -> Key:
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
    """How far estimates were from measured networks that calibrated nothing, as shares of 1.

    `bias` is their mean, above 0 where estimates are too high.
    """

    networks: int
    median: float
    p95: float
    bias: float

    def __str__(self) -> str:
        spread = f"median {self.median:.1%}, 95th percentile {self.p95:.1%}, mean {self.bias:+.1%}"
        return f"error on {self.networks} held-out networks: {spread}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """How a table is calibrated: latency = sum of (scale + its shape's share) x row, and the offset.

    Vector units work on blocks of channels, so a width costs up to as much as the next multiple of
    16: with `rounding` 1 fully, with 0 not at all; see `costs.laws`. `shares` are what rows of a shape
    take inside networks beyond what they take alone.
    """

    rounding: float
    scale: float
    offset_ms: float
    shares: Mapping[RowShape, float] = field(default_factory=dict)

    def factor(self, shape: RowShape) -> float:
        """What rows of a shape are multiplied by."""
        return self.scale + self.shares.get(shape, 0.0)


@dataclass(slots=True)
class LatencyTable:
    """Measured rows of one device, runtime and precision, and whole networks to calibrate them.

    `header` says where and how it was measured. `rows` maps shape -> widths -> milliseconds;
    `networks` holds (keys of its rows, measured milliseconds, held out?), `learned` the milliseconds of
    networks that were measured while it was used. `wrapper` surrounds every network that it estimates.
    """

    header: dict[str, Any]
    rows: dict[RowShape, dict[Widths, float]] = field(default_factory=dict)
    networks: list[tuple[tuple[Key, ...], float, bool]] = field(default_factory=list)
    wrapper: Wrapper = PLAIN
    learned: dict[tuple[Key, ...], float] = field(default_factory=dict)
    _laws: dict[tuple[RowShape, float], Law] = field(default_factory=dict, repr=False)
    _spans: dict[RowShape, list[tuple[int, int]]] = field(default_factory=dict, repr=False)
    _cache: dict[Key, float] = field(default_factory=dict, repr=False)
    _line: Line | None = field(default=None, repr=False)

    def add_row(self, shape: RowShape, widths: Widths, ms: float) -> None:
        """Enter one measured row."""
        self.rows.setdefault(shape, {})[widths] = ms
        for known in (self._laws, self._spans, self._cache):
            known.clear()
        self._line = None

    def add_network(self, keys: Iterable[Key], measured_ms: float, held_out: bool) -> None:
        """Enter one measured network, by its `row_keys`; what is not held out moves the calibration."""
        self.networks.append((tuple(keys), measured_ms, held_out))
        self._cache.clear()
        self._line = None

    def learn(self, spec: NetSpec, measured_ms: float) -> None:
        """Calibrate anew with a network that was measured, if every row of it can be answered."""
        if self.covers(spec):
            key = tuple(row_keys(spec, self.wrapper))
            if self.learned.get(key) != measured_ms:
                self.learned[key] = measured_ms
                self._cache.clear()
                self._line = None

    def uncalibrated(self) -> LatencyTable:
        """The measured rows alone: networks take as long as their rows add up to."""
        line = Line(rounding=1.0, scale=1.0, offset_ms=0.0)
        return replace(self, networks=[], learned={}, _cache={}, _line=line)

    def row_ms(self, shape: RowShape, widths: Widths) -> float:
        """Calibrated milliseconds of one row; those of a network's rows and the offset add up to its estimate.

        Raises:
            TableError: the shape was never measured, or the widths lie outside the measured ones; or
                the table is not calibrated.
        """
        key = (shape, widths)
        if key not in self._cache:
            self._check(shape, widths)
            line, at = self.line(), [np.array(width) for width in widths]
            self._cache[key] = line.factor(shape) * float(self._law(shape, line.rounding)(at))
        return self._cache[key]

    def rows_ms(self, shape: RowShape, axes: Sequence[Sequence[int]]) -> Array:
        """Calibrated milliseconds of one row at every combination of widths, one axis a width.

        Infinite where the table has no answer.
        """
        widths = np.meshgrid(*axes, indexing="ij", sparse=True)
        sizes = [len(axis) for axis in axes]
        spans = self._span(shape)
        if not spans:
            return np.full(sizes, np.inf)
        line = self.line()
        ms = line.factor(shape) * self._law(shape, line.rounding)(widths)
        outside = np.zeros(sizes, bool)
        for (low, high), width in zip(spans, widths, strict=True):
            outside |= (width < low) | (width > high)
        return np.where(outside, np.inf, np.broadcast_to(ms, sizes))

    def covers(self, spec: NetSpec) -> bool:
        """Whether every row of `spec` can be answered."""
        try:
            for key in row_keys(spec, self.wrapper):
                self._check(*key)
        except TableError:
            return False
        return True

    def line(self) -> Line:
        """The calibration: least relative error on the networks that are not held out, and the learned.

        Raises:
            TableError: fewer than 8 networks to calibrate on.
        """
        if self._line is None:
            known = [(keys, ms) for keys, ms, held_out in self.networks if not held_out]
            if len(known) < LEAST_NETWORKS:
                raise TableError(
                    f"the latency table is calibrated on {len(known)} networks; it needs "
                    f"{LEAST_NETWORKS} or more, fill it again"
                )
            weights = np.array([1.0] * len(known) + [LEARNED_WEIGHT] * len(self.learned))
            known += self.learned.items()
            measured, networks = np.array([ms for _, ms in known]), [keys for keys, _ in known]
            shapes = list(dict.fromkeys(shape for keys, _ in known for shape, _ in keys))
            fits = [
                _fit(self._sums(networks, shapes, rounding), measured, weights, rounding, shapes)
                for rounding in ROUNDINGS
            ]
            self._line = min(fits, key=lambda fit: fit[0])[1]
        return self._line

    def estimate_ms(self, spec: NetSpec) -> float:
        """Estimated latency of a network at batch 1, in milliseconds.

        Raises:
            TableError: the table does not cover the network or is not calibrated.
        """
        return self._estimate_ms(row_keys(spec, self.wrapper))

    def error(self) -> HeldOutError:
        """Error of the estimates on the held-out networks."""
        held_out = [(keys, ms) for keys, ms, out in self.networks if out]
        if not held_out:
            raise TableError("the latency table has no held-out networks; fill it again")
        errors = np.array([self._estimate_ms(keys) / ms - 1 for keys, ms in held_out])
        median, p95 = np.percentile(np.abs(errors), [50, 95])
        return HeldOutError(
            networks=len(errors), median=float(median), p95=float(p95), bias=float(errors.mean())
        )

    def _estimate_ms(self, keys: Iterable[Key]) -> float:
        return self.line().offset_ms + sum(self.row_ms(*key) for key in keys)

    def _sums(
        self, networks: Sequence[Sequence[Key]], shapes: Sequence[RowShape], rounding: float
    ) -> Array:
        """Milliseconds of every network's rows of each shape, not calibrated: (networks, shapes)."""
        found = np.zeros((len(networks), len(shapes)))
        for column, shape in enumerate(shapes):
            pairs = [(n, w) for n, keys in enumerate(networks) for s, w in keys if s == shape]
            for _, widths in pairs:
                self._check(shape, widths)
            axes = list(np.array([widths for _, widths in pairs]).T)
            of = [n for n, _ in pairs]
            np.add.at(found[:, column], of, self._law(shape, rounding)(axes))
        return found

    def _law(self, shape: RowShape, rounding: float) -> Law:
        if (shape, rounding) not in self._laws:
            self._laws[shape, rounding] = Law(self.rows[shape], rounding, se=shape.se)
        return self._laws[shape, rounding]

    def _span(self, shape: RowShape) -> list[tuple[int, int]]:
        """The least and the greatest measured width on each axis."""
        if shape not in self._spans:
            axes = zip(*self.rows.get(shape, {}), strict=True)
            self._spans[shape] = [(min(axis), max(axis)) for axis in axes]
        return self._spans[shape]

    def _check(self, shape: RowShape, widths: Widths) -> None:
        spans = self._span(shape)
        outside = [
            f"{low} to {high}"
            for (low, high), width in zip(spans, widths, strict=bool(spans))
            if not low <= width <= high
        ]
        if outside or not spans:
            measured = outside[0] if outside else "nothing"
            raise TableError(
                f"the latency table cannot answer for a {shape.kind} at {shape.height}x{shape.width} "
                f"with widths {widths}: it measured {measured} there; fill it for this network first"
            )


def _fit(
    sums: Array, measured: Array, weights: Array, rounding: float, shapes: Sequence[RowShape]
) -> tuple[float, Line]:
    """(sum of squared relative errors and of what keeps the shares small, line) for one rounding."""
    shares = np.sqrt(weights) / measured
    design = np.column_stack([sums.sum(1), np.ones(len(sums)), sums]) * shares[:, None]
    damped = np.zeros((len(shapes), design.shape[1]))
    damped[:, 2:] = DAMPING**0.5 * np.eye(len(shapes))
    design = np.concatenate([design, damped])
    aims = np.concatenate([shares * measured, np.zeros(len(shapes))])
    solution = np.linalg.lstsq(design, aims, rcond=None)[0]
    error = float(np.square(design @ solution - aims).sum())
    scale, offset_ms, *beyond = map(float, solution)
    line = Line(
        rounding=rounding, scale=scale, offset_ms=offset_ms,
        shares=dict(zip(shapes, beyond, strict=True)),
    )  # fmt: skip
    return error, line
