"""Tables 1 to 9 of the paper beside ours: one function a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bneck.costs.count import count
from bneck.costs.paper import TABLE3, TABLE4, TABLE5, TABLE9, PaperRow
from bneck.costs.paper_networks import COLUMNS, PRINTED, as_printed
from bneck.costs.published import Published, published
from bneck.paper.scores import Scores
from bneck.paper.timing import DETECTOR, UNFUSED, Timing, Wanted, sized
from bneck.report.exhibits import Comparison, Exhibit, Line, Pair, Quantity
from bneck.report.numbers import ARROW, NONE
from bneck.report.tables import Column, Table
from bneck.specs.text import resolve
from bneck.tasks.detect.count import TABLE6, count_detector
from bneck.tasks.detect.head import ssdlite
from bneck.tasks.registry import DEFAULT
from bneck.tasks.segment.count import (
    FULL,
    HALF,
    PUBLISHED_SEGMENTERS,
    PublishedSegmenter,
    count_segmenter,
    paper_madds,
)
from bneck.tasks.segment.head import Segmenter, segmenter

FLOAT, ABSENT = "fp32", "not here"
TOP1 = Quantity("top-1 (%)", 1, least=1, absent=ABSENT)
MADDS, PARAMS = Quantity("MAdds (M)", 1), Quantity("params (M)", 2, least=1)
PHONES = ("Pixel 1", "Pixel 2", "Pixel 3")
Base = Callable[[str], str]  # the network whose latency another's is divided by


def printed_network(table: int) -> Exhibit:
    """Table 1 or 2: every cell as printed beside the zoo's."""
    printed = PRINTED[table]
    spec = resolve(printed.network)
    ours = as_printed(spec)
    rows, different = [], 0
    for theirs, mine in zip(printed.rows, ours, strict=True):
        different += theirs != mine
        cells = [a if a == b else f"{a} {ARROW} {b}" for a, b in zip(theirs, mine, strict=True)]
        rows.append(
            (*(NONE if cell == "-" else cell for cell in cells), "yes" if theirs == mine else "no")
        )
    costs = count(spec)
    return Exhibit(
        name=f"table{table}",
        title=f"Table {table}: {printed.network}",
        plain=(
            Table(
                title=f"As printed ({ARROW} ours where it differs): {len(rows) - different} of {len(rows)} "
                f"rows are equal. Counted: {costs.params:,} parameters, {costs.madds:,} multiply-adds.",
                columns=(
                    Column(COLUMNS[0]),
                    *(Column(name, number=False) for name in COLUMNS[1:]),
                    Column("equal", number=False),
                ),
                rows=tuple(rows),
            ),
        ),
        notes=tuple(f"Row {index}: {note}." for index, note in printed.notes.items()),
    )


def table3(timing: Timing, scores: Scores) -> Exhibit:
    """Floating-point performance."""
    return _classifiers(
        "table3", "Table 3: floating-point performance", TABLE3, beside_v2, timing, scores
    )


def table4(timing: Timing, scores: Scores) -> Exhibit:
    """Performance in 8 bits."""
    lines = []
    for row in TABLE4:
        quick = timing.ratio((row.network, "int8"), (row.network, "fp32"))
        floats = next(r for r in TABLE3 if r.network == row.network)
        pair = (
            Pair(row.ms[0] / floats.ms[0])
            if quick is None
            else Pair(row.ms[0] / floats.ms[0], quick.median, quick.p10, quick.p90)
        )
        lines.append(Line(row.label, row.network, (pair,)))  # fmt: skip
    gain = Comparison(
        title="8-bit latency over float latency (the paper's from Tables 4 and 3, Pixel 1).",
        quantities=(Quantity("8-bit / float", 3, derived=True),),
        lines=tuple(lines),
    )
    return _classifiers(
        "table4", "Table 4: performance in 8 bits", TABLE4, beside_v2, timing, scores,
        more=(gain,),
    )  # fmt: skip


