"""Detection's part of a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bneck.tasks.checks import CHOSEN
from bneck.tasks.detect.tables import KEYS
from bneck.tasks.tables import percent

COLUMNS = ("AP", *KEYS)


def report_lines(record: Mapping[str, Any]) -> list[str]:
    """Markdown: the loss, average precision and recall of every class, the threshold, the sheets."""
    lines = [
        f"SSDLite with extra feature maps of {', '.join(map(str, record['wrapper']['extras']))} channels; "
        f"loss {record['options']['task']['loss']}.",
        "",
    ]
    for found in record.get("scores", {}).values():
        lines += _evaluation(found)
    return lines


def _evaluation(found: Mapping[str, Any]) -> list[str]:
    split = found["split"]
    lines = [f"## On {split}", "", "| class | objects | " + " | ".join(COLUMNS) + " |"]
    lines.append("|---|--:|" + "--:|" * len(COLUMNS))
    for name, row in [("all", {**found, "AP": found["score"]}), *found["classes"].items()]:
        values = " | ".join(percent(row[key]) for key in COLUMNS)
        lines.append(f"| {name} | {row['objects']} | {values} |")
    recall = ", ".join(f"{key} {percent(found[key])}" for key in ("AR_1", "AR_10", "AR_100"))
    lines += ["", f"Percent. Average recall: {recall}.", ""]
    if best := found.get("threshold"):
        lines += [
            f"Boxes with a score of at least {best['score']:.2f} balance best: "
            f"{percent(best['precision'])} % of them are true positives, {percent(best['recall'])} % of the "
            f"objects are found ({CHOSEN.format(split=split)}).",
            "",
        ]
    if found.get("sheet"):
        lines += [f"![true positives, misses and false positives on {split}]({found['sheet']})", ""]
    return lines
