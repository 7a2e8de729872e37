"""Detection's part of a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bneck.tasks.checks import CHOSEN
from bneck.tasks.detect.tables import KEYS
from bneck.tasks.tables import percent


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
    columns = ("AP", *KEYS)
    lines = [f"## On {found['split']}", "", "| class | objects | " + " | ".join(columns) + " |"]
    lines.append("|---|--:|" + "--:|" * len(columns))
    for name, row in [("all", {**found, "AP": found["score"]}), *found["classes"].items()]:
        lines.append(
            f"| {name} | {row['objects']} | {' | '.join(percent(row[k]) for k in columns)} |"
        )
    recall = ", ".join(f"{key} {percent(found[key])}" for key in ("AR_1", "AR_10", "AR_100"))
    lines += ["", f"Percent. Average recall: {recall}.", ""]
    if best := found.get("threshold"):
        lines += [
            f"Boxes with a score of at least {best['score']:.2f} balance best: "
            f"{percent(best['precision'])} % of them are true positives, {percent(best['recall'])} % of the "
            f"objects are found ({CHOSEN.format(split=found['split'])}).",
            "",
        ]
    if found.get("sheet"):
        lines += [
            f"![true positives, misses and false positives on {found['split']}]({found['sheet']})",
            "",
        ]
    return lines
