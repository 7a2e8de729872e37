"""Scoring a detector on a split: COCO's numbers, the file for COCO's server, the sheet of errors."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bneck.data.depth import deep
from bneck.data.images import read_whole
from bneck.records.files import write_json, write_whole
from bneck.records.progress import Progress
from bneck.specs.errors import InputError
from bneck.tasks.contract import Answers, Scores
from bneck.tasks.detect.average_precision import average_precision
from bneck.tasks.detect.boxes import Found, detections
from bneck.tasks.detect.drawing import FALSE_ALARM, HIT, MISSED, Mark, sheet, with_boxes
from bneck.tasks.detect.head import anchors
from bneck.tasks.detect.hits import Verdict, best_threshold, judge
from bneck.tasks.detect.images import eval_images
from bneck.tasks.detect.intake.coco import Annotated, Picture, ground_truth

BATCH = 8  # images scored at a time
ON_SHEET = 12
DEFAULT_SCORE = 0.5  # shown on the sheet where no threshold is better


def check_raw(answers: Answers) -> None:
    """Raise InputError for a file that decodes by itself: its boxes are chosen already."""
    if json.loads(answers.metadata.get("decoded", "false")):
        raise InputError(
            "this file decodes by itself; pass the run's model.onnx, which leaves that to bneck"
        )


def score(
    answers: Answers, annotated: Annotated, split: str, progress: Progress, *,
    out: Path | None = None,
) -> Scores:  # fmt: skip
    """Find boxes in every image of a split and score them.

    With `out`, `detections-SPLIT.json`, as COCO's server takes it, and `sheet-SPLIT.png` are written
    there. The threshold that balances precision and recall best is chosen on the same images.

    Raises:
        InputError: too many unreadable images, a file that decodes by itself, faster-coco-eval is
            missing, or a full disk.
    """
    check_raw(answers)
    progress.stage(f"scoring {split}", len(annotated.pictures))
    pictures: list[Picture] = []
    found: list[Found] = []
    bad: dict[int, str] = {}
    for part, its_bad, images in eval_images(
        annotated, resolution=answers.spec.resolution, batch=BATCH, normalisation=answers.normalisation
    ):  # fmt: skip
        pictures += part
        bad |= its_bad
        found += found_in(answers, images) if part else []
        progress.advance(len(part) + len(its_bad))
    kept = annotated.without(bad)
    entries = results(pictures, found, annotated.ids)
    best = best_threshold(zip(found, _verdicts(pictures, found), strict=True))
    details: dict[str, Any] = {
        "file": str(annotated.file),
        "objects": sum(int((~p.crowd).sum()) for p in pictures),
        **average_precision(ground_truth(kept), entries),
        "threshold": {**asdict(best), "chosen_on": split} if best else None,
        "left_out": [[entry.what, entry.reason] for entry in kept.dropped],
    }
    if out is not None:
        write_json(out / f"detections-{split}.json", entries)
        shown = replace(kept, pictures=tuple(pictures))
        page = _sheet(shown, found, best.score if best else DEFAULT_SCORE)
        details["sheet"] = f"sheet-{split}.png"
        write_whole(out / details["sheet"], partial(page.save, format="png"))
    value = details.pop("AP")
    return Scores(
        split=split, images=len(pictures), score=value, expected=value or 0.0, details=details
    )


def found_in(answers: Answers, images: Any) -> list[Found]:
    """Detections in normalised images (N, channels, H, W)."""
    places = np.array(anchors(answers.wrapped), np.float32)
    offsets, logits = answers(images)
    return [detections(one, scores, places) for one, scores in zip(offsets, logits, strict=True)]


def results(
    pictures: list[Picture], found: list[Found], ids: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Detections as COCO's json has them: categories by their own ids, boxes in pixels."""
    entries = []
    for picture, one in zip(pictures, found, strict=True):
        width, height = picture.size
        for box, score, label in zip(one.boxes, one.scores, one.labels, strict=True):
            left, top, right, bottom = box.tolist()
            bbox = [left * width, top * height, (right - left) * width, (bottom - top) * height]
            entries.append(
                {
                    "image_id": picture.id, "category_id": ids[int(label) - 1], "bbox": bbox,
                    "score": float(score),
                }
            )  # fmt: skip
    return entries


def _verdicts(pictures: list[Picture], found: list[Found]) -> list[Verdict]:
    pairs = zip(pictures, found, strict=True)
    return [judge(one, p.boxes, p.labels, p.crowd) for p, one in pairs]


def _sheet(annotated: Annotated, found: list[Found], score: float) -> Image.Image:
    """Images from the one with the fewest errors to the one with the most, evenly chosen."""
    pictures, classes = list(annotated.pictures), annotated.classes
    shown = [one.above(score) for one in found]
    verdicts = _verdicts(pictures, shown)
    order = sorted(range(len(pictures)), key=lambda i: (verdicts[i].error, pictures[i].id))
    count = min(ON_SHEET, len(order))
    tiles = []
    for i in (order[round(k * (len(order) - 1) / max(count - 1, 1))] for k in range(count)):
        pixels = read_whole(deep(pictures[i].path, annotated.bits))
        if isinstance(pixels, str):
            continue
        hits, missed, false = verdicts[i].counts
        caption = f"{pictures[i].path.name}: {hits} hit, {missed} missed, {false} false"
        marks = _marks(pictures[i], shown[i], verdicts[i], classes)
        tiles.append((with_boxes(Image.fromarray(pixels), marks), caption))
    legend = [
        (f"hit (score from {score:.2f})", HIT), ("missed (dashed)", MISSED), ("false alarm", FALSE_ALARM),
    ]  # fmt: skip
    return sheet(tiles, legend)


def _marks(
    picture: Picture, found: Found, verdict: Verdict, classes: tuple[str, ...]
) -> list[Mark]:
    marks = []
    for box, score, label, hit, ignored in zip(
        found.boxes, found.scores, found.labels, verdict.hit, verdict.ignored, strict=True
    ):
        if not ignored:
            text = f"{classes[int(label) - 1]} {score:.0%}"
            marks.append(Mark(box.tolist(), text, HIT if hit else FALSE_ALARM))
    missed = verdict.missed
    for box, label in zip(picture.boxes[missed], picture.labels[missed], strict=True):
        marks.append(Mark(box.tolist(), classes[int(label) - 1], MISSED, dashed=True))
    return marks
