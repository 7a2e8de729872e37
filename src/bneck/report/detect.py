"""The report of a detection run: one Markdown page, from the run folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.records.files import write_text
from bneck.records.run import RunFolder
from bneck.report.numbers import chosen_on

_SHOWN = ("AP", "AP50", "AP_small", "AP_medium", "AP_large")
_MOST_DROPPED = 10


def write_detect_report(folder: Path) -> Path:
    """Write `report.md` into a run folder: COCO's numbers, those of every class, the sheets.

    Raises:
        InputError: no run folder, one of another version, or a full disk.
    """
    record = RunFolder(folder).read()
    settings, detector = record["settings"], record["detector"]
    lines = [f"# Detection run {folder.resolve().name}, {record['state']}", ""]
    for found in record.get("evaluations", {}).values():
        lines.append(
            f"**mAP {_percent(found['AP'])}**, AP50 {_percent(found['AP50'])} on {found['split']} "
            f"({found['images']} images, {found['objects']} objects)."
        )
    lines += [
        "",
        f"SSDLite round {record['name']} at {detector['resolution']} px, "
        f"{len(record['classes'])} classes, {record['params']:,} parameters, "
        f"{record['madds'] / 1e6:.1f}M multiply-adds; loss {settings['loss']}, "
        f"{settings['training']['epochs']:g} epochs of batches of {settings['training']['batch']}, rate "
        f"{settings['training']['lr']:g}, {_start(settings)}, seed {settings['training']['seed']}; bneck "
        f"{record['version']}, commit {record['commit']}.",
        "",
    ]
    for found in record.get("evaluations", {}).values():
        lines += _evaluation(found)
    lines += _dropped(record)
    path = folder / "report.md"
    write_text(path, "\n".join(lines).rstrip() + "\n")
    return path


def _start(settings: dict[str, Any]) -> str:
    start = settings["start"]
    return "from scratch" if start is None else f"backbone from {start}"


def _evaluation(found: dict[str, Any]) -> list[str]:
    lines = [f"## On {found['split']}", "", "| class | objects | " + " | ".join(_SHOWN) + " |"]
    lines.append("|---|--:|" + "--:|" * len(_SHOWN))
    for name, row in [("all", {**found, "objects": found["objects"]}), *found["classes"].items()]:
        numbers = " | ".join(_percent(row[key]) for key in _SHOWN)
        lines.append(f"| {name} | {row['objects']} | {numbers} |")
    recall = ", ".join(f"{key} {_percent(found[key])}" for key in ("AR_1", "AR_10", "AR_100"))
    lines += ["", f"Average recall: {recall}.", ""]
    if best := found.get("threshold"):
        lines += [
            f"Boxes with a score of at least {best['score']:.2f} have the best balance: "
            f"{_percent(best['precision'])} of them hit, {_percent(best['recall'])} of the objects are "
            f"found. This score was {chosen_on(best['chosen_on'], 'both')}.",
            "",
        ]
    if found.get("sheet"):
        lines += [f"![hits, misses and false alarms on {found['split']}]({found['sheet']})", ""]
    return lines


def _dropped(record: dict[str, Any]) -> list[str]:
    dropped = record["data"]["dropped"]
    if not dropped:
        return []
    lines = ["## Left out", ""]
    lines += [f"- {what}: {reason}" for what, reason in dropped[:_MOST_DROPPED]]
    if len(dropped) > _MOST_DROPPED:
        lines.append(f"- and {len(dropped) - _MOST_DROPPED} more (run.json has all)")
    return [*lines, ""]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
