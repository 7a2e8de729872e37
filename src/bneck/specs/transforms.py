"""Spec -> spec functions: a variant of a network is an edit of its table, never a second table."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from typing import Literal

from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Pool, Row, SpecError, round8, squeeze_width

Head = Literal["fixed", "scaled"]


def scale_width(spec: NetSpec, width: float, *, head: Head = "fixed") -> NetSpec:
    """Multiply every width by `width`, rounded to 8, as the paper's Table 9 needs it.

    Outputs become round8(width x out), expansions round8(ratio x rounded input). Convs behind the
    pool keep their width up to 1.0; above, `head` says whether they are "fixed" or "scaled" (the
    paper's Large 1.25 has 7.5M parameters only when fixed, Small 1.25 has 3.6M only when scaled).

    Raises:
        SpecError: `width` is not between 0.05 and 10.
    """
    if not 0.05 <= width <= 10:
        raise SpecError(f"the width multiplier is {width!r}; it must be from 0.05 to 10")
    if width == 1:
        return spec
    rows: list[Row] = []
    wide_in, pooled = spec.channels, False
    for i, row in enumerate(spec.rows):
        if isinstance(row, Pool):
            rows.append(row)
            pooled = True
            continue
        keep = pooled and (width < 1 or head == "fixed")
        out = row.out if keep else round8(row.out * width)
        if isinstance(row, Bneck):
            ratio = Fraction(row.expanded, spec.width_into(i))
            rows.append(_with_expanded(replace(row, out=out), round8(float(ratio * wide_in))))
        else:
            rows.append(replace(row, out=out))
        wide_in = out
    return replace(spec, name=f"{spec.name}-{width:g}", rows=tuple(rows))


def _with_expanded(row: Bneck, expanded: int) -> Bneck:
    """`row` with another expansion. A squeeze width follows it where it followed it before."""
    follows = row.se == squeeze_width(row.expanded)
    return replace(row, expanded=expanded, se=squeeze_width(expanded) if follows else row.se)


def with_expanded(spec: NetSpec, index: int, expanded: int) -> NetSpec:
    """Change the expansion of row `index` (NetAdapt's first kind of proposal, section 4.2)."""
    row = spec.rows[index]
    if not isinstance(row, Bneck):
        raise SpecError(f"row {index} is a {row.op}; only a bneck has an expansion")
    rows = list(spec.rows)
    rows[index] = _with_expanded(row, expanded)
    return replace(spec, rows=tuple(rows))


def with_out(spec: NetSpec, indices: tuple[int, ...], out: int) -> NetSpec:
    """Change the output width of several rows at once (NetAdapt's second kind of proposal).

    A row behind them that had no expand convolution (its expansion equals its input) keeps none.
    """
    rows = list(spec.rows)
    for i in indices:
        row = rows[i]
        if isinstance(row, Pool):
            raise SpecError(f"row {i} is a pool; it has no width of its own")
        rows[i] = replace(row, out=out)
    width = spec.channels
    for i, row in enumerate(rows):
        if isinstance(row, Bneck) and row.expanded == spec.width_into(i):
            rows[i] = _with_expanded(row, width)
        width = width if isinstance(row, Pool) else row.out
    return replace(spec, rows=tuple(rows))


def fix_skips(spec: NetSpec) -> NetSpec:
    """Write every residual down as "yes" or "no", so that a later edit can neither make nor lose one."""
    rows = [
        replace(row, skip="yes" if spec.has_skip(i) else "no") if isinstance(row, Bneck) else row
        for i, row in enumerate(spec.rows)
    ]
    return replace(spec, rows=tuple(rows))


def stages(spec: NetSpec) -> list[tuple[int, ...]]:
    """Rows that must keep one common output width, because residuals add them; stem included."""
    groups: list[tuple[int, ...]] = []
    for i, row in enumerate(spec.rows[: spec.pool_at]):
        if isinstance(row, Bneck) and spec.has_skip(i):
            groups[-1] = (*groups[-1], i)
        else:
            groups.append((i,))
    return groups


def random_widths(spec: NetSpec, rng: random.Random, *, least: float = 0.25) -> NetSpec:
    """The same rows with every width drawn anew, from `least` of the seed's to the seed's own.

    A common scale is drawn first, then each width around it, so that small and large networks
    occur; residuals stay as they are in `spec`.
    """
    drawn = fix_skips(spec)
    scale = rng.uniform(least, 1.2)

    def width(seed_width: int) -> int:
        share = min(1.0, max(least, scale * rng.uniform(0.7, 1.3)))
        return min(seed_width, round8(seed_width * share))

    head = [(i,) for i in range(spec.pool_at + 1, len(spec.rows))]
    for group in [*stages(spec), *head]:
        drawn = with_out(drawn, group, width(spec.rows[group[0]].out))  # type: ignore[union-attr]
    for i, row in enumerate(spec.rows):
        if isinstance(row, Bneck) and row.expanded != spec.width_into(i):
            expanded = beside(drawn.width_into(i), width(row.expanded), most=row.expanded)
            drawn = with_expanded(drawn, i, expanded)
    return drawn


def beside(width_in: int, expanded: int, *, most: int) -> int:
    """`expanded`, or a width near it where it equals the input: the expand convolution must stay."""
    near = (expanded, expanded + 8, most, expanded - 8, 1)
    return next(width for width in near if width != width_in and 0 < width <= most)


def with_classes(spec: NetSpec, classes: int) -> NetSpec:
    """The same network for another number of classes."""
    return replace(spec, classes=classes)


def with_resolution(spec: NetSpec, resolution: int) -> NetSpec:
    """The same network for another input side in pixels."""
    return replace(spec, resolution=resolution)


def rename(spec: NetSpec, name: str) -> NetSpec:
    """The same network under another name."""
    return replace(spec, name=name)
