"""The paper's ablations as spec -> spec functions, and the names they go by: `v3-large+relu`.

A variant states what a network is to have; one that has it already stays as it is, one that cannot
have it is refused. Each returns a network named like the old one with "+" and its own name behind.
Those that change the last rows are in `specs.tails`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias, get_args

from bneck.specs.network import NetSpec
from bneck.specs.rows import (
    Act,
    Bneck,
    Conv,
    Pool,
    Row,
    SpecError,
    squeeze_of_input,
    squeeze_width,
)
from bneck.specs.tails import (
    dagger,
    edited,
    efficient_tail,
    last_stage,
    original_tail,
    output_stride,
    rf2,
)
from bneck.specs.transforms import with_out

# One variant of each kind at most. They are applied in this order, whatever order a name has.
Kind: TypeAlias = Literal[
    "nonlinearity", "stem", "squeeze width", "last stage", "reduced tail", "output stride"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
# These speak of the full-width table's channels; the others shape what the width has left.
BEFORE_WIDTH: tuple[Kind, ...] = ("nonlinearity", "stem")


def relu_everywhere(spec: NetSpec) -> NetSpec:
    """ReLU in every row (Table 5, "ReLU"; the ReLU curve of Fig. 8).

    Linear projections stay linear, and the gates of squeeze-and-excite stay what they are.
    """
    return edited(spec, [_acting(row, "relu") for row in spec.rows], "relu")


def hswish_from(spec: NetSpec, channels: int) -> NetSpec:
    """h-swish from the first row with `channels` output channels on, ReLU before (Table 5, Fig. 8).

    The table's h-swish@16 is h-swish everywhere, @80 is V3-Large itself, @112 begins one stage
    later. The stem is a choice of its own (section 5.1) and keeps its nonlinearity, unless the row
    right after it is the first: then it has h-swish too. A ReLU6 before the first row stays.

    Args:
        spec: the network, at width 1.0 if `channels` are to be the table's.
        channels: at least 1; the first row behind the stem with as many or more outputs counts.

    Raises:
        SpecError: no row is that wide.
    """
    wide = [i for i, row in enumerate(spec.rows) if i and not isinstance(row, Pool)]
    first = next((i for i in wide if _out(spec.rows[i]) >= channels), None)
    if first is None or channels < 1:
        most = max((_out(spec.rows[i]) for i in wide), default=0)
        raise SpecError(
            f"{spec.name} has no row with {channels} channels that h-swish could start from; "
            f"choose from 1 to {most}"
        )
    rows = []
    for i, row in enumerate(spec.rows):
        if i >= first or (i == 0 and first == 1):
            rows.append(_acting(row, "hswish"))
        elif i and not isinstance(row, Pool) and row.act == "hswish":
            rows.append(_acting(row, "relu"))
        else:
            rows.append(row)
    return edited(spec, rows, f"hswish{channels}")


def with_stem(spec: NetSpec, out: int, act: Act) -> NetSpec:
    """A stem of `out` filters with nonlinearity `act` (section 5.1).

    The paper goes from 32 filters with ReLU to 16 with h-swish and saves 2 ms and 10M multiply-adds
    at equal accuracy. By the table of V3-Large it is, at 112 x 112: stem 27 x 16, depthwise 9 x 16
    and projection 16 x 16 a pixel, together 10,436,608. A row behind the stem that expands nothing
    goes on expanding nothing, and adds its input exactly where widths then agree.

    Raises:
        SpecError: `out` is not at least 1, or a residual that the spec asks for forbids it.
    """
    narrowed = with_out(spec, (0,), out)
    rows = [_acting(narrowed.rows[0], act), *narrowed.rows[1:]]
    return edited(spec, rows, f"stem{out}-{act}")


def no_squeeze(spec: NetSpec) -> NetSpec:
    """No squeeze-and-excite in any row (section 5.3, Fig. 4)."""
    rows = [replace(row, se=0) if isinstance(row, Bneck) else row for row in spec.rows]
    return edited(spec, rows, "no-se")


def squeeze_by_input(spec: NetSpec) -> NetSpec:
    """Squeeze to a quarter of the row's input, not rounded, where a row squeezes (as MnasNet does).

    Section 5.3's point of departure. The gate stays what it is; MnasNet's is a true sigmoid.

    Raises:
        SpecError: no row squeezes.
    """
    return _squeezing(spec, "se-input", lambda row, into: squeeze_of_input(into))


def squeeze_by_expansion(spec: NetSpec) -> NetSpec:
    """Squeeze to a quarter of the row's expansion, rounded to 8, where a row squeezes (section 5.3).

    The paper: more accurate at a modest growth of parameters and no discernible latency.

    Raises:
        SpecError: no row squeezes.
    """
    return _squeezing(spec, "se-expansion", lambda row, into: squeeze_width(row.expanded))


def fig9_components(seed: NetSpec, final: NetSpec) -> list[tuple[str, NetSpec]]:
    """The components of the paper's section 5, introduced one after another (Fig. 9).

    The sources print no block table of the networks in between. They are made backwards, by taking
    the components off the final network in the order of sections 4 and 5: squeeze-and-excite (5.3)
    goes back to MnasNet's, h-swish (5.2) to ReLU in all but the stem, the stem (5.1) to 32 filters
    with ReLU, the last stage (5.1) to the original one. What is left has the final widths: NetAdapt's
    work (4.2) on the seed's rows.

    Args:
        seed: what the search started from (4.1): MnasNet-A1 for V3-Large.
        final: a network with the efficient last stage and squeeze-and-excite: V3-Large, V3-Small.

    Returns:
        Labels and networks, from `seed` to `final`.

    Raises:
        SpecError: `final` lacks one of the components.
    """
    stem = final.rows[0]
    assert isinstance(stem, Conv)
    if last_stage(final)[1] != "efficient":
        raise SpecError(
            f"{final.name} has the original last stage; Fig. 9 ends in an efficient one"
        )
    squeeze = replace(squeeze_by_input(final), se_gate="sigmoid")
    hswish = with_stem(relu_everywhere(squeeze), stem.out, stem.act)
    small_stem = with_stem(hswish, 32, "relu")
    adapted = original_tail(small_stem)
    return [
        ("seed network", seed),
        ("NetAdapt", replace(adapted, name=f"{final.name} adapted")),
        ("efficient last stage", replace(small_stem, name=f"{final.name} adapted, last stage")),
        ("stem", replace(hswish, name=f"{final.name} adapted, last stage, stem")),
        ("h-swish", replace(squeeze, name=f"{final.name} adapted, last stage, stem, h-swish")),
        ("squeeze-and-excite", final),
    ]


@dataclass(frozen=True, slots=True)
class Variant:
    """A named edit: what kind of thing it is about, the edit, one line that says what it is."""

    kind: Kind
    edit: Callable[[NetSpec], NetSpec]
    what: str


def _hswish(channels: int) -> Variant:
    what = f"h-swish from the first row with {channels} channels on, ReLU before (Table 5)"
    return Variant("nonlinearity", partial(hswish_from, channels=channels), what)


def _stem(out: int, act: Act) -> Variant:
    what = f"stem of {out} filters with {act} (section 5.1)"
    return Variant("stem", partial(with_stem, out=out, act=act), what)


def _stride(stride: int) -> Variant:
    what = f"last features at 1/{stride} of the image, by dilation (section 6.4)"
    return Variant("output stride", partial(output_stride, stride=stride), what)


VARIANTS: dict[str, Variant] = {
    "relu": Variant("nonlinearity", relu_everywhere, "ReLU everywhere (Table 5)"),
    "hswish16": _hswish(16),
    "hswish80": _hswish(80),
    "hswish112": _hswish(112),
    "stem16-relu": _stem(16, "relu"),
    "stem16-hswish": _stem(16, "hswish"),
    "stem32-relu": _stem(32, "relu"),
    "stem32-hswish": _stem(32, "hswish"),
    "no-se": Variant("squeeze width", no_squeeze, "no squeeze-and-excite (section 5.3)"),
    "se-input": Variant(
        "squeeze width", squeeze_by_input, "squeeze to 1/4 of the block's input, as MnasNet (5.3)"
    ),
    "se-expansion": Variant(
        "squeeze width", squeeze_by_expansion, "squeeze to 1/4 of the expansion (section 5.3)"
    ),
    "original-tail": Variant("last stage", original_tail, "original last stage (Fig. 5)"),
    "efficient-tail": Variant("last stage", efficient_tail, "efficient last stage (Fig. 5)"),
    "dagger": Variant("reduced tail", dagger, "tail halved for detection (section 6.3, Table 6)"),
    "rf2": Variant("reduced tail", rf2, "tail halved for segmentation (section 6.4, Table 7)"),
    "os8": _stride(8),
    "os16": _stride(16),
    "os32": _stride(32),
}


def find(names: Iterable[str]) -> list[Variant]:
    """The variants that names mean, in the order in which they are applied (`KINDS`).

    Besides the names of `VARIANTS` there is `hswishN` for any N.

    Raises:
        SpecError: no such variant, the nearest names are offered; or two of one kind.
    """
    found: dict[Kind, tuple[str, Variant]] = {}
    for name in names:
        number = re.fullmatch(r"hswish([1-9]\d{0,5})", name)
        variant = _hswish(int(number[1])) if number else VARIANTS.get(name)
        if variant is None:
            near = difflib.get_close_matches(name, VARIANTS, n=3, cutoff=0.5)
            offer = (
                f"did you mean {' or '.join(near)}?"
                if near
                else f"known are {', '.join(VARIANTS)};"
            )
            raise SpecError(f"there is no variant {name!r}; {offer} hswishN takes any N from 1")
        if variant.kind in found:
            other = found[variant.kind][0]
            raise SpecError(
                f"{other} and {name} are both about the {variant.kind}; give one of them"
            )
        found[variant.kind] = name, variant
    return [found[kind][1] for kind in KINDS if kind in found]


def vary(spec: NetSpec, variants: Sequence[Variant], *, before_width: bool) -> NetSpec:
    """Apply those of `variants` that belong before, or behind, the width multiplier."""
    for variant in variants:
        if (variant.kind in BEFORE_WIDTH) == before_width:
            spec = variant.edit(spec)
    return spec


def _out(row: Row) -> int:
    return 0 if isinstance(row, Pool) else row.out


def _acting(row: Row, act: Act) -> Row:
    """`row` with another nonlinearity wherever it has one."""
    if isinstance(row, Pool):
        return row
    row = row if row.act == "linear" else replace(row, act=act)
    if isinstance(row, Bneck) and row.out_act != "linear":
        row = replace(row, out_act=act)
    return row


def _squeezing(spec: NetSpec, name: str, width: Callable[[Bneck, int], int]) -> NetSpec:
    rows = [
        replace(row, se=width(row, spec.width_into(i)))
        if isinstance(row, Bneck) and row.se
        else row
        for i, row in enumerate(spec.rows)
    ]
    if not any(isinstance(row, Bneck) and row.se for row in rows):
        raise SpecError(f"{spec.name} has no squeeze-and-excite; {name} has no width to change")
    return edited(spec, rows, name)
