"""The last rows of a network: Fig. 5's last stages, tails halved for dense tasks, output stride.

Spec -> spec functions; `specs.variants` has their names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Literal

from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool, Row, SpecError, round8
from bneck.specs.transforms import beside, refit

OUTPUT_STRIDES = (8, 16, 32)


def edited(spec: NetSpec, rows: Iterable[Row], name: str) -> NetSpec:
    """`spec` with other rows, "+" and the edit's name after its own."""
    return replace(spec, name=f"{spec.name}+{name}", rows=tuple(rows))


def last_stage(spec: NetSpec) -> tuple[int, Literal["original", "efficient"]]:
    """Index of the 1x1 conv in front of the pool, and which of Fig. 5's stages it belongs to.

    Raises:
        SpecError: the network ends in neither.
    """
    at = spec.pool_at - 1
    block, conv, head = spec.rows[at - 1], spec.rows[at], spec.rows[spec.pool_at + 1 :]
    fits = isinstance(conv, Conv) and conv.kernel == conv.stride == 1
    if at < 1 or not fits or not isinstance(block, Bneck) or len(head) > 1:
        raise SpecError(
            f"{spec.name} has neither last stage of Fig. 5: bneck, 1x1 conv, pool, and after the "
            "pool one 1x1 conv or none"
        )
    odd = block.fused or block.stride > 1 or block.start or not block.kernel
    if not head and odd:
        raise SpecError(
            f"the last bneck of {spec.name} is fused, strided or has another depthwise convolution than one "
            "after its expansion; Fig. 5's is a plain one"
        )
    return at, "efficient" if head else "original"


def original_tail(spec: NetSpec) -> NetSpec:
    """The last stage as it was before it was made efficient (Fig. 5, upper row; section 5.1).

    On V3-Large's 7 x 7 map with 160 channels: 1x1 conv to 960, 3x3 depthwise, projection to 320, 1x1
    conv to 1280, then the pool. The efficient one pools after the 960 and has the 1280 on the 1 x 1
    map. The paper: it saves 7 ms or 11 % of the running time and 30M multiply-adds at almost no loss
    of accuracy. By hand: depthwise 49 x 9 x 960 = 423,360, projection 49 x 960 x 320 = 15,052,800,
    1280 conv 49 x 320 x 1280 = 20,070,400, less the 960 x 1280 = 1,228,800 after the pool: 34,317,760.

    Raises:
        SpecError: the network ends in neither of Fig. 5's stages (V1 does not).
    """
    conv_at, kind = last_stage(spec)
    if kind == "original":
        return edited(spec, spec.rows, "original-tail")
    _undilated(spec, "its last stage can change")
    conv, head = spec.rows[conv_at], spec.rows[-1]
    assert isinstance(conv, Conv)
    assert isinstance(head, Conv)
    # Twice the channels that enter the stage: 320 = 2 x 160, as in MnasNet-A1 and V2.
    block = Bneck(3, conv.out, 2 * spec.width_into(conv_at), 0, conv.act)
    last = Conv(1, head.out, head.act)
    return edited(spec, [*spec.rows[:conv_at], block, last, Pool()], "original-tail")


def efficient_tail(spec: NetSpec) -> NetSpec:
    """The efficient last stage (Fig. 5, lower row; section 5.1) for a network with the original one.

    Only the expansion of the last bneck is left; the conv after it moves after the pool, with a bias
    instead of batch norm. `original_tail` says what it saves: as much on MnasNet-A1.

    Raises:
        SpecError: the network ends in neither of Fig. 5's stages (V1 does not).
    """
    conv_at, kind = last_stage(spec)
    if kind == "efficient":
        return edited(spec, spec.rows, "efficient-tail")
    _undilated(spec, "its last stage can change")
    block, last = spec.rows[conv_at - 1], spec.rows[conv_at]
    assert isinstance(block, Bneck)
    assert isinstance(last, Conv)
    widen, head = Conv(1, block.expanded, block.act), replace(last, bn=False)
    return edited(spec, [*spec.rows[: conv_at - 1], widen, Pool(), head], "efficient-tail")


