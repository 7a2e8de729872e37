"""What the commands do with `--task detect`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from bneck.cli.options import print_json, print_table
from bneck.cli.tables import new_table
from bneck.recipes.detectors import count_detector, detector_zoo
from bneck.specs.detector import COCO_IDS, ssdlite


def count(
    networks: Sequence[str], classes: int | None, resolution: int | None, as_json: bool
) -> None:
    """Print the costs of detectors."""
    chosen = COCO_IDS if classes is None else classes
    detectors = [ssdlite(name, classes=chosen, resolution=resolution) for name in networks]
    counted = list(zip(networks, detectors, map(count_detector, detectors), strict=True))
    if as_json:
        found = [
            {"network": name, "resolution": d.resolution, "classes": d.classes, **asdict(costs)}
            for name, d, costs in counted
        ]
        print_json(found[0] if len(found) == 1 else found)
        return
    columns = ("network", "resolution", "slots", "anchors", "params", "without BN", "MAdds")
    lines = new_table("SSDLite; slots are the classes and the background", columns, left=(0,))
    for name, d, costs in counted:
        numbers = (costs.anchors, costs.params, costs.params_table6, costs.madds)
        lines.add_row(name, str(d.resolution), str(d.slots), *(f"{n:,}" for n in numbers))
    print_table(lines)


def zoo(pattern: str, as_json: bool) -> None:
    """Print Table 6 beside exact counts."""
    entries = detector_zoo(pattern)
    if as_json:
        print_json(
            [
                {
                    **asdict(entry.row),
                    "differs": entry.row.differs(entry.costs),
                    "counted": asdict(entry.costs),
                    "params_81_slots": entry.costs_81.params_table6,
                }
                for entry in entries
            ]
        )
        return
    lines = new_table(
        "SSDLite at 320 px with 91 slots, parameters in millions without batch norm's, multiply-adds in "
        "billions;\n* marks printed counts that ours miss by over 0.01",
        (
            "row", "network", "params", "printed", "81 slots", "MAdds", "elementwise", "printed", "", "mAP",
            "Pixel 1 ms", "why",
        ),
        left=(0, 1, 8, 11),
    )  # fmt: skip
    for entry in entries:
        row, costs = entry.row, entry.costs
        differs = row.differs(costs)
        lines.add_row(
            row.label, row.network, f"{costs.params_table6 / 1e6:.3f}", row.params_m,
            f"{entry.costs_81.params_table6 / 1e6:.3f}", f"{costs.madds / 1e9:.4f}",
            f"{costs.madds_elementwise / 1e9:.4f}", row.madds_b, "*" if differs else "", f"{row.map:g}",
            f"{row.latency_ms:g}", row.note if differs else "",
        )  # fmt: skip
    print_table(lines)
