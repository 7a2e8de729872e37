"""What is printed about segmenters: costs, Tables 7 and 8, IOU by class. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter
from typing import Any

from bneck.specs.text import resolve
from bneck.tasks.contract import Table
from bneck.tasks.options import sized
from bneck.tasks.segment.count import (
    FULL,
    HALF,
    PUBLISHED_SEGMENTERS,
    count_segmenter,
    paper_madds,
)  # fmt: skip
from bneck.tasks.segment.head import segmenter
from bneck.tasks.segment.options import count_of, named_segmenter, run_segmenter
from bneck.tasks.tables import matching, percent


def count_table(networks: Iterable[str], options: Any) -> Table:
    """Costs of segmenters around networks by name, at one image size."""
    pixels, classes = sized(options.size) or FULL, count_of(options)
    segmenters = [
        run_segmenter(n) or named_segmenter(n, options, classes=classes) for n in networks
    ]
    counted = [(seg, count_segmenter(seg, pixels), paper_madds(seg, pixels)) for seg in segmenters]
    return Table(
        title=f"{classes} classes, {pixels[0]} x {pixels[1]} pixels; Table 7 counts MAdds at one pixel "
        "more per side, with elementwise terms",
        columns=(
            "segmenter", "output stride", "params", "MAdds", "as Table 7", "peak activations kB",
        ),
        rows=[
            (
                seg.name, str(seg.output_stride), f"{costs.params:,}", f"{costs.madds:,}",
                f"{paper:,}", f"{costs.activation_bytes / 1024:,.0f}",
            )
            for seg, costs, paper in counted
        ],
        values=[
            {
                "network": seg.network.name, "size": list(pixels), "output_stride": seg.output_stride,
                **seg.settings(), "params": costs.params, "madds": costs.madds,
                "madds_table7": paper, "activation_bytes": costs.activation_bytes,
            }
            for seg, costs, paper in counted
        ],
    )  # fmt: skip


def zoo_table(pattern: str) -> Table:
    """The rows of Tables 7 and 8 in their order, with exact counts and those that the tables print.

    Args:
        pattern: see `tasks.tables.matching`.

    Raises:
        InputError: no row is about such a network.
    """
    lacks, counted = "Tables 7 and 8 have no network {pattern!r}; they have {known}", []
    for row in matching(PUBLISHED_SEGMENTERS, pattern, attrgetter("network"), lacks):
        seg = segmenter(resolve(row.network), head=row.head, filters=row.filters)
        counted.append((row, count_segmenter(seg, FULL), paper_madds(seg), paper_madds(seg, HALF)))
    return Table(
        title="Cityscapes, 19 classes, 1024 x 2048 and half of it; parameters in millions, multiply-adds in "
        "billions as the tables count them",
        columns=(
            "table", "row", "network", "head", "params", "printed", "MAdds", "printed", "half", "printed",
            "mIOU %", "Pixel 3 s",
        ),
        left=(2, 3),
        rows=[
            (
                str(row.table), str(row.row), row.network, f"{row.head}{row.filters}",
                f"{costs.params / 1e6:.3f}", _printed(row.params_m), f"{madds / 1e9:.2f}",
                _printed(row.madds_b), f"{half / 1e9:.2f}", _printed(row.half_madds_b),
                f"{row.miou:g}", f"{row.latency_s:.2f}",
            )
            for row, costs, madds, half in counted
        ],
        values=[
            {
                **asdict(row), "params": costs.params, "madds": costs.madds,
                "madds_as_printed": madds, "half_madds_as_printed": half,
            }
            for row, costs, madds, half in counted
        ],
    )  # fmt: skip


def score_table(scores: Sequence[Mapping[str, Any]]) -> Table:
    """IOU in percent, by class."""
    rows = [(name, *(percent(one["iou"][name]) for one in scores)) for name in scores[0]["iou"]]
    rows.append(("all (mIOU)", *(percent(one["score"]) for one in scores)))
    rows.append(("pixel accuracy", *(percent(one["pixels"]) for one in scores)))
    return Table(
        title="IOU in percent",
        columns=("class", *(one["split"] for one in scores)),
        rows=rows,
        values=scores,
    )


def _printed(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
