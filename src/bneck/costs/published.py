"""Published figures of the zoo's networks, to hold ours against.

Counts as printed, in millions, and ImageNet top-1 in percent: what the paper's tables say
("Table 3", "Table 9"), and where they are silent the networks' own papers or their authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass

from bneck.costs.count import Count

MADDS_TOLERANCE_M, PARAMS_TOLERANCE_M = 1.0, 0.1  # the paper rounds and truncates by turns


@dataclass(frozen=True, slots=True)
class Published:
    """One printed row. `note` says why its counts differ from the exact ones where they do."""

    network: str
    source: str
    top1: float | None
    madds_m: float
    params_m: float
    note: str = ""

    def differs(self, costs: Count) -> bool:
        """Whether exact counts miss the printed ones by over 1M multiply-adds or 0.1M parameters."""
        return (
            abs(costs.madds / 1e6 - self.madds_m) > MADDS_TOLERANCE_M
            or abs(costs.params / 1e6 - self.params_m) > PARAMS_TOLERANCE_M
        )


def _table9() -> tuple[Published, ...]:
    large = (
        ("v3-large-1.25", 76.6, 356, 7.5),
        ("v3-large", 75.2, 217, 5.4),
        ("v3-large-0.75", 73.3, 155, 4.0),
        ("v3-large-0.5", 68.8, 69, 2.6),
        ("v3-large-0.35", 64.2, 40, 2.2),
        ("v3-large@256", 76.0, 282, 5.4),
        ("v3-large@192", 73.7, 160, 5.4),
        ("v3-large@160", 71.7, 112, 5.4),
        ("v3-large@128", 68.4, 73, 5.4),
        ("v3-large@96", 63.3, 43, 5.4),
    )
    small = (
        ("v3-small-1.25", 70.4, 91, 3.6),
        ("v3-small", 67.5, 57, 2.5),
        ("v3-small-0.75", 65.4, 44, 2.0),
        ("v3-small-0.5", 58.0, 21, 1.6),
        ("v3-small-0.35", 49.8, 12, 1.4),
        ("v3-small@256", 68.5, 74, 2.5),
        ("v3-small@160", 62.8, 30, 2.5),
        ("v3-small@128", 57.3, 20, 2.5),
        ("v3-small@96", 51.7, 12, 2.5),
    )
    return tuple(
        Published(name, "Table 9", top1, madds, params)
        for name, top1, madds, params in (*large, *small)
    )


PUBLISHED: tuple[Published, ...] = (
    *_table9(),
    Published("v3-large", "Table 3", 75.2, 219, 5.4, "Table 9 prints 217 for the same network"),
    Published("v3-large-0.75", "Table 3", 73.3, 155, 4.0),
    Published("v3-small", "Table 3", 67.4, 56, 2.5),
    Published("v3-small-0.75", "Table 3", 65.4, 44, 2.0),
    Published(
        "mnasnet-a1",
        "Table 3",
        75.2,
        315,
        3.9,
        "its authors count more than convolutions and linear",
    ),
    Published("proxyless-mobile", "Table 3", 74.6, 320, 4.0),
    Published("v2", "Table 3", 72.0, 300, 3.4, "exactly 3.505M with 1000 classes"),
    Published(
        "mnas-small", "Table 3", 64.9, 65.1, 1.9, "another network, whose table was never published"
    ),
    Published("v2-0.35", "Table 3", 60.8, 59.2, 1.6),
    Published("v1", "MobileNets", 70.6, 569, 4.2),
    Published("v3-large-minimalistic", "authors' code", 72.3, 209, 3.9),
    Published(
        "v3-small-minimalistic",
        "authors' code",
        61.9,
        65,
        2.0,
        "their 65M belongs to an older Small",
    ),
    Published("v3-edgetpu", "authors' code", 75.6, 990, 4.0),
    Published("v3-edgetpu-0.75", "authors' code", None, 624, 2.9),
)


def published(network: str) -> tuple[Published, ...]:
    """The printed rows of a network by name, `v3-large-0.75` or `v3-large@192`; () for none."""
    return tuple(row for row in PUBLISHED if row.network == network)
