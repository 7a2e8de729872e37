"""The report of a segmentation run: one Markdown page, from the run folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.records.files import write_text
from bneck.records.run import RunFolder


def write_segment_report(folder: Path) -> Path:
    """Write `report.md` into a run folder: scores of every class, best and worst images.

    Raises:
        InputError: no run folder, one of another version, or a full disk.
    """
    record = RunFolder(folder).read()
    head, settings = record["segmenter"], record["settings"]
    lines = [f"# Segmentation run {folder.resolve().name}, {record['state']}", ""]
    for score in record.get("scores", []):
        lines.append(
            f"**mIOU {_percent(score['miou'])}** on {score['split']} ({score['images']} images), "
            f"{_percent(score['pixels'])} of the pixels right."
        )
    lines += [
        "",
        f"{head['head']} with {head['filters']} filters, {len(record['labels']['names'])} classes; "
        f"{settings['epochs']:g} epochs of batches of {settings['batch']}, first rate "
        f"{settings['lr']:g}, crops of {_size(settings['crop'])}, images "
        f"{'brought to ' + _size(settings['size']) if settings['size'] else 'as they are'}, seed "
        f"{settings['seed']}; bneck {record['version']}, commit {record['commit']}.",
        "",
    ]
    if export := record.get("export"):
        lines += [
            f"`model.onnx` takes images of {_size(export['size'])} and answers as the network does: "
            f"{export['equal_pixels']:.2%} of the pixels equal on {export['images']} images, scores within "
            f"{export['largest_difference']:.1g} of the largest.",
            "",
        ]
    lines += _classes(record)
    lines += _pictures(record)
    path = folder / "report.md"
    write_text(path, "\n".join(lines).rstrip() + "\n")
    return path


def _classes(record: dict[str, Any]) -> list[str]:
    scores = record.get("scores", [])
    if not scores:
        return []
    pixels = record.get("survey", {}).get("pixels", [])
    total = max(1, sum(pixels))
    splits = [score["split"] for score in scores]
    lines = ["| class | of train's pixels | " + " | ".join(f"IOU {s}" for s in splits) + " |"]
    lines.append("|---|--:|" + "--:|" * len(splits))
    for i, name in enumerate(record["labels"]["names"]):
        share = f"{pixels[i] / total:.1%}" if pixels else "-"
        values = " | ".join(_percent(score["iou"][name]) for score in scores)
        lines.append(f"| {name} | {share} | {values} |")
    return [*lines, ""]


def _pictures(record: dict[str, Any]) -> list[str]:
    lines = []
    for shown in record.get("shown", []):
        what = shown["file"].removesuffix(".png").replace("-", " ")
        lines += [
            f"{what}: {Path(shown['image']).name}, mIOU {_percent(shown['miou'])}",
            "",
            f"![{what}]({shown['file']})",
            "",
        ]
    return ["## Best and worst images of val", "", *lines] if lines else []


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _size(size: list[int]) -> str:
    return f"{size[0]} x {size[1]}"
