"""Scoring a detector on a split: COCO's numbers, the file for COCO's server, the sheet of errors."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bneck.data.images import read_whole
from bneck.records.files import write_json, write_whole
from bneck.records.progress import Progress
from bneck.specs.errors import InputError
from bneck.tasks.contract import Answers, Scores
from bneck.tasks.detect.average_precision import average_precision
from bneck.tasks.detect.boxes import Found, detections
from bneck.tasks.detect.coco import Annotated, Picture, ground_truth
from bneck.tasks.detect.drawing import FALSE_ALARM, HIT, MISSED, Mark, sheet, with_boxes
from bneck.tasks.detect.head import anchors
from bneck.tasks.detect.hits import Verdict, best_threshold, judge
from bneck.tasks.detect.images import eval_images

BATCH = 8  # images scored at a time
ON_SHEET = 12
DEFAULT_SCORE = 0.5  # shown on the sheet where no threshold is better


def check_evaluator() -> None:
    """Raise InputError where the package that computes COCO's numbers is missing."""
    try:
        import faster_coco_eval  # noqa: F401
    except ImportError:
        raise InputError(
            "faster-coco-eval is not installed; install it with: pip install 'bneck[detect]'"
        ) from None


def check_raw(answers: Answers) -> None:
    """Raise InputError for a file that decodes by itself: its boxes are chosen already."""
    if json.loads(answers.metadata.get("decoded", "false")):
        raise InputError(
            "this file decodes by itself; pass the run's model.onnx, which leaves that to bneck"
        )


def score(
    answers: Answers,
    annotated: Annotated,
    split: str,
    progress: Progress,
    *,
    out: Path | None = None,
) -> Scores:
    """Find boxes in every image of a split and score them.

    With `out`, `detections-SPLIT.json`, as COCO's server takes it, and `sheet-SPLIT.png` are written
    there. The threshold that balances precision and recall best is chosen on the same images.

    Raises:
        InputError: too many unreadable images, a file that decodes by itself, faster-coco-eval is
            missing, or a full disk.
    """
    check_raw(answers)
    progress.stage(f"scoring {split}", len(annotated.pictures))
    pictures, found, bad = detected(answers, annotated, progress)
    kept = annotated.without(bad)
    entries = results(pictures, found, annotated.ids)
    verdicts = [
        judge(one, p.boxes, p.labels, p.crowd) for p, one in zip(pictures, found, strict=True)
    ]
    best = best_threshold(zip(found, verdicts, strict=True))
    details: dict[str, Any] = {
        "file": str(annotated.file),
        "objects": sum(int((~p.crowd).sum()) for p in pictures),
        **average_precision(ground_truth(kept), entries),
        "threshold": {**asdict(best), "chosen_on": split} if best else None,
        "left_out": [[entry.what, entry.reason] for entry in kept.dropped],
    }
    if out is not None:
        write_json(out / f"detections-{split}.json", entries)
        page = _sheet(pictures, found, annotated.classes, best.score if best else DEFAULT_SCORE)
        details["sheet"] = f"sheet-{split}.png"
        save_picture(page, out / details["sheet"])
    value = details.pop("AP")
    return Scores(
        split=split, images=len(pictures), score=value, expected=value or 0.0, details=details
    )


def detected(
    answers: Answers, annotated: Annotated, progress: Progress
) -> tuple[list[Picture], list[Found], dict[int, str]]:
    """Pictures that could be read, what was found in each, and why others could not be, by id."""
    pictures: list[Picture] = []
    found: list[Found] = []
    bad: dict[int, str] = {}
    batches = eval_images(
        annotated,
        resolution=answers.spec.resolution,
        batch=BATCH,
        normalisation=answers.normalisation,
    )
    for part, reasons, images in batches:
        bad |= {p.id: reason for p, reason in zip(part, reasons, strict=True) if reason}
        pictures += [p for p, reason in zip(part, reasons, strict=True) if not reason]
        found += found_in(answers, images) if len(images) else []
        progress.advance(len(part))
    return pictures, found, bad


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
            left, top, right, bottom = (float(v) for v in box)
            bbox = [left * width, top * height, (right - left) * width, (bottom - top) * height]
            entries.append(
                {
                    "image_id": picture.id,
                    "category_id": ids[int(label) - 1],
                    "bbox": bbox,
                    "score": float(score),
                }
            )
    return entries


def save_picture(page: Image.Image, path: Path) -> None:
    """Write a PNG file, whole or not at all."""
    write_whole(path, lambda partial: page.save(partial, format="png"))


def _sheet(
    pictures: list[Picture], found: list[Found], classes: tuple[str, ...], score: float
) -> Image.Image:
    """Images from the one with the fewest errors to the one with the most, evenly chosen."""
    shown = [one.above(score) for one in found]
    verdicts = [judge(s, p.boxes, p.labels, p.crowd) for p, s in zip(pictures, shown, strict=True)]
    errors = [_errors(v) for v in verdicts]
    order = sorted(range(len(pictures)), key=lambda i: (errors[i], pictures[i].id))
    count = min(ON_SHEET, len(order))
    chosen = [order[round(i * (len(order) - 1) / max(count - 1, 1))] for i in range(count)]
    tiles = []
    for i in chosen:
        pixels = read_whole(pictures[i].path)
        if isinstance(pixels, str):
            continue
        marks = _marks(pictures[i], shown[i], verdicts[i], classes)
        verdict = verdicts[i]
        wrong = int((~verdict.hit & ~verdict.ignored).sum())
        caption = (
            f"{pictures[i].path.name}: {int(verdict.hit.sum())} hit, "
            f"{int(verdict.missed.sum())} missed, {wrong} false"
        )
        tiles.append((with_boxes(Image.fromarray(pixels), marks), caption))
    legend = [
        (f"hit (score from {score:.2f})", HIT),
        ("missed (dashed)", MISSED),
        ("false alarm", FALSE_ALARM),
    ]
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
            marks.append(Mark(_corners(box), text, HIT if hit else FALSE_ALARM))
    for box, label, missed in zip(picture.boxes, picture.labels, verdict.missed, strict=True):
        if missed:
            marks.append(Mark(_corners(box), classes[int(label) - 1], MISSED, dashed=True))
    return marks


def _corners(box: Any) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(v) for v in box)
    return left, top, right, bottom


def _errors(verdict: Verdict) -> float:
    wrong = int(verdict.missed.sum() + (~verdict.hit & ~verdict.ignored).sum())
    return wrong / max(1, int(verdict.hit.sum()) + wrong)
