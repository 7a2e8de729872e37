"""The paper's ablations as spec -> spec functions, and the names they go by: `v3-large+relu`.

A variant states what a network is to have; one that has it already stays as it is, one that cannot
have it is refused. Each returns a network named like the old one with "+" and its own name behind.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
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
    round8,
    squeeze_of_input,
    squeeze_width,
)
from bneck.specs.transforms import beside, with_out

# One variant of each kind at most. They are applied in this order, whatever order a name has.
Kind: TypeAlias = Literal[
    "nonlinearity", "stem", "squeeze width", "last stage", "reduced tail", "output stride"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
# These speak of the full-width table's channels; the others shape what the width has left.
BEFORE_WIDTH: tuple[Kind, ...] = ("nonlinearity", "stem")
OUTPUT_STRIDES = (8, 16, 32)


def relu_everywhere(spec: NetSpec) -> NetSpec:
    """ReLU in every row (Table 5, "ReLU"; the ReLU curve of Fig. 8).

    Linear projections stay linear, and the gates of squeeze-and-excite stay what they are.
    """
    return _edited(spec, [_acting(row, "relu") for row in spec.rows], "relu")


def hswish_from(spec: NetSpec, channels: int) -> NetSpec:
    """h-swish from the first row with `channels` output channels on, ReLU before (Table 5, Fig. 8).

    The table's h-swish@16 is h-swish everywhere, @80 is V3-Large itself, @112 begins two stages
    later. The stem is a choice of its own (section 5.1) and keeps its nonlinearity, unless the row
    right behind it is the first: then it has h-swish too. A ReLU6 before the first row stays.

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
    return _edited(spec, rows, f"hswish{channels}")


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
    return _edited(spec, rows, f"stem{out}-{act}")


def no_squeeze(spec: NetSpec) -> NetSpec:
    """No squeeze-and-excite in any row (section 5.3, Fig. 4)."""
    rows = [replace(row, se=0) if isinstance(row, Bneck) else row for row in spec.rows]
    return _edited(spec, rows, "no-se")


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


def original_tail(spec: NetSpec) -> NetSpec:
    """The last stage as it was before it was made efficient (Fig. 5, upper row; section 5.1).

    Of V3-Large's 7 x 7 map with 160 channels: 1x1 conv to 960, 3x3 depthwise, projection to 320, 1x1
    conv to 1280, and only then the pool. The efficient one stops behind the 960 and has the 1280 on
    the pooled 1 x 1 map. It saves, by the paper, 7 ms or 11 % of the running time and 30M
    multiply-adds at almost no loss of accuracy. By hand: depthwise 49 x 9 x 960 = 423,360, projection
    49 x 960 x 320 = 15,052,800, 1280 conv 49 x 320 x 1280 = 20,070,400, less the 960 x 1280 =
    1,228,800 behind the pool: 34,317,760.

    The projection has twice the channels that enter the stage (320 = 2 x 160, as MnasNet-A1 has it
    and V2). It is made after the width: twice the rounded width, while the last conv keeps its own.

    Raises:
        SpecError: the network ends in neither of Fig. 5's stages (V1 does not).
    """
    conv_at, kind = _last_stage(spec)
    if kind == "original":
        return _edited(spec, spec.rows, "original-tail")
    _undilated(spec, "its last stage can change")
    conv, head, into = spec.rows[conv_at], spec.rows[-1], spec.width_into(conv_at)
    assert isinstance(conv, Conv)
    assert isinstance(head, Conv)
    block = Bneck(3, conv.out, 2 * into, 0, conv.act)
    last = Conv(1, head.out, head.act)
    return _edited(spec, [*spec.rows[:conv_at], block, last, Pool()], "original-tail")