def table5(timing: Timing, scores: Scores) -> Exhibit:
    """Nonlinearities on V3-Large, h-swish fused and not."""
    lines = []
    for row in TABLE5:
        assert row.unfused_ms is not None
        slow = timing.ratio((row.network + UNFUSED, "fp32"), (row.network, "fp32"))
        printed = row.unfused_ms / row.ms[0]
        pair = Pair(printed) if slow is None else Pair(printed, slow.median, slow.p10, slow.p90)
        lines.append(Line(row.label, row.network, (pair,)))
    unfused = Comparison(
        title="h-swish made of several operators (the table's no-opt) over h-swish as one.",
        quantities=(Quantity("unfused / fused", 3, derived=True),),
        lines=tuple(lines),
    )
    return _classifiers(
        "table5", "Table 5: nonlinearities on V3-Large", TABLE5, lambda name: "v3-large", timing,
        scores, more=(unfused,),
    )  # fmt: skip


def table9(timing: Timing, scores: Scores) -> Exhibit:
    """All multipliers and resolutions."""
    return _classifiers(
        "table9", "Table 9: multipliers and resolutions", TABLE9, beside_full, timing, scores
    )


def table6(timing: Timing, scores: Scores) -> Exhibit:
    """SSDLite on COCO."""
    v2 = next(row for row in TABLE6 if row.network == "v2")
    counts, times, absent = [], [], []
    for row in TABLE6:
        detector, found = ssdlite(row.network), scores.best("detect", row.network)
        costs = count_detector(detector)
        if found is None:
            absent.append(row.network)
        counts.append(
            Line(row.label, row.network, (
                Pair(row.map, found),
                Pair(float(row.params_m), costs.params_table6 / 1e6),
                Pair(float(row.madds_b), costs.madds / 1e9),
            ))
        )  # fmt: skip
        name = DETECTOR + detector.name
        times.append(
            Line(row.label, row.network, (
                Pair(row.latency_ms, timing.ms(name).ours),
                ratio_pair(timing, (name, "fp32"), (DETECTOR + "v2", "fp32"), row.latency_ms / v2.latency_ms),
            ))
        )  # fmt: skip
    return Exhibit(
        name="table6",
        title="Table 6: SSDLite on COCO",
        comparisons=(
            Comparison(
                title="mAP: theirs on test-dev, ours (where there is a run) on val. Parameters without batch "
                "norm's, 91 slots, 320 px.",
                quantities=(
                    Quantity("mAP (%)", 1, least=1, absent=ABSENT),
                    PARAMS,
                    Quantity("MAdds (B)", 3),
                ),
                lines=tuple(counts),
            ),
            Comparison(
                title="Latency; here without decoding and suppression.",
                quantities=(
                    Quantity("ms", 2, compared=False, paper="Pixel 1", ours="here"),
                    Quantity("over V2", 3, derived=True),
                ),
                lines=tuple(times),
            ),
        ),
        notes=(
            *(f"{row.label}: {row.note}." for row in TABLE6 if row.note),
            *scores.others("detect"),
            *said(timing, "detect"),
        ),
        missing_what="mAP on COCO",
        missing=tuple(
            f"bneck train {name} --task detect --data COCO --out runs/detect-{_file(name)}"
            for name in absent
        ),
    )


def table7(timing: Timing, scores: Scores) -> Exhibit:
    """Heads and backbones on Cityscapes' val set."""
    return _segmentation(7, "Table 7: segmentation, Cityscapes val", timing, scores)


def table8(timing: Timing, scores: Scores) -> Exhibit:
    """Output strides on Cityscapes' test set."""
    return _segmentation(8, "Table 8: segmentation, Cityscapes test", timing, scores)


