"""Published figures of the zoo's networks, to compare ours with.

Counts as printed, in millions, and ImageNet top-1 in percent: what the paper's tables say
("Table 3", "Table 9"), and where they are silent the networks' own papers or their authors' code, or
timm, whose weights of MobileNetV4 are the only published ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from bneck.costs.count import Count
from bneck.costs.paper import TABLE3, TABLE9

MADDS_TOLERANCE_M, PARAMS_TOLERANCE_M = 1.0, 0.1  # the paper rounds and truncates by turns


@dataclass(frozen=True, slots=True)
class Published:
    """One printed row. `note` says why its counts differ from the exact ones where they do."""

    network: str
    source: str
    top1: float | None
    madds_m: float | None
    params_m: float
    note: str = ""

    def differs(self, costs: Count) -> bool:
        """Whether exact counts miss the printed ones by over 1M multiply-adds or 0.1M parameters."""
        return (
            abs(costs.madds / 1e6 - (self.madds_m or costs.madds / 1e6)) > MADDS_TOLERANCE_M
            or abs(costs.params / 1e6 - self.params_m) > PARAMS_TOLERANCE_M
        )


PUBLISHED: tuple[Published, ...] = (
    *(
        Published(row.network, f"Table {row.table}", row.top1, row.madds_m, row.params_m, row.note)
        for row in (*TABLE9, *TABLE3)
        if row.madds_m is not None and row.params_m is not None
    ),
    Published("v1", "MobileNets", 70.6, 569, 4.2),
    Published("v3-large-minimalistic", "authors' code", 72.3, 209, 3.9),
    Published("v3-small-minimalistic", "authors' code", 61.9, 65, 2.0,
              "their 65M belongs to an older Small"),
    Published("v3-edgetpu", "authors' code", 75.6, 990, 4.0),
    Published("v3-edgetpu-0.75", "authors' code", None, 624, 2.9),
    Published("v4-conv-small", "timm", 73.8, None, 3.77),
    Published("v4-conv-small-0.5", "timm", 64.8, None, 2.24),
    Published("v4-conv-medium", "timm", 79.1, None, 9.72),
    *(
        Published("lcnet" if width == 1 else f"lcnet-{width}", "PP-LCNet", top1, madds_m, params_m,
                  "its authors add 2 for every number through batch norm")
        for width, top1, madds_m, params_m in (
            (0.25, 51.86, 18, 1.5), (0.35, 58.09, 29, 1.6), (0.5, 63.14, 47, 1.9),
            (0.75, 68.18, 99, 2.4), (1.0, 71.32, 161, 3.0), (1.5, 73.71, 342, 4.5),
            (2.0, 75.18, 590, 6.5), (2.5, 76.60, 906, 9.0),
        )
    ),
    Published("efficientnet-lite0", "authors' code", 75.1, 407, 4.7,
              "its authors count more than convolutions and linear"),
)  # fmt: skip


def published(network: str) -> tuple[Published, ...]:
    """The printed rows of a network by name, `v3-large-0.75` or `v3-large@192`; () for none."""
    return tuple(row for row in PUBLISHED if row.network == network)
