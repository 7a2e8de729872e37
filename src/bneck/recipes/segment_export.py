"""A segmentation run's network as an ONNX file for any image size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bneck.data.pairs import list_pairs
from bneck.data.scenes import Scenes, as_batch
from bneck.export.segmenter_file import export_segmenter
from bneck.nets.segmenter import SegmentNet
from bneck.recipes.segment_runs import load_run
from bneck.records.run import RunFolder

CHECKED = 4  # images that a file is compared with the module on


def export_segment(
    run: str | Path,
    out: str | Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    argmax: bool = False,
) -> dict[str, Any]:
    """Write a finished run's segmenter as an ONNX file, checked on images of its data.

    Args:
        run: the run's folder; its data must still be there.
        out: the file; None takes model.onnx in the run's folder.
        size: (height, width) of the file's image; None takes the run's, or that of its first image.
        argmax: with the choice of the best class inside the file.

    Returns:
        The file's path and how it compared, see `export.segmenter_file.export_segmenter`.

    Raises:
        InputError: no finished run, its data is gone, or the file does not answer as the network.
    """
    folder = RunFolder(Path(run))
    record, net = load_run(folder)
    settings = record["settings"]
    scenery = list_pairs(
        Path(settings["data"]),
        classes=Path(settings["classes"]) if settings["classes"] else None,
        ignore=settings["ignore"],
        seed=settings["seed"],
    )
    path = folder.model if out is None else Path(out)
    scenes = Scenes(scenery.split("val"), scenery.labels)
    if size is None and settings["size"]:
        size = settings["size"][0], settings["size"][1]
    return write_model(net, record, scenes, path, size=size, argmax=argmax)


def write_model(
    net: SegmentNet,
    record: dict[str, Any],
    scenes: Scenes,
    path: Path,
    *,
    size: tuple[int, int] | None,
    argmax: bool,
) -> dict[str, Any]:
    """Write a file and check it on the first scenes, brought to `size`."""
    if size is None:
        first = scenes.read(0)[0]
        size = first.shape[0], first.shape[1]
    sized = Scenes(scenes.pairs[:CHECKED], scenes.labels, size=size)
    images = torch.cat([as_batch(sized.read(i)[0]) for i in range(len(sized))])
    check = export_segmenter(net, path, images, classes=record["labels"]["names"], argmax=argmax)
    return {"file": str(path), "size": list(size), "argmax": argmax, **check}
