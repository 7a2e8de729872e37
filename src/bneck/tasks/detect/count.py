"""Exact costs of a detector, and Table 6 to compare them with."""

from __future__ import annotations

from dataclasses import dataclass

from bneck.costs.count import count_elementwise, count_madds, count_params
from bneck.tasks.detect.head import Detector, extra_layers, features, head_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCount:
    """Costs of one part of a detector: "backbone", "extras" or "heads"."""

    part: str
    params: int
    madds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorCount:
    """Costs of a detector for one image.

    `params` counts all learned numbers. `params_table6` leaves out batch norm's scale and shift, as
    Table 6 does. `madds` are those of convolutions; `madds_elementwise` adds two for every
    number that goes through h-swish and one for every product of squeeze-and-excite, which
    V3-Large's row of the table needs.
    """

    params: int
    params_table6: int
    madds: int
    madds_elementwise: int
    anchors: int
    parts: tuple[PartCount, ...]


def count_detector(detector: Detector) -> DetectorCount:
    """Count a detector at its resolution."""
    walks = {
        "backbone": tuple(features(detector)), "extras": tuple(extra_layers(detector)),
        "heads": tuple(head_layers(detector)),
    }  # fmt: skip
    parts = tuple(
        PartCount(part=name, params=sum(map(count_params, walk)), madds=sum(map(count_madds, walk)))
        for name, walk in walks.items()
    )
    walk = [layer for part in walks.values() for layer in part]
    params, madds = sum(part.params for part in parts), sum(part.madds for part in parts)
    normed = [layer for layer in walk if layer.bn and layer.kind in ("conv", "depthwise")]
    boxes = [layer for layer in walks["heads"] if layer.name.startswith("boxes")]
    # Each map has a depthwise conv, then the one that predicts four numbers per anchor.
    cells = sum(one.out // 4 * one.size_out[0] * one.size_out[1] for one in boxes[1::2])
    return DetectorCount(
        params=params, params_table6=params - sum(2 * layer.out for layer in normed), madds=madds,
        madds_elementwise=madds + sum(map(count_elementwise, walk)), anchors=cells, parts=parts,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Table6Row:
    """One printed row: mAP on COCO's test set, milliseconds on a Pixel 1, parameters, multiply-adds.

    `params_m` and `madds_b` are text, since how many digits are printed says how exact they are.
    `note` says what is known of a row whose counts are not ours.
    """

    label: str
    network: str
    map: float
    latency_ms: float
    params_m: str
    madds_b: str
    note: str = ""

    def differs(self, costs: DetectorCount) -> bool:
        """Whether exact counts (91 slots) are not the printed ones.

        They may miss by 0.01M and 0.01B, or by half a unit of the last digit where few are printed.
        """
        pairs = ((self.params_m, costs.params_table6 / 1e6), (self.madds_b, costs.madds / 1e9))
        return any(_misses(printed, exact) for printed, exact in pairs)


TOLERANCE = 0.01
PAPER_V2_CLASSES = 80  # what the MobileNetV2 paper counted its and V1's detectors with
_CARRIED = "the printed parameters fit 81 slots, as in the MobileNetV2 paper"
_MNAS = "squeeze widths of the authors' MnasNet may be others"


def _row(label: str, network: str, figures: str, note: str = "") -> Table6Row:
    mean, latency, params, madds = figures.split()
    return Table6Row(
        label=label, network=network, map=float(mean), latency_ms=float(latency), params_m=params,
        madds_b=madds, note=note,
    )  # fmt: skip


TABLE6: tuple[Table6Row, ...] = (
    #                                           mAP  ms  params MAdds
    _row("V1", "v1", "                         22.2 228  5.1   1.3", _CARRIED),
    _row("V2", "v2", "                         22.1 162  4.3   0.80", _CARRIED),
    _row("MnasNet", "mnasnet-a1", "            23.0 174  4.88  0.84", _MNAS),
    _row("V3", "v3-large", "                   22.0 137  4.97  0.62"),
    _row("V3 dagger", "v3-large+dagger", "     22.0 119  3.22  0.51"),
    _row("V2 0.35", "v2-0.35", "               13.7  66  0.93  0.16"),
    _row("V2 0.5", "v2-0.5", "                 16.6  79  1.54  0.27"),
    _row("MnasNet 0.35", "mnasnet-a1-0.35", "  15.6  68  1.02  0.18"),
    _row("MnasNet 0.5", "mnasnet-a1-0.5", "    18.5  85  1.68  0.29", _MNAS),
    _row("V3-Small", "v3-small", "             16.0  52  2.49  0.21"),
    _row("V3-Small dagger", "v3-small+dagger", "16.1 43  1.77  0.16"),
)


def _misses(printed: str, exact: float) -> bool:
    digits = len(printed.partition(".")[2])
    return abs(float(printed) - exact) > max(TOLERANCE, 0.5 * 10.0**-digits)
