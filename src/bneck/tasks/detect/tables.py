"""What is printed about detectors: costs, Table 6, average precision. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import Any

from bneck.records.run import RunFolder, task_run
from bneck.specs.text import load
from bneck.specs.transforms import with_resolution
from bneck.tasks.contract import Table
from bneck.tasks.detect.count import PAPER_V2_CLASSES, TABLE6, count_detector
from bneck.tasks.detect.head import COCO_IDS, Detector, Ssdlite, ssdlite
from bneck.tasks.tables import matching, percent

KEYS = ("AP50", "AP_small", "AP_medium", "AP_large")


def count_table(networks: Iterable[str], options: Any) -> Table:
    """Costs of SSDLite around networks by name."""
    detectors = [(name, run_detector(name, options) or _named(name, options)) for name in networks]
    counted = [(name, detector, count_detector(detector)) for name, detector in detectors]
    return Table(
        title="SSDLite; slots are the classes and the background",
        columns=("network", "resolution", "slots", "anchors", "params", "without BN", "MAdds"),
        rows=[
            (
                name, str(d.resolution), str(d.slots),
                *(f"{n:,}" for n in (costs.anchors, costs.params, costs.params_table6, costs.madds)),
            )
            for name, d, costs in counted
        ],
        values=[
            {"network": name, "resolution": d.resolution, "classes": d.classes, **asdict(costs)}
            for name, d, costs in counted
        ],
    )  # fmt: skip


def _named(name: str, options: Any) -> Detector:
    classes = COCO_IDS if options.classes is None else options.classes
    return ssdlite(name, classes=classes, resolution=options.resolution)


def run_detector(path: str | Path, options: Any) -> Detector | None:
    """The detector of a run's folder as it was trained, but for what is asked; None: no such run."""
    folder = RunFolder(task_run(path))
    record = folder.read() if folder.run_json.is_file() else {}
    if record.get("task") != "detect":
        return None
    spec, classes = load(folder.spec), len(record["classes"])
    if options.resolution is not None:
        spec = with_resolution(spec, options.resolution)
    return Ssdlite(
        classes=classes if options.classes is None else options.classes,
        extras=tuple(record["wrapper"]["extras"]),
    ).around(spec)


def zoo_table(pattern: str) -> Table:
    """The rows of Table 6 in its order, with exact counts for the 91 slots of COCO's ids and for 81.

    Args:
        pattern: see `tasks.tables.matching`.

    Raises:
        InputError: no row is about such a network.
    """
    lacks = "Table 6 has no network {pattern!r}; it has {known}"
    counted = [
        (
            row,
            count_detector(ssdlite(row.network)),
            count_detector(ssdlite(row.network, classes=PAPER_V2_CLASSES)),
        )
        for row in matching(TABLE6, pattern, attrgetter("network"), lacks)
    ]
    return Table(
        title="SSDLite at 320 px with 91 slots, parameters in millions without batch norm's, multiply-adds in "
        "billions;\n* marks printed counts that ours miss by over 0.01",
        columns=(
            "row", "network", "params", "printed", "81 slots", "MAdds", "elementwise", "printed", "", "mAP",
            "Pixel 1 ms", "why",
        ),
        left=(0, 1, 8, 11),
        rows=[
            (
                row.label, row.network, f"{costs.params_table6 / 1e6:.3f}", row.params_m,
                f"{other.params_table6 / 1e6:.3f}", f"{costs.madds / 1e9:.4f}",
                f"{costs.madds_elementwise / 1e9:.4f}", row.madds_b,
                "*" if row.differs(costs) else "", f"{row.map:g}", f"{row.latency_ms:g}",
                row.note if row.differs(costs) else "",
            )
            for row, costs, other in counted
        ],
        values=[
            {
                **asdict(row), "differs": row.differs(costs), "counted": asdict(costs),
                "params_81_slots": other.params_table6,
            }
            for row, costs, other in counted
        ],
    )  # fmt: skip


def score_table(scores: Sequence[Mapping[str, Any]]) -> Table:
    """Average precision in percent, by class and size of the objects."""
    rows = []
    for one in scores:
        for name, row in [*one["classes"].items(), ("all (mAP)", {**one, "AP": one["score"]})]:
            numbers = (percent(row[key]) for key in ("AP", *KEYS))
            rows.append((one["split"], name, str(row["objects"]), *numbers))
    return Table(
        title="average precision in percent",
        columns=("split", "class", "objects", "AP", "AP50", "small", "medium", "large"),
        rows=rows,
        values=scores,
        left=(0, 1),
    )
