"""Figures 1, 2, 7, 8 and 9 of the paper beside ours: one function a figure.

Where a picture needs an accuracy that no run here has, it takes the paper's and says so; ours are drawn
as full marks of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bneck.costs.count import count
from bneck.costs.paper import FIG9_SAVINGS, TABLE3, TABLE5, TABLE9, PaperRow
from bneck.costs.published import published
from bneck.paper.scores import Scores
from bneck.paper.tables import (
    FLOAT,
    MADDS,
    PARAMS,
    TOP1,
    beside_full,
    classifier_commands,
    ratio_pair,
    said,
)
from bneck.paper.timing import UNFUSED, Timing, Wanted
from bneck.report.exhibits import Comparison, Exhibit, Line, Pair, Quantity
from bneck.report.scatter import Chart, Mark, Point, Series
from bneck.specs.text import resolve
from bneck.specs.variants import fig9_components

BORROWED = (
    "Latencies measured here, accuracies the paper's: no run of these networks on ImageNet is here. The "
    "picture shows whether the order of latencies holds on this device, and nothing of accuracy."
)
OWN = "Full marks: accuracies of recorded runs."
WIDTHS = (0.5, 0.75, 1.0, 1.25)
VARIANTS = (("", "V3 (@80)"), ("+hswish16", "h-swish @16"), ("+hswish112", "h-swish @112"))
MARKS: tuple[Mark, ...] = ("circle", "square", "diamond")
SEED = "mnasnet-a1"


def figure1(timing: Timing, scores: Scores) -> Exhibit:
    """Pixel 1 latency against ImageNet accuracy."""
    widths = {
        f"v3-{size}{width}" for size in ("large", "small") for width in ("-0.75", "", "-1.25")
    }
    groups = [
        ("V3-Large", 0, [r for r in TABLE9 if r.network in widths and "large" in r.network]),
        ("V3-Small", 1, [r for r in TABLE9 if r.network in widths and "small" in r.network]),
        ("V2", 2, [r for r in TABLE3 if r.network.startswith("v2")]),
        ("MnasNet", 3, [r for r in TABLE3 if r.network.startswith("mnas")]),
        ("ProxylessNAS", 4, [r for r in TABLE3 if r.network.startswith("proxy")]),
    ]
    return _tradeoff(
        "figure1", "Fig. 1: latency against ImageNet accuracy", groups, timing, scores,
        "Widths 0.75, 1 and 1.25 of V3 (Table 9), 1 and 0.35 of V2, the others as in Table 3.",
    )  # fmt: skip


def figure2(timing: Timing, scores: Scores) -> Exhibit:
    """Multiply-adds against accuracy, with model size."""
    groups = [
        ("V3-Large", 0, _widths("large")),
        ("V3-Small", 1, _widths("small")),
        ("others", 2, [r for r in TABLE3 if "v3" not in r.network]),
    ]
    series: list[Series] = []
    lines = []
    for name, colour, rows in groups:
        theirs, ours = [], []
        for row in sorted(rows, key=lambda r: count(resolve(r.network)).madds):
            printed = next(p for p in published(row.network) if p.source == f"Table {row.table}")
            costs = count(resolve(row.network))
            madds, params = costs.madds / 1e6, costs.params / 1e6
            words = f"{row.top1} %, {{:.4g}}M multiply-adds, {{:.3g}}M parameters"
            theirs.append(
                Point(printed.madds_m, row.top1,
                      f"{row.label}: {words.format(printed.madds_m, printed.params_m)} (paper)")
            )  # fmt: skip
            top1 = scores.top1(row.network)
            ours.append(
                Point(madds, row.top1 if top1 is None else top1,
                      f"{row.label}: {words.format(madds, params)} (counted; "
                      f"{'accuracy the paper' if top1 is None else 'accuracy of a run here'})")
            )  # fmt: skip
            lines.append(
                Line(row.label, row.network, (
                    Pair(row.top1, top1), Pair(printed.madds_m, madds), Pair(printed.params_m, params),
                ))
            )  # fmt: skip
        joined = name != "others"
        series += [
            Series(name=f"{name}, paper", points=tuple(theirs), colour=colour, hollow=True,
                   mark="square", joined=joined),
            Series(name="counted", points=tuple(ours), colour=colour, named=True),
        ]  # fmt: skip
    return Exhibit(
        name="figure2",
        title="Fig. 2: multiply-adds against ImageNet accuracy",
        charts=(
            Chart(title="Multiply-adds and accuracy", x="multiply-adds (M)", y="top-1 (%)", log_x=True,
                  series=tuple(series),
                  note="At 224 px. Hollow squares: printed multiply-adds; full circles: exact counts, at the "
                  "paper's accuracy where no run here has one. Sizes of models are in the table."),
        ),
        comparisons=(
            Comparison(
                title="What the picture shows.",
                quantities=(TOP1, MADDS, PARAMS),
                lines=tuple(lines),
            ),
        ),
    )  # fmt: skip


def figure7(timing: Timing, scores: Scores) -> Exhibit:
    """Multipliers against resolutions."""
    groups = []
    for colour, size in enumerate(("large", "small")):
        rows = [row for row in TABLE9 if size in row.network]
        full = [row for row in rows if row.network == f"v3-{size}"]
        groups += [
            (f"{size.title()}, widths", colour, [r for r in rows if "@" not in r.network]),
            (
                f"{size.title()}, resolutions",
                colour + 2,
                [r for r in rows if "@" in r.network] + full,
            ),
        ]
    return _tradeoff(
        "figure7", "Fig. 7: multipliers and resolutions", groups, timing, scores,
        "Widths 0.35 to 1.25 at 224 px; resolutions 96 to 256 at width 1 (Table 9).",
    )  # fmt: skip


def figure8(timing: Timing, scores: Scores) -> Exhibit:
    """h-swish, fused and not, against ReLU."""
    paper = [
        Series(name="V3, widths (Table 9)", points=tuple(_theirs(_widths("large"))), hollow=True,
               joined=True, mark="circle"),
        *(
            Series(name=row.label, colour=1 + i, hollow=True, mark="square", points=tuple(_fused(row)),
                   joined=True, named=True)
            for i, row in enumerate(TABLE5)
        ),
    ]  # fmt: skip
    ours, lines = [], []
    for i, (variant, label) in enumerate(VARIANTS):
        for unfused in (False, True):
            points = []
            for width in WIDTHS:
                name = _named(width, variant) + (UNFUSED if unfused else "")
                spread = timing.ratio((name, "fp32"), (_named(width, "+relu"), "fp32"))
                if spread is not None:
                    how = "several operators" if unfused else "one operator"
                    points.append(
                        Point(width, spread.median, f"{label} at width {width:g}, {how}: "
                              f"{spread.median:.3f} ({spread.p10:.3f} to {spread.p90:.3f})")
                    )  # fmt: skip
                    if width == 1:
                        lines.append(Line(f"{label}, {how}", name, (
                            Pair(_printed(variant, unfused), spread.median, spread.p10, spread.p90),
                        )))  # fmt: skip
            ours.append(
                Series(name=f"{label}, {'unfused' if unfused else 'fused'}", points=tuple(points),
                       colour=i, mark="cross" if unfused else MARKS[i], joined=True)
            )  # fmt: skip
    drawn = tuple(series for series in ours if series.points)
    theirs = tuple(
        Series(name=f"{label}, paper", colour=i, hollow=True, mark=MARKS[i], points=tuple(
            Point(1.0, value, f"{label}, {what}: {value:.3f} (paper, Pixel 1)")
            for what, value in (("fused", _printed(variant, False)), ("unfused", _printed(variant, True)))
        ))
        for i, (variant, label) in enumerate(VARIANTS)
    )  # fmt: skip
    charts = [
        Chart(title="The paper's points", x="Pixel 1 latency (ms)", y="top-1 (%)", series=tuple(paper),
              note="Table 5's rows, each fused and unfused (joined), over V3's widths of Table 9."),
    ]  # fmt: skip
    if drawn:
        charts.append(
            Chart(title="Latency over that with ReLU, here", x="width multiplier", y="times ReLU's latency",
                  series=(*drawn, *theirs),
                  note="Each network over the same width with ReLU throughout. Crosses: h-swish made of four "
                  "operators. Hollow: the paper's ratios at width 1 (Table 5).")
        )  # fmt: skip
    return Exhibit(
        name="figure8",
        title="Fig. 8: h-swish, fused and not, against ReLU",
        charts=tuple(charts),
        comparisons=(
            Comparison(
                title="Latency over ReLU's at width 1.",
                quantities=(Quantity("over ReLU", 3, derived=True),),
                lines=tuple(lines),
            ),
        )
        if lines
        else (),
        notes=said(timing),
        missing_what="accuracies of the variants at each width",
        missing=classifier_commands(
            [_named(w, v) for v in ("+relu", "+hswish16", "+hswish112") for w in WIDTHS], scores
        ),
    )


def figure9(timing: Timing, scores: Scores) -> Exhibit:
    """The components, introduced one after another."""
    steps = fig9_components(resolve(SEED), resolve("v3-large"))
    printed = {"seed network": 71.0 / 51.0, "squeeze-and-excite": 1.0}
    last = steps[-1][1].name
    points, lines, before = [], [], 0.0
    for label, spec in steps:
        madds = count(spec).madds / 1e6
        spread = timing.ratio((spec.name, "fp32"), (last, "fp32"))
        saved = FIG9_SAVINGS.get(label)
        ratio = Pair(printed.get(label))
        if spread is not None:
            ratio = Pair(printed.get(label), spread.median, spread.p10, spread.p90)
            points.append(
                Point(
                    spread.median,
                    madds,
                    f"{label}: {spread.median:.3f} of V3-Large, {madds:.1f}M multiply-adds",
                )
            )
        saving = Pair(saved[1], before - madds) if saved else Pair()
        lines.append(Line(label, spec.name, (Pair(None, madds), saving, ratio)))
        before = madds
    theirs = (
        Point(71 / 51, 315, "MnasNet-A1: 71 / 51 ms, 315M multiply-adds (paper, Table 3)"),
        Point(1.0, 219, "V3-Large: 1, 219M multiply-adds (paper, Table 3)"),
    )
    charts = (
        Chart(title="Components, one after another", x="latency over V3-Large's",
              y="multiply-adds (M)", series=(
                  Series(name="paper, first and last (Table 3)", points=theirs, hollow=True, mark="square",
                         colour=1, joined=True),
                  Series(name="here", points=tuple(points), joined=True, named=True),
              ),
              note="From the seed network (right) to V3-Large. The figure's accuracies are printed nowhere "
              "and are not here, so multiply-adds stand on the axis."),
    ) if points else ()  # fmt: skip
    return Exhibit(
        name="figure9",
        title="Fig. 9: what each component brings",
        charts=charts,
        comparisons=(
            Comparison(
                title="From the seed network to V3-Large; savings as in section 5.1.",
                quantities=(
                    Quantity("MAdds (M)", 1, compared=False),
                    Quantity("MAdds saved (M)", 1),
                    Quantity("latency over V3-Large's", 3, derived=True),
                ),
                lines=tuple(lines),
            ),
        ),
        notes=(
            "The networks in between are made backwards from V3-Large; no source prints their tables.",
            "Section 5.1 gives the efficient last stage 7 ms or 11 %, the stem 2 ms.",
            *said(timing),
        ),
        missing_what="accuracies of the networks in between",
        missing=tuple(
            f"bneck train {name} --data IMAGENET --recipe paper"
            for name in ("v3-large+original-tail", "v3-large+stem32-relu", "v3-large+relu")
        ),
    )


def want_figure(figure: int, wanted: Wanted, *, quick: bool, fused_only: bool) -> None:
    """Add what a figure needs timed."""
    match figure:
        case 1 | 7:
            wanted.want([row.network for row in (*TABLE3, *TABLE9)])
        case 8:
            for width in (0.5, 1.0) if quick else WIDTHS:
                wanted.want(
                    [_named(width, variant) for variant in ("+relu", *(v for v, _ in VARIANTS))]
                )
                if not fused_only:
                    wanted.want([_named(width, variant) + UNFUSED for variant, _ in VARIANTS])
        case 9:
            wanted.want(spec for _, spec in fig9_components(resolve(SEED), resolve("v3-large")))


def _tradeoff(
    name: str,
    title: str,
    groups: Sequence[tuple[str, int, Sequence[PaperRow]]],
    timing: Timing,
    scores: Scores,
    note: str,
) -> Exhibit:
    theirs, here, lines = [], [], []
    for number, (label, colour, rows) in enumerate(groups):
        ordered = sorted(rows, key=lambda row: row.ms[0])
        mark = MARKS[number % len(MARKS)]
        theirs.append(
            Series(name=label, points=tuple(_theirs(ordered)), colour=colour, hollow=True, mark=mark,
                   joined=True)
        )  # fmt: skip
        borrowed, own = _ours(ordered, timing, scores)
        here += [
            Series(name=label, points=borrowed, colour=colour, hollow=True, mark=mark, joined=True),
            Series(name=f"{label}, our run", points=own, colour=colour, mark=mark),
        ]
        for row in ordered:
            base = beside_full(row.network)
            printed = row.ms[0] / next(r.ms[0] for r in TABLE9 if r.network == base)
            pair = ratio_pair(timing, (row.network, FLOAT), (base, FLOAT), printed)
            top1 = Pair(row.top1, scores.top1(row.network))
            lines.append(Line(row.label, row.network, (top1, pair)))  # fmt: skip
    charts = [
        Chart(title="The paper", x="Pixel 1 latency (ms)", y="top-1 (%)", log_x=True,
              series=tuple(theirs), note=note),
    ]  # fmt: skip
    if any(series.points for series in here):
        charts.append(
            Chart(title="Here", x="latency here (ms)", y="top-1 (%)", log_x=True,
                  series=tuple(s for s in here if s.points),
                  note=BORROWED if not any(s.points for s in here if not s.hollow) else f"{BORROWED} {OWN}")
        )  # fmt: skip
    unique = {line.network: line for line in lines}
    return Exhibit(
        name=name,
        title=title,
        charts=tuple(charts),
        comparisons=(
            Comparison(
                title="What the pictures show; latency over that of V3-Large or V3-Small at width 1, 224 px.",
                quantities=(TOP1, Quantity("latency ratio", 3, derived=True)),
                lines=tuple(unique.values()),
            ),
        ),
        notes=said(timing),
        missing_what="ImageNet accuracy",
        missing=classifier_commands(unique, scores),
    )


def _theirs(rows: Iterable[PaperRow]) -> list[Point]:
    ordered = sorted(rows, key=lambda row: row.ms[0])
    return [
        Point(
            row.ms[0],
            row.top1,
            f"{row.label}: {row.ms[0]:g} ms, {row.top1} % (paper, Table {row.table})",
        )
        for row in ordered
    ]


def _ours(
    rows: Sequence[PaperRow], timing: Timing, scores: Scores
) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """Points at the paper's accuracy, and at a run's own."""
    borrowed, own = [], []
    for row in rows:
        measured = timing.ms(row.network)
        if measured.ours is None:
            continue
        x, top1 = measured.ours, scores.top1(row.network)
        if top1 is not None:
            own.append(Point(x, top1, f"{row.label}: {x:.3g} ms, {top1:.1f} % (a run here)"))
        borrowed.append(
            Point(x, row.top1, f"{row.label}: {x:.3g} ms here, {row.top1} % in the paper",
                  measured.low, measured.high)
        )  # fmt: skip
    return tuple(borrowed), tuple(own)


def _fused(row: PaperRow) -> list[Point]:
    assert row.unfused_ms is not None
    points = [
        Point(row.ms[0], row.top1, f"{row.label}: {row.ms[0]:g} ms, {row.top1} % (paper, Table 5)")
    ]
    if row.unfused_ms != row.ms[0]:
        points.append(
            Point(row.unfused_ms, row.top1,
                  f"{row.label} unfused: {row.unfused_ms:g} ms, {row.top1} % (paper, Table 5)")
        )  # fmt: skip
    return points


def _printed(variant: str, unfused: bool) -> float:
    """Table 5's latency of a variant over ReLU's."""
    row = next(r for r in TABLE5 if r.network == f"v3-large{variant}")
    relu = next(r for r in TABLE5 if r.network == "v3-large+relu")
    assert row.unfused_ms is not None
    return (row.unfused_ms if unfused else row.ms[0]) / relu.ms[0]


def _widths(size: str) -> list[PaperRow]:
    return [row for row in TABLE9 if size in row.network and "@" not in row.network]


def _named(width: float, variant: str) -> str:
    return ("v3-large" if width == 1 else f"v3-large-{width:g}") + variant
