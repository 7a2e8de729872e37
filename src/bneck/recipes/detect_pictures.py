"""What a detector sees in pictures: boxes, and pictures with them drawn. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bneck.data.images import read_stretched, read_whole
from bneck.devices.runtimes import file_runtimes
from bneck.recipes.exported import loaded
from bneck.records.files import write_whole
from bneck.records.run import RunFolder, task_run
from bneck.report.boxes import PALETTE, Mark, with_boxes
from bneck.specs.errors import InputError
from bneck.tasks.detect.boxes import detections

DEFAULT_SCORE = 0.3


def detect(
    run: str | Path,
    images: Sequence[str | Path],
    *,
    score: float | None = None,
    out: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Find objects in pictures with a run's exported file.

    Args:
        run: a finished detection run's folder, or its model.onnx (without decoding inside).
        images: picture files of any size.
        score: the least score to show; None takes the one that balanced hits and misses best on the
            run's val images, or 0.3 for a file.
        out: where to draw the boxes with names and scores: a .png file for one picture, a folder for
            several. None draws nothing.

    Returns:
        For every picture: image, width, height, objects (label, score, box as corners in pixels), and
        picture, the file drawn or None.

    Raises:
        InputError: no detector there, or a picture that cannot be read.
    """
    if score is not None and not 0 <= score <= 1:
        raise InputError(f"score is {score}; it must be from 0 to 1")
    places = _outputs(images, out)
    folder = task_run(run)
    session, metadata = exported_detector(folder)
    least = _threshold(folder) if score is None else score
    found = []
    for image, place in zip(images, places, strict=True):
        pixels = read_stretched(Path(image), metadata["resolution"])
        whole = read_whole(Path(image))
        if isinstance(pixels, str) or isinstance(whole, str):
            raise InputError(f"{image} cannot be used: {pixels}; replace it by a whole image file")
        x = (pixels.astype(np.float32) / 255 - metadata["mean"]) / metadata["std"]
        offsets, logits = session.run_all(x[None])
        seen = detections(offsets[0], logits[0], metadata["anchors"]).above(least)
        height, width = whole.shape[:2]
        objects = [
            {
                "label": metadata["classes"][int(label) - 1],
                "score": float(value),
                "box": [float(v * side) for v, side in zip(box, (width, height) * 2, strict=True)],
            }
            for box, value, label in zip(seen.boxes, seen.scores, seen.labels, strict=True)
        ]
        if place is not None:
            page = with_boxes(Image.fromarray(whole), _marks(seen, metadata["classes"]))
            _save(page, place)
        found.append(
            {
                "image": str(image),
                "width": width,
                "height": height,
                "objects": objects,
                "picture": None if place is None else str(place),
            }
        )
    return found


def _save(page: Image.Image, place: Path) -> None:
    write_whole(place, lambda partial: page.save(partial, format="png"))


def _marks(seen: Any, classes: Sequence[str]) -> list[Mark]:
    return [
        Mark(
            (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            f"{classes[int(label) - 1]} {value:.0%}",
            PALETTE[(int(label) - 1) % len(PALETTE)],
        )
        for box, value, label in zip(seen.boxes, seen.scores, seen.labels, strict=True)
    ]


def exported_detector(run: Path) -> tuple[Any, dict[str, Any]]:
    """The loaded model.onnx of a run's folder (or such a file), and what its metadata says.

    Raises:
        InputError: no detector without decoding inside.
    """
    model = RunFolder(run).model if run.is_dir() else run
    if not model.is_file() or not file_runtimes(model):
        raise InputError(
            f"{run} has no model.onnx; give a finished run's folder or an exported file"
        )
    session = loaded(model)
    said = session.metadata
    try:
        metadata = {
            "classes": json.loads(said["classes"]),
            "resolution": int(said["resolution"]),
            "anchors": np.array(json.loads(said["anchors"]), np.float32),
            "mean": np.array(json.loads(said["mean"]), np.float32)[:, None, None],
            "std": np.array(json.loads(said["std"]), np.float32)[:, None, None],
        }
    except (KeyError, ValueError):
        raise InputError(
            f"{model} is no detector exported by bneck: its metadata lacks the anchors"
        ) from None
    if json.loads(said.get("decoded", "false")):
        raise InputError(
            f"{model} decodes by itself; give the run's model.onnx, which leaves that to bneck"
        )
    return session, metadata


def _threshold(run: Path) -> float:
    if not run.is_dir():
        return DEFAULT_SCORE
    best = RunFolder(run).read().get("evaluations", {}).get("val", {}).get("threshold")
    return float(best["score"]) if best else DEFAULT_SCORE


def _outputs(images: Sequence[str | Path], out: str | Path | None) -> list[Path | None]:
    if out is None:
        return [None] * len(images)
    path = Path(out)
    if len(images) == 1 and path.suffix.lower() == ".png":
        return [path]
    if path.suffix:
        raise InputError(
            f"{path} is where {len(images)} pictures would go; give a .png file for one picture, or a "
            "folder"
        )
    return [path / f"{Path(image).stem}.png" for image in images]
