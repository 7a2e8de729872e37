"""Tables 1 to 9 of the paper next to ours: one function per table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from bneck.costs.count import count
from bneck.costs.paper import TABLE3, TABLE4, TABLE5, TABLE9
from bneck.costs.paper_networks import COLUMNS, PRINTED, as_printed
from bneck.costs.published import published
from bneck.paper.scores import Scores
from bneck.paper.timing import DETECTOR, UNFUSED, Timing, Wanted, sized
from bneck.records.measurement import Spread
from bneck.report.exhibits import Comparison, Exhibit, Line, Pair, Quantity
from bneck.report.numbers import ARROW, NONE
from bneck.report.tables import Table, columns
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
CLASSIFIERS = {3: TABLE3, 4: TABLE4, 5: TABLE5, 9: TABLE9}
Key = tuple[str, str]  # a network's name and its precision
Base = Callable[[str], str]  # the network whose latency another's is divided by


def printed_network(table: int) -> Exhibit:
    """Table 1 or 2: every cell as printed next to the zoo's."""
    printed = PRINTED[table]
    spec = resolve(printed.network)
    rows, equal = [], 0
    for theirs, ours in zip(printed.rows, as_printed(spec), strict=True):
        equal += theirs == ours
        cells = [a if a == b else f"{a} {ARROW} {b}" for a, b in zip(theirs, ours, strict=True)]
        cells.append("yes" if theirs == ours else "no")
        rows.append(tuple(NONE if cell == "-" else cell for cell in cells))
    costs = count(spec)
    title = (
        f"As printed ({ARROW} ours where it differs): {equal} of {len(rows)} rows are equal. Counted: "
        f"{costs.params:,} parameters, {costs.madds:,} multiply-adds."
    )
    heads = columns(*COLUMNS, "equal", text=range(1, len(COLUMNS) + 1))
    return Exhibit(
        name=f"table{table}", title=f"Table {table}: {printed.network}",
        plain=(Table(title=title, columns=heads, rows=tuple(rows)),),
        notes=tuple(f"Row {index}: {note}." for index, note in printed.notes.items()),
    )  # fmt: skip


def table3(timing: Timing, scores: Scores) -> Exhibit:
    return _classifiers(3, "floating-point performance", beside_v2, timing, scores)


def table4(timing: Timing, scores: Scores) -> Exhibit:
    floats = {row.network: row.ms[0] for row in TABLE3}
    gain = one_ratio(
        "8-bit latency over float latency (the paper's from Tables 4 and 3, Pixel 1).", "8-bit / float",
        [
            line(row, ratio_pair(timing, (row.network, "int8"), (row.network, FLOAT),
                                 row.ms[0] / floats[row.network]))
            for row in TABLE4
        ],
    )  # fmt: skip
    return _classifiers(4, "performance in 8 bits", beside_v2, timing, scores, gain)


def table5(timing: Timing, scores: Scores) -> Exhibit:
    unfused = one_ratio(
        "h-swish made of several operators (the table's no-opt) over h-swish as one.", "unfused / fused",
        [
            line(row, ratio_pair(timing, (row.network + UNFUSED, FLOAT), (row.network, FLOAT),
                                 (row.unfused_ms or 0.0) / row.ms[0]))
            for row in TABLE5
        ],
    )  # fmt: skip
    title = "nonlinearities on V3-Large"
    return _classifiers(5, title, lambda name: "v3-large", timing, scores, unfused)


def table9(timing: Timing, scores: Scores) -> Exhibit:
    return _classifiers(9, "multipliers and resolutions", beside_full, timing, scores)


def table6(timing: Timing, scores: Scores) -> Exhibit:
    """SSDLite on COCO."""
    v2 = next(row for row in TABLE6 if row.network == "v2")
    counts, times, absent = [], [], []
    for row in TABLE6:
        detector, found = ssdlite(row.network), scores.best("detect", row.network)
        costs, name = count_detector(detector), DETECTOR + detector.name
        if found is None:
            absent.append(row.network)
        counts.append(line(
            row, Pair(row.map, found), Pair(float(row.params_m), costs.params_table6 / 1e6),
            Pair(float(row.madds_b), costs.madds / 1e9),
        ))  # fmt: skip
        times.append(line(
            row, Pair(row.latency_ms, timing.ms(name).ours),
            ratio_pair(timing, (name, FLOAT), (DETECTOR + "v2", FLOAT), row.latency_ms / v2.latency_ms),
        ))  # fmt: skip
    return Exhibit(
        name="table6", title="Table 6: SSDLite on COCO",
        comparisons=(
            Comparison(
                "mAP: theirs on test-dev, ours (where there is a run) on val. Parameters without batch "
                "norm's, 91 slots, 320 px.",
                (Quantity("mAP (%)", 1, least=1, absent=ABSENT), PARAMS, Quantity("MAdds (B)", 3)),
                tuple(counts),
            ),
            Comparison(
                "Latency; here without decoding and suppression.",
                (_ms("ms", 2, "Pixel 1"), Quantity("over V2", 3, derived=True)), tuple(times),
            ),
        ),
        notes=(
            *(f"{row.label}: {row.note}." for row in TABLE6 if row.note),
            *scores.others("detect"), *measured_note(timing, "detect"),
        ),
        missing_what="mAP on COCO",
        missing=tuple(
            f"bneck train {name} --task detect --data COCO --out runs/detect-{_file(name)}"
            for name in absent
        ),
    )  # fmt: skip


