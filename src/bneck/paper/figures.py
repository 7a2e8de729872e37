"""Figures 1, 2, 7, 8 and 9 of the paper next to ours: one function per figure.

Where a picture needs an accuracy that no run here has, it takes the paper's and says so; ours are drawn
as full marks of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from bneck.costs.count import count
from bneck.costs.paper import FIG9_SAVINGS, TABLE3, TABLE5, TABLE9, PaperRow
from bneck.costs.published import published
from bneck.paper.published import named, published_here
from bneck.paper.scores import Scores
from bneck.paper.tables import (
    FLOAT,
    MADDS,
    PARAMS,
    TOP1,
    beside_full,
    classifier_commands,
    line,
    measured_note,
    one_ratio,
    ratio_pair,
    spread_pair,
)
from bneck.paper.timing import UNFUSED, Timing, Wanted
from bneck.report.exhibits import Comparison, Exhibit, Line, Pair, Quantity
from bneck.report.scatter import Chart, Mark, Point, Series
from bneck.runs.choose.known import known_networks
from bneck.specs.text import resolve
from bneck.specs.variants import fig9_components

BORROWED = (
    "Latencies measured here, accuracies the paper's: no run of these networks on ImageNet is here. The "
    "picture shows whether the order of latencies holds on this device, and nothing of accuracy."
)
OWN = "Full marks: accuracies of recorded runs."
WIDTHS = (0.5, 0.75, 1.0, 1.25)
VARIANTS = {"": "V3 (@80)", "+hswish16": "h-swish @16", "+hswish112": "h-swish @112"}
MARKS: tuple[Mark, ...] = ("circle", "square", "diamond")
SEED = "mnasnet-a1"
Groups = Sequence[tuple[str, int, Sequence[PaperRow]]]  # (label, colour, printed rows)


def figure1(timing: Timing, scores: Scores) -> Exhibit:
    """Pixel 1 latency against ImageNet accuracy."""
    sizes = {"large": "V3-Large", "small": "V3-Small"}
    others = {"v2": "V2", "mnas": "MnasNet", "proxy": "ProxylessNAS"}
    rows = [
        [r for r in _widths(size) if r.network.endswith((size, "-0.75", "-1.25"))] for size in sizes
    ]
    rows += [[r for r in TABLE3 if r.network.startswith(name)] for name in others]
    labels = [*sizes.values(), *others.values()]
    groups = [(label, colour, rows[colour]) for colour, label in enumerate(labels)]
    made = _tradeoff(
        "figure1", "Fig. 1: latency against ImageNet accuracy", groups, timing, scores,
        "Widths 0.75, 1 and 1.25 of V3 (Table 9), 1 and 0.35 of V2, the others as in Table 3.",
    )  # fmt: skip
    chart, table = published_here(timing)
    charts = (*made.charts, chart) if chart.series else made.charts
    return replace(made, charts=charts, plain=(table,))


def figure2(timing: Timing, scores: Scores) -> Exhibit:
    """Multiply-adds against accuracy, with model size."""
    groups = [
        ("V3-Large", 0, _widths("large")),
        ("V3-Small", 1, _widths("small")),
        ("others", 2, [row for row in TABLE3 if "v3" not in row.network]),
    ]
    series, lines = [], []
    for name, colour, rows in groups:
        theirs, ours = [], []
        for row in sorted(rows, key=lambda r: count(resolve(r.network)).madds):
            printed = next(p for p in published(row.network) if p.source == f"Table {row.table}")
            costs, top1 = count(resolve(row.network)), scores.top1(row.network)
            madds, params = costs.madds / 1e6, costs.params / 1e6
            words = (
                f"{row.label}: {row.top1} %, {{:.4g}}M multiply-adds, {{:.3g}}M parameters ({{}})"
            )
            assert printed.madds_m is not None
            said = words.format(printed.madds_m, printed.params_m, "paper")
            theirs.append(Point(printed.madds_m, row.top1, said))
            whose = "accuracy the paper" if top1 is None else "accuracy of a run here"
            said = words.format(madds, params, f"counted; {whose}")
            ours.append(Point(madds, row.top1 if top1 is None else top1, said))
            lines.append(line(
                row, Pair(row.top1, top1), Pair(printed.madds_m, madds), Pair(printed.params_m, params)
            ))  # fmt: skip
        series += [
            Series(name=f"{name}, paper", points=tuple(theirs), colour=colour, hollow=True,
                   mark="square", joined=name != "others"),
            Series(name="counted", points=tuple(ours), colour=colour, named=True),
        ]  # fmt: skip
    return Exhibit(
        name="figure2", title="Fig. 2: multiply-adds against ImageNet accuracy",
        charts=(
            Chart(title="Multiply-adds and accuracy", x="multiply-adds (M)", y="top-1 (%)", log_x=True,
                  series=tuple(series),
                  note="At 224 px. Hollow squares: printed multiply-adds; full circles: exact counts, at the "
                  "paper's accuracy where no run here has one. Sizes of models are in the table."),
        ),
        comparisons=(Comparison("What the picture shows.", (TOP1, MADDS, PARAMS), tuple(lines)),),
    )  # fmt: skip


def figure7(timing: Timing, scores: Scores) -> Exhibit:
    """Multipliers against resolutions."""
    groups: list[tuple[str, int, Sequence[PaperRow]]] = []
    for colour, size in enumerate(("large", "small")):
        rows = [row for row in TABLE9 if size in row.network]
        sides = [row for row in rows if "@" in row.network or row.network == f"v3-{size}"]
        groups += [
            (f"{size.title()}, widths", colour, _widths(size)),
            (f"{size.title()}, resolutions", colour + 2, sides),
        ]
    return _tradeoff(
        "figure7", "Fig. 7: multipliers and resolutions", groups, timing, scores,
        "Widths 0.35 to 1.25 at 224 px; resolutions 96 to 256 at width 1 (Table 9).",
    )  # fmt: skip


def figure8(timing: Timing, scores: Scores) -> Exhibit:
    """h-swish, fused and not, against ReLU."""
    paper = [
        Series(name="V3, widths (Table 9)", points=_theirs(_widths("large")), hollow=True, joined=True),
        *(
            Series(name=row.label, colour=1 + i, hollow=True, mark="square", points=_fused(row),
                   joined=True, named=True)
            for i, row in enumerate(TABLE5)
        ),
    ]  # fmt: skip
    ours, theirs, lines = [], [], []
    for i, (variant, label) in enumerate(VARIANTS.items()):
        for end, how, kind in (
            ("", "one operator", "fused"),
            (UNFUSED, "several operators", "unfused"),
        ):
            points = []
            for width in WIDTHS:
                name = _named(width, variant) + end
                spread = timing.ratio((name, FLOAT), (_named(width, "+relu"), FLOAT))
                if spread is None:
                    continue
                said = f"{spread.median:.3f} ({spread.p10:.3f} to {spread.p90:.3f})"
                said = f"{label} at width {width:g}, {how}: {said}"
                points.append(Point(width, spread.median, said))
                if width == 1:
                    pair = spread_pair(_printed(variant)[kind], spread)
                    lines.append(Line(f"{label}, {how}", name, (pair,)))
            if points:
                mark = "cross" if end else MARKS[i]
                ours.append(Series(
                    name=f"{label}, {kind}", points=tuple(points), colour=i, mark=mark, joined=True
                ))  # fmt: skip
        points = [
            Point(1.0, value, f"{label}, {kind}: {value:.3f} (paper, Pixel 1)")
            for kind, value in _printed(variant).items()
        ]
        theirs.append(
            Series(
                name=f"{label}, paper", colour=i, hollow=True, mark=MARKS[i], points=tuple(points)
            )
        )
    charts = [
        Chart(title="The paper's points", x="Pixel 1 latency (ms)", y="top-1 (%)", series=tuple(paper),
              note="Table 5's rows, each fused and unfused (joined), over V3's widths of Table 9."),
        Chart(title="Latency over that with ReLU, here", x="width multiplier", y="times ReLU's latency",
              series=(*ours, *theirs),
              note="Each network over the same width with ReLU throughout. Crosses: h-swish made of four "
              "operators. Hollow: the paper's ratios at width 1 (Table 5)."),
    ]  # fmt: skip
    variants = ("+relu", "+hswish16", "+hswish112")
    return Exhibit(
        name="figure8", title="Fig. 8: h-swish, fused and not, against ReLU",
        charts=tuple(charts if ours else charts[:1]),
        comparisons=(one_ratio("Latency over ReLU's at width 1.", "over ReLU", lines),) if lines else (),
        notes=measured_note(timing),
        missing_what="accuracies of the variants at each width",
        missing=classifier_commands([_named(w, v) for v in variants for w in WIDTHS], scores),
    )  # fmt: skip


def figure9(timing: Timing, scores: Scores) -> Exhibit:
    """The components, introduced one after another."""
    steps = fig9_components(resolve(SEED), resolve("v3-large"))
    printed = {"seed network": 71.0 / 51.0, "squeeze-and-excite": 1.0}
    points, lines, before = [], [], 0.0
    for label, spec in steps:
        madds, saved = count(spec).madds / 1e6, FIG9_SAVINGS.get(label)
        spread = timing.ratio((spec.name, FLOAT), (steps[-1][1].name, FLOAT))
        if spread is not None:
            said = f"{label}: {spread.median:.3f} of V3-Large, {madds:.1f}M multiply-adds"
            points.append(Point(spread.median, madds, said))
        saving = Pair(saved[1], before - madds) if saved else Pair()
        ratio = spread_pair(printed.get(label), spread)
        lines.append(Line(label, spec.name, (Pair(None, madds), saving, ratio)))
        before = madds
    theirs = (
        Point(71 / 51, 315, "MnasNet-A1: 71 / 51 ms, 315M multiply-adds (paper, Table 3)"),
        Point(1.0, 219, "V3-Large: 1, 219M multiply-adds (paper, Table 3)"),
    )
    chart = Chart(
        title="Components, one after another", x="latency over V3-Large's", y="multiply-adds (M)",
        series=(
            Series(name="paper, first and last (Table 3)", points=theirs, hollow=True, mark="square",
                   colour=1, joined=True),
            Series(name="here", points=tuple(points), joined=True, named=True),
        ),
        note="From the seed network (right) to V3-Large. The figure's accuracies are printed nowhere "
        "and are not here, so multiply-adds stand on the axis.",
    )  # fmt: skip
    return Exhibit(
        name="figure9", title="Fig. 9: what each component brings", charts=(chart,) if points else (),
        comparisons=(
            Comparison(
                "From the seed network to V3-Large; savings as in section 5.1.",
                (
                    Quantity("MAdds (M)", 1, compared=False), Quantity("MAdds saved (M)", 1),
                    Quantity("latency over V3-Large's", 3, derived=True),
                ),
                tuple(lines),
            ),
        ),
        notes=(
            "The networks in between are made backwards from V3-Large; no source prints their tables.",
            "Section 5.1 gives the efficient last stage 7 ms or 11 %, the stem 2 ms.",
            *measured_note(timing),
        ),
        missing_what="accuracies of the networks in between",
        missing=tuple(
            f"bneck train {name} --data IMAGENET --recipe paper"
            for name in ("v3-large+original-tail", "v3-large+stem32-relu", "v3-large+relu")
        ),
    )  # fmt: skip


def want_figure(figure: int, wanted: Wanted, *, quick: bool, fused_only: bool) -> None:
    """Add what a figure needs timed."""
    match figure:
        case 1 | 7:
            wanted.want([row.network for row in (*TABLE3, *TABLE9)])
            if figure == 1:
                wanted.want([named(one) for one in known_networks()])
        case 8:
            for width in (0.5, 1.0) if quick else WIDTHS:
                wanted.want([_named(width, variant) for variant in ("+relu", *VARIANTS)])
                if not fused_only:
                    wanted.want([_named(width, variant) + UNFUSED for variant in VARIANTS])
        case 9:
            wanted.want(spec for _, spec in fig9_components(resolve(SEED), resolve("v3-large")))


def _tradeoff(
    name: str, title: str, groups: Groups, timing: Timing, scores: Scores, note: str
) -> Exhibit:
    theirs, here, lines = [], [], {}
    for number, (label, colour, rows) in enumerate(groups):
        drawn = partial(Series, colour=colour, mark=MARKS[number % len(MARKS)])
        rows = sorted(rows, key=lambda row: row.ms[0])
        theirs.append(drawn(name=label, points=_theirs(rows), hollow=True, joined=True))
        borrowed, own = _ours(rows, timing, scores)
        here += [drawn(name=label, points=borrowed, hollow=True, joined=True)] if borrowed else []
        here += [drawn(name=f"{label}, our run", points=own)] if own else []
        for row in rows:
            base = beside_full(row.network)
            printed = row.ms[0] / next(r.ms[0] for r in TABLE9 if r.network == base)
            ratio = ratio_pair(timing, (row.network, FLOAT), (base, FLOAT), printed)
            lines[row.network] = line(row, Pair(row.top1, scores.top1(row.network)), ratio)
    charts = [
        Chart(title="The paper", x="Pixel 1 latency (ms)", y="top-1 (%)", log_x=True,
              series=tuple(theirs), note=note),
        Chart(title="Here", x="latency here (ms)", y="top-1 (%)", log_x=True, series=tuple(here),
              note=BORROWED if all(one.hollow for one in here) else f"{BORROWED} {OWN}"),
    ]  # fmt: skip
    return Exhibit(
        name=name, title=title, charts=tuple(charts if here else charts[:1]),
        comparisons=(
            Comparison(
                "What the pictures show; latency over that of V3-Large or V3-Small at width 1, 224 px.",
                (TOP1, Quantity("latency ratio", 3, derived=True)), tuple(lines.values()),
            ),
        ),
        notes=measured_note(timing),
        missing_what="ImageNet accuracy", missing=classifier_commands(lines, scores),
    )  # fmt: skip


def _theirs(rows: Iterable[PaperRow]) -> tuple[Point, ...]:
    words = "{}: {:g} ms, {} % (paper, Table {})"
    ordered = sorted(rows, key=lambda row: row.ms[0])
    return tuple(
        Point(row.ms[0], row.top1, words.format(row.label, row.ms[0], row.top1, row.table))
        for row in ordered
    )


def _ours(
    rows: Sequence[PaperRow], timing: Timing, scores: Scores
) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """Points at the paper's accuracy, and at a run's own."""
    borrowed, own = [], []
    for row in rows:
        measured, top1 = timing.ms(row.network), scores.top1(row.network)
        x = measured.ours
        if x is None:
            continue
        if top1 is not None:
            own.append(Point(x, top1, f"{row.label}: {x:.3g} ms, {top1:.1f} % (a run here)"))
        said = f"{row.label}: {x:.3g} ms here, {row.top1} % in the paper"
        borrowed.append(Point(x, row.top1, said, measured.low, measured.high))
    return tuple(borrowed), tuple(own)


def _fused(row: PaperRow) -> tuple[Point, ...]:
    slow, words = row.unfused_ms or 0.0, "{}: {:g} ms, {} % (paper, Table 5)"
    points = (
        Point(row.ms[0], row.top1, words.format(row.label, row.ms[0], row.top1)),
        Point(slow, row.top1, words.format(f"{row.label} unfused", slow, row.top1)),
    )
    return points if slow != row.ms[0] else points[:1]


def _printed(variant: str) -> dict[str, float]:
    """Table 5's latencies of a variant over ReLU's."""
    rows = {row.network: row for row in TABLE5}
    row, relu = rows[f"v3-large{variant}"], rows["v3-large+relu"].ms[0]
    return {"fused": row.ms[0] / relu, "unfused": (row.unfused_ms or 0.0) / relu}


def _widths(size: str) -> list[PaperRow]:
    return [row for row in TABLE9 if size in row.network and "@" not in row.network]


def _named(width: float, variant: str) -> str:
    return ("v3-large" if width == 1 else f"v3-large-{width:g}") + variant
