"""What an exported segmenter sees, in its own runtime: pictures of any size, and a judged split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bneck.data.images import Pixels
from bneck.data.pairs import Scenery
from bneck.data.scenes import Scenes, as_batch, resized
from bneck.devices.runtimes import file_runtimes, runtime
from bneck.export.segmenter_file import FileSegmenter
from bneck.recipes.exported import settings_beside
from bneck.recipes.progress import Progress
from bneck.recipes.splits import run_scenery
from bneck.specs.errors import InputError
from bneck.tasks.segment import Evaluation, best, judge

Mask = npt.NDArray[np.uint8]


def open_segmenter(file: Path) -> FileSegmenter:
    """An exported segmenter.

    Raises:
        InputError: another file.
    """
    if not file_runtimes(file):
        raise InputError(
            f"{file} is no exported file; give a run's folder or what bneck export wrote"
        )
    return FileSegmenter(file, runtime(file_runtimes(file)[0]))


def see(file: FileSegmenter, pixels: Pixels, size: tuple[int, int]) -> Mask:
    """The class of every pixel, (H, W) of `size`, of an image (h, w, 3) uint8 of any size.

    The image is brought to the file's size; scores, or classes where the file chooses, to `size`.
    """
    found = file.answer(as_batch(resized(pixels, file.size)))
    if file.chooses:
        return resized(found[0].numpy().astype(np.uint8), size, nearest=True)
    return best(found, size)


def judge_file(file: FileSegmenter, scenes: Scenes, progress: Progress) -> Evaluation:
    """Judge a file on all scenes, each at its mask's size."""
    progress.stage("judge the file", len(scenes))
    classes = len(file.labels["names"])
    return judge(
        lambda image, size: see(file, image, size), classes, scenes, on_scene=progress.advance
    )


def scenery_of(
    settings: dict[str, Any],
    what: Path,
    names: Sequence[str],
    data: str | Path | None,
    classes: str | Path | None,
    ignore: Sequence[int] | None,
) -> Scenery:
    """The scenes of `data`, or of a run's own data where that is None.

    Raises:
        InputError: no data, or data of other classes than `names`.
    """
    if data is None and "data" not in settings:
        raise InputError(
            f"{what} lies beside no run that knows its data; give images and masks by --data"
        )
    scenery = run_scenery(settings, data, classes, ignore)
    if list(scenery.labels.names) != list(names):
        raise InputError(
            f"the data has the classes {', '.join(scenery.labels.names)}, and {what} was trained on "
            f"{', '.join(names)}; they must be the same, in the same order"
        )
    return scenery


def scenes_of_file(
    path: Path,
    file: FileSegmenter,
    data: str | Path | None,
    *,
    split: str,
    classes: str | Path | None,
    ignore: Sequence[int] | None,
) -> Scenes:
    """A split's scenes as a file is judged on them.

    Raises:
        InputError: no data, or data of other classes.
    """
    settings = settings_beside(path, "segment")
    scenery = scenery_of(settings, path, file.labels["names"], data, classes, ignore)
    return Scenes(scenery.split(split), scenery.labels, size=file.size, whole_masks=True)
