"""What the commands print, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from bneck.cli.options import new_table
from bneck.costs.count import Count
from bneck.costs.paper import paper_ratio
from bneck.records.measurement import Measurement
from bneck.report.exhibits import Exhibit, comparison_table
from bneck.report.subjects import Subject
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool

NAMES = {"hswish": "HS", "relu": "RE", "relu6": "R6", "linear": "-"}


def spec_table(spec: NetSpec, costs: Count) -> Table:
    """A network as in the paper's Tables 1 and 2, with the costs of its rows."""
    table = new_table(
        f"{spec.name} at {spec.resolution} px, {spec.classes} classes, {spec.padding} padding",
        (
            "#",
            "input",
            "operator",
            "k",
            "exp",
            "out",
            "SE",
            "NL",
            "s",
            "add",
            "params",
            "MAdds M",
            "act kB",
        ),
        left=(1, 2),
    )
    for row, cost in zip([*spec.rows, None], costs.rows, strict=True):
        size = f"{cost.size_in[0]}x{cost.width_in}"
        match row:
            case Bneck():
                operator = "fused" if row.fused else "bneck"
                cells = [
                    operator, row.kernel, row.expanded, row.out, row.se or "-", _acts(row), row.stride,
                    "yes" if spec.has_skip(cost.row) else "-",
                ]  # fmt: skip
            case Conv():
                name = "conv2d" if row.bn else "NBN"
                cells = [name, row.kernel, "-", row.out, "-", NAMES[row.act], row.stride, "-"]
            case Pool():
                cells = ["pool", cost.size_in[0], "-", "-", "-", "-", "-", "-"]
            case None:
                cells = ["NBN", 1, "-", spec.classes, "-", "-", 1, "-"]
        table.add_row(
            str(cost.row),
            size,
            *map(str, cells),
            f"{cost.params:,}",
            f"{cost.madds / 1e6:.2f}",
            f"{cost.activation_bytes / 1024:,.0f}",
        )
    table.add_section()
    table.add_row(
        "",
        "total",
        *[""] * 8,
        f"{costs.params:,}",
        f"{costs.madds / 1e6:.2f}",
        f"{costs.activation_bytes / 1024:,.0f}",
    )
    return table


def _acts(row: Bneck) -> str:
    behind = "" if row.out_act == "linear" else f"+{NAMES[row.out_act]}"
    return NAMES[row.act] + behind


def measurement_table(found: Sequence[Measurement], *, paper: bool = False) -> Table:
    """Measured latencies, with ratios to the first, taken round by round, and their spread.

    With `paper`, beside every ratio that of the paper's own latencies.
    """
    first = found[0]
    where = "" if first.device.place == "local" else f"{first.device.place}: "
    table = new_table(
        f"{where}{first.device.processor}, {first.threads} thread{'s' if first.threads > 1 else ''}, batch 1",
        (
            "network",
            "pixels",
            "runtime",
            "precision",
            "median ms",
            "p10",
            "p90",
            "cpu ms",
            "n",
            "repeated",
            "ratio",
            "p10",
            "p90",
            *(("paper",) if paper else ()),
        ),
        left=(0, 2, 3),
    )
    for one in found:
        ms, ratio = one.latency_ms, one.ratio(first)
        cells = [
            one.network,
            f"{one.resolution} x {one.width or one.resolution}",
            f"{one.runtime} {one.runtime_version}",
            one.precision,
            *(f"{value:.3f}" for value in (ms.median, ms.p10, ms.p90)),
            "-" if one.cpu_ms is None else f"{one.cpu_ms:.3f}",
            str(one.n),
            str(one.repeated),
            *(f"{value:.3f}" for value in (ratio.median, ratio.p10, ratio.p90)),
        ]
        if paper:
            printed = paper_ratio(one.network, one.precision, first.network, first.precision)
            cells.append(f"{printed:.3f}" if printed else "-")
        table.add_row(*cells)
    return table


def quantize_table(record: Mapping[str, Any]) -> Table:
    """Float and 8 bits side by side."""
    table = new_table(
        f"{record['network']} in {record['runtime']} {record['runtime_version']}, "
        f"{record['images']['val']} val images",
        ("", *record["metrics"].values(), "median ms", "ratio", "p10", "p90", "MB"),
        left=(0,),
    )
    for row in record["rows"]:
        timed = [f"{row['latency_ms']:.3f}"] if "latency_ms" in row else ["-"]
        ratio = row.get("ratio")
        timed += [f"{ratio[key]:.3f}" if ratio else "-" for key in ("median", "p10", "p90")]
        scores = ["-" if row[key] is None else f"{row[key]:.1%}" for key in record["metrics"]]
        table.add_row(row["name"], *scores, *timed, f"{row['size_mb']:.2f}")
    return table


def search_summary(record: Mapping[str, Any]) -> str:
    """What a finished search found, in four lines."""
    folder = Path(record["run"])
    met = "meets" if record["meets_target"] else "MISSES"
    baseline = record["baseline"]
    shipped = record.get("shipped")
    file = folder / (shipped["file"] if shipped else "found/model.onnx")
    metric = record.get("metric", "top-1")
    judged = ""
    if shipped:
        score = shipped.get("score")
        judged = f", {metric} {score:.1%}" if score is not None else ""
        judged = f" ({shipped['precision']}{judged})"
    return (
        f"{record['found']['name']}: {record['measured_latency_ms']:.3f} ms measured, {met} the target of "
        f"{record['target_ms']:.3f} ms\n"
        f"{metric} {record['score']:.1%}; uniform width {baseline['score']:.1%} at "
        f"{baseline['latency_ms']:.3f} ms\n"
        f"report: {folder / 'report.html'}\nmodel:  {file}{judged}"
    )


def front_table(record: Mapping[str, Any]) -> Table:
    """The networks of a front that were trained in full, the fastest first."""
    table = new_table(
        f"front of accuracy and latency, specs in {Path(record['run']) / 'front'}",
        ("trial", "measured ms", "estimated ms", f"held-out {record.get('metric', 'top-1')}"),
        left=(),
    )
    for entry in sorted(record["blocks"]["finalists"], key=lambda e: float(e["measured_ms"])):
        scores = entry["heldout_score"]
        table.add_row(
            str(entry["number"]),
            f"{entry['measured_ms']:.3f}",
            f"{entry['estimated_ms']:.3f}",
            f"{sum(scores) / len(scores):.1%}",
        )
    return table


def exhibit_tables(exhibit: Exhibit) -> list[Table]:
    """The tables of one of the paper's exhibits."""
    made = []
    for plain in (*exhibit.plain, *map(comparison_table, exhibit.comparisons)):
        left = [i for i, column in enumerate(plain.columns) if not column.number]
        table = new_table(plain.title, [column.title for column in plain.columns], left=left)
        for row in plain.rows:
            table.add_row(*row)
        made.append(table)
    return made


def subjects_table(subjects: Sequence[Subject]) -> Table:
    """What was compared, a line each."""
    table = new_table(
        "",
        ("network", "kind", "px", "params M", "MAdds M", "median ms", "score %", "of"),
        left=(0, 1, 7),
    )
    for one in subjects:
        table.add_row(
            one.label, one.kind, str(one.spec.resolution), f"{one.params / 1e6:.3f}",
            f"{one.madds / 1e6:.2f}", "-" if one.latency_ms is None else f"{one.latency_ms:.3f}",
            " / ".join(f"{100 * score:.1f}" for score in one.scores) or "-",
            f"{one.metric}, {one.data}" if one.scores else "-",
        )  # fmt: skip
    return table
