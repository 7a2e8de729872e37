"""What the commands print, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from bneck.cli.options import new_table
from bneck.costs.count import Count, RowCount
from bneck.costs.paper import paper_ratio
from bneck.records.measurement import Measurement, Spread
from bneck.report.exhibits import Exhibit, comparison_table
from bneck.report.subjects import Subject
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool

NAMES = {"hswish": "HS", "relu": "RE", "relu6": "R6", "linear": "-"}


def spec_table(spec: NetSpec, costs: Count) -> Table:
    """A network as in the paper's Tables 1 and 2, with the costs of its rows."""
    rows = []
    for row, cost in zip([*spec.rows, None], costs.rows, strict=True):
        match row:
            case Bneck():
                after = "" if row.out_act == "linear" else f"+{NAMES[row.out_act]}"
                cells = [
                    "fused" if row.fused else "bneck", row.kernels, row.expanded, row.out, row.se or "-",
                    NAMES[row.act] + after, row.stride, "yes" if spec.has_skip(cost.row) else "-",
                ]  # fmt: skip
            case Conv():
                name = "conv2d" if row.bn else "NBN"
                cells = [name, row.kernel, "-", row.out, "-", NAMES[row.act], row.stride, "-"]
            case Pool():
                cells = ["pool", cost.size_in[0], *"-" * 6]
            case None:
                cells = ["NBN", 1, "-", spec.classes, "-", "-", 1, "-"]
        size = f"{cost.size_in[0]}x{cost.width_in}"
        rows.append([str(cost.row), size, *map(str, cells), *_costs(cost)])
    rows.append(["", "total", *[""] * 8, *_costs(costs)])
    columns = ("#", "input", "operator", "k", "exp", "out", "SE", "NL", "s", "add", "params", "MAdds M",
               "act kB")  # fmt: skip
    title = f"{spec.name} at {spec.resolution} px, {spec.classes} classes, {spec.padding} padding"
    table = new_table(title, columns, rows, left=(1, 2))
    table.rows[-2].end_section = True  # a rule above the total
    return table


def _costs(cost: Count | RowCount) -> list[str]:
    kilobytes = f"{cost.activation_bytes / 1024:,.0f}"
    return [f"{cost.params:,}", f"{cost.madds / 1e6:.2f}", kilobytes]


def measurement_table(found: Sequence[Measurement], *, paper: bool = False) -> Table:
    """Measured latencies, with ratios to the first, taken round by round, and their spread.

    With `paper`, each ratio stands next to that of the paper's own latencies.
    """
    first, rows = found[0], []
    for one in found:
        printed = paper_ratio(one.network, one.precision, first.network, first.precision)
        rows.append([
            one.network, f"{one.resolution} x {one.width or one.resolution}",
            f"{one.runtime} {one.runtime_version}", one.precision, *_spread(one.latency_ms),
            *[f"{ms:.3f}" if ms else "-" for ms in (one.fastest_ms, one.cpu_ms)], str(one.n), str(one.repeated),
            *_spread(one.ratio(first)), *[f"{printed:.3f}" if printed else "-"] * paper,
        ])  # fmt: skip
    where = "" if first.device.place == "local" else f"{first.device.place}: "
    threads = f"{first.threads} thread{'s' if first.threads > 1 else ''}"
    columns = ("network", "pixels", "runtime", "precision", "median ms", "p10", "p90", "fastest",
               "cpu ms", "n", "repeated", "ratio", "p10", "p90", *["paper"] * paper)  # fmt: skip
    return new_table(
        f"{where}{first.device.processor}, {threads}, batch 1", columns, rows, left=(0, 2, 3)
    )


def _spread(spread: Spread) -> list[str]:
    return [f"{value:.3f}" for value in (spread.median, spread.p10, spread.p90)]


def quantize_table(record: Mapping[str, Any]) -> Table:
    """Float and int8 side by side."""
    rows = []
    for row in record["rows"]:
        scores = ["-" if row[key] is None else f"{row[key]:.1%}" for key in record["metrics"]]
        timed = f"{row['latency_ms']:.3f}" if "latency_ms" in row else "-"
        ratio = row.get("ratio")
        ratios = [f"{ratio[key]:.3f}" if ratio else "-" for key in ("median", "p10", "p90")]
        rows.append([row["name"], *scores, timed, *ratios, f"{row['size_mb']:.2f}"])
    return new_table(
        f"{record['network']} in {record['runtime']} {record['runtime_version']}, "
        f"{record['images']['val']} val images",
        ("", *record["metrics"].values(), "median ms", "ratio", "p10", "p90", "MB"),
        rows,
    )


def ship_table(record: Mapping[str, Any]) -> Table:
    """Every file of `bneck ship`, the one that is kept marked."""
    rows = []
    for number, row in enumerate(record["rows"]):
        times = row["latency_ms"] or {}
        timed = [f"{times[key]:.3f}" if times else "-" for key in ("median", "p10", "p90")]
        rows.append([
            "->" if number == record["picked"] else "", row["runtime"],
            f"{row['precision']}{' QAT' if row['epochs'] else ''}",
            f"{row['size_mb']:.2f}", "-" if row["score"] is None else f"{row['score']:.1%}",
            "-" if row["loss"] is None else f"{row['loss']:+.1f}", *timed,
            "-" if row["ratio"] is None else f"{row['ratio']:.2f}",
            "-" if row["memory_mb"] is None else f"{row['memory_mb']:.1f}",
        ])  # fmt: skip
    columns = (
        "", "runtime", "precision", "MB", record["metric"], "points lost", "median ms", "p10", "p90",
        "of its fp32", "memory MB",
    )  # fmt: skip
    title = f"{record['network']} on {record['device']}, {record['images']['val']} val images"
    return new_table(title, columns, rows, left=(0, 1, 2))


def front_table(record: Mapping[str, Any]) -> Table:
    """The networks of a front that were trained in full, the fastest first."""
    entries = sorted(record["blocks"]["finalists"], key=lambda entry: float(entry["measured_ms"]))
    return new_table(
        f"front of accuracy and latency, specs in {Path(record['run']) / 'front'}",
        ("trial", "measured ms", "estimated ms", f"held-out {record.get('metric', 'top-1')}"),
        [
            (str(entry["number"]), f"{entry['measured_ms']:.3f}", f"{entry['estimated_ms']:.3f}",
             f"{fmean(entry['heldout_score']):.1%}")
            for entry in entries
        ],
        left=(),
    )  # fmt: skip


def exhibit_tables(exhibit: Exhibit) -> list[Table]:
    """The tables of one of the paper's exhibits."""
    return [
        new_table(
            plain.title, [column.title for column in plain.columns], plain.rows,
            left=[i for i, column in enumerate(plain.columns) if not column.number],
        )
        for plain in (*exhibit.plain, *map(comparison_table, exhibit.comparisons))
    ]  # fmt: skip


def subjects_table(subjects: Sequence[Subject]) -> Table:
    """What was compared, a line each."""
    rows = [
        (
            one.label, one.kind, str(one.spec.resolution), f"{one.params / 1e6:.3f}",
            f"{one.madds / 1e6:.2f}", "-" if one.latency_ms is None else f"{one.latency_ms:.3f}",
            " / ".join(f"{100 * score:.1f}" for score in one.scores) or "-",
            f"{one.metric}, {one.data}" if one.scores else "-",
        )
        for one in subjects
    ]  # fmt: skip
    columns = ("network", "kind", "px", "params M", "MAdds M", "median ms", "score %", "of")
    return new_table("", columns, rows, left=(0, 1, 7))