def dagger(spec: NetSpec) -> NetSpec:
    """The reduced tail for detection (section 6.3, the rows of Table 6 with a dagger).

    All channels between C4 and C5 are halved and rounded to 8: the outputs of the bnecks from the
    last one with stride 2 on, and the conv before the pool. C4, the expansion of that first bneck,
    keeps its width (672 of V3-Large, 288 of Small); later expansions follow their input by their
    ratio. The tail of segmentation is another one, see `rf2`.

    Raises:
        SpecError: no bneck has stride 2, or the output stride was set before.
    """
    return edited(spec, _halved(spec, first=False, conv=True), "dagger")


def rf2(spec: NetSpec) -> NetSpec:
    """The reduced tail for segmentation (section 6.4, column RF2 of Tables 7 and 8).

    Filters of the last block are halved. The parameters and multiply-adds of Table 7 hold only with
    two differences from `dagger`. In a network with the efficient last stage (V3), the first bneck's
    expansion is halved too: 672 to 336, 288 to 144. In any other (V2) it is not, and the conv before
    the pool stays, because segmentation takes the output of the last bneck.

    Raises:
        SpecError: no bneck has stride 2, or the output stride was set before.
    """
    efficient = spec.pool_at + 1 < len(spec.rows)
    return edited(spec, _halved(spec, first=efficient, conv=efficient), "rf2")


def output_stride(spec: NetSpec, stride: int) -> NetSpec:
    """Keep the map of the last features at 1/`stride` of the image by dilation (6.4, OS in Table 8).

    As in the authors' code: once the wanted stride (8, 16 or 32) is reached, each further row with
    stride 2 gets stride 1 and the dilation so far, and the rows after it twice that. At 16 the bneck
    that loses its stride has rate 1, the later ones rate 2. No row gains a residual. Parameters stay;
    a trained network computes the same values, on a denser map.

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
        dense = row
        if isinstance(row, Pool) or i > spec.pool_at:
            pass
        elif reached < stride:
            reached *= row.stride
        elif isinstance(row, Bneck):
            dilated = max(row.kernel, row.start) > 1
            dense = replace(row, dilation=row.dilation * rate if dilated else 1, stride=1)
            if row.stride > 1 and row.skip == "auto" and row.out == spec.width_into(i):
                dense = replace(dense, skip="no")
            rate *= row.stride
        elif row.stride > 1 or (rate > 1 and row.kernel > 1):
            raise SpecError(
                f"row {i} of {spec.name} is a {row.kernel}x{row.kernel} conv with stride "
                f"{row.stride} at output stride {stride}; only bnecks can be dilated there"
            )
        rows.append(dense)
    if reached < stride:
        raise SpecError(f"{spec.name} has output stride {reached}; it cannot become {stride}")
    return edited(spec, rows, f"os{stride}")


def _undilated(spec: NetSpec, what: str) -> None:
    if any(isinstance(row, Bneck) and row.dilation > 1 for row in spec.rows):
        raise SpecError(f"{spec.name} is dilated; set the output stride after {what}, not before")


def _halved(spec: NetSpec, *, first: bool, conv: bool) -> list[Row]:
    """The rows with the tail's outputs halved; `first` halves its first expansion, `conv` its conv."""
    _undilated(spec, "the tail is halved")
    strided = [i for i, row in enumerate(spec.rows) if isinstance(row, Bneck) and row.stride == 2]
    if not strided:
        raise SpecError(f"{spec.name} has no bneck with stride 2, where the tail to halve begins")
    rows = list(spec.rows)
    into = spec.width_into(strided[-1])
    for i in range(strided[-1], spec.pool_at):
        row = rows[i]
        if isinstance(row, Bneck):
            share = Fraction(1, 2) if first and i == strided[-1] else Fraction(1)
            rows[i] = row = _halved_bneck(spec, i, row, into, share)
        elif isinstance(row, Conv) and conv:
            rows[i] = row = replace(row, out=round8(row.out / 2))
        assert not isinstance(row, Pool)
        into = row.out
    return rows


def _halved_bneck(spec: NetSpec, index: int, row: Bneck, into: int, share: Fraction) -> Bneck:
    before, out = spec.width_into(index), round8(row.out / 2)
    expanded = into
    if spec.expands(index):
        expanded = round8(float(Fraction(row.expanded, before) * into * share))
        expanded = beside(into, expanded, most=row.expanded, fused=row.fused)
    # Widths that differed may agree once they are halved and rounded; that makes no residual.
    gains = row.stride == 1 and out == into and not spec.has_skip(index)
    halved = replace(row, out=out, skip="no" if gains else row.skip)
    return refit(halved, expanded, before, into)
