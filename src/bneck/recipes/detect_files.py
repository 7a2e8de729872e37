"""An exported detector judged on annotated images, in its own runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.data.coco import Annotated
from bneck.devices.runtimes import file_runtimes, runtime
from bneck.export.detector_file import FileDetector
from bneck.recipes.detect_judge import judge_net
from bneck.recipes.exported import settings_beside
from bneck.recipes.progress import Progress
from bneck.recipes.splits import run_annotated
from bneck.specs.errors import InputError


def evaluate_file(
    file: Path,
    data: str | Path | None,
    *,
    split: str,
    images: str | Path | None,
    progress: Progress,
) -> dict[str, Any]:
    """What `recipes.detect.evaluate_detect` says of a file; nothing is written.

    Raises:
        InputError: no detector's file, no data, or data of other classes.
    """
    if not file_runtimes(file):
        raise InputError(
            f"{file} is no exported file; give a run's folder or what bneck export wrote"
        )
    net = FileDetector(file, runtime(file_runtimes(file)[0]))
    annotated = split_of(settings_beside(file, "detect"), file, data, split, images)
    check_classes(annotated, tuple(net.classes), str(file))
    numbers = judge_net(net, annotated, split, progress).numbers
    return {
        "file": str(file),
        "name": net.detector.network.name,
        "precision": net.session.metadata.get("precision", "fp32"),
        **numbers,
    }


def split_of(
    settings: dict[str, Any],
    what: Path,
    data: str | Path | None,
    split: str,
    images: str | Path | None,
) -> Annotated:
    """A split of `data`, or of a run's own images where that is None.

    Raises:
        InputError: no data, or no such split.
    """
    if data is None and "data" not in settings:
        raise InputError(
            f"{what} lies beside no run that knows its data; give the folder of a COCO json by --data"
        )
    return run_annotated(settings, split, data, images)


def check_classes(annotated: Annotated, classes: tuple[str, ...], where: str) -> None:
    """Whether data has the classes that are wanted, in their order.

    Raises:
        InputError: it has others.
    """
    if annotated.classes != classes:
        raise InputError(
            f"{annotated.file} has the classes {', '.join(annotated.classes)}, and {where} has "
            f"{', '.join(classes)}; they must be the same, in the order of their ids"
        )
