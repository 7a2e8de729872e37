"""Segmentation's part of a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bneck.tasks.tables import percent


def report_lines(record: Mapping[str, Any]) -> list[str]:
    """Markdown: the head, IOU of every class, the exported file, the best and the worst images."""
    head, data = record["wrapper"], record["data"]
    lines = [
        f"{head['head']} with {head['filters']} filters at output stride {head['output_stride']}; crops of "
        f"{_size(data['crop'])}, images of {_size(data['shape'])}.",
        "",
    ]
    for name, check in record.get("files", {}).items():
        lines += [
            f"`{name}` takes images of {_size(head['shape'])} and answers as the network does: "
            f"{check['equal_pixels']:.2%} of the pixels equal on {check['images']} images, scores within "
            f"{check['largest_difference']:.1g} of the largest.",
            "",
        ]
    scores = list(record.get("scores", {}).values())
    lines += _classes(record, scores) if scores else []
    return lines + [line for one in scores for line in _pictures(one)]


def _classes(record: Mapping[str, Any], scores: list[Mapping[str, Any]]) -> list[str]:
    pixels = record["data"].get("pixels", [])
    total = max(1, sum(pixels))
    splits = [one["split"] for one in scores]
    lines = ["| class | of train's pixels | " + " | ".join(f"IOU {s}" for s in splits) + " |"]
    lines.append("|---|--:|" + "--:|" * len(splits))
    for i, name in enumerate(record["classes"]):
        fraction = f"{100 * pixels[i] / total:.1f}" if pixels else "-"
        values = " | ".join(percent(one["iou"][name]) for one in scores)
        lines.append(f"| {name} | {fraction} | {values} |")
    accuracy = ", ".join(f"{percent(one['pixels'])} on {one['split']}" for one in scores)
    return [*lines, "", f"Percent. Pixel accuracy: {accuracy}.", ""]


def _pictures(one: Mapping[str, Any]) -> list[str]:
    lines = []
    for shown in one.get("shown", []):
        what = shown["file"].removesuffix(".png").replace("-", " ")
        lines += [
            f"{what}: {Path(shown['image']).name}, mIOU {percent(shown['miou'])} %",
            "",
            f"![{what}]({shown['file']})",
            "",
        ]
    return [f"## Best and worst images of {one['split']}", "", *lines] if lines else []


def _size(size: list[int]) -> str:
    return f"{size[0]} x {size[1]}"