def table7(timing: Timing, scores: Scores) -> Exhibit:
    return _segmentation(7, "val", timing, scores)


def table8(timing: Timing, scores: Scores) -> Exhibit:
    return _segmentation(8, "test", timing, scores)


def want_table(table: int, wanted: Wanted, *, fused_only: bool) -> None:
    """Add what a table needs timed."""
    if rows := CLASSIFIERS.get(table):
        wanted.want([row.network for row in rows])
        if table == 4:
            wanted.want([row.network for row in rows], "int8")
        if table == 5 and not fused_only:
            wanted.want([row.network + UNFUSED for row in rows if row.label != "ReLU"])
    if table == 6:
        wanted.detectors |= dict.fromkeys(row.network for row in TABLE6)
    wanted.segmenters |= dict.fromkeys(
        (row.network, row.head, row.filters) for row in PUBLISHED_SEGMENTERS if row.table == table
    )


def _classifiers(
    table: int, title: str, base: Base, timing: Timing, scores: Scores, *more: Comparison
) -> Exhibit:
    rows = CLASSIFIERS[table]
    first = {row.network: row for row in rows}
    counts, times, notes = [], [], []
    for row in rows:
        costs = count(resolve(row.network))
        told = next((p for p in published(row.network) if p.source == f"Table {table}"), None)
        notes += [f"{row.label}: {told.note}."] if told and told.note else []
        counts.append(line(
            row, Pair(row.top1, scores.top1(row.network, row.precision)),
            Pair(told.madds_m if told else None, costs.madds / 1e6),
            Pair(told.params_m if told else None, costs.params / 1e6),
        ))  # fmt: skip
        against = first[base(row.network)]
        key, other = (row.network, row.precision), (against.network, row.precision)
        ratio, *others = (theirs / its for theirs, its in zip(row.ms, against.ms, strict=True))
        times.append(line(
            row, replace(timing.ms(*key), paper=row.ms[0]), ratio_pair(timing, key, other, ratio),
            *map(Pair, others),
        ))  # fmt: skip
    bases = " or ".join(dict.fromkeys(base(row.network) for row in rows))
    printed = any(entry.pairs[1].paper is not None for entry in counts[:1])
    return Exhibit(
        name=f"table{table}", title=f"Table {table}: {title}",
        comparisons=(
            Comparison(
                "ImageNet top-1, and exact counts"
                + (" beside the printed ones." if printed else "; the table prints none."),
                (TOP1, MADDS, PARAMS), tuple(counts),
            ),
            Comparison(
                f"Latency, and its ratio to that of {bases}.",
                (
                    _ms("ms", 2, "Pixel 1"), _ratio("ratio", "Pixel 1"),
                    *(Quantity("ratio", 3, derived=True, paper=phone) for phone in PHONES[1 : len(row.ms)]),
                ),
                tuple(times),
            ),
            *more,
        ),
        notes=(*notes, *scores.others("classify"), *measured_note(timing)),
        missing_what="ImageNet accuracy" + (" in 8 bits" if table == 4 else ""),
        missing=classifier_commands(first, scores, rows[0].precision),
    )  # fmt: skip


