"""The paper's ablations as spec -> spec functions, and the names they go by: `v3-large+relu`.

A variant says what a network shall have: a network that has it already is not changed, one that
cannot have it is refused. Each adds "+" and its own name to the network's name. Those that change
the last rows are in `specs.tails`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias, get_args

from bneck.specs import tails
from bneck.specs.network import NetSpec
from bneck.specs.rows import Act, Bneck, Conv, Pool, Row, SpecError, squeeze_of_input, squeeze_width
from bneck.specs.tails import dagger, edited, rf2
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
    later. The first row after the stem with at least `channels` outputs counts, at width 1.0 if they
    are to be the table's. A ReLU6 before that row stays.

    Raises:
        SpecError: no row is that wide, or `channels` is below 1.
    """
    wide = {i: row.out for i, row in enumerate(spec.rows) if i and not isinstance(row, Pool)}
    first = next((i for i, out in wide.items() if out >= channels), None)
    if first is None or channels < 1:
        raise SpecError(
            f"{spec.name} has no row with {channels} channels that h-swish could start from; "
            f"choose from 1 to {max(wide.values(), default=0)}"
        )
    # The stem is a choice of its own (section 5.1), unless h-swish begins right after it.
    start = 0 if first == 1 else first
    rows = [_acting(row, "hswish") if i >= start else row for i, row in enumerate(spec.rows)]
    for i in range(1, start):
        row = rows[i]
        if not isinstance(row, Pool) and row.act == "hswish":
            rows[i] = _acting(row, "relu")
    return edited(spec, rows, f"hswish{channels}")


def with_stem(spec: NetSpec, out: int, act: Act) -> NetSpec:
    """A stem of `out` filters with nonlinearity `act` (section 5.1).

    The paper goes from 32 filters with ReLU to 16 with h-swish and saves 2 ms and 10M multiply-adds
    at equal accuracy. From V3-Large's table, at 112 x 112: stem 27 x 16, depthwise 9 x 16 and
    projection 16 x 16 per pixel, together 10,436,608. A row after the stem that has no expansion gets
    none, and adds its input exactly where the widths then agree.

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

    Where section 5.3 starts from. The gate stays as it is; MnasNet's is a true sigmoid.

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

    Returns labels and networks, from `seed`, what the search started from (4.1: MnasNet-A1 for
    V3-Large), to `final`, which has the efficient last stage and squeeze-and-excite.

    Raises:
        SpecError: `final` lacks one of the components.
    """
    stem = final.rows[0]
    assert isinstance(stem, Conv)
    # The sources print no block table of the networks in between. They are made backwards, by taking
    # the components off the final network in the order of sections 4 and 5: squeeze-and-excite (5.3)
    # goes back to MnasNet's, h-swish (5.2) to ReLU in all but the stem, the stem (5.1) to 32 filters
    # with ReLU, the last stage (5.1) to the original one. The rest has the final widths: NetAdapt's
    # work (4.2) on the seed's rows.
    if tails.last_stage(final)[1] != "efficient":
        raise SpecError(
            f"{final.name} has the original last stage; Fig. 9 ends in an efficient one"
        )
    squeeze = replace(squeeze_by_input(final), se_gate="sigmoid")
    hswish = with_stem(relu_everywhere(squeeze), stem.out, stem.act)
    small_stem = with_stem(hswish, 32, "relu")
    name = f"{final.name} adapted"
    return [
        ("seed network", seed),
        ("NetAdapt", replace(tails.original_tail(small_stem), name=name)),
        ("efficient last stage", replace(small_stem, name=f"{name}, last stage")),
        ("stem", replace(hswish, name=f"{name}, last stage, stem")),
        ("h-swish", replace(squeeze, name=f"{name}, last stage, stem, h-swish")),
        ("squeeze-and-excite", final),
    ]


@dataclass(frozen=True, slots=True)
class Variant:
    """A named edit: the kind of thing that it sets, the edit, one line that describes it."""

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
    return Variant("output stride", partial(tails.output_stride, stride=stride), what)


VARIANTS: dict[str, Variant] = {
    "relu": Variant("nonlinearity", relu_everywhere, "ReLU everywhere (Table 5)"),
    **{f"hswish{channels}": _hswish(channels) for channels in (16, 80, 112)},
    **{f"stem{out}-{act}": _stem(out, act) for out in (16, 32) for act in ("relu", "hswish")},
    "no-se": Variant("squeeze width", no_squeeze, "no squeeze-and-excite (section 5.3)"),
    "se-input": Variant(
        "squeeze width", squeeze_by_input, "squeeze to 1/4 of the block's input, as MnasNet (5.3)"
    ),
    "se-expansion": Variant(
        "squeeze width", squeeze_by_expansion, "squeeze to 1/4 of the expansion (section 5.3)"
    ),
    "original-tail": Variant("last stage", tails.original_tail, "original last stage (Fig. 5)"),
    "efficient-tail": Variant("last stage", tails.efficient_tail, "efficient last stage (Fig. 5)"),
    "dagger": Variant("reduced tail", dagger, "tail halved for detection (section 6.3, Table 6)"),
    "rf2": Variant("reduced tail", rf2, "tail halved for segmentation (section 6.4, Table 7)"),
    **{f"os{stride}": _stride(stride) for stride in (8, 16, 32)},
}


def offered(name: str, known: Iterable[str]) -> str:
    """What to say after an unknown name: the nearest known ones, or all of them."""
    near = difflib.get_close_matches(name, known := [*known], n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)};"


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
            raise SpecError(
                f"there is no variant {name!r}; {offered(name, VARIANTS)} hswishN takes any N from 1"
            )
        if variant.kind in found:
            other = found[variant.kind][0]
            raise SpecError(f"{other} and {name} both set the {variant.kind}; give one of them")
        found[variant.kind] = name, variant
    return [found[kind][1] for kind in KINDS if kind in found]


def vary(spec: NetSpec, variants: Sequence[Variant], *, before_width: bool) -> NetSpec:
    """Apply those of `variants` that belong before, or after, the width multiplier."""
    for variant in variants:
        if (variant.kind in BEFORE_WIDTH) == before_width:
            spec = variant.edit(spec)
    return spec


def _acting(row: Row, act: Act) -> Row:
    """`row` with another nonlinearity wherever it has one."""
    if isinstance(row, Pool):
        return row
    row = row if row.act == "linear" else replace(row, act=act)
    if isinstance(row, Bneck) and row.out_act != "linear":
        row = replace(row, out_act=act)
    return row


def _squeezing(spec: NetSpec, name: str, width: Callable[[Bneck, int], int]) -> NetSpec:
    rows = list(spec.rows)
    squeezed = [(i, row) for i, row in enumerate(rows) if isinstance(row, Bneck) and row.se]
    if not squeezed:
        raise SpecError(f"{spec.name} has no squeeze-and-excite; {name} has no width to change")
    for i, row in squeezed:
        rows[i] = replace(row, se=width(row, spec.width_into(i)))
    return edited(spec, rows, name)