def efficient_tail(spec: NetSpec) -> NetSpec:
    """The efficient last stage (Fig. 5, lower row; section 5.1) for a network with the original one.

    Of the last bneck only the expansion is left; the conv behind it moves behind the pool, with a bias
    in place of batch norm. See `original_tail` for what it saves: on MnasNet-A1, whose last stage
    is the figure's, as much.

    Raises:
        SpecError: the network ends in neither of Fig. 5's stages (V1 does not).
    """
    conv_at, kind = _last_stage(spec)
    if kind == "efficient":
        return _edited(spec, spec.rows, "efficient-tail")
    _undilated(spec, "its last stage can change")
    block, last = spec.rows[conv_at - 1], spec.rows[conv_at]
    assert isinstance(block, Bneck)
    assert isinstance(last, Conv)
    widen, head = Conv(1, block.expanded, block.act), replace(last, bn=False)
    return _edited(spec, [*spec.rows[: conv_at - 1], widen, Pool(), head], "efficient-tail")


def dagger(spec: NetSpec) -> NetSpec:
    """The reduced tail for detection (section 6.3, the rows of Table 6 with a dagger).

    All channels between C4 and C5 are halved: the outputs of the bnecks from the last one with
    stride 2 on, and the conv before the pool. C4, the expansion of that first bneck, keeps its width
    (672 of V3-Large, 288 of Small); later expansions follow their input by their ratio. Halves are
    rounded to 8. Not the tail of segmentation, see `rf2`.

    Raises:
        SpecError: no bneck has stride 2, or the output stride was set before.
    """
    return _edited(spec, _halved(spec, first=False, conv=True), "dagger")


def rf2(spec: NetSpec) -> NetSpec:
    """The reduced tail for segmentation (section 6.4, column RF2 of Tables 7 and 8).

    Filters of the last block are halved. It differs from `dagger` in two places, and the parameters
    and multiply-adds of Table 7 hold only so. In a network with the efficient last stage (V3), the
    first bneck's expansion is halved too: 672 to 336, 288 to 144. In any other (V2), it is not, and
    the conv before the pool stays, because segmentation takes the output of the last bneck.

    Raises:
        SpecError: no bneck has stride 2, or the output stride was set before.
    """
    efficient = spec.pool_at + 1 < len(spec.rows)
    return _edited(spec, _halved(spec, first=efficient, conv=efficient), "rf2")