def want_table(table: int, wanted: Wanted, *, fused_only: bool) -> None:
    """Add what a table needs timed."""
    match table:
        case 3 | 4 | 5 | 9:
            rows = {3: TABLE3, 4: TABLE4, 5: TABLE5, 9: TABLE9}[table]
            wanted.want([row.network for row in rows])
            if table == 4:
                wanted.want([row.network for row in rows], "int8")
            if table == 5 and not fused_only:
                wanted.want([row.network + UNFUSED for row in rows if row.label != "ReLU"])
        case 6:
            wanted.detectors |= dict.fromkeys(row.network for row in TABLE6)
        case 7 | 8:
            wanted.segmenters |= dict.fromkeys(
                (row.network, row.head, row.filters)
                for row in PUBLISHED_SEGMENTERS
                if row.table == table
            )


def _classifiers(
    name: str,
    title: str,
    rows: Sequence[PaperRow],
    base: Base,
    timing: Timing,
    scores: Scores,
    *,
    more: tuple[Comparison, ...] = (),
) -> Exhibit:
    first = {row.network: row for row in rows}
    phones = PHONES[: len(rows[0].ms)]
    counts, times = [], []
    for row in rows:
        costs, told = count(resolve(row.network)), _told(row)
        counts.append(
            Line(row.label, row.network, (
                Pair(row.top1, scores.top1(row.network, row.precision)),
                Pair(told.madds_m if told else None, costs.madds / 1e6),
                Pair(told.params_m if told else None, costs.params / 1e6),
            ))
        )  # fmt: skip
        against = first[base(row.network)]
        key, other = (row.network, row.precision), (against.network, row.precision)
        ratios = [theirs / its for theirs, its in zip(row.ms, against.ms, strict=True)]
        measured = timing.ms(*key)
        times.append(
            Line(row.label, row.network, (
                Pair(row.ms[0], measured.ours, measured.low, measured.high),
                ratio_pair(timing, key, other, ratios[0]),
                *(Pair(ratio) for ratio in ratios[1:]),
            ))
        )  # fmt: skip
    bases = " or ".join(dict.fromkeys(base(row.network) for row in rows))
    notes = (f"{row.label}: {told.note}." for row in rows if (told := _told(row)) and told.note)
    return Exhibit(
        name=name,
        title=title,
        comparisons=(
            Comparison(
                title="ImageNet top-1, and exact counts"
                + (" beside the printed ones." if _told(rows[0]) else "; the table prints none."),
                quantities=(TOP1, MADDS, PARAMS),
                lines=tuple(counts),
            ),
            Comparison(
                title=f"Latency, and its ratio to that of {bases}.",
                quantities=(
                    Quantity("ms", 2, compared=False, paper="Pixel 1", ours="here"),
                    Quantity("ratio", 3, derived=True, paper="Pixel 1", ours="here"),
                    *(Quantity("ratio", 3, derived=True, paper=phone) for phone in phones[1:]),
                ),
                lines=tuple(times),
            ),
            *more,
        ),
        notes=(*notes, *scores.others("classify"), *said(timing)),
        missing_what="ImageNet accuracy" + (" in 8 bits" if name == "table4" else ""),
        missing=classifier_commands(first, scores, rows[0].precision),
    )


