"""Judging a detector on a split: COCO's numbers, the file for COCO's server, the sheet."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from bneck.data.coco import Annotated, Picture, ground_truth
from bneck.data.images import read_whole
from bneck.data.pictures import eval_images
from bneck.recipes.progress import Progress
from bneck.records.files import write_json, write_whole
from bneck.records.run import RunFolder
from bneck.report.boxes import FALSE_ALARM, HIT, MISSED, Mark, sheet, with_boxes
from bneck.tasks.detect.average_precision import average_precision
from bneck.tasks.detect.boxes import Found
from bneck.tasks.detect.file import FileDetector
from bneck.tasks.detect.hits import Verdict, best_threshold, judge
from bneck.tasks.detect.loss import predict
from bneck.tasks.detect.module import DetectorNet

EVAL_BATCH = 8
ON_SHEET = 12
DEFAULT_SCORE = 0.5  # shown on the sheet where no threshold is better


@dataclass(frozen=True, slots=True)
class Judged:
    """A split as a net sees it: pictures and what was found in each, and what is said of all.

    `numbers` are COCO's with what they were taken on, `entries` the detections as COCO's json has
    them, `score` is the one that balances hits and misses best.
    """

    pictures: list[Picture]
    found: list[Found]
    entries: list[dict[str, Any]]
    numbers: dict[str, Any]
    score: float


def judge_net(
    net: DetectorNet | FileDetector, annotated: Annotated, split: str, progress: Progress
) -> Judged:
    """Find boxes in every image of a split and judge them; nothing is written.

    Raises:
        InputError: too many unreadable images, or faster-coco-eval is missing.
    """
    progress.stage(f"judge on {split}", len(annotated.pictures))
    pictures, found, bad = detected(net, annotated, progress)
    kept = annotated.without(bad)
    entries = results(pictures, found, annotated.ids)
    verdicts = [
        judge(one, p.boxes, p.labels, p.crowd) for p, one in zip(pictures, found, strict=True)
    ]
    best = best_threshold(zip(found, verdicts, strict=True))
    numbers = {
        "split": split,
        "file": str(annotated.file),
        "images": len(pictures),
        "objects": sum(int((~p.crowd).sum()) for p in pictures),
        **average_precision(ground_truth(kept), entries),
        "threshold": asdict(best) if best else None,
        "dropped": [[entry.what, entry.reason] for entry in kept.dropped],
    }
    return Judged(pictures, found, entries, numbers, best.score if best else DEFAULT_SCORE)


def judge_split(
    folder: RunFolder, net: DetectorNet, annotated: Annotated, split: str, progress: Progress
) -> dict[str, Any]:
    """Judge a split, and write what was found; see `recipes.detect.evaluate_detect`.

    Raises:
        InputError: too many unreadable images, faster-coco-eval is missing, or a full disk.
    """
    judged = judge_net(net, annotated, split, progress)
    write_json(folder.path / f"detections-{split}.json", judged.entries)
    page = _sheet(judged.pictures, judged.found, annotated.classes, judged.score)
    name = f"sheet-{split}.png"
    save_picture(page, folder.path / name)
    return {**judged.numbers, "sheet": name}


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


def detected(
    net: DetectorNet | FileDetector, annotated: Annotated, progress: Progress
) -> tuple[list[Picture], list[Found], dict[int, str]]:
    """Pictures that could be read, what was found in each, and why others could not be, by id."""
    detector = net.detector
    pictures: list[Picture] = []
    found: list[Found] = []
    bad: dict[int, str] = {}
    batches = eval_images(
        annotated,
        resolution=detector.resolution,
        batch=EVAL_BATCH,
        normalisation=net.normalisation,
    )
    for part, reasons, images in batches:
        bad |= {p.id: reason for p, reason in zip(part, reasons, strict=True) if reason}
        pictures += [p for p, reason in zip(part, reasons, strict=True) if not reason]
        found += predict(net, detector, images) if len(images) else []
        progress.advance(len(part))
    return pictures, found, bad


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
