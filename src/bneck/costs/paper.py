"""Tables 3, 4, 5 and 9 as the paper prints them: ImageNet accuracies, counts, latencies.

Milliseconds are of one big core of Pixel 1, 2 and 3, TFLite, batch 1: for ratios alone, because bneck
measures nothing on those phones. Table 6 is in `tasks.detect.count`, Tables 7 and 8 in
`tasks.segment.count`, Tables 1 and 2 in `costs.paper_networks`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRow:
    """One printed row.

    `top1` is in percent, `madds_m` and `params_m` in millions where the table has them; `ms` has as
    many phones as the table. `unfused_ms` is Table 5's "no-opt": h-swish made of several operators.
    `note` says why the counts differ from the exact ones where they do.
    """

    table: int
    label: str
    network: str
    top1: float
    ms: tuple[float, ...]
    madds_m: float | None = None
    params_m: float | None = None
    precision: str = "fp32"
    unfused_ms: float | None = None
    note: str = ""


def _counted(
    table: int, label: str, network: str, top1: float, madds_m: float, params_m: float, *ms: float,
    note: str = "",
) -> PaperRow:  # fmt: skip
    return PaperRow(
        table=table, label=label, network=network, top1=top1, ms=ms, madds_m=madds_m,
        params_m=params_m, note=note,
    )  # fmt: skip


def _int8(label: str, network: str, top1: float, *ms: float) -> PaperRow:
    return PaperRow(table=4, label=label, network=network, top1=top1, ms=ms, precision="int8")


def _unfused(label: str, network: str, top1: float, ms: float, unfused_ms: float) -> PaperRow:
    return PaperRow(
        table=5, label=label, network=network, top1=top1, ms=(ms,), unfused_ms=unfused_ms
    )


TABLE3: tuple[PaperRow, ...] = (
    #                                         top-1  MAdds params Pixel 1, 2, 3
    _counted(3, "V3-Large 1.0", "v3-large", 75.2, 219, 5.4, 51, 61, 44,
             note="Table 9 prints 217 for the same network"),
    _counted(3, "V3-Large 0.75", "v3-large-0.75", 73.3, 155, 4.0, 39, 46, 40),
    _counted(3, "MnasNet-A1", "mnasnet-a1", 75.2, 315, 3.9, 71, 86, 61,
             note="its authors count more than convolutions and linear"),
    _counted(3, "Proxyless", "proxyless-mobile", 74.6, 320, 4.0, 72, 84, 60),
    _counted(3, "V2 1.0", "v2", 72.0, 300, 3.4, 64, 76, 56,
             note="exactly 3.505M with 1000 classes"),
    _counted(3, "V3-Small 1.0", "v3-small", 67.4, 56, 2.5, 15.8, 19.4, 14.4),
    _counted(3, "V3-Small 0.75", "v3-small-0.75", 65.4, 44, 2.0, 12.8, 15.6, 11.7),
    _counted(3, "Mnas-small", "mnas-small", 64.9, 65.1, 1.9, 20.3, 24.2, 17.2,
             note="another network, whose table was never published"),
    _counted(3, "V2 0.35", "v2-0.35", 60.8, 59.2, 1.6, 16.6, 19.6, 13.9),
)  # fmt: skip

TABLE4: tuple[PaperRow, ...] = (
    _int8("V3-Large 1.0", "v3-large", 73.8, 44, 42.5, 31.7),
    _int8("V2 1.0", "v2", 70.9, 52, 48.3, 37.0),
    _int8("V3-Small", "v3-small", 64.9, 15.5, 14.9, 10.7),
    _int8("V2 0.35", "v2-0.35", 57.2, 16.7, 15.6, 11.9),
)

TABLE5: tuple[PaperRow, ...] = (
    _unfused("V3-Large 1.0", "v3-large", 75.2, 51.4, 57.5),
    _unfused("ReLU", "v3-large+relu", 74.5, 50.5, 50.5),
    _unfused("h-swish @16", "v3-large+hswish16", 75.4, 53.5, 68.9),
    _unfused("h-swish @112", "v3-large+hswish112", 75.0, 51.0, 54.4),
)

TABLE9: tuple[PaperRow, ...] = (
    #                                    top-1  MAdds params Pixel 1
    _counted(9, "Large 1.25", "v3-large-1.25", 76.6, 356, 7.5, 77.0),
    _counted(9, "Large 1.0", "v3-large", 75.2, 217, 5.4, 51.2),
    _counted(9, "Large 0.75", "v3-large-0.75", 73.3, 155, 4.0, 39.8),
    _counted(9, "Large 0.5", "v3-large-0.5", 68.8, 69, 2.6, 21.7),
    _counted(9, "Large 0.35", "v3-large-0.35", 64.2, 40, 2.2, 15.1),
    _counted(9, "Large 256", "v3-large@256", 76.0, 282, 5.4, 65.6),
    _counted(9, "Large 192", "v3-large@192", 73.7, 160, 5.4, 38.0),
    _counted(9, "Large 160", "v3-large@160", 71.7, 112, 5.4, 27.8),
    _counted(9, "Large 128", "v3-large@128", 68.4, 73, 5.4, 17.8),
    _counted(9, "Large 96", "v3-large@96", 63.3, 43, 5.4, 12.5),
    _counted(9, "Small 1.25", "v3-small-1.25", 70.4, 91, 3.6, 23.6),
    _counted(9, "Small 1.0", "v3-small", 67.5, 57, 2.5, 15.8),
    _counted(9, "Small 0.75", "v3-small-0.75", 65.4, 44, 2.0, 12.8),
    _counted(9, "Small 0.5", "v3-small-0.5", 58.0, 21, 1.6, 7.7),
    _counted(9, "Small 0.35", "v3-small-0.35", 49.8, 12, 1.4, 5.7),
    _counted(9, "Small 256", "v3-small@256", 68.5, 74, 2.5, 20.0),
    _counted(9, "Small 160", "v3-small@160", 62.8, 30, 2.5, 8.6),
    _counted(9, "Small 128", "v3-small@128", 57.3, 20, 2.5, 5.8),
    _counted(9, "Small 96", "v3-small@96", 51.7, 12, 2.5, 4.4),
)

# What a component saves by section 5.1: milliseconds of a Pixel 1, millions of multiply-adds. The
# text has figures for these two alone, and Fig. 9 prints none at its points.
FIG9_SAVINGS: dict[str, tuple[float, float]] = {
    "efficient last stage": (7.0, 30.0),
    "stem": (2.0, 10.0),
}

PIXEL_1_MS: dict[tuple[str, str], float] = {
    (row.network, row.precision): row.ms[0] for row in (*TABLE3, *TABLE4)
}


def paper_ratio(network: str, precision: str, first: str, first_precision: str) -> float | None:
    """The paper's latency of a network over that of the first; None where it has not printed both."""
    times = PIXEL_1_MS.get((network, precision)), PIXEL_1_MS.get((first, first_precision))
    return times[0] / times[1] if times[0] and times[1] else None
