"""Networks for property tests: any that a spec can hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from bneck.specs.network import GATES, PADDINGS, NetSpec
from bneck.specs.rows import ACTS, Bneck, Conv, Pool, Row, squeeze_width
from bneck.specs.transforms import fix_skips

STEM, POOL = Conv(3, 16, "hswish", 2), Pool()


def net(*rows: Row, **header: Any) -> NetSpec:
    """The stem (16 channels), `rows`, the pool."""
    return NetSpec(name="net", rows=(STEM, *rows, POOL), **header)


@st.composite
def specs(draw: st.DrawFn, *, widths: st.SearchStrategy[int] | None = None) -> NetSpec:
    """Any network: widths of any kind, with and without expand convs, residuals, SE and a head."""
    usual = st.one_of(st.integers(1, 40), st.sampled_from([8, 16, 24, 32, 64]))
    width = usual if widths is None else widths
    kernel, stride = st.sampled_from([1, 3, 5]), st.sampled_from([1, 2])
    act: st.SearchStrategy[Any] = st.sampled_from(ACTS)
    rows: list[Row] = [
        Conv(draw(kernel), draw(width), draw(act), draw(stride), draw(st.booleans()))
    ]
    for _ in range(draw(st.integers(0, 4))):
        above = rows[-1]
        assert not isinstance(above, Pool)
        if draw(st.integers(0, 4)) == 0:
            rows.append(Conv(draw(kernel), draw(width), draw(act), draw(stride)))
            continue
        expanded = draw(st.one_of(st.just(above.out), width))
        out, steps = draw(st.one_of(st.just(above.out), width)), draw(stride)
        fused = draw(st.sampled_from([False, False, True]))
        size, start = draw(kernel), 0
        if expanded != above.out and not fused:  # MobileNetV4's other bottlenecks
            start = draw(st.sampled_from([0, 0, 3, 5]))
            size = draw(st.sampled_from([0, size, size])) if start or steps == 1 else size
        se = draw(st.one_of(st.just(0), st.just(squeeze_width(expanded)), st.integers(1, 9)))
        skips: list[Any] = ["auto", "no", *(["yes"] if steps == 1 and out == above.out else [])]
        rows.append(
            Bneck(
                size, expanded, out, se, draw(act), steps,
                dilation=draw(st.sampled_from([1, 1, 2])), skip=draw(st.sampled_from(skips)),
                out_act=draw(st.sampled_from(["linear", "linear", "relu6"])),
                fused=fused, start=start,
            )
        )  # fmt: skip
    head = [
        Conv(1, draw(width), draw(act), bn=draw(st.booleans()))
        for _ in range(draw(st.integers(0, 2)))
    ]
    share = st.floats(0, 1, exclude_min=True)
    return NetSpec(
        name=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(str.strip)),
        rows=(*rows, POOL, *head),
        resolution=draw(st.integers(1, 40)),
        channels=draw(st.integers(1, 4)),
        classes=draw(st.integers(1, 12)),
        padding=draw(st.sampled_from(PADDINGS)),
        se_gate=draw(st.sampled_from(GATES)),
        bn_eps=draw(share),
        bn_momentum=draw(share),
        dropout=draw(st.floats(0, 1, exclude_max=True)),
    )


def expands(spec: NetSpec) -> list[bool]:
    return [
        isinstance(row, Bneck) and (row.fused or row.expanded != spec.width_into(i))
        for i, row in enumerate(spec.rows)
    ]


def skips(spec: NetSpec) -> list[bool]:
    return [spec.has_skip(i) for i in range(len(spec.rows))]


def assert_narrower(seed: NetSpec, drawn: NetSpec) -> None:
    """Nothing but widths differs, and none is wider."""
    assert skips(drawn) == skips(seed)
    assert expands(drawn) == expands(seed)
    for row, old in zip(drawn.rows, fix_skips(seed).rows, strict=True):
        if isinstance(row, Conv) and isinstance(old, Conv):
            assert row.out <= old.out
            assert replace(row, out=old.out) == old
        elif isinstance(row, Bneck) and isinstance(old, Bneck):
            assert row.out <= old.out
            assert row.expanded <= old.expanded
            assert row.se <= old.se
            assert bool(row.se) == bool(old.se)
            assert replace(row, out=old.out, expanded=old.expanded, se=old.se) == old
        else:
            assert row == old
    assert replace(drawn, rows=seed.rows) == seed