def _segmentation(table: int, title: str, timing: Timing, scores: Scores) -> Exhibit:
    rows = [row for row in PUBLISHED_SEGMENTERS if row.table == table]
    first, base = rows[0], _segmenter(rows[0]).name
    counts, times, absent = [], [], []
    for row in rows:
        seg, found = _segmenter(row), None
        if table == 7:
            found = scores.best("segment", row.network, head=row.head, filters=row.filters)
        if found is None:
            absent.append(row)
        costs, half = count_segmenter(seg, FULL), paper_madds(seg, HALF)
        label = f"{row.row}: {seg.name}"
        counts.append(
            Line(label, row.network, (
                Pair(row.miou, found),
                Pair(row.params_m, costs.params / 1e6),
                Pair(row.madds_b, paper_madds(seg) / 1e9),
                Pair(row.half_madds_b, half / 1e9 if row.half_madds_b else None),
                Pair(None, costs.madds / 1e9),
            ))
        )  # fmt: skip
        printed = (
            (HALF, row.half_latency_ms, first.half_latency_ms),
            (FULL, 1e3 * row.latency_s, 1e3 * first.latency_s),
        )
        pairs: list[Pair] = []
        for size, ms, others in printed:
            key, other = (sized(seg.name, size), FLOAT), (sized(base, size), FLOAT)
            pairs += [
                Pair(ms, timing.ms(*key).ours),
                ratio_pair(timing, key, other, ms / others),
            ]
        times.append(Line(label, row.network, tuple(pairs)))
    return Exhibit(
        name=f"table{table}",
        title=title,
        comparisons=(
            Comparison(
                title="Counts as the paper makes them (one pixel more a side, elementwise terms included), at "
                "1024 x 2048 and at half; last, our own count of convolutions alone.",
                quantities=(
                    Quantity("mIOU (%)", 1, least=1, absent=ABSENT), PARAMS, Quantity("MAdds (B)", 2),
                    Quantity("MAdds at half (B)", 2),
                    Quantity("convolutions (B)", 2, compared=False),
                ),
                lines=tuple(counts),
            ),
            Comparison(
                title=f"Latency in ms, and its ratio to the first row's, {base}.",
                quantities=(
                    Quantity("512x1024 ms", 0, compared=False, paper="Pixel 3", ours="here"),
                    Quantity("512x1024 ratio", 3, derived=True, paper="Pixel 3", ours="here"),
                    Quantity("1024x2048 ms", 0, compared=False, paper="Pixel 3", ours="here"),
                    Quantity("1024x2048 ratio", 3, derived=True, paper="Pixel 3", ours="here"),
                ),
                lines=tuple(times),
            ),
        ),
        notes=(*scores.others("segment"), *said(timing, "segment")),
        missing_what="mIOU on Cityscapes" + (" test, which its server judges" if table == 8 else " val"),
        missing=tuple(_segment_command(row) for row in absent),
    )  # fmt: skip


def _segment_command(row: PublishedSegmenter) -> str:
    run = f"runs/{_file(row.network)}-{row.head}{row.filters}"
    text = f"bneck train {row.network} --task segment --data CITYSCAPES --head {row.head}"
    return f"{text} --filters {row.filters} --out {run}"


def _segmenter(row: PublishedSegmenter) -> Segmenter:
    return segmenter(resolve(row.network), head=row.head, filters=row.filters)


def ratio_pair(timing: Timing, key: tuple[str, str], base: tuple[str, str], printed: float) -> Pair:
    spread = timing.ratio(key, base)
    if spread is None:
        return Pair(printed)
    if key == base:
        return Pair(printed, 1.0)
    return Pair(printed, spread.median, spread.p10, spread.p90)


def said(timing: Timing, task: str = DEFAULT) -> tuple[str, ...]:
    """What was measured where, as a note; nothing where nothing was."""
    sentence = timing.sentence(task)
    return (sentence,) if sentence else ()


def classifier_commands(
    networks: Iterable[str], scores: Scores, precision: str = FLOAT
) -> tuple[str, ...]:
    """Commands that train the networks whose ImageNet accuracy no run here has."""
    commands: dict[str, None] = {}
    for name in networks:
        if scores.top1(name, precision) is None:
            run = f"runs/{_file(name)}"
            commands[f"bneck train {name} --data IMAGENET --recipe paper --out {run}"] = None
            if precision != FLOAT:
                quantize = f"bneck quantize {run} --data IMAGENET --runtime litert --out {run}-8bit"
                commands[quantize] = None
    return tuple(commands)


def _told(row: PaperRow) -> Published | None:
    return next((p for p in published(row.network) if p.source == f"Table {row.table}"), None)


def beside_v2(network: str) -> str:
    return "v2-0.35" if "small" in network or network == "v2-0.35" else "v2"


def beside_full(network: str) -> str:
    return "v3-small" if "small" in network or network == "v2-0.35" else "v3-large"


def _file(network: str) -> str:
    return network.replace("@", "-").replace("+", "-")
