"""What a segmentation run sees in pictures: overlays with a legend, and masks of ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bneck.data.images import Pixels, read_whole
from bneck.data.scenes import as_batch, resized
from bneck.recipes.segment_files import open_segmenter, see
from bneck.recipes.segment_runs import load_run, save_picture
from bneck.records.run import RunFolder, task_run
from bneck.report.overlay import class_shares, overlay
from bneck.specs.errors import InputError
from bneck.tasks.segment.score import WHOLE_PIXELS, predict, predict_huge


def paint(
    run: str | Path,
    images: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    mask: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Segment pictures of any size, each seen at the size that the run was trained at.

    Args:
        run: a finished run's folder, or a file that export has written, which answers in its own
            runtime and at its own size then.
        images: picture files.
        out: where to write the picture with its classes painted over it and a legend: a .png file
            for one picture, a folder for several. None writes none.
        mask: the same for the ids of the classes, 8 bits a pixel, as the run's own masks have them
            (of Cityscapes the label ids, as its server takes them).

    Returns:
        For each picture its path, the files written and the share of the pixels of every class.

    Raises:
        InputError: no finished run, no picture, or a place that cannot be written.
    """
    if not images:
        raise InputError("there is no picture; name one, as in: bneck predict RUN street.jpg")
    places = [_places(place, images, what) for place, what in ((out, "--out"), (mask, "--mask"))]
    labels, seen_by = _seeing(task_run(run))
    ids = np.zeros(256, np.uint8)
    ids[: len(labels["ids"])] = labels["ids"]
    found = []
    for image, painted, numbered in zip(images, *places, strict=True):
        pixels = read_whole(Path(image))
        if isinstance(pixels, str):
            raise InputError(f"picture {image} cannot be read: {pixels}; give another one")
        classes = seen_by(pixels)
        if painted is not None:
            save_picture(overlay(pixels, classes, labels["names"], labels["colours"]), painted)
        if numbered is not None:
            save_picture(Image.fromarray(ids[classes]), numbered)
        shares = class_shares(classes, len(labels["names"]))
        found.append(
            {
                "image": str(image),
                "overlay": str(painted) if painted else None,
                "mask": str(numbered) if numbered else None,
                "shares": dict(zip(labels["names"], shares, strict=True)),
            }
        )
    return found


def _seeing(run: Path) -> tuple[dict[str, Any], Callable[[Pixels], Pixels]]:
    """The classes' names, colours and ids, and what gives the classes of a picture at its own size."""
    if run.is_file():
        file = open_segmenter(run)
        return file.labels, lambda pixels: see(file, pixels, (pixels.shape[0], pixels.shape[1]))
    record, net = load_run(RunFolder(run))
    size = record["settings"]["size"]

    def seen(pixels: Pixels) -> Pixels:
        own = (pixels.shape[0], pixels.shape[1])
        if not size and own[0] * own[1] > WHOLE_PIXELS:
            return predict_huge(net, pixels)
        return predict(net, as_batch(resized(pixels, tuple(size)) if size else pixels), own)

    return record["labels"], seen


def _places(place: str | Path | None, images: Sequence[str | Path], what: str) -> list[Path | None]:
    """A file for every picture; a place that ends in .png is one file, any other a folder."""
    if place is None:
        return [None] * len(images)
    path = Path(place)
    if path.suffix.lower() == ".png":
        if len(images) > 1:
            raise InputError(
                f"{what} is the file {path} and there are {len(images)} pictures; name a folder"
            )
        return [path]
    if path.suffix and not path.is_dir():
        raise InputError(f"{what} is {path}; name a .png file, or a folder")
    names = [Path(image).stem for image in images]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two pictures are called {twice}; segment them one by one")
    return [path / f"{name}.png" for name in names]