def _segmentation(table: int, split: str, timing: Timing, scores: Scores) -> Exhibit:
    rows = [row for row in PUBLISHED_SEGMENTERS if row.table == table]
    first, base = rows[0], _segmenter(rows[0]).name
    counts, times, missing = [], [], []
    for row in rows:
        seg, found = _segmenter(row), None
        if table == 7:
            found = scores.best("segment", row.network, head=row.head, filters=row.filters)
        if found is None:
            run = f"runs/{_file(row.network)}-{row.head}{row.filters}"
            missing.append(
                f"bneck train {row.network} --task segment --data CITYSCAPES --head {row.head} --filters "
                f"{row.filters} --out {run}"
            )
        costs, half = count_segmenter(seg, FULL), paper_madds(seg, HALF)
        label = f"{row.row}: {seg.name}"
        counts.append(Line(label, row.network, (
            Pair(row.miou, found),
            Pair(row.params_m, costs.params / 1e6),
            Pair(row.madds_b, paper_madds(seg) / 1e9),
            Pair(row.half_madds_b, half / 1e9 if row.half_madds_b else None),
            Pair(None, costs.madds / 1e9),
        )))  # fmt: skip
        pairs: list[Pair] = []
        for size, ms, others in (
            (HALF, row.half_latency_ms, first.half_latency_ms),
            (FULL, 1e3 * row.latency_s, 1e3 * first.latency_s),
        ):
            key, other = (sized(seg.name, size), FLOAT), (sized(base, size), FLOAT)
            pairs += [Pair(ms, timing.ms(*key).ours), ratio_pair(timing, key, other, ms / others)]
        times.append(Line(label, row.network, tuple(pairs)))
    return Exhibit(
        name=f"table{table}", title=f"Table {table}: segmentation, Cityscapes {split}",
        comparisons=(
            Comparison(
                "Counts as the paper makes them (one pixel more a side, elementwise terms included), at "
                "1024 x 2048 and at half; last, our own count of convolutions alone.",
                (
                    Quantity("mIOU (%)", 1, least=1, absent=ABSENT), PARAMS, Quantity("MAdds (B)", 2),
                    Quantity("MAdds at half (B)", 2), Quantity("convolutions (B)", 2, compared=False),
                ),
                tuple(counts),
            ),
            Comparison(
                f"Latency in ms, and its ratio to the first row's, {base}.",
                (
                    _ms("512x1024 ms", 0, "Pixel 3"), _ratio("512x1024 ratio", "Pixel 3"),
                    _ms("1024x2048 ms", 0, "Pixel 3"), _ratio("1024x2048 ratio", "Pixel 3"),
                ),
                tuple(times),
            ),
        ),
        notes=(*scores.others("segment"), *measured_note(timing, "segment")),
        missing_what=f"mIOU on Cityscapes {split}" + (", which its server judges" if table == 8 else ""),
        missing=tuple(missing),
    )  # fmt: skip


def _segmenter(row: PublishedSegmenter) -> Segmenter:
    return segmenter(resolve(row.network), head=row.head, filters=row.filters)


def _ms(title: str, decimals: int, phone: str) -> Quantity:
    return Quantity(title, decimals, compared=False, paper=phone, ours="here")


def _ratio(title: str, phone: str) -> Quantity:
    return Quantity(title, 3, derived=True, paper=phone, ours="here")


def line(row: Any, *pairs: Pair) -> Line:
    """The line of a printed row, which has a `label` and a `network`."""
    return Line(row.label, row.network, pairs)


def one_ratio(title: str, name: str, lines: Iterable[Line]) -> Comparison:
    """A table of one ratio, in which the paper's are quotients of what it prints."""
    return Comparison(title, (Quantity(name, 3, derived=True),), tuple(lines))


def spread_pair(printed: float | None, spread: Spread | None) -> Pair:
    """A printed number next to a measured one with its spread, if there is one."""
    return Pair(printed, spread.median, spread.p10, spread.p90) if spread else Pair(printed)


def ratio_pair(timing: Timing, key: Key, base: Key, printed: float) -> Pair:
    """A printed ratio of two latencies next to the measured one."""
    pair = spread_pair(printed, timing.ratio(key, base))
    # A network over itself is 1 without a spread.
    return pair if key != base or pair.ours is None else Pair(printed, 1.0)


def measured_note(timing: Timing, task: str = DEFAULT) -> tuple[str, ...]:
    """What was measured where, as a note; nothing where nothing was."""
    return tuple(filter(None, [timing.sentence(task)]))


def classifier_commands(
    networks: Iterable[str], scores: Scores, precision: str = FLOAT
) -> tuple[str, ...]:
    """Commands that train the networks whose ImageNet accuracy no run here has."""
    commands = []
    for name in dict.fromkeys(networks):
        if scores.top1(name, precision) is None:
            run = f"runs/{_file(name)}"
            commands.append(f"bneck train {name} --data IMAGENET --recipe paper --out {run}")
            if precision != FLOAT:
                commands.append(
                    f"bneck quantize {run} --data IMAGENET --runtime litert --out {run}-8bit"
                )
    return tuple(commands)


def beside_v2(network: str) -> str:
    """The V2 that Tables 3 and 4 print near a network: of its size."""
    return "v2-0.35" if "small" in network or network == "v2-0.35" else "v2"


def beside_full(network: str) -> str:
    """The V3 of width 1 at 224 px of a network's size."""
    return "v3-small" if "small" in network or network == "v2-0.35" else "v3-large"


def _file(network: str) -> str:
    return network.replace("@", "-").replace("+", "-")
