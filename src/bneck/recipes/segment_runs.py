"""Segmentation runs on disk: what several recipes read and write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from bneck.recipes.segmenters import run_segmenter
from bneck.records.files import write_whole
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError
from bneck.tasks.segment.module import SegmentNet, load_segmenter


def load_run(folder: RunFolder) -> tuple[dict[str, Any], SegmentNet]:
    """The record and the trained net of a finished run.

    Raises:
        InputError: no run of segmentation, or not finished.
    """
    seg = run_segmenter(folder.path)
    if not folder.weights.is_file():
        raise InputError(f"{folder.path} is not finished; go on with: bneck train --resume RUN")
    return folder.read(), load_segmenter(seg, folder.weights)


def save_picture(page: Image.Image, path: Path) -> None:
    """Write a PNG file, whole or not at all."""
    write_whole(path, lambda partial: page.save(partial, format="png"))