def output_stride(spec: NetSpec, stride: int) -> NetSpec:
    """Keep the map of the last features at 1/`stride` of the image by dilation (6.4, OS in Table 8).

    As the authors' code has it: where the wanted stride is reached, each further row with stride 2
    gets stride 1 and the dilation that holds so far, and the rows behind it twice that. At 16 the
    bneck that loses its stride has rate 1, the later ones rate 2. No row gains a residual.
    Parameters stay; a trained network computes the same values, on a denser map.

    Args:
        spec: the network.
        stride: 8, 16 or 32.

    Raises:
        SpecError: another number, a network whose stride is smaller, or a conv that would have to
            be dilated (only bnecks can).
    """
    if stride not in OUTPUT_STRIDES:
        raise SpecError(
            f"output stride is {stride!r}; allowed are {', '.join(map(str, OUTPUT_STRIDES))}"
        )
    rows: list[Row] = []
    reached = rate = 1
    for i, row in enumerate(spec.rows):
        if isinstance(row, Pool) or i > spec.pool_at:
            rows.append(row)
        elif reached < stride:
            rows.append(row)
            reached *= row.stride
        elif isinstance(row, Conv):
            if row.stride > 1 or (rate > 1 and row.kernel > 1):
                raise SpecError(
                    f"row {i} of {spec.name} is a {row.kernel}x{row.kernel} conv with stride "
                    f"{row.stride} at output stride {stride}; only bnecks can be dilated there"
                )
            rows.append(row)
        else:
            dense = replace(row, dilation=row.dilation * rate if row.kernel > 1 else 1, stride=1)
            if row.stride > 1 and dense.skip == "auto" and row.out == spec.width_into(i):
                dense = replace(dense, skip="no")
            rows.append(dense)
            rate *= row.stride
    if reached < stride:
        raise SpecError(f"{spec.name} has output stride {reached}; it cannot become {stride}")
    return _edited(spec, rows, f"os{stride}")


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
    if _last_stage(final)[1] != "efficient":
        raise SpecError(
            f"{final.name} has the original last stage; Fig. 9 ends in an efficient one"
        )
    squeeze = replace(squeeze_by_input(final), se_gate="sigmoid")
    hswish = with_stem(relu_everywhere(squeeze), stem.out, stem.act)
    small_stem = with_stem(hswish, 32, "relu")
    last_stage = original_tail(small_stem)
    return [
        ("seed network", seed),
        ("NetAdapt", replace(last_stage, name=f"{final.name} adapted")),
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


def _edited(spec: NetSpec, rows: Iterable[Row], name: str) -> NetSpec:
    return replace(spec, name=f"{spec.name}+{name}", rows=tuple(rows))


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
    return _edited(spec, rows, name)


def _last_stage(spec: NetSpec) -> tuple[int, Literal["original", "efficient"]]:
    """Index of the 1x1 conv between the last bneck and the pool, and which of Fig. 5's stages it is."""
    at = spec.pool_at - 1
    block, conv, head = spec.rows[at - 1], spec.rows[at], spec.rows[spec.pool_at + 1 :]
    fits = isinstance(conv, Conv) and conv.kernel == conv.stride == 1
    if at < 1 or not fits or not isinstance(block, Bneck) or len(head) > 1:
        raise SpecError(
            f"{spec.name} has neither last stage of Fig. 5: bneck, 1x1 conv, pool, and behind the "
            "pool one 1x1 conv or none"
        )
    if not head and (block.fused or block.stride > 1):
        raise SpecError(f"the last bneck of {spec.name} is fused or strided; Fig. 5's is neither")
    return at, "efficient" if head else "original"


def _undilated(spec: NetSpec, what: str) -> None:
    if any(isinstance(row, Bneck) and row.dilation > 1 for row in spec.rows):
        raise SpecError(f"{spec.name} is dilated; set the output stride after {what}, not before")


def _halved(spec: NetSpec, *, first: bool, conv: bool) -> list[Row]:
    """Rows with the outputs of the tail halved; `first` halves its first expansion, `conv` its conv."""
    _undilated(spec, "the tail is halved")
    strided = [i for i, row in enumerate(spec.rows) if isinstance(row, Bneck) and row.stride == 2]
    if not strided:
        raise SpecError(f"{spec.name} has no bneck with stride 2, where the tail to halve begins")
    rows = list(spec.rows)
    into = spec.width_into(strided[-1])
    for i in range(strided[-1], spec.pool_at):
        row = rows[i]
        assert not isinstance(row, Pool)
        if isinstance(row, Bneck):
            share = Fraction(1, 2) if first and i == strided[-1] else Fraction(1)
            rows[i] = _halved_bneck(spec, i, row, into, share)
            into = round8(row.out / 2)
        elif conv:
            rows[i] = replace(row, out=round8(row.out / 2))
            into = round8(row.out / 2)
        else:
            into = row.out
    return rows


def _halved_bneck(spec: NetSpec, index: int, row: Bneck, into: int, share: Fraction) -> Bneck:
    before, out = spec.width_into(index), round8(row.out / 2)
    expanded = into
    if spec.expands(index):
        expanded = round8(float(Fraction(row.expanded, before) * into * share))
        expanded = beside(into, expanded, most=row.expanded)
    se = row.se
    if se == squeeze_width(row.expanded):
        se = squeeze_width(expanded)
    elif se and se == squeeze_of_input(before):
        se = squeeze_of_input(into)
    # Widths that differed may agree once they are halved and rounded; that makes no residual.
    gains = row.stride == 1 and out == into and not spec.has_skip(index)
    return replace(row, out=out, expanded=expanded, se=se, skip="no" if gains else row.skip)
