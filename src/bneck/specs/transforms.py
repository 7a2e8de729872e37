"""Spec -> spec functions: a variant of a network is an edit of its table, never a second table."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from bneck.specs.network import NetSpec
from bneck.specs.rows import (
    Bneck,
    Conv,
    Pool,
    Row,
    SpecError,
    round8,
    squeeze_of_input,
    squeeze_width,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthRule:
    """Which widths a family of networks keeps when all others are multiplied.

    Up to 1.0 the convs after the pool keep theirs ("head"), or all convs after the last bneck
    ("tail"), or none do. Above 1.0 these are "fixed" too, or "scaled" like the rest. Scaled widths
    are rounded to 8 (`round8`), or down to a whole number, at least 8 (MobileNetV1). With `stem` it
    keeps its width up to 1.0 (MobileNetV4). Squeeze widths are kept a quarter of what they are one of
    at width 1; "input" decides where that is both the expansion and the input (LCNet).
    """

    keeps: Literal["head", "tail", "none"] = "head"
    above_one: Literal["fixed", "scaled"] = "fixed"
    rounding: Literal["by8", "down"] = "by8"
    stem: bool = False
    squeeze_of: Literal["expansion", "input"] = "expansion"

    def kept(self, spec: NetSpec, width: float) -> set[int]:
        stem = {0} if self.stem and width < 1 else set()
        if self.keeps == "none" or (width > 1 and self.above_one == "scaled"):
            return stem
        last = max((i for i, row in enumerate(spec.rows) if isinstance(row, Bneck)), default=0)
        first = (last if self.keeps == "tail" else spec.pool_at) + 1
        return stem | {*range(first, len(spec.rows))}

    def rounded(self, value: float) -> int:
        return round8(value) if self.rounding == "by8" else max(8, int(value))


def scale_width(spec: NetSpec, width: float, rule: WidthRule | None = None) -> NetSpec:
    """Multiply every width by `width`, rounded to 8, as the paper's Table 9 needs it.

    Outputs become round8(width x out), expansions round8(ratio x rounded input), and no row gains
    or loses its expand convolution. Squeeze widths stay a quarter of the expansion, or of the row's
    input (MnasNet). `rule` says which rows keep their width; None takes the paper's for V3-Large: its
    1.25 has 7.5M parameters only so, while Small's 1.25 has 3.6M only with a scaled head.

    Raises:
        SpecError: `width` is not between 0.05 and 10.
    """
    if not 0.05 <= width <= 10:
        raise SpecError(f"the width multiplier is {width!r}; it must be from 0.05 to 10")
    if width == 1:
        return spec
    rule = rule or WidthRule()
    kept = rule.kept(spec, width)
    rows: list[Row] = []
    into = spec.channels
    for i, row in enumerate(spec.rows):
        if isinstance(row, Pool):
            rows.append(row)
            continue
        row = row if i in kept else replace(row, out=rule.rounded(row.out * width))
        if isinstance(row, Bneck):
            before = spec.width_into(i)
            ratio = Fraction(row.expanded, before)
            expanded = rule.rounded(float(ratio * into)) if spec.expands(i) else into
            if row.needs_expansion and expanded == into:
                expanded += 8
            by_input = rule.squeeze_of == "input" and row.se == squeeze_of_input(before)
            row = refit(row, expanded, before, into)
            row = replace(row, se=squeeze_of_input(into)) if by_input else row
        rows.append(row)
        into = row.out
    return replace(spec, name=f"{spec.name}-{width:g}", rows=tuple(rows))


def minimalistic(spec: NetSpec) -> NetSpec:
    """Same channels and strides for simple hardware: no squeeze-and-excite, ReLU and 3x3 only.

    The authors' "minimalistic" networks; 1x1 convs stay 1x1, linear projections linear.
    """

    def simple(row: Row) -> Row:
        if isinstance(row, Bneck):
            kernel, start = min(row.kernel, 3), min(row.start, 3)
            return replace(row, kernel=kernel, start=start, se=0, act="relu")
        return replace(row, act="relu") if isinstance(row, Conv) and row.act != "linear" else row

    return replace(spec, name=f"{spec.name}-minimalistic", rows=tuple(map(simple, spec.rows)))


def refit(row: Bneck, expanded: int, before: int, into: int) -> Bneck:
    """`row` with another expansion, and `into` channels entering it where `before` did.

    A squeeze width that was a quarter of the expansion, or of the input (MnasNet), stays so.
    """
    se = row.se
    if se == squeeze_width(row.expanded):
        se = squeeze_width(expanded)
    elif se == squeeze_of_input(before):
        se = squeeze_of_input(into)
    return replace(row, expanded=expanded, se=se)


def with_expanded(spec: NetSpec, index: int, expanded: int) -> NetSpec:
    """Change the expansion of row `index` (NetAdapt's first kind of proposal, section 4.2)."""
    return with_widths(spec, {}, {index: expanded})


def with_out(spec: NetSpec, indices: tuple[int, ...], out: int) -> NetSpec:
    """Change the output width of several rows at once (NetAdapt's second kind of proposal).

    A row after them that has no expand convolution gets none.
    """
    return with_widths(spec, dict.fromkeys(indices, out), {})


def with_widths(
    spec: NetSpec, out: Mapping[int, int], expanded: Mapping[int, int], *, without: Collection[int] = ()
) -> NetSpec:  # fmt: skip
    """Change outputs and expansions of several rows at once, by row.

    Other rows keep theirs, but one without an expand convolution gets none. Rows `without` are left
    out; they must be residual ones.
    """
    rows = list(spec.rows)
    for i in out:
        if isinstance(rows[i], Pool):
            raise SpecError(f"row {i} is a pool; it has no width of its own")
    for i in expanded:
        if not isinstance(rows[i], Bneck):
            raise SpecError(f"row {i} is a {rows[i].op}; only a bneck has an expansion")
    width = spec.channels
    for i, row in enumerate(rows):
        if isinstance(row, Pool) or i in without:
            continue
        row = replace(row, out=out.get(i, row.out))
        if isinstance(row, Bneck):
            usual = row.expanded if spec.expands(i) else width
            row = refit(row, expanded.get(i, usual), spec.width_into(i), width)
        rows[i] = row
        width = row.out
    return replace(spec, rows=tuple(row for i, row in enumerate(rows) if i not in without))


def squeezed_like(spec: NetSpec, seed: NetSpec) -> NetSpec:
    """`spec`, a narrower `seed`, with the squeeze widths that one edit of `seed` alone would give it.

    Edit by edit, a squeeze width that means nothing may meet a quarter of some width in between.
    """
    rows = list(spec.rows)
    for i, (row, wide) in enumerate(zip(spec.rows, seed.rows, strict=True)):
        if isinstance(row, Bneck) and isinstance(wide, Bneck) and wide.se:
            like = refit(wide, row.expanded, seed.width_into(i), spec.width_into(i))
            rows[i] = replace(row, se=like.se)
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
    """The same rows and residuals with random widths, from `least` of the seed's to the seed's own."""
    # One scale for all widths first: independent widths alone would make every network mid-sized.
    scale = rng.uniform(least, 1.2)

    def width(seed_width: int) -> int:
        share = min(1.0, max(least, scale * rng.uniform(0.7, 1.3)))
        return min(seed_width, round8(seed_width * share))

    head = [(i,) for i in range(spec.pool_at + 1, len(spec.rows))]
    out: dict[int, int] = {}
    for group in [*stages(spec), *head]:
        out |= dict.fromkeys(group, width(spec.rows[group[0]].out))  # type: ignore[union-attr]
    expanded = {}
    for i, row in enumerate(spec.rows):
        if isinstance(row, Bneck) and spec.expands(i):
            into, most = out[i - 1], row.expanded
            expanded[i] = beside(into, width(most), most=most, fused=row.fused)
    return with_widths(fix_skips(spec), out, expanded)


def beside(width_in: int, expanded: int, *, most: int, fused: bool) -> int:
    """`expanded`, or a width near it, up to `most`, with which the row keeps its expand convolution."""
    if fused:
        return expanded  # its expand convolution is there at any width
    # A row whose expansion equals its input has no expand convolution.
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
